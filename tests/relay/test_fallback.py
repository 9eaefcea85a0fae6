"""R5 over several upstreams: what one fails before output, the next one is asked, at once."""

from __future__ import annotations

import pytest

from trio_sse_proxy.core.errors import BadRequest, Broken, Garbled, Unreachable
from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.relay import go_on_beside
from trio_sse_proxy.tries import give_up_overdue

from .frames import (
    BEAT,
    BLOCK_DELTA,
    BLOCK_START,
    CHAT_ERROR,
    COMPLETED,
    CREATED,
    DELTA,
    FAILED,
    HELLO,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGE_STOP,
    OVERLOADED,
    RESPONSES_ERROR,
    ROLE,
    WHOLE,
    unnamed,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, SSE, ReadBody, answers, fails
from .world import World, at

RESET = Broken("reset")
MID = Broken("reset", responded=True)
REFUSED = Unreachable("refused")
HTML = ((b"content-type", b"text/html"),)
STREAMS = {
    "chat": WHOLE,
    "responses": (CREATED, DELTA, COMPLETED),
    "messages": (MESSAGE_START, BLOCK_START, BLOCK_DELTA, MESSAGE_DELTA, MESSAGE_STOP),
}
PRELUDES = {"chat": (ROLE,), "responses": (CREATED,), "messages": (MESSAGE_START, BLOCK_START)}
ERRORS = {"chat": (CHAT_ERROR,), "responses": (RESPONSES_ERROR, FAILED), "messages": (OVERLOADED,)}
dialects = pytest.mark.parametrize("dialect", STREAMS)


def refuses(status, *more, body=b'{"error":{"message":"no"}}'):
    return answers(body, status=status, headers=(*JSON, *more))


def two(first, *second, **limits):
    """`first` fails somehow; the other upstream answers, if nothing else is said."""
    return World(at("a", first), at("b", *(second or (answers(*WHOLE),))), **limits)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(fails(REFUSED), id="no connection"),
        pytest.param(fails(RESET), id="reset before headers"),
        pytest.param(fails(MID), id="end before headers"),
        pytest.param(fails(Garbled("no HTTP")), id="garbled head"),
        pytest.param(answers(Garbled("bad chunk")), id="garbled body"),
        pytest.param(answers(), id="end after headers"),
        pytest.param(answers(ROLE, ROLE[:30]), id="end inside a frame"),
        pytest.param(refuses(429, (b"retry-after", b"3600")), id="429 for long"),
        pytest.param(refuses(529, (b"retry-after", b"3")), id="529 for a while"),
        *(pytest.param(refuses(n), id=str(n)) for n in (408, 429, 500, 502, 503, 504, 529)),
    ],
)
async def test_a_failure_before_output_goes_to_the_next_upstream_at_once(first):
    world = two(first, jitter=1.0)
    client = await world.ask()
    assert client.body == b"".join(WHOLE)
    assert [call.opened for call in world.calls] == [0.0, 0.0]
    assert [entry.upstream for entry in world.record.attempts] == ["a", "b"]
    assert (world.record.ending.value, len(world.witness.retries)) == ("completed", 1)
    assert client.response_headers[b"x-proxy-upstream"] == b"b"
    assert client.response_headers[b"x-proxy-attempts"] == b"2"


@dialects
@pytest.mark.parametrize("how", ["cut", "end", "error", "error behind comments"])
async def test_the_client_sees_one_stream_with_one_prelude(dialect, how):
    prelude = PRELUDES[dialect]
    last = {"cut": (MID,), "end": (), "error": ERRORS[dialect]}.get(how)
    body = (*prelude, *last) if last is not None else (BEAT, *prelude, BEAT, *ERRORS[dialect])
    world = two(answers(*body), answers(*STREAMS[dialect]), jitter=1.0)
    client = await world.ask(dialect=dialect)
    assert client.body == b"".join(STREAMS[dialect])
    assert client.ended_at == 0.0


@dialects
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_status_for_an_error_of_the_callers_own_goes_to_the_client(dialect, status):
    world = two(refuses(status))
    client = await world.ask(dialect=dialect)
    assert client.status == status
    assert world.calls_of("b") == []


@pytest.mark.parametrize(
    "code", ["context_length_exceeded", "invalid_request_error", "authentication_error"]
)
async def test_a_frame_for_an_error_of_the_callers_own_goes_to_the_client(code):
    frame = unnamed({"error": {"message": "no", "type": code, "code": code}})
    world = two(answers(ROLE, frame))
    client = await world.ask()
    assert client.body == ROLE + frame
    assert world.calls_of("b") == []


@pytest.mark.parametrize("last", [(MID,), (), (CHAT_ERROR,), (Garbled("bad chunk"),)])
async def test_after_output_nobody_else_is_asked(last):
    world = two(answers(ROLE, HELLO, *last))
    client = await world.ask()
    assert client.body.startswith(ROLE + HELLO)
    assert b"error" in client.body
    assert world.calls_of("b") == []


async def test_no_output_in_time_goes_to_the_next_upstream():
    world = two(answers(ROLE, HANG), first_token_timeout=7.0)
    client = await world.ask()
    assert client.body == BEAT + b"".join(WHOLE)
    assert (world.calls[0].released, world.calls[1].opened) == (7.0, 7.0)
    entry = world.record.attempts[0]
    assert (entry.reason.value, entry.problem) == ("timeout", "first_token_timeout: timeout")


async def test_json_that_stops_in_the_middle_goes_to_the_next_upstream():
    world = World(
        at("a", answers(b'{"choices":', HANG, headers=JSON)),
        at("b", answers(b'{"choices":[]}', headers=JSON)),
        idle_timeout=9.0,
    )
    client = await world.ask(Client(b'{"model":"m"}'))
    assert (client.status, client.body) == (200, b'{"choices":[]}')
    assert (world.calls[0].released, world.calls[1].opened) == (9.0, 9.0)
    assert world.record.attempts[0].problem == "idle_timeout: timeout"


async def test_json_that_stops_in_the_middle_is_told_if_nobody_else_is_there():
    world = World(answers(b'{"choices":', HANG, headers=JSON), idle_timeout=9.0)
    client = await world.ask(Client(b'{"model":"m"}'))
    assert (client.status, client.ended_at) == (504, 9.0)
    assert world.record.ending.value == "idle_timeout"


async def test_an_answer_that_no_longer_fits_goes_to_the_next_upstream():
    world = two(answers(b"<html>", headers=HTML, after=6.0))
    client = await world.ask()
    assert client.body == BEAT + b"".join(WHOLE)
    assert world.record.attempts[0].problem == "protocol: protocol"


async def test_an_answer_that_no_longer_fits_is_told_if_nobody_else_is_there():
    world = World(answers(b"<html>", headers=HTML, after=6.0))
    client = await world.ask()
    assert b"upstream_protocol" in client.body
    assert world.record.ending.value == "protocol"


async def test_a_stream_where_json_was_promised_goes_to_the_next_upstream():
    world = two(answers(*WHOLE, after=6.0), answers(b"{}", headers=JSON), json_heartbeat=True)
    client = await world.ask(Client(wish(stream=False)))
    assert client.body.strip() == b"{}"


async def test_an_answer_in_time_passes_whatever_it_is():
    world = two(answers(b"<html>", headers=HTML))
    client = await world.ask()
    assert client.body == b"<html>"
    assert world.calls_of("b") == []


async def test_a_pause_is_made_only_before_coming_back_to_the_same_upstream():
    world = two(fails(RESET), fails(RESET), jitter=1.0)
    world.endpoints[0].upstream._attempts += [answers(*WHOLE)]
    client = await world.ask()
    assert [(entry.upstream, entry.started) for entry in world.record.attempts] == [
        ("a", 0.0),
        ("b", 0.0),
        ("a", 0.5),
    ]
    assert client.body == b"".join(WHOLE)


async def test_one_number_of_attempts_holds_over_all_upstreams():
    names = ("a", "b", "c", "d")
    world = World(*(at(name, fails(RESET)) for name in names), max_retries=2)
    client = await world.ask()
    assert client.status == 502
    assert [entry.upstream for entry in world.record.attempts] == ["a", "b", "c"]


async def test_one_deadline_holds_over_all_upstreams():
    world = two(fails(RESET, after=11.0), retry_deadline=10.0)
    await world.ask()
    assert world.calls_of("b") == []
    assert world.record.ending.value == "unreachable"


async def test_the_retry_budget_holds_over_all_upstreams():
    world = two(fails(RESET))
    world.budget.retrying = 100
    client = Client(wish())
    await world.run(client)
    assert client.status == 502
    assert world.calls_of("b") == []


@pytest.mark.parametrize("first", [answers(CHAT_ERROR), refuses(503), answers(ROLE, MID)])
async def test_a_background_request_is_asked_of_nobody_else(first):
    world = two(first)
    await world.ask(Client(wish(background=True)), dialect="responses")
    assert world.calls_of("b") == []


async def test_a_background_request_that_was_never_sent_is_asked_of_the_next():
    world = two(fails(REFUSED), answers(*STREAMS["responses"]))
    client = await world.ask(Client(wish(background=True)), dialect="responses")
    assert client.body == b"".join(STREAMS["responses"])


@pytest.mark.parametrize(("first", "asked"), [(fails(REFUSED), 2), (fails(RESET), 1)])
async def test_any_other_post_goes_on_only_if_it_was_never_sent(first, asked):
    second = answers(b"ok", headers=JSON, after=(ReadBody(),))
    world = two(first, second)
    client = Client(b"abc", headers=((b"content-length", b"3"),))
    await world.ask(client, path="/v1/files")
    assert len(world.calls) == asked
    assert client.status == (200 if asked == 2 else 502)


async def test_heartbeats_go_on_over_all_attempts():
    world = two(fails(RESET, after=7.0), answers(ROLE, 6.0, HELLO, *WHOLE[2:]))
    client = await world.ask()
    assert client.times_of(BEAT) == [5.0, 10.0]


@dialects
async def test_headers_of_an_attempt_that_failed_are_never_sent(dialect):
    headers = (*SSE, (b"x-first", b"1"))
    first = answers(*PRELUDES[dialect], 3.0, MID, headers=headers)
    world = two(first, answers(6.0, *STREAMS[dialect]))
    client = await world.ask(dialect=dialect)
    assert b"x-first" not in client.response_headers


async def test_when_all_fail_the_client_gets_what_the_last_one_said():
    last = b'{"error":{"message":"the last"}}'
    world = two(refuses(503), refuses(529, body=last), max_retries=1)
    client = await world.ask()
    assert (client.status, client.body) == (529, last)
    assert [entry.problem for entry in world.record.attempts] == [
        "upstream_error: overloaded",
        "upstream_error: overloaded",
    ]


@pytest.mark.parametrize(
    ("first", "failed_at"), [(answers(ROLE, 1.0, MID), 1.0), (answers(ROLE, HANG), 2.0)]
)
async def test_the_next_upstream_is_asked_while_the_last_one_is_told_of_its_end(first, failed_at):
    world = World(
        at("a", first, abort_takes=3.0), at("b", answers(1.0, *WHOLE)), first_token_timeout=2.0
    )
    client = await world.ask()
    assert client.body == b"".join(WHOLE)
    assert world.calls_of("b")[0].opened == failed_at
    assert client.ended_at == failed_at + 1.0


async def test_an_answer_is_shown_whole_before_the_last_upstream_has_heard_of_its_end():
    first = at("a", answers(ROLE, 1.0, MID), abort_takes=9.0)
    world = World(first, at("b", answers(*WHOLE)))
    client = await world.ask()
    assert (client.ended_at, client.body) == (1.0, b"".join(WHOLE))


async def test_an_upstream_that_is_told_of_an_end_shows_nothing_more_while_that_takes_time():
    """A prelude whose hold runs out, and a commit, while the abort message of its attempt is out."""
    first = at("a", answers(ROLE, 4.0, MID, headers=(*SSE, (b"x-first", b"1"))), abort_takes=3.0)
    world = World(first, at("b", answers(4.0, *WHOLE)), prelude_hold=4.5, first_token_timeout=5.5)
    client = await world.ask()
    assert client.body == BEAT + b"".join(WHOLE)
    assert b"x-first" not in client.response_headers
    assert [entry.problem for entry in world.record.attempts] == ["truncated: unreachable", None]


async def test_an_attempt_given_up_is_over_with_its_clocks_while_its_upstream_is_told():
    first = at("a", answers(ROLE, HANG), abort_takes=3.0)
    world = World(
        first, at("b", answers(*WHOLE)), prelude_hold=3.0, first_token_timeout=2.0, heartbeat=1.0
    )
    client = await world.ask()
    assert client.body.replace(BEAT, b"") == b"".join(WHOLE)


async def test_an_error_frame_on_the_tick_of_the_first_token_timeout_is_one_failure(scheduler_seed):
    world = two(answers(ROLE, 2.0, CHAT_ERROR), first_token_timeout=2.0)
    client = await world.ask()
    assert client.body == b"".join(WHOLE)
    assert len(world.witness.retries) == 1


async def test_what_cannot_be_sent_is_refused():
    world = two(fails(MID))
    world.endpoints[0].upstream._attempts[0].before = (BadRequest("no such target"),)
    client = await world.ask()
    assert client.status == 400
    assert world.calls_of("b") == []


async def test_an_error_that_was_read_as_the_attempt_was_given_up_is_one_failure(scheduler_seed):
    def too_late():
        (x,) = world.app.live.values()
        failure = Failure(cause=Cause.TIMEOUT, message="too late")
        go_on_beside(x, give_up_overdue(x, failure))
        return CHAT_ERROR

    world = two(answers(ROLE, 2.0, too_late), first_token_timeout=2.0)
    client = await world.ask()
    assert client.body == b"".join(WHOLE)
    assert len(world.witness.retries) == 1
