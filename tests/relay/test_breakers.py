"""Upstreams that fail are left alone for a while; nothing else is held against them."""

from __future__ import annotations

import pytest
import trio

from trio_sse_proxy.core.breaker import BreakerRules, State
from trio_sse_proxy.core.errors import Broken, Garbled, Unreachable
from trio_sse_proxy.core.routing import Rules
from trio_sse_proxy.gate import Gate

from .frames import CHAT_ERROR, HELLO, ROLE, WHOLE, unnamed, wish
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, answers, fails
from .test_cancellation import at_every_step
from .world import HeardBreaker, World, at

STREAM = b"".join(WHOLE)
MID = Broken("reset", responded=True)
RATE = unnamed({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


def guarded(*attempts, name="a", failures=1, cooldown=10.0, **how):
    breaker = HeardBreaker(BreakerRules(failures=failures, cooldown=cooldown))
    return at(name, *attempts, breaker=breaker, **how)


def alone(*attempts, failures=1, gate=None, rules=None, **limits):
    limits = {"max_retries": 0, **limits}
    return World(guarded(*attempts, failures=failures, gate=gate), rules=rules, **limits)


def state_of(world, n=0):
    return world.endpoints[n].breaker.state(trio.current_time())


def status(code, body=b'{"error":{"message":"no"}}'):
    return answers(body, status=code, headers=JSON)


@pytest.mark.parametrize(
    "attempt",
    [
        fails(Unreachable("refused")),
        fails(Broken("reset")),
        fails(Garbled("no HTTP")),
        answers(ROLE, MID),
        answers(ROLE),
        answers(CHAT_ERROR),
        status(500),
        status(503),
    ],
)
async def test_a_failure_of_the_upstreams_own_opens_it(attempt):
    world = alone(attempt)
    await world.ask()
    assert state_of(world) is State.OPEN


async def test_no_output_in_time_opens_it():
    world = alone(answers(ROLE, HANG), first_token_timeout=3.0)
    await world.ask()
    assert state_of(world) is State.OPEN


@pytest.mark.parametrize(
    "attempt",
    [
        answers(*WHOLE),
        answers(RATE),
        answers(ROLE, HELLO, MID),
        *(status(code) for code in (400, 401, 403, 404, 413, 422, 429)),
    ],
)
async def test_nothing_else_that_it_answers_opens_it(attempt):
    world = alone(attempt)
    await world.ask()
    assert state_of(world) is State.CLOSED


@pytest.mark.parametrize("begun", [(), (ROLE,), (ROLE, HELLO)])
async def test_a_client_that_leaves_never_opens_it(begun):
    world = alone(answers(*begun, HANG))
    await world.ask(Client(wish(), leaves_at=2.0))
    assert state_of(world) is State.CLOSED


async def test_a_lost_race_never_opens_it():
    first = guarded(answers(HANG))
    world = World(first, at("b", answers(*WHOLE)), rules=Rules(hedge_after=2.0))
    await world.ask()
    assert state_of(world) is State.CLOSED


async def test_an_open_one_is_passed_over():
    world = World(guarded(fails(MID)), at("b", answers(*WHOLE), answers(*WHOLE)))
    await world.ask()
    client = await world.ask()
    assert client.body == STREAM
    assert [entry.upstream for entry in world.witness.records[1].attempts] == ["b"]


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
async def test_if_all_are_open_it_is_503_at_once_and_says_when_to_come_back(dialect):
    world = World(guarded(fails(MID)), guarded(fails(MID), name="b", cooldown=20.0), max_retries=1)
    await world.ask(dialect=dialect)
    await trio.sleep(4.0)
    client = Client(wish())
    await world.run(client, dialect=dialect)
    assert (client.status, client.response_headers[b"retry-after"]) == (503, b"6")
    assert b"failed of late" in client.body
    assert client.ended_at == 4.0
    assert len(world.calls) == 2


async def test_after_the_cooldown_one_probe_is_let_in_and_its_success_closes():
    world = alone(fails(MID), answers(ROLE, 3.0, *WHOLE[1:]))
    await world.ask()
    await trio.sleep(10.0)
    probe, other = Client(wish()), Client((1.0, wish()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, probe)
        nursery.start_soon(world.run, other)
    assert (probe.body, other.status) == (STREAM, 503)
    assert state_of(world) is State.CLOSED


async def test_a_probe_that_fails_opens_it_for_twice_as_long():
    world = alone(fails(MID), fails(MID))
    await world.ask()
    await trio.sleep(10.0)
    await world.ask()
    await trio.sleep(19.0)
    assert state_of(world) is State.OPEN
    await trio.sleep(1.0)
    assert state_of(world) is State.HALF_OPEN


async def test_a_probe_whose_client_leaves_makes_the_next_call_the_probe():
    world = alone(fails(MID), answers(HANG), answers(*WHOLE))
    await world.ask()
    await trio.sleep(10.0)
    now = trio.current_time()
    await world.ask(Client(wish(), leaves_at=now + 1.0))
    assert state_of(world) is State.HALF_OPEN
    client = await world.ask()
    assert client.body == STREAM
    assert state_of(world) is State.CLOSED


async def test_one_that_opens_while_others_wait_sends_them_away_with_503():
    world = alone(fails(MID, after=3.0), gate=Gate(1))
    first, second = Client(wish()), Client((1.0, wish()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, first)
        nursery.start_soon(world.run, second)
    world.assert_no_trace()
    assert (first.status, second.status) == (502, 503)
    assert second.response_headers[b"retry-after"] == b"10"
    assert second.ended_at == 3.0
    assert len(world.calls) == 1


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("probe", [answers(ROLE, 1.0, *WHOLE[1:]), answers(ROLE, 1.0, MID)])
def test_a_probe_cancelled_at_any_step_gives_its_permit_back(probe, seed):
    async def main(instrument):
        world = alone(fails(MID), probe)
        await world.ask()
        await trio.sleep(10.0)
        with trio.CancelScope() as scope:
            instrument.act = scope.cancel
            await world.run(Client(wish()))
        instrument.act = None
        world.assert_no_trace()
        return state_of(world)

    assert State.HALF_OPEN in at_every_step(main, seed)
