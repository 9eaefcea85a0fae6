"""The model server of a benchmark: an epoll loop that does what the prompt says.

    python -m benchmarks.upstream BOARD     prints its port, ends when its standard input does

Frames that are due are written at their own instant, each with a write of its own, so that a proxy
gets them as it would from a model: one by one.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import time
from contextlib import suppress
from heapq import heappop, heappush
from pathlib import Path

from .board import Board
from .frames import FINISH, PRELUDE, Script, chunked, find_script, output_frame
from .machine import raise_file_limit

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
OPENING = HEAD + chunked(PRELUDE)
ENDING = chunked(FINISH) + b"0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
HOSE = chunked(output_frame(0))
AT_ONCE = 64  # writes of a hose before other streams get their turn
LATE = 65_536  # bytes unread by the contestant above which it gets no more frames: it is too slow
GATE_LOOK = 0.005  # seconds
TICK = 0.1  # seconds; how soon the end of standard input is noticed


class Stream:
    """One connection, and the request on it."""

    __slots__ = ("left", "rest", "script", "sock", "until")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""  # of the request while it comes, then of what could not be written
        self.script: Script | None = None
        self.left = 0
        self.until = 0.0


class Upstream:
    """All connections, and a heap of what is due on them."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16_384)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._streams: dict[int, Stream] = {}
        self._due: list[tuple[float, int, Stream]] = []
        self._gated: list[Stream] = []
        self._count = 0
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Serve until standard input ends."""
        while True:
            # select measures in microseconds where epoll's own timeout rounds up to milliseconds.
            ready, _, _ = select.select([self._epoll, sys.stdin], [], [], self._patience())
            if sys.stdin in ready and not os.read(0, 1):
                return
            for descriptor, events in self._epoll.poll(0):
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(self._streams[descriptor], events)
            self._look_at_gate()
            self._write_due()

    def _patience(self) -> float:
        due = self._due[0][0] - time.monotonic() if self._due else TICK
        return max(0.0, min(due, GATE_LOOK if self._gated else TICK))

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(64):
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._streams[sock.fileno()] = Stream(sock)
                self._epoll.register(sock, select.EPOLLIN)

    def _serve(self, stream: Stream, events: int) -> None:
        if events & select.EPOLLOUT:
            if stream.rest:
                self._write(stream, b"")
            if stream.script is not None and stream.script.hose:
                self._hose(stream)
        if events & ~select.EPOLLOUT and stream.sock.fileno() >= 0:
            self._read(stream)

    def _read(self, stream: Stream) -> None:
        try:
            data = stream.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(stream)
        elif stream.script is None:
            stream.rest += data
            if _is_complete(stream.rest):
                request, stream.rest = stream.rest, b""
                self._begin(stream, find_script(request))

    def _begin(self, stream: Stream, script: Script | None) -> None:
        if script is None:
            self._write(stream, NOT_FOUND)
            return
        self._board.arrived += 1
        stream.script, stream.left = script, script.frames
        if script.gated:
            self._gated.append(stream)
            return
        self._write(stream, OPENING)
        if script.hose:
            stream.until = time.monotonic() + script.phase
            self._hose(stream)
        elif script.interval:
            # On a grid that all streams share, so that their phases spread them evenly.
            now = time.monotonic()
            self._schedule(stream, now - now % script.interval + script.interval + script.phase)
        else:
            while stream.left:
                self._write_frame(stream)
            self._end(stream)

    def _look_at_gate(self) -> None:
        gate = self._board.gate
        if not self._gated or not gate or time.monotonic_ns() < gate:
            return
        for stream in self._gated:
            if stream.script is not None:  # else its client, or the contestant, has left
                self._schedule(stream, (gate + stream.script.phase * self._board.spread) / 1e9)
        self._gated = []

    def _schedule(self, stream: Stream, at: float) -> None:
        self._count += 1
        heappush(self._due, (at, self._count, stream))

    def _write_due(self) -> None:
        # Those due by now, not those that become due meanwhile: sockets get their turn in between.
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, stream = heappop(self._due)
            script = stream.script
            if script is None or stream.sock.fileno() < 0:
                continue
            if script.gated and stream.left == script.frames:
                self._write(stream, OPENING)
            self._write_frame(stream)
            if stream.left:
                self._schedule(stream, due + script.interval)
            else:
                self._end(stream)

    def _write_frame(self, stream: Stream) -> None:
        stream.left -= 1
        if len(stream.rest) > LATE:
            self._board.choked += 1
            return
        self._write(stream, chunked(output_frame(time.monotonic_ns())))

    def _end(self, stream: Stream) -> None:
        hosed = stream.script is not None and stream.script.hose
        stream.script = None
        self._write(stream, ENDING)
        if hosed and not stream.rest and stream.sock.fileno() >= 0:
            self._watch(stream, writing=False)

    def _hose(self, stream: Stream) -> None:
        """Write until there is no room. Tight, since the frames a second depend on it."""
        if stream.script is None or stream.rest:
            return
        data = HOSE * stream.script.hose
        send = stream.sock.send
        try:
            for _ in range(AT_ONCE):
                sent = send(data)
                if sent < len(data):
                    stream.rest = data[sent:]
                    break
        except BlockingIOError:
            pass
        except OSError:
            self._close(stream)
            return
        if time.monotonic() >= stream.until:
            self._end(stream)
        else:
            self._watch(stream, writing=True)

    def _write(self, stream: Stream, data: bytes) -> None:
        """Write in order; what finds no room waits for it."""
        waited = bool(stream.rest)
        data = stream.rest + data if waited else data
        try:
            sent = stream.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(stream)
            return
        stream.rest = data[sent:] if sent < len(data) else b""
        if waited != bool(stream.rest):
            self._watch(stream, writing=bool(stream.rest))

    def _watch(self, stream: Stream, *, writing: bool) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if writing else 0)
        self._epoll.modify(stream.sock, events)

    def _close(self, stream: Stream) -> None:
        if stream.sock.fileno() >= 0:
            del self._streams[stream.sock.fileno()]
            self._epoll.unregister(stream.sock)
            stream.sock.close()
        stream.script = None


def _is_complete(request: bytes) -> bool:
    head, blank, body = request.partition(b"\r\n\r\n")
    if not blank:
        return False
    head = head.lower()
    if b"\r\ntransfer-encoding:" in head:
        return body.endswith(b"0\r\n\r\n")
    _, _, length = head.partition(b"\r\ncontent-length:")
    return not length or len(body) >= int(length.partition(b"\r\n")[0])


def main() -> None:
    """See the module."""
    raise_file_limit()
    gc.disable()  # nothing here makes cycles worth a pause
    upstream = Upstream(Board(Path(sys.argv[1])))
    print(upstream.port, flush=True)
    upstream.run()


if __name__ == "__main__":
    main()
