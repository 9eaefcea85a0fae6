"""A client's connection over HTTP/1.1."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import trio

from .line import Line
from .words import PATHS

if TYPE_CHECKING:
    from .client import Request
    from .history import Person


class Http1Line(Line):
    """Its requests go out one behind the other, without waiting for answers."""

    def __init__(self, person: Person, stall: float, log) -> None:
        super().__init__(person, stall, log)
        for one, behind in pairwise(self.requests):
            behind.behind = one
        self._uncalled = list(self.requests)
        self._upload = [piece for request in self.requests for piece in _uploads(request)]
        self._coming = b""
        """What it has sent, and nobody has read."""
        self._wholes: list[tuple[int, Request | None]] = []
        """Where in that a request ends, and which."""
        self._answers = Answers(self.requests)

    def request_of(self, _) -> Request:
        return self._uncalled.pop(0)

    def read(self, data: bytes) -> None:
        self._answers.feed(data)

    @property
    def complete(self) -> bool:
        return self._answers.complete

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._coming and self._upload and not self.is_gone():
            await self._pass(self._upload[0][0])
            self._send()
        while not (self._coming or self.is_gone()):
            await self._news.wait()
        return self._arrive()

    def receive_now(self) -> bytes:
        if self.person.quick and not self._coming and self._upload and not self._upload[0][0]:
            self._send()
        return self._arrive() if self.person.quick else b""

    async def _pass(self, seconds: float) -> None:
        """Wait, but no longer than anybody is there."""
        with trio.move_on_after(seconds):
            while not self.is_gone():
                await self._news.wait()

    def _send(self) -> None:
        """The next piece; and in one go with it whatever follows without a pause, if it is `quick`."""
        if self.is_gone():
            return
        while self._upload:
            _, piece, whole = self._upload.pop(0)
            self._coming += piece
            self._wholes.append((len(self._coming), whole))
            if not self.person.quick or (self._upload and self._upload[0][0]):
                break

    def _arrive(self) -> bytes:
        """What one read brings of it."""
        if self.is_gone():
            return b""
        size = min(self.person.grain or len(self._coming), len(self._coming))
        data, self._coming = self._coming[:size], self._coming[size:]
        self._wholes = [(end - size, whole) for end, whole in self._wholes]
        while self._wholes and self._wholes[0][0] <= 0:
            _, whole = self._wholes.pop(0)
            if whole is not None:
                whole.uploaded_at = trio.current_time()
        return data


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
