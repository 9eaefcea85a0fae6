"""Everything around one request but the network: the application, its upstream, its clients.

`ask` runs a request and then looks for anything of it that is left. Nothing may be: no task, no
open call, no byte accounted for, no retry under way; and exactly one record was written.
"""

from __future__ import annotations

import trio

from trio_sse_proxy.app import Application
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.limits import Limits
from trio_sse_proxy.core.retry import RetryBudget
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.exchange import Surroundings
from trio_sse_proxy.router import Router

from .frames import PATHS, wish
from .scripted_client import Client
from .scripted_upstream import ScriptedUpstream

WALL = 1_700_000_000.0


class Outside:
    """See exchange.Outside: time begins at WALL, and chance says what it is told."""

    def __init__(self, jitter: float) -> None:
        self._jitter = jitter

    def wall_clock(self) -> float:
        return WALL + trio.current_time()

    def jitter(self) -> float:
        return self._jitter


class Witness:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.began_with = []
        self.records = []
        self.retries = []
        self.heartbeats = []

    def began(self, record) -> None:
        self.began_with.append(record)

    def retried(self, record, cause) -> None:
        self.retries.append(cause)

    def heartbeat(self, record, kind) -> None:
        self.heartbeats.append((trio.current_time(), kind))

    def ended(self, record) -> None:
        self.records.append(record)


class World:
    """An application over `attempts`, with `limits` other than the defaults."""

    def __init__(self, *attempts, jitter=0.0, retry_budget=0.5, door=None, **limits) -> None:
        self.upstream = ScriptedUpstream(*attempts)
        self.witness = Witness()
        self.budget = RetryBudget(retry_budget)
        self.app = Application(
            Surroundings(
                limits=Limits(**limits),
                router=Router.to(Endpoint(upstream=self.upstream)),
                budget=self.budget,
                observer=self.witness,
                outside=Outside(jitter),
            ),
            door=lambda _: door,
            admin=self._no_admin,
        )

    @property
    def calls(self):
        return self.upstream.calls

    @property
    def record(self):
        (record,) = self.witness.records
        return record

    async def ask(self, client=None, *, dialect="chat", method="POST", path=None, **scope):
        """Run one request to its end; the client. A body that is not given asks for a stream."""
        client = client or Client(wish())
        tasks = trio.lowlevel.current_statistics().tasks_living
        await self.app(
            self._scope(client, method, path or PATHS[dialect], scope), client.receive, client.send
        )
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        self.assert_no_trace()
        return client

    async def run(self, client, **how):
        """The same among other requests, without looking for what is left."""
        path = how.pop("path", None) or PATHS[how.pop("dialect", "chat")]
        scope = self._scope(client, how.pop("method", "POST"), path, how)
        await self.app(scope, client.receive, client.send)

    def assert_no_trace(self, *, internal=False) -> None:
        assert not self.app.live
        assert all(call.closed is not None for call in self.calls)
        assert self.app._held.used == 0
        assert (self.budget.running, self.budget.retrying) == (0, 0)
        records = self.witness.records
        assert sorted(r.id for r in records) == sorted(r.id for r in self.witness.began_with)
        assert all(record.ending is not None for record in records)
        assert internal or all(record.ending is not Ending.INTERNAL for record in records)

    def _scope(self, client, method, path, more):
        return {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": list(client.headers),
            "state": client.state,
            **more,
        }

    async def _no_admin(self, scope, receive, send) -> None:
        raise AssertionError("nobody asks for /-/ here")
