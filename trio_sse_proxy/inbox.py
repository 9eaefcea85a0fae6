"""The request body on its way in: kept whole for another attempt, or streamed through.

A body that is kept is read before anything else is done, one that is streamed by the disconnect
watcher: the same `receive` brings the body and, later, the news that the client has left.
"""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from .core.failure import Cause, Failure, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

AT_ONCE = 2**20
"""Bytes that are looked into without asking who else does: it takes 3 ms at the most."""


def overload(message: str, retry_after: float = 1.0) -> Failure:
    """We have too much to do just now: 503, and come back in `retry_after` seconds."""
    return Failure(cause=Cause.OVERLOADED, message=message, status=503, retry_after=retry_after)


def too_large(limit: int) -> Failure:
    """The request body is over `limit` bytes: 413."""
    return Failure(cause=Cause.TOO_LARGE, message=f"the request body is larger than {limit} bytes")


def too_slow() -> Failure:
    """The request body does not come on: 408."""
    message = "the request body came too slowly (see body_timeout)"
    return Failure(cause=Cause.INVALID_REQUEST, message=message, status=408)


class HeldBytes:
    """How much all kept request bodies together take up, and may."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0
        self.looking = trio.Lock()
        """Held by whoever looks into a large one."""

    def take(self, size: int) -> bool:
        """Account for `size` more bytes; False, and nothing changes, if there is no room."""
        if self._limit and self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        """Those bytes are free again."""
        self.used -= size


class Latch:
    """An event that happens once, and is a `trio.Event` (270 bytes) only while somebody waits for it."""

    __slots__ = ("_event", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._event: trio.Event | None = None

    def set(self) -> None:
        """It has happened; harmless to repeat."""
        self.is_set = True
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Return once it has happened: at once, without a checkpoint, if it has by now."""
        if self.is_set:
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class Inbox(Protocol):
    """Where the body is put."""

    blocked: bool
    """True while the watcher waits in `feed`, and so cannot see the client leave."""

    arrived: Latch
    """Set once the whole body was read from the client."""

    async def feed(self, piece: bytes) -> None:
        """The next piece. Never raises; what nobody wants any more is dropped."""
        ...

    def close(self) -> None:
        """That was the last piece."""
        ...


class KeptBody:
    """A body kept until the first output, so that another attempt can send it again.

    Two pieces and more are put together as they come. Joined at the end they would take up twice their
    size for that moment, and many small blocks do not go back to the system once they are free: bodies
    within `max_held_bytes` came to twice that. A buffer that grows is moved by the kernel, not copied.
    """

    __slots__ = (
        "_body",
        "_grown",
        "_held",
        "_limit",
        "_problem",
        "_size",
        "arrived",
        "blocked",
    )

    def __init__(self, limit: int, held: HeldBytes) -> None:
        self.arrived = Latch()
        self.blocked = False
        self._limit = limit
        self._held = held
        self._body: bytes | BytesIO = b""
        self._size = 0
        self._grown = 0
        self._problem: Failure | None = None

    async def feed(self, piece: bytes) -> None:
        """Keep `piece`, or nothing from now on if it is too much."""
        if self._problem is not None:
            return
        if self._size + len(piece) > self._limit:
            self._refuse(too_large(self._limit))
        elif not self._held.take(len(piece)):
            message = "too many request bodies are waiting; try again soon"
            self._refuse(overload(message))
        else:
            self._size += len(piece)
            self._put(piece)

    def close(self) -> None:
        """The body is complete."""
        self.arrived.set()

    @property
    def decided(self) -> bool:
        """True once the body is complete, or known to be too much."""
        return self.arrived.is_set or self._problem is not None

    def whole(self) -> bytes:
        """The body, once that is decided. Raises Refused if it is too much."""
        if self._problem is not None:
            raise Refused(self._problem)
        # Of a buffer nobody else has, `getvalue` hands out the bytes themselves, cut to their size.
        body = self._body.getvalue() if isinstance(self._body, BytesIO) else self._body
        self._body = b""
        return body

    async def look_into(self, body: bytes, look: Callable[[bytes], T]) -> T:
        """What `look` makes of the body, decoded by now; of a large one when it is its turn.

        To read 64 MiB takes 20 ms, of JSON that is nothing but brackets or blanks up to 200, in one
        step. Several that arrive together would take that one after another, before anybody else.
        """
        if len(body) <= AT_ONCE:
            return look(body)
        async with self._held.looking:
            await trio.lowlevel.checkpoint()
            return look(body)

    def grow(self, size: int) -> bool:
        """As long as it is kept, so is a copy of `size` bytes; False if there is no room.

        Attempts have theirs one after another: the largest counts.
        """
        more = max(0, size - self._grown)
        if not self._held.take(more):
            return False
        self._grown += more
        self._size += more
        return True

    def drop(self) -> None:
        """It will not be needed any more; harmless to repeat."""
        self._body = b""
        self._held.give_back(self._size)
        self._size = self._grown = 0

    def _put(self, piece: bytes) -> None:
        if not piece:
            return  # the end of a body may be a message of its own
        if isinstance(self._body, BytesIO):
            self._body.write(piece)
        elif self._body:
            first, self._body = self._body, BytesIO()
            self._body.write(first)
            self._body.write(piece)
        else:
            self._body = piece

    def _refuse(self, problem: Failure) -> None:
        self._problem = problem
        self.drop()


def _nothing() -> None:
    pass


class StreamedBody:
    """A body that goes on as it comes, with the upstream's own pace pushing back on the client."""

    def __init__(self) -> None:
        self.arrived = Latch()
        self._send, self._receive = trio.open_memory_channel[bytes](0)
        self.touched = False
        """True once somebody began to read it: it cannot be sent a second time then."""
        self.blocked = False
        """True while a piece waits for the upstream: nobody reads `receive` then."""
        self.on_block: Callable[[], None] = _nothing
        """Called when that begins."""

    async def feed(self, piece: bytes) -> None:
        """Hand `piece` on; a cancellation loses it."""
        if not piece:
            return
        with suppress(trio.BrokenResourceError):  # it has answered without reading to the end
            try:
                self._send.send_nowait(piece)
            except trio.WouldBlock:
                self.blocked = True
                self.on_block()
                await self._send.send(piece)
                self.blocked = False

    def close(self) -> None:
        """The body is complete."""
        self.arrived.set()
        self._send.close()

    def drop(self) -> None:
        """Nobody will read on: the watcher must not wait for that."""
        self._receive.close()

    async def aclose(self) -> None:
        """The same, for whoever reads it; see ports.UpstreamRequest. Does not wait."""
        self.drop()

    # An iterator and no generator: one that is left half-way would be closed by the garbage
    # collector, some time later, and one whose step is cancelled is at its end.

    def __aiter__(self) -> StreamedBody:
        self.touched = True
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
