"""Runs one play, with a cancellation in one gap of it or with none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING
from unittest import mock

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.upstreams.readiness import readiness

from .gaps import Gaps
from .judge import findings
from .network import Connection, Network
from .order import fixed_order

if TYPE_CHECKING:
    from .stage import Play

WAYS = {
    "client": Ending.CLIENT_LEFT,
    "operator": Ending.CANCELLED,
    "drain": Ending.SHUTDOWN,
    "server": Ending.SHUTDOWN,
}
"""Who cancels: a client leaves, an operator or a drain ends the stream, the server cancels the call."""


PATIENCE = 2.0
"""Seconds after which the upstreams have noticed all there is to notice."""


@dataclass(eq=False)
class Run:
    """What happened. Instants are virtual."""

    way: str | None
    gaps: Gaps
    network: Network | None = None
    play: Play | None = None
    known: frozenset[str] = frozenset()
    """The ids of the others' requests."""
    present: bool = False
    """The request was registered when the cancellation came."""
    noted: bool = False
    """Its ending was known already."""
    verdict_at: float = inf
    """When it was first known."""
    complete_at: float = inf
    """When an upstream had come to its own end."""
    began_at: float = 0.0
    over_at: float = inf
    open_then: tuple[Connection, ...] = ()
    """Connections that were still open when the instant of the cancellation was over."""
    fast: bool = False
    """Something was read without waking a task."""
    left: tuple[int, int] = (0, 0)
    """Tasks and descriptors that are still there at the end."""
    timers: int = 0
    watched: int = 0
    crashed: BaseException | None = None
    hit: str | None = None
    """The id of the request that was cancelled."""
    live_then: frozenset[str] = frozenset()
    """Those of all requests that were registered then."""
    known_then: tuple[Connection, ...] = ()
    """The upstreams' connections that there were then."""
    ends: dict[str, float] = field(default_factory=dict)
    """When it was first known how each request, by its id, would end."""
    gone: dict[str, float] = field(default_factory=dict)
    """When each was over."""

    @property
    def x(self):
        """The request, while it is registered."""
        live = self.play.stage.app.live
        return next((x for id, x in live.items() if id not in self.known), None)

    @property
    def record(self):
        (record,) = (r for r in self.play.stage.witness.records if r.id not in self.known)
        return record


def perform(scenario, seed: str, way: str | None = None, gap: int = 0) -> Run:
    """Run it; with `way` and `gap`, cancelled in that way in that gap."""
    run = Run(way, Gaps(gap))
    with fixed_order(seed):
        try:
            trio.run(_main, run, scenario, clock=MockClock(0, 0), instruments=[run.gaps])
        except Exception as error:
            run.crashed = error
    return run


def examine(scenario, seed: str, way: str, gap: int, reference: Run) -> list[str]:
    """The same, and what is wrong with it, `reference` being the run without a cancellation."""
    return findings(perform(scenario, seed, way, gap), reference)


async def _main(run: Run, scenario) -> None:
    readiness()  # its task and descriptor belong to the trio run
    await wait_all_tasks_blocked()
    before = _counted()
    async with trio.open_nursery() as servers:
        run.network = network = Network(servers)
        run.play = play = scenario(network)
        with mock.patch.object(trio, "open_tcp_stream", network.connect):
            async with trio.open_nursery() as about:
                for other in play.others:
                    about.start_soon(play.ask, other)
                await wait_all_tasks_blocked()
                if play.others and not play.overlap:
                    await trio.sleep(1.0)
                run.known = frozenset(r.id for r in play.stage.witness.began_with)
                for order in play.orders:
                    about.start_soon(play.obey, *order)
                await _ask(run, play)
            await trio.sleep(PATIENCE)
            run.timers = trio.lowlevel.current_statistics().seconds_to_next_deadline < inf
            run.watched = len(readiness()._handlers)
        for http in play.http:
            await http.aclose()
        await wait_all_tasks_blocked()
    after = _counted()
    run.left = (after[0] - before[0], after[1] - before[1])


async def _ask(run: Run, play: Play) -> None:
    with trio.CancelScope() as scope:
        act = _act(run, play, scope)
        run.began_at = trio.current_time()
        run.gaps.begin(act=act, after=lambda: _look_back(run), always=lambda: _look(run))
        await play.ask(play.client)
    run.gaps.end()
    run.over_at = trio.current_time()


def _act(run: Run, play: Play, scope: trio.CancelScope):
    def act() -> None:
        app, x = play.stage.app, run.x
        run.present, run.noted = x is not None, x is not None and bool(x.facts)
        run.hit = x.record.id if x is not None else None
        run.live_then, run.known_then = frozenset(app.live), tuple(run.network.connections)
        match run.way:
            case "client":
                play.client.leave()
            case "operator" if x is not None:
                app.cancel(x.record.id)
            case "drain":
                app.begin_drain()
                app.end_streams()
            case "server":
                scope.cancel()

    return act


def _look(run: Run) -> None:
    x, now = run.x, trio.current_time()
    for record in run.play.stage.witness.records:
        run.gone.setdefault(record.id, now)
        run.ends.setdefault(record.id, now)
    if x is None:
        return
    if x.facts or any(a.call.over for a in x.attempts):
        run.ends.setdefault(x.record.id, now)
    if run.verdict_at == inf and x.facts:
        run.verdict_at = trio.current_time()
    if run.complete_at == inf and any(a.call.over for a in x.attempts):
        run.complete_at = trio.current_time()
    run.fast = run.fast or bool(readiness()._handlers)


def _look_back(run: Run) -> None:
    """Whoever was asked before, and has not answered to the end, is let go of by now."""
    run.open_then = tuple(
        one for one in run.network.connections if one.is_open and one.busy and not one.told
    )


def _counted() -> tuple[int, int]:
    """Tasks, and descriptors."""
    living = trio.lowlevel.current_statistics().tasks_living
    return living, len(os.listdir("/proc/self/fd"))
