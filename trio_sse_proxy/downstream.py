"""The client's side of one request, over ASGI.

Two tasks write to the client: the one that relays the upstream, and the one that keeps it company
meanwhile. Whoever writes has the word until its write has ended; a heartbeat finds out beforehand
(`claim`) and is left out if somebody is talking anyway, frames wait their turn. That takes a flag, not
a lock: a `trio.Lock` costs two task switches a write, and there are never more than these two.

Writing to a client that left raises nothing under most ASGI servers; only `receive` tells. The
standard allows an OSError all the same, and what some servers raise becomes ClientGone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from .core.errors import ClientGone
from .wire import CONNECTION, ClientConnection, Written

if TYPE_CHECKING:
    from .core.headers import Headers
    from .core.pacing import Pacer

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def _nowhere(_: Message) -> None:
    """Nobody is there."""


class Downstream:
    """Writes one response. `pacer` is kept informed of every write."""

    def __init__(self, scope: Scope, send: Send, pacer: Pacer) -> None:
        self._send = send
        self._pacer = pacer
        state: dict[str, Any] = scope.get("state") or {}
        self._connection: ClientConnection | None = state.get(CONNECTION)
        self._turn: trio.Event | None = None
        self._waiting = 0  # for the word
        self.writing = False
        self.aborted = False
        """True once a write was given up: what it carried may not have arrived."""
        self.status: int | None = None
        """The status that was sent; None before the commit."""
        self.ending = False
        """True once the body's end is being sent: a client that leaves now leaves no earlier."""
        self.ended = False
        """True once the body's end was sent."""
        self.discarding = False
        """True once the client has left, and what is written goes nowhere."""

    def claim(self) -> bool:
        """Take the word now, for a write that follows; False if somebody has it."""
        if self.writing:
            return False
        self.writing = True
        self._pacer.writing_since = trio.current_time()
        return True

    async def take_turn(self) -> None:
        """Take the word, after whoever has it."""
        self._waiting += 1
        try:
            while not self.claim():
                await self.silence()
        finally:
            self._waiting -= 1

    @property
    def awaited(self) -> bool:
        """True if somebody waits for the word; also when it was yielded, and he is yet to run."""
        return self._waiting > 0

    async def silence(self) -> None:
        """Wait until the write under way has ended."""
        if self.writing:
            if self._turn is None:
                self._turn = trio.Event()
            await self._turn.wait()

    def yield_turn(self) -> None:
        """Let others write."""
        self.writing = False
        self._pacer.writing_since = inf
        self._pacer.wrote_at = trio.current_time()
        if self._turn is not None:
            self._turn.set()
            self._turn = None

    async def send_start(self, status: int, headers: Headers, *, followed: bool = False) -> None:
        """Send status and headers. The caller has the word; `followed` if it goes on to write more.

        Wholly or not at all, whatever is cancelled meanwhile: who comes after must know which.
        """
        begun = (
            self._connection is not None
            and not self.discarding
            and self._connection.begin_now(status, headers, followed=followed)
        )
        if not begun:
            with trio.CancelScope(shield=True):
                await self._tell(
                    {"type": "http.response.start", "status": status, "headers": list(headers)}
                )
        self.status = status
        self._pacer.committed = True

    async def send_body(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of the body, and its end if it is the last. The caller has the word."""
        self.ending = last
        await self._tell({"type": "http.response.body", "body": data, "more_body": not last})
        if last and not self.discarding and self._left_early():
            raise ClientGone("before it had the end")
        self.ended = last

    def _left_early(self) -> bool:
        return self._connection is not None and self._connection.left_early()

    async def _tell(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise ClientGone(str(error)) from error

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, in turn. The hot path: no layer between it and the server."""
        if not self.claim():
            await self.take_turn()
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError as error:
            raise ClientGone(str(error)) from error
        finally:
            self.yield_turn()

    def write_now(self, data: bytes) -> Written:
        """Send a piece of the body if nobody has the word, and without waiting."""
        if self.writing or self._connection is None or self.discarding:
            return Written.NOTHING
        return self._connection.write_now(data)

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body and its end, in turn."""
        await self.take_turn()
        try:
            await self.send_body(data, last=True)
        finally:
            self.yield_turn()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response at once, in turn."""
        await self.take_turn()
        try:
            await self.send_start(status, headers)
            await self.send_body(body, last=True)
        finally:
            self.yield_turn()

    def discard(self) -> None:
        """Write nothing from now on: the client has left, and what would be said is of no use."""
        self.discarding = True
        self._send = _nowhere

    @property
    def has_end(self) -> bool:
        """True if the body's end was sent, or waits to be taken: nothing can be said behind it."""
        return self.ended or (self._connection is not None and self._connection.has_end())

    def progressed_at(self) -> float:
        """When the client last took bytes, as far as the server can tell; -inf if it cannot."""
        return self._connection.progressed_at() if self._connection is not None else -inf

    def is_gone(self) -> bool:
        """True if the client has left, though nobody reads `receive`; False where no server tells."""
        return self._connection is not None and self._connection.is_gone()

    def abort(self) -> None:
        """Wake a write that is stuck, where the server lets us."""
        if self.writing:
            self.aborted = True
            if self._connection is not None:
                self._connection.abort()
