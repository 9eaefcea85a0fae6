"""HTTP/2 clients that shut their windows, and requests that are ended just then."""

from __future__ import annotations

import pytest

from .history import History, Order, Person, Play, Server
from .oracles import findings
from .world import play

CUT_SHORT = ("drain", "cancel")
INSTANTS = (1.0, 3.1, 4.2, 5.5, 6.1, 6.6, 7.2)
"""Before and after the answer's last frames have come, long before the window opens and soon before."""


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@pytest.mark.parametrize("order", CUT_SHORT)
@pytest.mark.parametrize("silent_at", [3, 6, 8])
def test_an_end_that_waits_for_its_window_is_the_only_one(dialect, order, silent_at):
    answer = Play(kind="silent", words=3, silence=3.0, silent_at=silent_at, burst=50)
    client = Person(
        number=1,
        dialect=dialect,
        http2=True,
        window=300,
        shuts=True,
        stuck_from=0.0,
        stuck_for=7.0,
        plays=(answer,),
    )
    for at in INSTANTS:
        orders = (Order(at=at, what=order, number=1),)
        servers = (Server(name="u0"),)
        one = History(
            seed="windows", people=(client,), servers=servers, orders=orders, listening=True
        )
        run = play(one)
        assert findings(run) == []
        assert run.clients[0].got >= 300


def test_a_window_that_stays_shut_does_not_keep_an_answer_from_being_read_on():
    """With `on_disconnect = "finish"`: for the record, and only as long as that may take."""
    answer = Play(kind="silent", wait=10.0, every=1.0)
    client = Person(
        number=1,
        dialect="messages",
        http2=True,
        window=300,
        shuts=True,
        stuck_from=2.5,
        plays=(answer,),
    )
    one = History(
        seed="finish",
        people=(client,),
        servers=(Server(name="u0"),),
        limits={"heartbeat": 1.0, "prelude_hold": 7.0, "write_stall_timeout": 10.0},
        rules={"on_disconnect": "finish", "finish_timeout": 20.0},
        listening=True,
    )
    run = play(one)
    assert findings(run) == []
    (record,) = run.witness.records
    assert record.ending.value == "write_stalled"
    assert record.finished
    assert record.usage.output_tokens == answer.words


def shut_for(seconds, answer, *, window=300, **how):
    """What comes of one answer over HTTP/2 whose client opens no window for so long."""
    client = Person(
        number=1,
        http2=True,
        window=window,
        shuts=True,
        stuck_from=0.0,
        stuck_for=seconds,
        plays=(answer,),
        **how,
    )
    run = play(History(seed="shut", people=(client,), servers=(Server(name="u0"),), listening=True))
    assert findings(run) == []
    return run.clients[0], run.witness.records[0]


@pytest.mark.parametrize("end", ["fin", "end"])
def test_an_answer_that_lacks_its_terminator_alone_may_be_taken_slowly_like_others(end):
    client, record = shut_for(5.0, Play(kind="unfinished", words=30, done=False, end=end))
    assert (record.ending.value, client.ended) == ("completed", True)
    assert client.got == record.bytes > 4000


@pytest.mark.parametrize("by_stream", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_whoever_leaves_while_the_end_waits_for_a_window_has_left(by_stream, stream):
    client, record = shut_for(
        9.0,
        Play(kind="normal", words=30),
        window=300 if stream else 20,
        leaves_at=4.0,
        by_stream=by_stream,
        stream=stream,
    )
    assert (record.ending.value, client.ended) == ("client_left", False)
