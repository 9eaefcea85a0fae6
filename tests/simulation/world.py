"""Runs a history: the whole application but for sockets, at virtual time, in a fixed order of tasks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sse_proxy.app import Application
from trio_sse_proxy.core.breaker import Breaker, BreakerRules
from trio_sse_proxy.core.limits import Limits
from trio_sse_proxy.core.retry import RetryBudget
from trio_sse_proxy.core.routing import Route, Rules
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.exchange import Surroundings
from trio_sse_proxy.gate import Gate
from trio_sse_proxy.router import Router
from trio_sse_proxy.upstreams.aborts import KNOWN, AbortCalls
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport

from .client import Client
from .order import fixed_order
from .server import Plays, Upstream

if TYPE_CHECKING:
    from .history import History, Order, Person, Server

WALL = 1_700_000_000.0
TOO_LONG = 3600.0  # seconds of a run: whatever still goes on then never ends
ABORT_TIMEOUT = 2.0
SERVER_STALL = 5.0
"""How much later than the application the server gives up a write that gets nowhere; it is so late
that the deadline which counts is the application's own."""
UNNAMED = AbortCalls(compose=lambda _: None, member="rid")
"""An upstream that is given our ids, by which the simulation knows its calls, and is told of nothing."""


class Log:
    """What happened, line by line. Two runs of one history have the same lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, what: str) -> None:
        self.lines.append(f"{trio.current_time():.6f} {what}")


class Heard(Breaker):
    """A breaker that remembers whom it let through."""

    def __init__(self, rules) -> None:
        super().__init__(rules)
        self.permits = []

    def enter(self, now):
        permit = super().enter(now)
        if permit is not None:
            self.permits.append(permit)
        return permit


class Witness:
    """An observer that remembers."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.began_with, self.records = [], []

    def began(self, record) -> None:
        self.began_with.append(record)

    def retried(self, record, cause) -> None:
        self._log(f"{record.id} is tried again: {cause.value}")

    def heartbeat(self, record, kind) -> None:
        self._log(f"{record.id} heartbeat {kind}")

    def ended(self, record) -> None:
        self.records.append(record)
        self._log(f"record {record.as_json()}")


class Chance:
    """See exchange.Outside."""

    def __init__(self, seed: str) -> None:
        self._draw = random.Random(f"jitter {seed}")

    def wall_clock(self) -> float:
        return WALL + trio.current_time()

    def jitter(self) -> float:
        return self._draw.random()


@dataclass(eq=False)
class Run:
    """A run, for the oracles to look at."""

    history: History
    log: Log
    limits: Limits
    app: Application | None = None
    budget: RetryBudget | None = None
    witness: Witness | None = None
    plays: Plays | None = None
    endpoints: list[Endpoint] = field(default_factory=list)
    upstreams: list[Upstream] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    cancelled: dict[str, float] = field(default_factory=dict)
    """When an operator ended the stream of that id."""
    drained: tuple[float, float] | None = None
    """When those that still ran were ended, and when nothing ran any more."""
    tasks_left: int = 0
    unended: bool = False
    crashed: BaseException | None = None


def play(history: History) -> Run:
    """Run it to its end."""
    log = Log()
    run = Run(history=history, log=log, limits=Limits(**history.limits))
    with fixed_order(history.seed):
        try:
            trio.run(_run, run, clock=MockClock(autojump_threshold=0))
        except Exception as error:
            run.crashed = error
    return run


async def _run(run: Run) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(TOO_LONG) as patience:
        async with trio.open_nursery() as servers:
            _build(run, servers)
            async with trio.open_nursery() as nursery:
                for person in run.history.people:
                    nursery.start_soon(_ask, run, person)
                for order in run.history.orders:
                    nursery.start_soon(_obey, run, order)
            await wait_all_tasks_blocked()
            for endpoint in run.endpoints:
                run.log(f"{endpoint.name} has {endpoint.connections}")
                await endpoint.upstream.aclose()
    run.unended = patience.cancelled_caught
    run.tasks_left = trio.lowlevel.current_statistics().tasks_living - tasks


def _build(run: Run, nursery) -> None:
    history = run.history
    scripts = {person.number: list(person.plays) for person in history.people}
    run.plays = Plays(scripts, run.log)
    run.endpoints = [_endpoint(run, server, nursery) for server in history.servers]
    names = tuple(server.name for server in history.servers)
    rules = Rules(balance=history.balance, hedge_after=history.hedge_after, hedge_share=0.5)
    run.witness, run.budget = Witness(run.log), RetryBudget(0.5)
    surroundings = Surroundings(
        limits=run.limits,
        router=Router(run.endpoints, (Route(number=1, upstreams=names, rules=rules),)),
        budget=run.budget,
        observer=run.witness,
        outside=Chance(history.seed),
    )
    run.app = Application(surroundings, door=lambda _: None, admin=_no_admin)


def _endpoint(run: Run, server: Server, nursery) -> Endpoint:
    upstream = Upstream(server, run.plays, nursery, run.log)
    run.upstreams.append(upstream)
    http = HttpUpstream(
        name=server.name,
        base_url=f"http://{server.name}.test",
        transport=TrioTransport(connect=upstream.connect),
        connect_timeout=10.0,
        abort_calls=KNOWN["sglang"] if server.told else UNNAMED,
        abort_timeout=ABORT_TIMEOUT,
    )
    rules = BreakerRules(failures=server.breaker, rate=0.0)
    return Endpoint(
        upstream=http,
        gate=Gate(*server.gate) if server.gate else None,
        breaker=Heard(rules) if server.breaker else None,
    )


async def _ask(run: Run, person: Person) -> None:
    await trio.sleep(person.at)
    for _ in range(1 + person.again):
        client = Client(person, run.limits.write_stall_timeout + SERVER_STALL, run.log)
        run.clients.append(client)
        try:
            await run.app(client.scope, client.receive, client.send)
        finally:
            client.over_at = trio.current_time()
            run.log(f"c{person.number} is over")
        if client.ended or not client.patient:
            break


async def _obey(run: Run, order: Order) -> None:
    await trio.sleep(order.at)
    if order.what == "cancel":
        for id, x in tuple(run.app.live.items()):
            if x.record.model == f"c{order.number}":
                run.log(f"an operator cancels {id}")
                run.cancelled[id] = trio.current_time()
                run.app.cancel(id)
        return
    run.log("drain")
    run.app.begin_drain()
    with trio.move_on_after(order.patience):
        await run.app.drained()
    ended_at = trio.current_time()
    run.app.end_streams()
    await run.app.drained()
    run.drained = (ended_at, trio.current_time())
    run.log("drained")


async def _no_admin(scope, receive, send) -> None:
    raise AssertionError("nobody asks for /-/ here")
