"""One HTTP/1.1 connection: a request out, its response in, then perhaps another.

It never sends a request twice. What it raises says how far things went: `reused`, `sent` and
`responded` of `UpstreamError`, so that the caller can tell a connection that died of age from an
upstream that died of the request.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from ..core.errors import BadRequest, Broken, UpstreamError
from .failures import ReadTimedOut, WriteTimedOut
from .head import LAST_CHUNK, Framed, chunk
from .reply import Reply
from .upload import ENDLESS, LOST, Patience, Upload, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from .lines import Line

# Head and body up to this size are joined, so that they leave in one packet or at least one call.
ONE_SEND = 65_536


class Wire:
    """One connection. `exchange`, then `receive` until it says b"", then `exchange` again."""

    __slots__ = (
        "_patience",
        "_reading",
        "_reply",
        "_sent_before",
        "_unsent",
        "_upload",
        "line",
        "requests",
    )

    def __init__(self, line: Line) -> None:
        """Takes over `line`."""
        self.line = line
        self.requests = 0
        self._patience = ENDLESS
        self._reading: trio.CancelScope | None = None  # of the read beside an upload
        self._reply: Reply | None = None
        self._sent_before = 0
        self._unsent = False  # part of the request stayed here
        self._upload: Upload | None = None  # while the rest of it is still to go out

    @property
    def reused(self) -> bool:
        """True if an earlier request was served on this connection."""
        return self.requests > 1

    @property
    def complete(self) -> bool:
        """True once the response was read and received, and the request sent or given up."""
        reply = self._reply
        if reply is None:
            return True
        return reply.complete and not reply.has_body and self._upload is None

    def settle(self) -> bool:
        """Forget the response; True if it was complete and another request may follow."""
        reply, self._reply = self._reply, None
        return reply is not None and reply.reusable and not self._unsent

    def is_alive(self) -> bool:
        """See Poolable. An idle server that says something says goodbye, or is out of step."""
        return self.line.is_quiet()

    def close(self) -> None:
        """Close the connection now, waking whoever waits on it; harmless to repeat.

        In the middle of the request it is a reset: an upstream that is slow to read would otherwise
        find out only after all that the system holds for it, which may be megabytes.
        """
        upload = self._upload
        if self._unsent and (upload is None or not upload.complete):
            self.line.reset()
        else:
            self.line.close()
        if self._reply is not None:
            self._reply.drop()

    async def aclose(self) -> None:
        """Close, and tell whoever feeds the request body that nobody reads on."""
        self.close()
        await self._let_go()

    async def exchange(
        self,
        framed: Framed,
        body: bytes | AsyncIterable[bytes],
        patience: Patience,
    ) -> Reply:
        """Send a request and wait for the head of its final response.

        A head that comes before all of `body` went out is handed out at once; `receive` sends the
        rest. A refusal (300 and above) ends the sending. When nothing more will be read of `body`
        its `aclose` is called, if it has one.

        Raises Broken, Garbled, or BadRequest if `body` is not as long as was declared. What reading
        `body` raises comes out as it is. After any exception the wire is fit only for `close`.
        """
        self.requests += 1
        self._patience = patience
        self._sent_before = self.line.bytes_sent
        self._unsent = True
        self._reply = reply = Reply(to_head=framed.to_head)
        try:
            if isinstance(body, bytes) and len(body) <= ONE_SEND:
                await self._send(_whole(framed, body))
                del framed, body  # the answer may take minutes
                while not reply.started:  # `_read_head`, without a coroutine that waits as long
                    await self._read(reply)
            else:
                self._upload = Upload(self.line, framed, body, patience)
                del framed, body
                await self._meanwhile(self._upload, reply, self._read_head)
        except UpstreamError as error:
            self._note(error, reply)
            raise
        return reply

    async def receive(self) -> bytes:
        """What the next read brings of the body, in one piece; b"" at its end.

        While part of the request is still to be sent it goes out meanwhile, and the end of the
        response is told only after it. Raises Broken or Garbled, or what reading that part raises.
        """
        reply = self._reply
        if reply is None:
            return b""
        try:
            if self._upload is not None:
                await self._receive_and_send(self._upload, reply)
            else:
                # `_read_body`, without a coroutine more for every chunk.
                while not reply.has_body and not reply.complete:
                    reply.check()
                    await self._read(reply)
        except UpstreamError as error:
            self._note(error, reply)
            raise
        return reply.take()

    async def pump(self, take: Callable[[bytes], bytes]) -> bytes:
        """`receive`, for a stream that runs steadily: `take` gets whatever comes of the body.

        As long as that leaves nothing this task need not be woken, so `take` may be called from
        another one. What it leaves comes back from here; b"" is the end of the body.
        """
        # What is received first, of a few frames that have to be looked at, wakes this task sooner.
        while data := await self.receive():
            if left := take(data) or await self._take_each(take):
                return left
        return b""

    async def _take_each(self, take: Callable[[bytes], bytes]) -> bytes:
        """What `take` leaves; b"" where there is something for `receive` to look at."""
        reply, left = self._reply, b""
        if reply is None or not reply.steady:
            return b""
        if self._upload is not None or self._patience.read is not None:
            return b""

        def handle(data: bytes) -> bool:
            nonlocal left
            reply.feed(data)
            if not reply.steady:
                return False  # with what came of the body still in it
            if reply.has_body:
                left = take(reply.take())
            return not left

        try:
            await self.line.each(handle)
        except LOST as error:
            broken = Broken(f"the connection broke: {error}")
            self._note(broken, reply)
            raise broken from error
        except UpstreamError as error:
            self._note(error, reply)
            raise
        return left

    # The request

    async def _send(self, data: bytes) -> None:
        try:
            await within(self._patience.write, self.line.send(data))
        except trio.TooSlowError as error:
            raise WriteTimedOut(f"nothing written for {self._patience.write} s") from error
        except LOST:
            # An upstream that refuses a request early (413, 401) may close before it has read all
            # of it. What it said before it did is worth more than that we could not go on; if it
            # said nothing, reading will tell.
            return
        self._unsent = False

    async def _receive_and_send(self, upload: Upload, reply: Reply) -> None:
        try:
            await self._meanwhile(upload, reply, self._read_body)
            if reply.complete and not reply.has_body and not upload.over:
                # An answer may end before the request does; only a refusal makes the rest useless.
                await self._send_the_rest(upload)
        except BadRequest as error:
            raise Broken(f"the request broke off: {error}") from error

    async def _send_the_rest(self, upload: Upload) -> None:
        try:
            upload.resume()
            await upload.run()
            if upload.error is not None:
                raise upload.error
        finally:
            await self._let_go()  # noqa: ASYNC102  # closing, cancelled, still closes

    async def _meanwhile(
        self, upload: Upload, reply: Reply, read: Callable[[Reply], Awaitable[None]]
    ) -> None:
        """Do `read` while the upload goes on, then pause it, or end it if it is of no more use.

        The reading is never cut short but to be given up, the upload loses nothing by a pause.
        """
        failure: UpstreamError | None = None
        upload.resume()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._go_on, upload)
                try:
                    await read(reply)
                except UpstreamError as error:
                    failure = error
                upload.pause()
                if failure is not None or reply.status >= 300:
                    nursery.cancel_scope.cancel("the upstream wants no more of the request")
            if upload.error is not None:
                raise upload.error
            if failure is not None:
                raise failure
        except BaseException:
            await upload.abandon()  # noqa: ASYNC102  # as above
            raise
        if upload.over or reply.status >= 300:
            await self._let_go()

    async def _go_on(self, upload: Upload) -> None:
        await upload.run()
        reading = self._reading
        if reading is None:
            return
        if upload.error is not None:
            reading.cancel("the request body failed")
        elif upload.over:
            reading.deadline = self._read_deadline(upload)

    async def _let_go(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            self._unsent = not upload.complete
            await upload.aclose()

    # The response

    async def _read_head(self, reply: Reply) -> None:
        while not reply.started:
            await self._read(reply)

    async def _read_body(self, reply: Reply) -> None:
        while not reply.has_body and not reply.complete:
            reply.check()
            await self._read(reply)

    async def _read(self, reply: Reply) -> None:
        try:
            if self._upload is not None:
                data = await self._read_beside(self._upload)
            elif self._patience.read is None:
                data = await self.line.receive()
            else:
                data = await within(self._patience.read, self.line.receive())
        except trio.TooSlowError as error:
            raise ReadTimedOut(f"nothing received for {self._patience.read} s") from error
        except LOST as error:
            raise Broken(f"the connection broke: {error}") from error
        if data:
            reply.feed(data)
        else:
            reply.feed_eof()

    async def _read_beside(self, upload: Upload) -> bytes:
        if upload.error is not None:
            raise Broken("the request body failed")
        with trio.CancelScope(deadline=self._read_deadline(upload)) as self._reading:
            return await self.line.receive()
        raise trio.TooSlowError

    def _read_deadline(self, upload: Upload) -> float:
        """None until the request is out: before, the upstream may have good reason to be silent."""
        if self._patience.read is None or not upload.over:
            return inf
        return trio.current_time() + self._patience.read

    def _note(self, error: UpstreamError, reply: Reply) -> None:
        error.reused = self.reused
        error.sent = self.line.bytes_sent > self._sent_before
        error.responded = reply.touched


def _whole(framed: Framed, body: bytes) -> bytes:
    """Head and body as they go out."""
    if framed.length is None:
        body = chunk(body) + LAST_CHUNK if body else LAST_CHUNK
    return framed.data + body
