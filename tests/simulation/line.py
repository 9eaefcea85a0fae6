"""Connections of clients, as the server sees them: what takes the place of `trio_sse_proxy.wire.Wire`.

Here a client speaks HTTP/1.1 itself: it sends requests, one or several at once, reads the answers byte
by byte, and may leave by FIN or RST in the middle of a status line or of the length of a chunk.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from .client import Request
from .words import PATHS

if TYPE_CHECKING:
    from .history import Person


class Line:
    """One connection, and the requests on it."""

    tls = False

    def __init__(self, person: Person, stall: float, log) -> None:
        """`stall`: after so many seconds its server gives up a write by itself."""
        self.person = person
        self.began = trio.current_time()
        self.requests = [Request(person, log) for _ in range(1 + person.behind)]
        for request in self.requests[1:]:
            request.first = False
        self._log = log
        self._stall = stall
        self._uncalled = list(self.requests)
        self._upload = [piece for request in self.requests for piece in _uploads(request)]
        self._answers = Answers(self.requests)
        self._room = person.leaves_after
        self._news = trio.Event()
        self._gone = self._closed = False
        self._waiting_since: float | None = None
        self._lock = trio.Lock()

    # What the clients do.

    async def live(self) -> None:
        """Leave when that is due, or when all is answered; return when the connection is over."""
        with trio.move_on_at(self.began + self.person.leaves_at):
            while not (self._gone or self._closed or self._answers.complete):
                await self._news.wait()
        self._leave()

    async def closing(self) -> None:
        """Return when the server has closed it."""
        while not self._closed:
            await self._news.wait()

    def _leave(self) -> None:
        if not (self._gone or self._closed):
            self._gone = True
            for request in self.requests:
                if not request.ended and request.patient:
                    request.leave()
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _swallow(self, data: bytes) -> None:
        if self._gone:
            return
        read = data if len(data) < self._room else data[: int(self._room)]
        self._room -= len(read)
        try:
            self._answers.feed(read)
        except (AssertionError, ValueError, KeyError) as rubbish:
            self.requests[0].faults.append(f"R6: c{self.person.number} got rubbish: {rubbish!r}")
        if len(read) < len(data) or not self._room:
            self._leave()
        elif self._answers.complete:
            self._tell()

    @property
    def _stuck_until(self) -> float:
        """-inf if it reads."""
        begin = self.began + self.person.stuck_from
        end = begin + self.person.stuck_for
        return end if begin <= trio.current_time() < end else -inf

    def next_call(self) -> Request:
        """The request that the application has just been called for."""
        return self._uncalled.pop(0)

    # What the server does, as on `trio_sse_proxy.wire.Wire`.

    def addresses(self):
        return ("192.0.2.1", 40_000 + self.person.number), ("192.0.2.2", 80)

    async def shake_hands(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._upload and not (self._gone or self._closed):
            wait = self._upload[0][0]
            if wait:
                with trio.move_on_after(wait):
                    while not (self._gone or self._closed):
                        await self._news.wait()
            if not (self._gone or self._closed):
                return self._upload_next()
        while not (self._gone or self._closed):
            await self._news.wait()
        return b""

    def receive_now(self) -> bytes:
        if not self.person.quick or self._gone or self._closed:
            return b""
        return self._upload_next() if self._upload and not self._upload[0][0] else b""

    def _upload_next(self) -> bytes:
        _, piece, whole = self._upload.pop(0)
        if whole is not None:
            whole.uploaded_at = trio.current_time()
        return piece

    async def send(self, data: bytes) -> bool:
        with trio.CancelScope(shield=True):
            if not (self.person.slow or self._stuck_until > -inf or self._lock.locked()):
                self._swallow(data)
            else:
                async with self._lock:
                    await self._send_patiently(data)
        return not (self._closed or (self._gone and self.person.reset))

    async def _send_patiently(self, data: bytes) -> None:
        self._waiting_since = trio.current_time()
        if self._stuck_until > -inf:
            for request in self.requests:
                request.stuck = True
            until, given_up_at = self._stuck_until, trio.current_time() + self._stall
            with trio.move_on_at(min(until, given_up_at)):
                while not (self._gone or self._closed):
                    await self._news.wait()
            if trio.current_time() >= given_up_at:
                self.reset()
        elif self.person.slow:
            await trio.sleep(self.person.slow)
        self._waiting_since = None
        if not self._closed:
            self._swallow(data)

    def send_now(self, data: bytes) -> int:
        if not self.person.quick or self.person.slow or self._stuck_until > -inf:
            return 0
        if self._closed or self._gone or self._lock.locked():
            return 0
        size = 3 if len(data) % 5 == 0 else len(data)
        self._swallow(data[:size])
        return size

    def progressed_at(self) -> float:
        return trio.current_time() if self._waiting_since is None else self._waiting_since

    def stuck_for(self) -> float:
        return trio.current_time() - self.progressed_at()

    def is_gone(self) -> bool:
        return self._gone or self._closed

    def finish(self) -> None:
        """The server says that it will write no more."""

    def close(self) -> None:
        self._closed = True
        self._tell()

    def reset(self) -> None:
        if not (self._closed or self._gone):
            for request in self.requests:
                if not request.ended:
                    request.cut_off()
        self.close()


def _uploads(request: Request):
    """(seconds before it, the piece, the request if that is the last of it)."""
    path = PATHS[request.person.dialect]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: proxy.test\r\nContent-Type: application/json\r\n"
        f"User-Agent: {request.person.agent or 'nobody'}\r\n"
        f"Content-Length: {len(request.body_sent)}\r\n\r\n"
    ).encode()
    pieces = request.upload()
    for number, (wait, piece) in enumerate(pieces):
        last = request if number == len(pieces) - 1 else None
        yield wait, (head if number == 0 else b"") + piece, last


class Answers:
    """Reads the answers of one connection, and gives each request its own. Strict: rubbish raises."""

    def __init__(self, requests: list[Request]) -> None:
        self._requests = list(requests)
        self._buffer = b""
        self._left: int | None = None
        """Bytes of the body, or of the chunk; None before its size is known."""
        self._chunked = False

    @property
    def complete(self) -> bool:
        return not self._requests

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer and self._step():
            pass

    def _step(self) -> bool:
        """Take something off; False if that takes more bytes."""
        if not self._requests:
            raise AssertionError(f"behind the last answer: {self._buffer!r}")
        request = self._requests[0]
        if request.status is None:
            return self._read_head(request)
        if self._left is None:
            return self._read_size(request)
        taken, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(taken)
        # The CRLF behind a chunk is counted to it here, and is no part of the body.
        behind = max(0, 2 - self._left) if self._chunked else 0
        request.take(taken[: max(0, len(taken) - behind)])
        if self._left == 0:
            self._left = None
            if not self._chunked:
                self._end(request)
        return True

    def _read_head(self, request: Request) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        self._buffer = rest
        first, *lines = head.split(b"\r\n")
        version, status, *_ = first.split(b" ")
        assert version == b"HTTP/1.1", first
        fields = [line.split(b": ", 1) for line in lines]
        headers = [(name.lower(), value) for name, value in fields]
        request.start(int(status), headers)
        self._chunked = (b"transfer-encoding", b"chunked") in headers
        if not self._chunked:
            self._left = int(request.headers[b"content-length"])
            if self._left == 0:
                self._left = None
                self._end(request)
        return True

    def _read_size(self, request: Request) -> bool:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        size = int(line, 16)
        if size:
            self._buffer, self._left = rest, size + 2
            return True
        if len(rest) < 2:
            return False
        assert rest[:2] == b"\r\n", rest
        self._buffer = rest[2:]
        self._end(request)
        return True

    def _end(self, request: Request) -> None:
        self._requests.pop(0)
        request.end()
