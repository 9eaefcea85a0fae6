"""Everything around one request but the network: the application, its upstreams, its clients.

`ask` runs a request and then looks for anything of it that is left. Nothing may be: no task, no
open call, no byte accounted for, no retry under way, no slot taken, no breaker that waits for word;
and exactly one record was written, with every attempt in it, and why each that was not over was left.
"""

from __future__ import annotations

import trio

from trio_sse_proxy.app import Application
from trio_sse_proxy.core.breaker import Breaker
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.limits import Limits
from trio_sse_proxy.core.retry import RetryBudget
from trio_sse_proxy.core.routing import Route, Rules
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


class HeardBreaker(Breaker):
    """A breaker that remembers whom it let through."""

    def __init__(self, rules) -> None:
        super().__init__(rules)
        self.permits = []

    def enter(self, now):
        permit = super().enter(now)
        if permit is not None:
            self.permits.append(permit)
        return permit


def at(name, *attempts, abort_takes=0.0, **how):
    """One of several upstreams: what happens to its calls, and its `gate` and `breaker`."""
    upstream = ScriptedUpstream(*attempts, name=name, abort_takes=abort_takes)
    return Endpoint(upstream=upstream, **how)


class World:
    """An application with `limits` other than the defaults, over one upstream with these `attempts`.

    Or over several, if `at` made them; they are asked in this order, by `rules`.
    """

    def __init__(
        self, *attempts, jitter=0.0, retry_budget=0.5, door=None, rules=None, **limits
    ) -> None:
        several = all(isinstance(attempt, Endpoint) for attempt in attempts) and attempts
        self.endpoints = several or (at("scripted", *attempts),)
        names = tuple(endpoint.name for endpoint in self.endpoints)
        route = Route(number=1, upstreams=names, rules=rules or Rules())
        self.witness = Witness()
        self.budget = RetryBudget(retry_budget)
        self.app = Application(
            Surroundings(
                limits=Limits(**limits),
                router=Router(self.endpoints, (route,)),
                budget=self.budget,
                observer=self.witness,
                outside=Outside(jitter),
            ),
            door=lambda _: door,
            admin=self._no_admin,
        )

    @property
    def calls(self):
        """All calls, in the order of their opening."""
        calls = [call for endpoint in self.endpoints for call in endpoint.upstream.calls]
        return sorted(calls, key=lambda call: call.opened)

    def calls_of(self, name):
        """Those of one upstream."""
        (endpoint,) = (one for one in self.endpoints if one.name == name)
        return endpoint.upstream.calls

    @property
    def record(self):
        (record,) = self.witness.records
        return record

    def record_of(self, client):
        """The record of one of several requests; of one that was not answered, the only such."""
        if not client.started:
            (record,) = (record for record in self.witness.records if record.status is None)
            return record
        id = client.response_headers[b"x-proxy-stream-id"].decode()
        (record,) = (record for record in self.witness.records if record.id == id)
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
        for endpoint in self.endpoints:
            self._assert_free(endpoint)
        for record in records:
            self._assert_attempts_told(record)

    def _assert_free(self, endpoint) -> None:
        assert endpoint.inflight == 0
        if endpoint.gate is not None:
            assert (endpoint.gate.inflight, endpoint.gate.queued) == (0, 0)
        if isinstance(endpoint.breaker, HeardBreaker):
            assert all(permit.told for permit in endpoint.breaker.permits)

    def _assert_attempts_told(self, record) -> None:
        """Each call is one of the record's attempts, and was left for one reason or came to its end."""
        calls = {call.told.id: call for call in self.calls if call.told.stream_id == record.id}
        entries = {f"{n}-{record.id}": entry for n, entry in enumerate(record.attempts, 1)}
        assert calls.keys() <= entries.keys()  # an attempt may have ended before it was forwarded
        for id, entry in entries.items():
            assert entry.ended is not None
            call = calls.get(id)
            if call is not None and call.told.begun and not call.told.over:
                assert call.told.reason is not None
                assert [reason for _, reason in call.aborts] == [call.told.reason] == [entry.reason]
            elif call is not None:
                assert call.aborts == []
        assert sum(entry.over and not entry.problem for entry in record.attempts) <= 1

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
