"""One request on its way out, while its answer may already be on its way in.

An upstream may answer before it has the whole request: with a refusal, after which nothing more need
be sent, or with the beginning of an answer that depends on what is still to come. Nobody may wait for
the other then, so `Upload.run` goes on beside the reading, stops when it is told to, and goes on
later where it stopped. Nothing is lost by that: what was not sent yet stays here, and only waits that
lose nothing are cut short.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from ..core.errors import BadRequest
from .failures import WriteTimedOut
from .head import LAST_CHUNK, chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from .head import Framed
    from .lines import Line

T = TypeVar("T")

LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds for one read and for one write; None sets no limit, and costs nothing."""

    read: float | None = None
    write: float | None = None


ENDLESS = Patience()


class Upload:
    """A head and its body. `run` until it is `over`; then, whatever happened, `aclose`.

    `complete` is true once all of it went out, `over` also if the connection took no more of it.
    `error` is what reading the body raised, or that the body is not as long as was declared, or that
    writing took too long.

    The body may be an iterable with an attribute `resumable` that is true: a step of its iterator that
    is cancelled loses nothing, so that it can be paused at any time. Others (a cancelled generator is
    at its end) are paused only when they have given their next piece.
    """

    __slots__ = (
        "_body",
        "_iterator",
        "_left",
        "_length",
        "_line",
        "_paused",
        "_read_whole",
        "_rest",
        "_resumable",
        "_waiting",
        "_within",
        "complete",
        "error",
        "over",
    )

    def __init__(
        self,
        line: Line,
        framed: Framed,
        body: bytes | AsyncIterable[bytes],
        patience: Patience,
    ) -> None:
        self.complete = False
        self.over = False
        self.error: Exception | None = None
        self._line = line
        self._within = patience.write
        self._length = self._left = framed.length
        self._rest = memoryview(framed.data)
        self._body: bytes | AsyncIterable[bytes] | None = body
        self._iterator: AsyncIterator[bytes] | None = None
        self._resumable = bool(getattr(body, "resumable", False))
        self._read_whole = False
        self._paused = False
        self._waiting: trio.CancelScope | None = None

    def pause(self) -> None:
        """Let `run` return as soon as it can without losing anything."""
        self._paused = True
        if self._waiting is not None:
            self._waiting.cancel("something has come of the answer")

    def resume(self) -> None:
        """The next `run` shall go on. Not left to `run` itself: a pause may come before it began."""
        self._paused = False

    async def run(self) -> None:
        """Go on until it is `over`, or failed with an `error`, or paused. Raises nothing.

        Cancelled, it can only be closed.
        """
        try:
            while not (self._paused or self.over):
                await self._step()
        except Exception as error:
            self.error = error

    async def abandon(self) -> None:
        """The request has failed: `aclose`, except for a body that could be sent once more."""
        if self._iterator is not None:
            await self.aclose()

    async def aclose(self) -> None:
        """Let go of the body, and tell it that nobody reads on; harmless to repeat."""
        self.over = True
        self._rest = _NOTHING
        body, self._body = self._body, None
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
        aclose = getattr(body, "aclose", None)
        if aclose is not None and body is not iterator:
            await aclose()

    async def _step(self) -> None:
        if self._rest or self._line.has_unsent:
            await self._send()
        elif self._read_whole:
            self.complete = self.over = True
        elif isinstance(self._body, bytes):
            self._take(self._body)
            self._end()
        else:
            await self._fetch()

    async def _send(self) -> None:
        try:
            if self._line.resumable:
                sent = await self._pausable(self._send_some)
            else:
                sent = await self._send_some()
        except trio.TooSlowError as error:
            raise WriteTimedOut(f"nothing written for {self._within} s") from error
        except LOST:
            self.over = True  # whoever reads finds out why, and perhaps finds an answer
            return
        rest = self._rest[sent or 0 :]
        self._rest = rest or _NOTHING  # an empty view would keep all the bytes it was cut from

    async def _send_some(self) -> int:
        return await within(self._within, self._line.send_some(self._rest))

    async def _fetch(self) -> None:
        iterator = self._iterator
        if iterator is None:
            assert self._body is not None, "a closed upload is not run"
            assert not isinstance(self._body, bytes), "bytes are taken at once"
            iterator = self._iterator = aiter(self._body)
        try:
            if self._resumable:
                piece = await self._pausable(iterator.__anext__)
            else:
                piece = await anext(iterator)
        except StopAsyncIteration:
            self._end()
        else:
            self._take(piece or b"")

    def _take(self, piece: bytes) -> None:
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise BadRequest(f"the body is longer than its Content-Length, {self._length}")
        if piece:
            self._rest = memoryview(chunk(piece) if self._left is None else piece)

    def _end(self) -> None:
        self._read_whole = True
        if self._left:
            raise BadRequest(f"the body is {self._left} bytes shorter than its Content-Length")
        if self._left is None:
            self._rest = memoryview(bytes(self._rest) + LAST_CHUNK)

    async def _pausable(self, wait: Callable[[], Awaitable[T]]) -> T | None:
        """What `wait` brings; None if it was cut short by a pause."""
        with trio.CancelScope() as self._waiting:
            return await wait()
        return None


async def within(seconds: float | None, waiting: Awaitable[T]) -> T:
    """Raises trio.TooSlowError."""
    if seconds is None:
        return await waiting
    with trio.fail_after(seconds):
        return await waiting
