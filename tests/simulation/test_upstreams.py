"""What the simulated upstreams can do, each thing by itself."""

from __future__ import annotations

import pytest

from .history import FORMS, History, Person, Play, Server, history
from .oracles import findings
from .words import cut, in_lf
from .world import play

KINDS = {"by length", "until close", "gzip", "extensions", "trailers", "late bytes", "form"}
KINDS |= {"torn", "torn head", "garbage", "another answer", "redirect", "late failure"}
KINDS |= {"call", "call silent", "call cut"}
WAYS = [{"framing": "length"}, {"framing": "close"}, {"gzip": True}, {"calls": True}]
WAYS += [{"extra": extra} for extra in ("extensions", "trailers", "late")]
WAYS += [{"form": form} for form in FORMS]


def met(dialect, **what):
    """A run of one client that meets that, and what its upstream played first."""
    person = Person(number=0, dialect=dialect, plays=(Play(kind="it", **what),))
    run = play(History(seed="0", people=(person,), servers=(Server(name="u"),)))
    assert findings(run) == []
    return run, run.plays.played[0]


def test_every_kind_is_drawn():
    people = (one for seed in range(60) for one in history(str(seed)).people)
    assert {play.kind for one in people for play in one.plays} >= KINDS


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_a_whole_answer_comes_to_its_client_however_it_is_sent(how, dialect):
    run, played = met(dialect, **how)
    assert played.over
    assert played.sent == b"".join(played.body)
    assert in_lf(run.clients[0].body) == played.sent


@pytest.mark.parametrize("torn", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_what_is_torn_counts_as_far_as_it_got_out(framing, torn):
    run, played = met("chat", framing=framing, sent=0.7, end="fin", torn=torn, burst=2)
    assert not played.over
    assert b"".join(played.body).startswith(played.sent)
    assert len(played.sent) < 0.7 * sum(map(len, played.body)) + 1
    *told, error, nothing = cut(run.clients[0].body)
    assert told
    assert b"upstream_truncated" in error
    assert nothing == b""
    assert played.sent.startswith(b"".join(told))


@pytest.mark.parametrize(
    "how",
    [{"sent": 0.0, "torn": 0.5, "end": "rst"}, {"status": 429}, {"status": 502, "answer": "html"}],
    ids=str,
)
def test_what_another_attempt_mends_is_asked_again(how):
    run, _ = met("responses", **how)
    assert [one.play.kind for one in run.plays.played] == ["it", "normal"]


@pytest.mark.parametrize(
    "how",
    [{"garbled": "head"}, {"status": 404}, {"status": 429, "quota": True}, {"answer": "json"}],
    ids=str,
)
def test_what_no_attempt_mends_is_not(how):
    run, _ = met("messages", **how)
    assert [one.play.kind for one in run.plays.played] == ["it"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_body_is_cut_at_any_line_end_and_behind_heartbeats(end):
    frame = b"id: 7" + end + b"data: {}" + 2 * end
    frames = [frame, b": hb\n\n", frame, b": hb\n", frame, b"data: {"]
    assert cut(b"".join(frames)) == frames
