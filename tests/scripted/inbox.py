"""The receiving half of a connection: requests, and the moment the client leaves."""

from __future__ import annotations

import time

import trio

from .visit import Left, Visit

MOST = 100_000_000  # bytes; a test that sends more has gone wrong


class Gone(Exception):
    """The client closed the connection."""


class Inbox:
    """Reads all the time, also while an answer is silent, so that leaving is noticed at once."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._arrival = trio.Event()
        self.left: Left | None = None
        self.left_at = 0.0
        self.was_reset = False
        self.busy = trio.CancelScope()

    async def read(self) -> None:
        """Until the client leaves; then cancels `busy`."""
        try:
            while data := await self._stream.receive_some(65536):
                self._buffer += data
                assert len(self._buffer) < MOST
                self._ring()
            await self._leave(Left.FIN)
        except trio.BrokenResourceError:
            await self._leave(Left.RESET)
        except trio.ClosedResourceError:
            return  # the script closed it

    async def _leave(self, how: Left) -> None:
        self.left_at = time.monotonic()
        # A write that met the reset has used up the error, and we saw a mere end; trio tells the
        # writer one tick later, in an order of its own.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        self.left = Left.RESET if self.was_reset else how
        self.busy.cancel()
        self._ring()

    async def next_request(self) -> Visit:
        """Raises Gone when the connection ends before a whole request came."""
        head = (await self._until(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower().strip(): value.strip() for name, _, value in pairs}
        if headers.get("expect") == "100-continue":
            await self._stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(headers)
        return Visit(method, target, headers, body, time.monotonic())

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._exactly(int(headers.get("content-length", "0")))
        body = bytearray()
        while size := int((await self._until(b"\r\n")).partition(b";")[0], 16):
            body += (await self._exactly(size + 2))[:-2]
        while (await self._until(b"\r\n")).strip():
            pass
        return bytes(body)

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            await self._more()
        return self._take(at + len(mark))

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> None:
        if self.left is not None:
            raise Gone
        await self._arrival.wait()

    def _ring(self) -> None:
        self._arrival.set()
        self._arrival = trio.Event()
