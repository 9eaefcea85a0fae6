"""One request through the whole application and the real transport, and who else is about meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
from relay.frames import PATHS
from relay.scripted_client import Client
from relay.world import World

from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.server import Listening, Server
from trio_sse_proxy.upstreams.aborts import KNOWN
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport
from trio_sse_proxy.wire import Written

ABORT_TIMEOUT = 0.5
LONG = 60.0
"""Seconds that no connection takes to end."""


class Quick(Client):
    """A client whose connection takes at once whatever is written."""

    def write_now(self, body: bytes) -> Written:
        if trio.current_time() >= self._stuck_from or self._gone.is_set():
            return Written.NOTHING
        message = {"type": "http.response.body", "body": body, "more_body": True}
        self.messages.append((trio.current_time(), message))
        return Written.WHOLLY


class Http(HttpUpstream):
    """One that remembers its calls, and is told to stop those that nobody wants."""

    def __init__(self, host: str, *, scheme: str = "http", **transport) -> None:
        super().__init__(
            name=host,
            base_url=f"{scheme}://{host}.test",
            transport=TrioTransport(**transport),
            connect_timeout=10.0,
            abort_calls=KNOWN["sglang"],
            abort_timeout=ABORT_TIMEOUT,
        )
        self.made = []

    def open(self, request, call):
        self.made.append(call)
        return super().open(request, call)


class Stage(World):
    """The relay's world, over upstreams that are not its scripted ones."""

    calls = ()
    """None of those; `judge` looks after the others."""

    def __init__(self, *endpoints, **how) -> None:
        made = [one if isinstance(one, Endpoint) else Endpoint(upstream=one) for one in endpoints]
        super().__init__(*made, **how)


@dataclass(kw_only=True)
class Play:
    """A request of `client`, the `others` that run when it begins, and `orders`: what happens when."""

    stage: Stage
    client: Client
    dialect: str = "chat"
    path: str | None = None
    method: str = "POST"
    others: tuple[Client, ...] = ()
    orders: tuple[tuple[float, str], ...] = ()
    http: tuple[Http, ...] = ()
    """Its upstreams of that kind, behind whatever else."""
    calls: list = field(default_factory=list)
    """Calls of upstreams of another kind, and the ids of those that were told to stop."""
    told: list[str] = field(default_factory=list)
    overlap: bool = False
    """The others are still running when it begins; else they are over."""
    reads_on: bool = False
    """Its upstream is read to the end for a client that has left."""
    may_be_cut: bool = False
    """An answer that breaks off cannot be told as broken in words: it is no stream."""

    @property
    def named(self) -> bool:
        """Its calls carry ids of ours, by which they can be stopped."""
        return self.path is None

    @property
    def others_hosts(self) -> tuple[str, ...]:
        """Where connections are busy with somebody else's request."""
        return ("a.test",) if self.overlap else ()

    @property
    def target(self) -> str:
        return self.path or PATHS[self.dialect]

    async def ask(self, client: Client) -> None:
        await self.stage.run(client, path=self.target, method=self.method)

    async def obey(self, at: float, what: str) -> None:
        await trio.sleep(at)
        app = self.stage.app
        if what == "drain":
            app.begin_drain()
        elif what == "end":
            app.end_streams()
        else:
            assert what == "leave"
            self.client.leave()


@dataclass(kw_only=True)
class Listened(Play):
    """The same through the server's own connections: `client` is a Caller, with one or more requests."""

    outside: trio.Nursery
    """Where clients live, whatever is cancelled."""

    def __post_init__(self) -> None:
        self.server = Server(self.stage.app, Listening())
        self.server.tls = self.client.listens_with

    async def ask(self, client) -> None:
        """Serve it until its client is done and nothing is left of its connection."""
        with trio.fail_after(LONG):
            async with trio.open_nursery() as connections:
                client.call(self.server, connections, self.outside)
                try:
                    await client.over.wait()
                except trio.Cancelled:
                    self.server.close()  # as `Server.serve` does
                    raise
