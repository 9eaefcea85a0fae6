"""One HTTP/1.1 connection: a request out, its response in, then perhaps another.

It never sends a request twice. What it raises says how far things went: `reused`, `sent` and
`responded` of `UpstreamError`, so that the caller can tell a connection that died of age from an
upstream that died of the request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from ..core.errors import BadRequest, Broken, UpstreamError
from .failures import ReadTimedOut, WriteTimedOut
from .head import LAST_CHUNK, Framed, chunk
from .reply import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable

    from .lines import Line

T = TypeVar("T")

# Head and body up to this size are joined, so that they leave in one packet or at least one call.
ONE_SEND = 65_536

_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds for one read and for one write; None sets no limit, and costs nothing."""

    read: float | None = None
    write: float | None = None


class _WriteFailed(Broken):
    """Sending failed: reading will tell how things stand."""


class _Upload:
    """Facts about a request body that is sent while the answer is awaited."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None


class Wire:
    """One connection. `exchange`, then `receive` until it says b"", then `exchange` again."""

    __slots__ = ("_patience", "_reply", "_sent_before", "_unsent", "line", "requests")

    def __init__(self, line: Line) -> None:
        """Takes over `line`."""
        self.line = line
        self.requests = 0
        self._patience = Patience()
        self._reply: Reply | None = None
        self._sent_before = 0
        self._unsent = False  # part of the request body stayed here

    @property
    def reused(self) -> bool:
        """True if an earlier request was served on this connection."""
        return self.requests > 1

    @property
    def complete(self) -> bool:
        """True once every byte of the response was read and received."""
        return self._reply is None or (self._reply.complete and not self._reply.has_body)

    def settle(self) -> bool:
        """Forget the response; True if it was complete and another request may follow."""
        reply, self._reply = self._reply, None
        return reply is not None and reply.reusable and not self._unsent

    def is_alive(self) -> bool:
        """See Poolable. An idle server that says something says goodbye, or is out of step."""
        return self.line.is_quiet()

    def close(self) -> None:
        """Close the connection now, waking whoever waits on it; harmless to repeat."""
        self.line.close()
        if self._reply is not None:
            self._reply.drop()

    async def exchange(
        self,
        framed: Framed,
        body: bytes | AsyncIterable[bytes],
        patience: Patience,
    ) -> Reply:
        """Send a request and wait for the head of its final response.

        Raises Broken, Garbled, or BadRequest if `body` is not as long as was declared. What reading
        `body` raises comes out as it is. After any exception the wire is fit only for `close`.
        """
        self.requests += 1
        self._patience = patience
        self._sent_before = self.line.bytes_sent
        self._unsent = True
        self._reply = reply = Reply(to_head=framed.to_head)
        try:
            if isinstance(body, bytes):
                await self._exchange_whole(framed, body, reply)
            else:
                await self._exchange_streamed(framed, body, reply)
        except UpstreamError as error:
            self._note(error, reply)
            raise
        return reply

    async def receive(self) -> bytes:
        """What the next read brings of the body, in one piece; b"" at its end.

        Raises Broken or Garbled.
        """
        reply = self._reply
        if reply is None:
            return b""
        try:
            while not reply.has_body and not reply.complete:
                reply.check()
                await self._read(reply)
        except UpstreamError as error:
            self._note(error, reply)
            raise
        return reply.take()

    # The request

    async def _exchange_whole(self, framed: Framed, body: bytes, reply: Reply) -> None:
        try:
            await self._send_whole(framed, body)
        except _WriteFailed:
            # An upstream that refuses a request early (413, 401) may close before it has read all
            # of it. What it said before it did is worth more than that we could not go on.
            await self._read_head(reply)
            return
        self._unsent = False
        await self._read_head(reply)

    async def _send_whole(self, framed: Framed, body: bytes) -> None:
        if framed.length is None:
            body = chunk(body) + LAST_CHUNK if body else LAST_CHUNK
        if len(body) <= ONE_SEND:
            await self._send(framed.data + body)
        else:
            await self._send(framed.data)
            await self._send(body)

    async def _exchange_streamed(
        self, framed: Framed, pieces: AsyncIterable[bytes], reply: Reply
    ) -> None:
        """Send the body in a task of its own, so that an early refusal is noticed.

        An early response that is no refusal does not stop the upload: it is handed out after it.
        """
        upload = _Upload()
        failure: UpstreamError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._upload, framed, pieces, upload, nursery.cancel_scope)
            try:
                await self._read_head(reply)
            except UpstreamError as error:
                failure = error
            if failure is not None or reply.status >= 300:
                nursery.cancel_scope.cancel("the upstream has answered before the end of the body")
        if upload.error is not None:
            raise upload.error
        if failure is not None:
            raise failure
        self._unsent = not upload.done

    async def _upload(
        self,
        framed: Framed,
        pieces: AsyncIterable[bytes],
        upload: _Upload,
        scope: trio.CancelScope,
    ) -> None:
        try:
            await self._send(framed.data)
            await self._send_pieces(framed.length, pieces)
            upload.done = True
        except _WriteFailed:
            return  # the reader finds out, and perhaps finds an answer
        except Exception as error:
            upload.error = error
        if upload.error is not None:
            scope.cancel("the request body failed")

    async def _send_pieces(self, length: int | None, pieces: AsyncIterable[bytes]) -> None:
        iterator = aiter(pieces)
        left = length
        try:
            async for piece in iterator:
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise BadRequest(f"the body is longer than its Content-Length, {length}")
                if piece:
                    await self._send(chunk(piece) if left is None else piece)
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
        if left:
            raise BadRequest(f"the body is {left} bytes shorter than its Content-Length")
        if left is None:
            await self._send(LAST_CHUNK)

    async def _send(self, data: bytes) -> None:
        try:
            await _within(self._patience.write, self.line.send(data))
        except trio.TooSlowError as error:
            raise WriteTimedOut(f"nothing written for {self._patience.write} s") from error
        except _LOST as error:
            raise _WriteFailed(
                f"the connection broke while the request was sent: {error}"
            ) from error

    # The response

    async def _read_head(self, reply: Reply) -> None:
        while not reply.started:
            await self._read(reply)

    async def _read(self, reply: Reply) -> None:
        try:
            if self._patience.read is None:
                data = await self.line.receive()
            else:
                data = await _within(self._patience.read, self.line.receive())
        except trio.TooSlowError as error:
            raise ReadTimedOut(f"nothing received for {self._patience.read} s") from error
        except _LOST as error:
            raise Broken(f"the connection broke: {error}") from error
        if data:
            reply.feed(data)
        else:
            reply.feed_eof()

    def _note(self, error: UpstreamError, reply: Reply) -> None:
        error.reused = self.reused
        error.sent = self.line.bytes_sent > self._sent_before
        error.responded = reply.touched


async def _within(seconds: float | None, waiting: Awaitable[T]) -> T:
    if seconds is None:
        return await waiting
    with trio.fail_after(seconds):
        return await waiting
