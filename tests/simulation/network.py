"""Connections in memory that behave like bad ones: slow, in tiny pieces, with shut windows, reset."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import cycle
from math import inf

import trio


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How a network is. Seconds and bytes; `grains` are the most that one read after another brings."""

    delay: float = 0.0
    grains: tuple[int, ...] = (65536,)
    window: int = 65536
    jam: float = 0.0
    """For so long nothing is taken from the writer each time its window has filled."""


class Pipe:
    """One direction. Bytes arrive `delay` after they were sent, in order."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._grains = cycle(weather.grains)
        self.size = 0
        """How many bytes are on their way."""
        self._changed: trio.Event | None = None
        self._jammed_until = -inf
        self.over = False
        """Nothing more will be written."""
        self.broken = False
        """Reset, or the reader is gone."""

    def change(self, **how: bool) -> None:
        for name, value in how.items():
            setattr(self, name, value)
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for at in range(0, len(data), self._weather.window):
            await self._send_piece(data[at : at + self._weather.window])

    async def _send_piece(self, data: bytes) -> None:
        if self.size and self.size + len(data) > self._weather.window and self._weather.jam:
            self._jammed_until = trio.current_time() + self._weather.jam
        while not self.broken and not self.over and not self._has_room(len(data)):
            await self._wait_until(self._jammed_until)
        if self.broken:
            raise trio.BrokenResourceError("connection reset")
        if self.over:
            raise trio.ClosedResourceError
        self._chunks.append((trio.current_time() + self._weather.delay, data))
        self.size += len(data)
        self.change()

    def _has_room(self, size: int) -> bool:
        fits = not self.size or self.size + size <= self._weather.window
        return fits and trio.current_time() >= self._jammed_until

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.broken:
                raise trio.BrokenResourceError("connection reset")
            ready_at = self._chunks[0][0] if self._chunks else inf
            if ready_at <= trio.current_time():
                return self._take()
            if self.over and not self._chunks:
                return b""
            await self._wait_until(ready_at)

    def _take(self) -> bytes:
        ready_at, data = self._chunks.popleft()
        grain = next(self._grains)
        taken, rest = data[:grain], data[grain:]
        if rest:
            self._chunks.appendleft((ready_at, rest))
        self.size -= len(taken)
        self.change()
        return taken

    async def _wait_until(self, instant: float) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        late = instant if instant > trio.current_time() else inf
        if late == inf:
            await self._changed.wait()
            return
        with trio.move_on_at(late):
            await self._changed.wait()


class End:
    """One end of a connection: what a trio stream is to whoever only reads, writes and closes."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.closed = trio.Event()
        self.closed_at: float | None = None

    async def receive_some(self, _: int | None = None) -> bytes:
        if self.closed.is_set():
            raise trio.ClosedResourceError
        data = await self._incoming.receive()
        if self.closed.is_set():
            raise trio.ClosedResourceError
        return data

    async def send_all(self, data: bytes) -> None:
        if self.closed.is_set():
            raise trio.ClosedResourceError
        await self._outgoing.send(data)

    def close(self) -> None:
        """Say that nothing follows, and take nothing more."""
        if not self.closed.is_set():
            self.closed_at = trio.current_time()
            self.closed.set()
            self._outgoing.change(over=True)
            self._incoming.change(broken=True)

    def reset(self) -> None:
        """The same, and what is on its way is lost."""
        self.close()
        self._outgoing.change(broken=True)

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def connection(weather: Weather) -> tuple[End, End]:
    """(the proxy's end, the server's end)."""
    there, back = Pipe(weather), Pipe(weather)
    return End(back, there), End(there, back)
