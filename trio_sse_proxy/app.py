"""The proxy as an ASGI application: the door, the register of live requests, and the drain.

Each HTTP request becomes one `Exchange` and is served by `relay`; what is refused here goes the same
way, so that it is read to its end and recorded like any other.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import structlog
import trio

from .core import headers as fields
from .core.door import key_headers
from .core.endings import Ending
from .core.errors import BadRequest
from .core.failure import Cause, Failure
from .core.pacing import Pacer
from .core.record import Record
from .core.routing import Query
from .core.target import below_root, check_path
from .dialects import recognise
from .downstream import Downstream
from .exchange import Exchange
from .inbox import HeldBytes, KeptBody, StreamedBody, overload, too_large
from .ports import UpstreamRequest
from .relay import relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .core.door import Door
    from .core.headers import Headers
    from .dialects.base import Dialect
    from .downstream import Message, Receive, Scope, Send
    from .exchange import Build, Surroundings

    Close = Callable[[], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN_PATHS = b"/-/"
UPGRADE_REQUIRED = 426
CLOSING = 2.0  # seconds that closing an upstream may take, which is no waiting but for HTTP/2

log = structlog.get_logger("trio_sse_proxy")


class RealWorld:
    """See exchange.Outside."""

    def wall_clock(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def jitter(self) -> float:
        """A random number in [0, 1)."""
        return random.random()


@dataclass(frozen=True, slots=True, eq=False)
class _Leaving:
    """Something that the requests of before a change still use."""

    users: set[str]
    close: Close


class Application:
    """Serves HTTP requests; of lifespan and WebSockets only what they oblige it to.

    `door` gives the rules for one connection, or None where somebody else keeps the door. `admin`
    serves the paths under /-/, given the scope with their own paths.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        door: Callable[[Scope], Door | None],
        admin: ASGIApp,
    ) -> None:
        self.live: dict[str, Exchange] = {}
        self.draining = False
        self.surroundings = surroundings
        self._limits = surroundings.limits
        self._door = door
        self._admin = admin
        self._leaving: list[_Leaving] = []
        self._held = HeldBytes(self._limits.max_held_bytes)
        self._empty = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request, or a WebSocket's opening, which is turned down."""
        if scope["type"] == "websocket":
            await _turn_down(scope, receive, send)
            return
        target = _path(scope)
        if target.startswith(OWN_PATHS):
            own = {**scope, "path": target.decode("latin-1"), "raw_path": target, "root_path": ""}
            door = self._door(scope)
            refused = door.refuses_site(tuple(scope["headers"])) if door is not None else None
            if refused is None:
                await self._admin(own, receive, send)
                return
        x = self._admit(scope, send, target)
        self.live[x.record.id] = x
        try:
            await relay(x, receive)
        except* Exception:
            # The client has been told and the record written; a bug ends its own request only.
            log.exception("a request failed inside the proxy", id=x.record.id)
        finally:
            del self.live[x.record.id]
            self.surroundings.budget.running = len(self.live)
            if not self.live:
                self._empty.set()
                self._empty = trio.Event()
            if self._leaving:
                await self._left(x.record.id)  # noqa: ASYNC102  # shielded, and has a deadline

    def change(self, surroundings: Surroundings, door: Callable[[Scope], Door | None]) -> None:
        """New requests get these from now on; those that run keep what they began with.

        The bodies that these hold are not counted against a new `max_held_bytes`.
        """
        if surroundings.limits.max_held_bytes != self._limits.max_held_bytes:
            self._held = HeldBytes(surroundings.limits.max_held_bytes)
        self.surroundings = surroundings
        self._limits = surroundings.limits
        self._door = door

    async def close_unused(self, close: Close) -> None:
        """Call `close` once all requests that run now are over: at once if none does, else whichever
        ends last does it. Returns without waiting for them."""
        if self.live:
            self._leaving.append(_Leaving(set(self.live), close))
        else:
            await close()

    async def close_all_unused(self) -> None:
        """Do so now, whatever still runs."""
        while self._leaving:
            await self._leaving.pop().close()

    async def _left(self, stream_id: str) -> None:
        for leaving in tuple(self._leaving):
            leaving.users.discard(stream_id)
            if not leaving.users and leaving in self._leaving:
                self._leaving.remove(leaving)
                with trio.move_on_after(CLOSING, shield=True):
                    await leaving.close()

    def open(self) -> None:
        """Take requests."""
        self.draining = False

    def begin_drain(self) -> None:
        """Let what runs finish, refuse what is new."""
        self.draining = True

    async def drained(self) -> None:
        """Wait until nothing runs any more."""
        while self.live:
            await self._empty.wait()

    def end_streams(self) -> None:
        """End what still runs: each client is told, its upstream let go at once."""
        failure = Failure(cause=Cause.SHUTDOWN, message="the proxy is shutting down")
        for x in tuple(self.live.values()):
            x.end(Ending.SHUTDOWN, failure)

    def cancel(self, stream_id: str) -> bool:
        """End one request by an operator's order; False if there is none of that id."""
        x = self.live.get(stream_id)
        if x is None:
            return False
        x.end(Ending.CANCELLED, Failure(cause=Cause.CANCELLED, message="cancelled by an operator"))
        return True

    def _admit(self, scope: Scope, send: Send, path: bytes) -> Exchange:
        headers = fields.lowered(scope["headers"])
        method: str = scope["method"]
        decoded: str = scope["path"]
        dialect = recognise(method, decoded)
        door = self._door(scope)
        refused = self._refuses(door, headers, path)
        if refused is None and dialect is not None:
            refused = self._too_large(headers)
        record = Record(
            id=f"{random.getrandbits(64):016x}",
            method=method,
            path=path.decode("latin-1"),
            began=self.surroundings.outside.wall_clock(),
            dialect=dialect.name if dialect is not None else None,
        )
        pacer = Pacer(self._limits, trio.current_time())
        self.surroundings.observer.began(record)
        self.surroundings.budget.running = len(self.live) + 1
        return Exchange(
            self.surroundings,
            record=record,
            dialect=dialect,
            agent=_agent(headers),
            client=_client(headers),
            coding=(fields.get(headers, b"content-encoding") or b"").decode("latin-1"),
            pacer=pacer,
            downstream=Downstream(scope, send, pacer),
            inbox=self._inbox(dialect, headers, refused),
            build=_builder(scope, method, path, headers, dialect, door),
            refused=refused,
        )

    def _inbox(
        self, dialect: Dialect | None, headers: Headers, refused: Failure | None
    ) -> KeptBody | StreamedBody:
        if refused is not None:
            return KeptBody(0, self._held)  # read, and dropped
        if dialect is None:
            return StreamedBody()
        return KeptBody(self._limits.max_body_bytes, self._held)

    def _refuses(self, door: Door | None, headers: Headers, path: bytes) -> Failure | None:
        try:
            check_path(path)
            _check_framing(headers)
        except BadRequest as error:
            return Failure(cause=Cause.INVALID_REQUEST, message=str(error))
        if door is not None and (failure := door.refuses(headers)) is not None:
            return failure
        if self.draining:
            message = "the proxy is shutting down; ask again elsewhere"
            return Failure(cause=Cause.SHUTDOWN, message=message, status=503, retry_after=1.0)
        if len(self.live) >= self._limits.max_streams:
            return overload("too many streams are running; try again soon")
        return None

    def _too_large(self, headers: Headers) -> Failure | None:
        """What a declared length tells before anything was read."""
        length = fields.get(headers, b"content-length") or b""
        if length.isdigit() and int(length) > self._limits.max_body_bytes:
            return too_large(self._limits.max_body_bytes)
        return None


def _builder(
    scope: Scope,
    method: str,
    path: bytes,
    headers: Headers,
    dialect: Dialect | None,
    door: Door | None,
) -> Build:
    query: bytes = scope.get("query_string") or b""
    bodiless = (
        fields.get(headers, b"content-length") in {None, b"0"}
        and fields.get(headers, b"transfer-encoding") is None
        and (scope["http_version"] != "2" or method in {"GET", "HEAD"})
    )

    def build(body: bytes | StreamedBody, model: str | None) -> tuple[UpstreamRequest, Query]:
        keys = door.client_keys if door is not None else ()
        drop = key_headers(headers, keys) if keys else frozenset[bytes]()
        passed = fields.to_upstream(headers, drop=drop, identity=dialect is not None)
        length = fields.get(headers, b"content-length")
        if isinstance(body, StreamedBody):
            if bodiless:
                body.drop()
            elif length is not None:
                passed = (*passed, (b"content-length", length))
        request = UpstreamRequest(
            method=method,
            target=path + b"?" + query if query else path,
            headers=passed,
            body=b"" if isinstance(body, StreamedBody) and bodiless else body,
        )
        asked = Query(
            model=model,
            dialect=dialect.name if dialect is not None else None,
            path=unquote(path.decode("latin-1")),
            headers=headers,
        )
        return request, asked

    return build


def _path(scope: Scope) -> bytes:
    """The path below the prefix we are mounted under, as the client wrote it."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raw = quote(scope["path"]).encode("ascii")
    return below_root(raw.partition(b"?")[0], scope.get("root_path") or "")


def _check_framing(headers: Headers) -> None:
    if fields.get(headers, b"transfer-encoding") and fields.get(headers, b"content-length"):
        raise BadRequest("a request has either Content-Length or Transfer-Encoding, not both")


def _agent(headers: Headers) -> str:
    agent, originator = fields.get(headers, b"user-agent"), fields.get(headers, b"originator")
    return (b"%b %b" % (agent or b"", originator or b"")).decode("latin-1").lower()


def _client(headers: Headers) -> str:
    """Stands for the client's key, for as long as this process runs; "" for all who have none."""
    key = fields.get(headers, b"authorization") or fields.get(headers, b"x-api-key")
    return f"{hash(key):x}" if key else ""


async def _turn_down(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a WebSocket's opening with 426: agents that try one first then use POST."""
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    start: Message = {
        "type": "websocket.http.response.start",
        "status": UPGRADE_REQUIRED,
        "headers": [(b"content-type", b"text/plain; charset=utf-8")],
    }
    await send(start)
    await send({"type": "websocket.http.response.body", "body": b"Use POST here.\n"})
