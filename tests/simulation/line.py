"""Connections of clients, as the server sees them: what takes the place of `trio_sse_proxy.wire.Wire`.

Here a client speaks HTTP itself (`http1`, `http2`): it sends requests, one or several at once, reads the
answers byte by byte, and may leave by FIN or RST in the middle of a status line or of a frame.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from h2.exceptions import ProtocolError

from .client import Request

if TYPE_CHECKING:
    from .history import Person


RUBBISH = (AssertionError, ValueError, KeyError, ProtocolError)


class Line:
    """One connection, and the requests on it. What it says, and reads, is its protocol's business."""

    tls = False

    def __init__(self, person: Person, stall: float, log) -> None:
        """`stall`: after so many seconds its server gives up a write by itself."""
        self.person = person
        self.began = trio.current_time()
        self.requests = [Request(person, log) for _ in range(1 + person.behind)]
        self._log = log
        self._stall = stall
        self._room = person.leaves_after
        self._news = trio.Event()
        self._gone = self._closed = False
        self._waiting_since: float | None = None
        self._lock = trio.Lock()

    # What its protocol does.

    def request_of(self, connection) -> Request:
        """The request that the application has just been called for."""
        raise NotImplementedError

    async def receive(self) -> bytes:
        """As on `trio_sse_proxy.wire.Wire`."""
        raise NotImplementedError

    def receive_now(self) -> bytes:
        """As on `trio_sse_proxy.wire.Wire`."""
        raise NotImplementedError

    def read(self, data: bytes) -> None:
        """Read what the server has sent. Rubbish raises."""
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """All is answered, as far as anything will be."""
        raise NotImplementedError

    # What the client does.

    async def live(self) -> None:
        """Leave when that is due, or when all is answered; return when the connection is over."""
        with trio.move_on_at(self.leaves_at):
            while not (self.is_gone() or self.complete):
                await self._news.wait()
        self.leave()

    @property
    def leaves_at(self) -> float:
        return self.began + self.person.leaves_at

    async def closing(self) -> None:
        """Return when the server has closed it."""
        while not self._closed:
            await self._news.wait()

    def leave(self) -> None:
        if not self.is_gone():
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
            self.read(read)
        except RUBBISH as rubbish:
            self.requests[0].faults.append(f"R6: c{self.person.number} got rubbish: {rubbish!r}")
        if len(read) < len(data) or not self._room:
            self.leave()
        elif self.complete:
            self._tell()

    @property
    def slow(self) -> float:
        """Seconds that a write takes."""
        return self.person.slow

    @property
    def stuck_until(self) -> float:
        """From now on nothing is read till then; -inf if it is."""
        begin = self.began + self.person.stuck_from
        end = begin + self.person.stuck_for
        return end if begin <= trio.current_time() < end else -inf

    # What the server does, as on `trio_sse_proxy.wire.Wire`.

    def addresses(self):
        return ("192.0.2.1", 40_000 + self.person.number), ("192.0.2.2", 80)

    async def shake_hands(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, data: bytes) -> bool:
        with trio.CancelScope(shield=True):
            if not (self.slow or self.stuck_until > -inf or self._lock.locked()):
                self._swallow(data)
            else:
                async with self._lock:
                    await self._send_patiently(data)
        return not (self._closed or (self._gone and self.person.reset))

    async def _send_patiently(self, data: bytes) -> None:
        self._waiting_since = trio.current_time()
        if self.stuck_until > -inf:
            for request in self.requests:
                request.get_stuck()
            until, given_up_at = self.stuck_until, trio.current_time() + self._stall
            with trio.move_on_at(min(until, given_up_at)):
                while not (self._gone or self._closed):
                    await self._news.wait()
            if trio.current_time() >= given_up_at:
                self.reset()
        elif self.slow:
            await trio.sleep(self.slow)
        self._waiting_since = None
        if not self._closed:
            self._swallow(data)

    def send_now(self, data: bytes) -> int:
        if not self.person.quick or self.slow or self.stuck_until > -inf:
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
