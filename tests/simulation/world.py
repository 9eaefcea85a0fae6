"""Runs a history: the whole proxy but for sockets, at virtual time, in a fixed order of tasks."""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy import Proxy, Route, Settings, fleet, making, server, wiring
from trio_sse_proxy import Upstream as Table
from trio_sse_proxy.core.breaker import Breaker
from trio_sse_proxy.http2 import H2Stream
from trio_sse_proxy.listening import Stop
from trio_sse_proxy.upstreams.aborts import KNOWN, AbortCalls
from trio_sse_proxy.upstreams.transport import TrioTransport
from trio_sse_proxy.wire import CONNECTION

from .client import Client, Request
from .clock import virtual_clock
from .http1 import Http1Line
from .http2 import Http2Line
from .order import fixed_order, replaced
from .server import Plays, Upstream
from .watch import Watch
from .working import Worker

if TYPE_CHECKING:
    from trio_sse_proxy.endpoint import Endpoint

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
        self._events: list[tuple] = []

    def __call__(self, *what) -> None:
        self._events.append((trio.current_time(), what))

    @property
    def lines(self) -> list[str]:
        return [f"{at:.6f} {' '.join(map(str, what))}" for at, what in self._events]


class Heard(Breaker):
    """A breaker that remembers whom it let through."""

    __slots__ = ("permits",)

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

    def __init__(self, run: Run) -> None:
        self._run, self._log = run, run.log
        self.began_with, self.records = [], []

    def began(self, record) -> None:
        self.began_with.append(record)
        self._run.called.record = record
        self._run.by_id[record.id] = self._run.called

    def retried(self, record, cause) -> None:
        self._log(record.id, "is tried again:", cause.value)

    def heartbeat(self, record, kind) -> None:
        self._log(record.id, "heartbeat", kind)

    def ended(self, record) -> None:
        self.records.append(record)
        self._log("record", Shown(record))


class Shown:
    """A record, to be written out only if somebody reads the log."""

    def __init__(self, record) -> None:
        self._record = record

    def __str__(self) -> str:
        return str(self._record.as_json())


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
    log: Log = field(default_factory=Log)
    proxy: Proxy | None = None
    witness: Witness | None = None
    plays: Plays | None = None
    endpoints: list[Endpoint] = field(default_factory=list)
    """All there were, in the order in which reloads brought them."""
    upstreams: dict[str, Upstream | Worker] = field(default_factory=dict)
    clients: list[Request] = field(default_factory=list)
    by_id: dict[str, Request] = field(default_factory=dict)
    """By the id of their records."""
    called: Request | None = None
    """Whose request the application was called for last."""
    listener: server.Server | None = None
    stop: Stop = field(default_factory=Stop)
    closed: trio.Event = field(default_factory=trio.Event)
    """Nobody listens any more, after a drain."""
    cancelled: dict[str, float] = field(default_factory=dict)
    """When an operator ended the stream of that id."""
    ended_at: float | None = None
    """When a drain ended those that still ran."""
    drained: tuple[float, float] | None = None
    """The same, or when there were none; and when nothing ran any more."""
    reloaded: list[float] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    """What was wrong while it ran."""
    tasks_left: int = 0
    left: list[str] = field(default_factory=list)
    """Tasks of the proxy's that were there when all requests were over, and it still ran."""
    unended: bool = False
    crashed: BaseException | None = None

    @property
    def app(self):
        return self.proxy.application

    def ended_from(self, request: Request) -> float:
        """From when on a drain leaves nobody to work for this request."""
        if self.ended_at is None or request.called_at is None:
            return inf
        return self.ended_at if request.called_at <= self.ended_at else inf

    @property
    def longest_stall(self) -> float:
        return self.history.limits.get("write_stall_timeout", 30.0) + SERVER_STALL


def play(history: History) -> Run:
    """Run it to its end."""
    run = Run(history=history)
    with fixed_order(history.seed), _in_memory(run):
        try:
            watch = Watch(run)
            trio.run(_run, run, clock=virtual_clock(watch.look, watch.spun))
        except Exception as error:
            run.crashed = error
    return run


@contextmanager
def _in_memory(run: Run):
    """What would reach out of the process reaches into the history instead."""

    def upstream(table, connect_timeout):
        _made_for.append(table.name)
        try:
            return make(table, connect_timeout)
        finally:
            _made_for.pop()

    def transport(**how):
        name = _made_for[-1]
        kept = {name: how[name] for name in ("max_connections", "keepalive_expiry")}
        return TrioTransport(connect=run.upstreams[name].connect, **kept)

    _made_for: list[str] = []
    make = making.http_upstream
    changes = (
        (making, "http_upstream", upstream),
        (making, "open_transport", transport),
        (making, "_abort_calls", lambda table: KNOWN.get(table.abort, UNNAMED)),
        (fleet, "Breaker", Heard),
        (wiring, "RealWorld", lambda: Chance(run.history.seed)),
        (server, "Wire", lambda line, *_: line),
    )

    def alarm(_, __, event):
        if event["event"] != "a worker failed":  # as it was told to
            run.found.append(f"R11: an error was logged: {event}")
        raise structlog.DropEvent

    lines = structlog.get_config()
    errors_alone = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=errors_alone, processors=[alarm])
    try:
        with replaced(changes):
            yield
    finally:
        structlog.configure(**lines)


async def _run(run: Run) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(TOO_LONG) as patience:
        async with trio.open_nursery() as servers:
            _build(run, servers)
            async with run.proxy.running():
                await wait_all_tasks_blocked()
                before = set(_tasks(trio.lowlevel.current_root_task()))
                await _serve(run)
                await wait_all_tasks_blocked()
                after = _tasks(trio.lowlevel.current_root_task())
                run.left = [task.name for task in after if task not in before and _is_ours(task)]
                for endpoint in run.endpoints:
                    run.log(endpoint.name, "has", endpoint.connections)
    run.unended = patience.cancelled_caught
    run.tasks_left = trio.lowlevel.current_statistics().tasks_living - tasks


def _tasks(task):
    """All there are, of a task and under it."""
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)


def _is_ours(task) -> bool:
    """It is none of the world's, and does not go on for as long as the proxy runs."""
    return not task.name.startswith(("simulation.", "trio_sse_proxy.health."))


async def _serve(run: Run) -> None:
    async with trio.open_nursery() as lines:
        if run.history.listening:
            lines.start_soon(_listen, run)
        async with trio.open_nursery() as nursery:
            for person in run.history.people:
                nursery.start_soon(_ask, run, person, lines)
            for order in run.history.orders:
                nursery.start_soon(_obey, run, order)
        lines.cancel_scope.cancel("all have gone")


async def _listen(run: Run) -> None:
    await run.listener.serve(_Drain(run), (), run.stop)
    run.closed.set()


def _build(run: Run, nursery) -> None:
    history = run.history
    run.plays = Plays({person.number: list(person.plays) for person in history.people}, run.log)
    for one in history.servers:
        run.upstreams[one.name] = (
            Worker(one, run.plays, run.log, ABORT_TIMEOUT)
            if one.worker
            else Upstream(one, run.plays, nursery, run.log)
        )
    workers = [up.upstream for up in run.upstreams.values() if isinstance(up, Worker)]
    run.witness = Witness(run)
    run.proxy = Proxy(settings(history), upstreams=workers, observers=(run.witness,))
    if history.listening:
        bounds = {"write_stall_timeout": history.limits.get("write_stall_timeout", 30.0)}
        drains = [order.patience for order in history.orders if order.what == "drain"]
        listening = server.Listening(drain_timeout=min(drains, default=0.0), **bounds)
        run.listener = server.Server(lambda *call: _call(run, *call), listening)
    _note_endpoints(run)


def settings(history: History, orders: tuple[Order, ...] = ()) -> Settings:
    """As they are after these reloads."""
    limits = dict(history.limits)
    without: set[int] = set()
    keys: dict[int, str] = {}
    for order in orders:
        limits |= order.limits
        without = {order.without} - {None}
        if order.renewed is not None:
            keys[order.renewed] = f"key-{len(keys)}-{order.at:.0f}"
    kept = [number for number in range(len(history.servers)) if number not in without] or [0]
    tables = tuple(_table(history.servers[number], keys.get(number)) for number in kept)
    route = Route(upstreams=[table.name for table in tables], **history.rules)
    return Settings(upstreams=tables, routes=(route,), records=0, **limits)


def _table(one: Server, key: str | None) -> Table:
    more = {}
    if one.gate is not None:
        more |= dict(zip(("max_inflight", "max_queued", "queue_timeout"), one.gate, strict=True))
    if one.chat_only:
        more["dialects"] = ["chat"]
    if one.ill is not None:
        more["health_path"] = "/health"
    return Table(
        name=one.name,
        base_url=f"http://{one.name}.test",
        api_key=key,
        abort="sglang" if one.told else "none",
        abort_timeout=ABORT_TIMEOUT,
        breaker_failures=one.breaker,
        breaker_rate=0.0,
        **more,
    )


def _note_endpoints(run: Run) -> None:
    run.endpoints += [
        endpoint for endpoint in run.proxy._endpoints() if endpoint not in run.endpoints
    ]


async def _ask(run: Run, person: Person, lines) -> None:
    await trio.sleep(person.at)
    for _ in range(1 + person.again):
        asked = await (_over_a_line if run.history.listening else _directly)(run, person, lines)
        if all(one.ended or not one.patient for one in asked):
            break


async def _directly(run: Run, person: Person, _) -> list[Request]:
    client = Client(person, run.longest_stall, run.log)
    run.clients.append(client)
    await _call(run, client.scope, client.receive, client.send)
    return [client]


async def _over_a_line(run: Run, person: Person, lines) -> list[Request]:
    kind = Http2Line if person.http2 else Http1Line
    line = kind(person, run.longest_stall, run.log)
    run.clients += line.requests
    if run.closed.is_set():
        line.close()  # nobody listens any more
    else:
        run.listener.welcome(line, nursery=lines)
        await line.live()
        await line.closing()
        for request in line.requests:
            if request.called_at is not None:
                await request.over.wait()  # it may be read to its end without its client
    return line.requests


async def _call(run: Run, scope, receive, send) -> None:
    connection = scope["state"][CONNECTION]
    client = connection if isinstance(connection, Client) else _asked_by(connection)
    run.called, client.called_at = client, trio.current_time()
    client.limits = run.proxy.settings.limits
    try:
        await run.proxy(scope, receive, send)
    finally:
        client.over_at = trio.current_time()
        client.over.set()
        run.log(client.name, "is over")


def _asked_by(connection) -> Request:
    """Whose request came in by it, which is a stream over HTTP/2."""
    link = connection._protocol.link if isinstance(connection, H2Stream) else connection
    return link.wire.request_of(connection)


async def _obey(run: Run, order: Order) -> None:
    await trio.sleep(order.at)
    run.log("an operator orders", order.what)
    match order.what:
        case "cancel":
            for id, x in tuple(run.app.live.items()):
                if x.record.model == f"c{order.number}":
                    run.cancelled.setdefault(id, trio.current_time())
                    run.app.cancel(id)
        case "reload":
            run.reloaded.append(trio.current_time())
            orders = [one for one in run.history.orders if one.what == "reload"]
            done = [one for one in orders if one.at <= order.at]
            await run.proxy.reload(settings(run.history, tuple(sorted(done, key=lambda o: o.at))))
            _note_endpoints(run)
        case "drain":
            await _drain(run, order.patience)


async def _drain(run: Run, patience: float) -> None:
    if run.history.listening:
        run.stop.ask()
        await run.closed.wait()
        return
    drain = _Drain(run)
    drain.begin_drain()
    with trio.move_on_after(patience):
        await drain.drained()
    drain.end_streams()
    await drain.drained()
    run.log("drained")


class _Drain:
    """What the server asks of the application (see server.Drainer), and when it did."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def begin_drain(self) -> None:
        self._run.app.begin_drain()

    async def drained(self) -> None:
        try:
            await self._run.app.drained()
        finally:
            now = trio.current_time()
            ended_at = self._run.ended_at
            self._run.drained = (now if ended_at is None else ended_at, now)

    def end_streams(self) -> None:
        self._run.ended_at = trio.current_time()
        self._run.app.end_streams()
