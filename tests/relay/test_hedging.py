"""Hedging: beside an attempt that shows nothing for long another one runs, and the first output wins."""

from __future__ import annotations

import pytest
import trio

from trio_sse_proxy.core.call import Reason
from trio_sse_proxy.core.errors import BadRequest, Broken, Unreachable
from trio_sse_proxy.core.record import Outcome
from trio_sse_proxy.core.routing import Rules
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.gate import Gate

from .frames import (
    BEAT,
    BLOCK_DELTA,
    BLOCK_START,
    CHAT_ERROR,
    DONE,
    FINISH,
    HELLO,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGE_STOP,
    ROLE,
    WHOLE,
    text,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, SSE, Attempt, answers, fails
from .world import World, at

MID = Broken("reset", responded=True)
OTHER = (ROLE, text("other"), FINISH, DONE)
STREAMS = (b"".join(WHOLE), b"".join(OTHER))


def hedged(first, *second, rules=None, name="b", abort_takes=0.0, **limits):
    """`first` at "a", and two seconds later the next one at "b"."""
    rules = Rules(**{"hedge_after": 2.0, "hedge_share": 1.0, **(rules or {})})
    b = at(name, *(second or (answers(*OTHER),)))
    return World(at("a", first, abort_takes=abort_takes), b, rules=rules, **limits)


def reasons(world):
    return [entry.reason for entry in world.record.attempts]


async def test_a_hedge_starts_exactly_when_there_was_no_output_for_so_long():
    world = hedged(answers(ROLE, HANG))
    client = await world.ask()
    assert [call.opened for call in world.calls] == [0.0, 2.0]
    assert client.body == STREAMS[1]


async def test_an_attempt_with_output_in_time_is_left_alone():
    world = hedged(answers(ROLE, 1.9, HELLO, 60.0, FINISH, DONE))
    await world.ask()
    assert world.calls_of("b") == []


async def test_with_a_single_upstream_the_hedge_goes_to_the_same():
    rules = Rules(hedge_after=2.0)
    world = World(at("a", answers(HANG), answers(*WHOLE)), rules=rules)
    client = await world.ask()
    assert [call.opened for call in world.calls_of("a")] == [0.0, 2.0]
    assert client.body == STREAMS[0]
    assert reasons(world) == [Reason.HEDGE_LOST, None]


async def test_hedges_that_fail_are_attempts_like_any_other():
    a = at("a", *(answers(*WHOLE) for _ in range(10)), answers(ROLE, HANG))
    b = at("b", *(fails(MID) for _ in range(20)))
    rules = Rules(hedge_after=2.0, hedge_share=1.0)
    world = World(a, b, rules=rules, max_retries=3)
    for _ in range(10):  # each saves up another hedge
        await world.ask()
    await world.ask(Client(wish(), leaves_at=60.0))
    assert [call.opened for call in world.calls_of("b")] == [2.0, 4.0, 6.0]


async def test_the_loser_is_released_at_once_told_so_and_kept_apart():
    first = answers(MESSAGE_START, HANG)
    whole = (MESSAGE_START, BLOCK_START, BLOCK_DELTA, MESSAGE_DELTA, MESSAGE_STOP)
    world = hedged(first, answers(1.0, *whole), abort_takes=1.5)
    client = await world.ask(dialect="messages")
    (lost,) = world.calls_of("a")
    assert (lost.released, lost.aborts) == (3.0, [(3.0, Reason.HEDGE_LOST)])
    assert client.ended_at == 3.0
    entries = world.record.attempts
    assert [entry.outcome for entry in entries] == [Outcome.LOST, Outcome.COMPLETED]
    assert [entry.hedge for entry in entries] == [False, True]
    assert entries[0].usage == Usage(input_tokens=7)
    assert world.record.usage == entries[1].usage == Usage(input_tokens=7, output_tokens=5)


async def test_an_error_that_wins_is_told_before_the_loser_has_ended():
    error = answers(b'{"error":{"message":"no"}}', status=400, headers=JSON, after=1.0)
    world = hedged(answers(HANG), error, abort_takes=1.5, commit_after=1.0)
    client = await world.ask()
    assert (client.status, client.pieces[-1][0], client.ended_at) == (200, 3.0, 3.0)
    assert b'"message":"no"' in client.pieces[-1][1]
    assert reasons(world) == [Reason.HEDGE_LOST, None]


async def test_a_prelude_does_not_win():
    world = hedged(answers(ROLE, 6.0, HELLO, FINISH, DONE), answers(ROLE, HANG))
    client = await world.ask()
    assert client.body == BEAT + STREAMS[0]
    assert reasons(world) == [None, Reason.HEDGE_LOST]


@pytest.mark.parametrize("error", [(CHAT_ERROR,), (ROLE, BEAT, CHAT_ERROR), (MID,), ()])
async def test_a_hedge_that_fails_never_wins(error):
    world = hedged(answers(ROLE, 4.0, HELLO, FINISH, DONE), answers(*error))
    client = await world.ask()
    assert client.body == STREAMS[0]


@pytest.mark.parametrize("error", [(CHAT_ERROR,), (ROLE, CHAT_ERROR), (MID,), ()])
async def test_if_the_first_fails_the_hedge_goes_on_alone(error):
    world = hedged(answers(3.0, *error), answers(1.5, *OTHER))
    client = await world.ask()
    assert client.body == STREAMS[1]
    assert len(world.calls) == 2


async def test_both_with_output_on_one_tick_are_one_winner_and_one_loser(scheduler_seed):
    world = hedged(answers(ROLE, 4.0, *WHOLE[1:]), answers(ROLE, 2.0, *OTHER[1:]))
    client = await world.ask()
    assert client.body in STREAMS
    lost = [entry.outcome for entry in world.record.attempts].count(Outcome.LOST)
    assert lost == 1
    aborts = [reason for call in world.calls for _, reason in call.aborts]
    assert aborts == [Reason.HEDGE_LOST]


async def test_both_whole_on_one_tick_are_one_stream(scheduler_seed):
    world = hedged(answers(4.0, STREAMS[0]), answers(2.0, STREAMS[1]))
    client = await world.ask()
    assert client.body in STREAMS
    assert [entry.outcome for entry in world.record.attempts].count(Outcome.LOST) == 1


@pytest.mark.parametrize("error", [CHAT_ERROR, MID])
async def test_output_and_a_failure_on_one_tick_are_the_output(error, scheduler_seed):
    world = hedged(answers(ROLE, 3.0, HELLO, 1.0, FINISH, DONE), answers(ROLE, 1.0, error))
    client = await world.ask()
    assert client.body == ROLE + HELLO + FINISH + DONE
    assert world.record.ending.value == "completed"


async def test_a_callers_error_and_output_on_one_tick_are_one_answer(scheduler_seed):
    error = answers(b'{"error":{}}', status=400, headers=JSON, after=1.0)
    world = hedged(answers(ROLE, 3.0, HELLO, 1.0, FINISH, DONE), error)
    client = await world.ask()
    assert (client.status, client.body) in {(400, b'{"error":{}}'), (200, STREAMS[0])}


async def test_both_failing_on_one_tick_go_on_in_one_line(scheduler_seed):
    world = hedged(answers(3.0, MID), answers(1.0, MID), jitter=1.0)
    world.endpoints[0].upstream._attempts += [answers(*WHOLE)]
    client = await world.ask()
    assert client.body == STREAMS[0]
    assert len(world.calls) == 3


@pytest.mark.parametrize("wait", [0.5, 1.0, 1.5])
async def test_both_failing_for_good_is_told_once(wait, scheduler_seed):
    world = hedged(answers(3.0, MID), answers(wait, MID), max_retries=0)
    client = await world.ask()
    assert client.status == 502
    assert world.record.ending.value == "truncated"


async def test_a_hedge_in_its_pause_does_not_come_back_once_the_other_has_won():
    b = at("b", answers(*WHOLE[:1], 9.0, *WHOLE[1:]))
    a = at("a", fails(Unreachable("no"), after=3.0))
    world = World(a, b, rules=Rules(hedge_after=2.0), jitter=1.0, max_retries=9)
    client = await world.ask()
    assert client.body.replace(BEAT, b"") == STREAMS[0]
    assert len(world.calls) == 2


async def test_no_hedge_after_output():
    world = hedged(answers(ROLE, HELLO, 60.0, FINISH, DONE))
    await world.ask()
    assert len(world.calls) == 1


async def test_no_hedge_for_work_in_the_background():
    world = hedged(answers(ROLE, 6.0, *WHOLE[1:]))
    await world.ask(Client(wish(background=True)))
    assert len(world.calls) == 1


async def test_no_hedge_for_other_calls():
    world = hedged(answers(b"{}", headers=JSON, after=6.0))
    await world.ask(Client(b""), method="GET", path="/v1/models")
    assert len(world.calls) == 1


async def test_hedges_are_a_share_of_the_requests():
    slow = [answers(ROLE, 4.0, *WHOLE[1:]) for _ in range(12)]
    rules = Rules(hedge_after=2.0, hedge_share=0.25)
    fast = [answers(*OTHER) for _ in range(4)]
    world = World(at("a", *slow), at("b", *fast), rules=rules)
    for _ in range(12):
        await world.ask()
    assert len(world.calls_of("b")) == 4
    assert len(world.calls_of("a")) == 12


async def test_a_hedge_that_was_not_granted_leaves_its_upstream_for_a_fallback():
    world = hedged(answers(3.0, MID), answers(*OTHER), rules={"hedge_share": 0.0}, jitter=1.0)
    client = await world.ask()
    assert client.body == STREAMS[1]
    assert [call.opened for call in world.calls] == [0.0, 3.0]


@pytest.mark.parametrize("most", [2, 3])
async def test_no_more_than_hedge_max_run(most):
    rules = Rules(hedge_after=1.0, hedge_max=most, hedge_share=1.0)
    world = World(*(at(name, answers(HANG)) for name in "abcd"), rules=rules)
    for _ in range(2):
        world.endpoints[0].upstream._attempts.append(answers(*WHOLE))
    world.endpoints[0].upstream._attempts.reverse()
    await world.ask()  # each request adds to what hedges may be
    await world.ask()
    await world.ask(Client(wish(), leaves_at=9.0))
    assert [call.opened for call in world.calls[2:]] == [0.0, 1.0, 2.0][:most]


async def test_no_hedge_where_no_gate_has_room():
    full = Gate(max_inflight=1)
    a = at("a", answers(ROLE, 4.0, *WHOLE[1:]), gate=Gate(max_inflight=1))
    world = World(a, at("b", gate=full), rules=Rules(hedge_after=2.0))
    client = Client(wish())
    with full.try_enter():
        await world.run(client)
    world.assert_no_trace()
    assert client.body == STREAMS[0]


async def test_a_hedge_passes_over_an_upstream_without_room():
    gate = Gate(max_inflight=1)
    world = World(
        at("a", answers(HANG)),
        at("b", gate=gate),
        at("c", answers(*OTHER)),
        rules=Rules(hedge_after=2.0),
    )
    with gate.try_enter():
        await world.run(Client(wish()))
    assert [(entry.upstream, entry.started) for entry in world.record.attempts] == [
        ("a", 0.0),
        ("c", 2.0),
    ]


@pytest.mark.parametrize("how", ["client", "operator", "drain", "total"])
async def test_whatever_ends_the_request_ends_both(how, scheduler_seed):
    total = 3.0 if how == "total" else 0.0
    world = hedged(answers(ROLE, HANG), answers(ROLE, HANG), total_timeout=total)
    client = Client(wish(), leaves_at=3.0) if how == "client" else Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(3.0)
        if how == "operator":
            world.app.cancel(*world.app.live)
        elif how == "drain":
            world.app.end_streams()
    world.assert_no_trace()
    reason = {"client": "client_left", "drain": "shutdown", "total": "timeout"}.get(how, how)
    assert [entry.reason.value for entry in world.record.attempts] == [reason, reason]
    assert [call.released for call in world.calls] == [3.0, 3.0]
    assert world.record.aborted


async def test_whole_answers_race_too():
    world = hedged(answers(HANG, headers=JSON), answers(1.0, b'{"b":1}', headers=JSON))
    client = await world.ask(Client(wish(stream=False)))
    assert client.body == b'{"b":1}'
    assert reasons(world) == [Reason.HEDGE_LOST, None]


async def test_whole_answers_on_one_tick_are_one_answer(scheduler_seed):
    second = answers(2.0, b'{"b":1}', headers=JSON)
    world = hedged(answers(b'{"a":1}', headers=JSON, after=4.0), second)
    client = await world.ask(Client(wish(stream=False)))
    assert client.body in {b'{"a":1}', b'{"b":1}'}
    assert world.record.ending.value == "completed"


async def test_a_prelude_that_was_held_for_long_decides_the_race():
    world = hedged(answers(HANG), answers(ROLE, 9.0, *WHOLE[1:]), prelude_hold=4.0)
    client = await world.ask()
    assert client.body.replace(BEAT, b"") == STREAMS[0]
    assert client.times_of(ROLE) == [6.0]
    assert (world.calls[0].released, reasons(world)[0]) == (6.0, Reason.HEDGE_LOST)


async def test_a_commit_with_two_under_way_is_of_neither():
    headers = (*SSE, (b"x-one", b"1"))
    world = hedged(
        answers(ROLE, HANG, headers=headers), answers(ROLE, 6.0, *OTHER[1:], headers=headers)
    )
    client = await world.ask()
    assert client.committed_at == 5.0
    assert b"x-one" not in client.response_headers
    assert b"x-proxy-upstream" not in client.response_headers
    assert client.body == BEAT + STREAMS[1]


async def test_a_commit_with_one_under_way_does_not_say_that_it_is_its_answer():
    headers = (*SSE, (b"x-one", b"1"))
    world = hedged(
        answers(ROLE, HANG, headers=headers), answers(*OTHER), rules={"hedge_after": 6.0}
    )
    client = await world.ask()
    assert client.committed_at == 5.0
    assert client.response_headers[b"x-one"] == b"1"
    assert b"x-proxy-upstream" not in client.response_headers
    assert b"x-proxy-attempts" not in client.response_headers
    assert client.body == BEAT + STREAMS[1]


async def test_a_late_answer_that_does_not_fit_does_not_win():
    html = ((b"content-type", b"text/html"),)
    world = hedged(answers(6.0, b"<html>", headers=html), answers(ROLE, 6.0, *OTHER[1:]))
    client = await world.ask()
    assert client.body == BEAT + STREAMS[1]


async def test_the_first_token_timeout_of_one_leaves_the_other():
    world = hedged(
        answers(ROLE, HANG), answers(ROLE, 4.0, *OTHER[1:]), first_token_timeout=4.5, heartbeat=0.0
    )
    client = await world.ask()
    assert client.body == STREAMS[1]
    assert reasons(world) == [Reason.TIMEOUT, None]


async def test_what_the_hedge_cannot_be_sent_is_no_matter_to_the_first():
    second = Attempt((1.0, BadRequest("no such target")), sent=False)
    world = hedged(answers(3.5, MID), second)
    world.endpoints[0].upstream._attempts += [answers(*WHOLE)]
    client = await world.ask()
    assert client.body == STREAMS[0]


async def test_an_error_that_was_read_as_the_race_was_lost_is_not_told():
    facts = []

    def too_late():
        (x,) = world.app.live.values()
        assert x.accept(x.attempts[0])
        facts.append(x.facts)
        return CHAT_ERROR

    world = hedged(answers(ROLE, 3.0, *WHOLE[1:]), answers(ROLE, 0.5, too_late))
    client = await world.ask()
    assert client.body == STREAMS[0]
    assert [fact.ending.value for fact in facts[0]] == ["completed"]
