"""R11: cancelled at any checkpoint whatsoever, a request leaves no trace."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_sse_proxy.core.breaker import BreakerRules
from trio_sse_proxy.core.errors import Broken
from trio_sse_proxy.core.routing import OnDisconnect, Rules
from trio_sse_proxy.gate import Gate

from .conftest import seeded_scheduler
from .frames import CHAT_ERROR, DONE, FINISH, HELLO, ROLE, WHOLE, wish
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, ReadBody, answers, fails
from .world import HeardBreaker, World, at

RESET = Broken("reset", responded=True)


def streaming():
    return World(fails(RESET), answers(ROLE, CHAT_ERROR), answers(*WHOLE), jitter=1.0), {}


def long_silence():
    return World(answers(ROLE, 6.0, HELLO, 6.0, FINISH, DONE, after=6.0)), {}


def json_answer():
    world = World(answers(b'{"a":', 1.0, RESET, headers=JSON), answers(b'{"a":1}', headers=JSON))
    return world, {"client": Client(wish(stream=False))}


def plain_upload():
    client = Client(b"abc", (1.0, b"def"), headers=((b"content-length", b"6"),))
    world = World(answers(b"ok", 1.0, b"ok", after=(ReadBody(),), headers=JSON))
    return world, {"client": client, "path": "/v1/files"}


def refused():
    return World(max_body_bytes=3), {"client": Client(b"abcd", (1.0, b"efgh"))}


def truncated():
    return World(answers(ROLE, HELLO, 1.0, RESET)), {}


def stuck():
    client = Client(wish(), stuck_from=1.0)
    return World(answers(ROLE, HELLO, 1.0, HELLO), write_stall_timeout=3.0), {"client": client}


def told(name, *attempts):
    """An upstream of many that takes one at a time, may be left alone, and is told of abortions."""
    breaker = HeardBreaker(BreakerRules(failures=2))
    return at(name, *attempts, gate=Gate(1), breaker=breaker, abort_takes=0.25)


def fallback():
    a = told("a", answers(ROLE, CHAT_ERROR), answers(*WHOLE))
    return World(a, told("b", answers(ROLE, 1.0, RESET)), jitter=1.0), {}


def hedge_won():
    a, b = told("a", answers(ROLE, HANG)), told("b", answers(ROLE, 1.0, *WHOLE[1:]))
    return World(a, b, rules=Rules(hedge_after=2.0)), {}


def hedge_lost():
    a, b = told("a", answers(ROLE, 4.0, *WHOLE[1:])), told("b", answers(1.0, CHAT_ERROR))
    return World(a, b, rules=Rules(hedge_after=2.0)), {}


def hedge_tie():
    a, b = told("a", answers(ROLE, 3.0, *WHOLE[1:])), told("b", answers(ROLE, 1.0, *WHOLE[1:]))
    return World(a, b, rules=Rules(hedge_after=2.0)), {}


def too_late():
    a, b = told("a", answers(ROLE, HANG)), told("b", answers(*WHOLE))
    return World(a, b, first_token_timeout=2.0), {}


def finishing():
    a = told("a", answers(ROLE, HANG))
    b = told("b", answers(ROLE, 1.0, HELLO, 1.0, FINISH, DONE))
    rules = Rules(hedge_after=2.0, on_disconnect=OnDisconnect.FINISH)
    return World(a, b, rules=rules), {}


SCENARIOS = [
    streaming,
    long_silence,
    json_answer,
    plain_upload,
    refused,
    truncated,
    stuck,
    fallback,
    hedge_won,
    hedge_lost,
    hedge_tie,
    too_late,
    finishing,
]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope right before the n-th step any task takes."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.scope: trio.CancelScope | None = None

    def before_task_step(self, task) -> None:
        if self.scope is not None:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


class AtStep(trio.abc.Instrument):
    """Does something right before the n-th step that any task takes."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.act = None

    def before_task_step(self, task) -> None:
        if self.act is not None:
            self.left -= 1
            if self.left == 0:
                self.act()


def at_every_step(main, seed):
    """Run `main(instrument)` until it needs fewer steps than it is allowed; all results."""
    results = []
    with seeded_scheduler(seed):
        while True:
            instrument = AtStep(len(results) + 1)
            clock = MockClock(autojump_threshold=0)
            results.append(trio.run(main, instrument, clock=clock, instruments=[instrument]))
            if instrument.left > 0:
                return results


everywhere = pytest.mark.parametrize(
    ("scenario", "seed"), [(scenario, seed) for scenario in SCENARIOS for seed in (1, 2)]
)


@everywhere
def test_a_cancellation_at_any_step_leaves_no_trace(scenario, seed):
    async def main(instrument):
        world, how = scenario()
        client = how.pop("client", None) or Client(wish())
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            instrument.act = scope.cancel
            await world.run(client, **how)
        instrument.act = None
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        world.assert_no_trace()
        return world.record.ending.value

    endings = at_every_step(main, seed)
    assert len(endings) > 10
    assert "shutdown" in endings


@everywhere
def test_a_client_that_leaves_at_any_step_leaves_no_trace(scenario, seed):
    async def main(instrument):
        world, how = scenario()
        client = how.pop("client", None) or Client(wish())
        instrument.act = client.leave
        await world.ask(client, **how)
        instrument.act = None
        return world.record.ending.value

    endings = at_every_step(main, seed)
    assert len(endings) > 10
    assert "client_left" in endings
