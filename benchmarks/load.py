"""The clients of a benchmark: an epoll loop over any number of streams.

What a stream brings is looked at as little as possible: frames are counted by their mark, stamps read
only while latency is measured. What it must be in the end is checked for every stream: status 200, the
frames that were ordered, the terminator, and an end of the body.
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .frames import DIGITS, MARK, WIRES, Script, request

if TYPE_CHECKING:
    from collections.abc import Callable

READ = 262_144
LAST_CHUNK = b"0\r\n\r\n"
TAIL = 32  # bytes; more than any mark that is looked for
SOURCES = [f"127.0.0.{n}" for n in range(2, 18)]  # a client address each, for ports enough
_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT: the port is chosen when connecting


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to ask, and how: gateways have paths, headers and model names of their own."""

    port: int
    path: str
    headers: dict[str, str]
    model: str
    dialect: str = "chat"


class Client:
    """One stream, as its client sees it. Instants are in nanoseconds."""

    __slots__ = (
        "begun",
        "done",
        "first",
        "frames",
        "gap",
        "head",
        "heard",
        "heartbeats",
        "kept",
        "on_end",
        "opened",
        "script",
        "sock",
        "tail",
        "unsent",
    )

    def __init__(self, sock: socket.socket, script: Script, unsent: bytes) -> None:
        self.sock = sock
        self.script = script
        self.unsent = unsent
        self.on_end: Callable[[Client], None] | None = None
        self.head: bytes | None = b""
        self.tail = b""
        self.begun = self.done = self.kept = False
        self.frames = 0
        self.heartbeats = 0
        self.opened = self.heard = time.monotonic_ns()
        self.first = 0
        self.gap = 0  # the longest time without a byte


class Load:
    """All streams of one measurement."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._wire = WIRES[target.dialect]
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._opened = 0
        self._idle: list[socket.socket] = []
        self.frames = 0
        self.heartbeats = 0
        self.ended = 0
        self.errors: Counter[str] = Counter()
        self.latencies = array("q")
        self.sampling = False

    @property
    def clients(self) -> list[Client]:
        """The streams that run."""
        return list(self._clients.values())

    def open(
        self,
        script: Script,
        on_end: Callable[[Client], None] | None = None,
        *,
        kept: bool = False,
    ) -> None:
        """Ask for one stream. `on_end` hears only of streams that end well.

        On a new connection, or if `kept` on one that has served another, and is kept again.
        """
        target = self._target
        data = request(
            host=f"127.0.0.1:{target.port}",
            path=target.path,
            headers=target.headers,
            model=target.model,
            script=script,
            dialect=target.dialect,
        )
        sock = self._idle.pop() if kept and self._idle else self._connect()
        client = Client(sock, script, data)
        client.on_end = on_end
        client.kept = kept
        self._clients[sock.fileno()] = client
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((SOURCES[self._opened % len(SOURCES)], 0))
        self._opened += 1
        sock.connect_ex(("127.0.0.1", self._target.port))
        return sock

    def turn(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for something to happen, and deal with it."""
        for descriptor, events in self._epoll.poll(timeout):
            client = self._clients.get(descriptor)
            if client is None:
                continue
            if client.unsent and events & select.EPOLLOUT:
                self._send(client)
            elif events & ~select.EPOLLOUT:
                self._receive(client)

    def run(self, until: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Go on until `enough`, at most to the instant `until` (seconds); True if it was enough."""
        while not enough():
            left = until - time.monotonic()
            if left <= 0:
                return False
            self.turn(min(left, 0.02))
        return True

    def close(self) -> None:
        """Leave every stream that still runs."""
        for client in self.clients:
            self._forget(client)

    def fail_rest(self, why: str) -> None:
        """Count every stream that still runs as an error, and leave it."""
        self.errors[why] += len(self._clients)
        self.close()

    def _send(self, client: Client) -> None:
        try:
            client.unsent = client.unsent[client.sock.send(client.unsent) :]
        except OSError as error:
            self._fail(client, error.strerror or "cannot send")
            return
        if not client.unsent:
            self._epoll.modify(client.sock, select.EPOLLIN)

    def _receive(self, client: Client) -> None:
        try:
            data = client.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(client, error.strerror or "cannot receive")
            return
        now = time.monotonic_ns()
        client.gap = max(client.gap, now - client.heard)
        client.heard = now
        if not data:
            self._end(client, "cut" if client.head is None else "closed without an answer")
            return
        if client.head is not None:
            data = self._read_head(client, data)
        if data:
            self._read_body(client, data, now)

    def _read_head(self, client: Client, data: bytes) -> bytes:
        assert client.head is not None
        client.head += data
        head, blank, body = client.head.partition(b"\r\n\r\n")
        if not blank:
            return b""
        status = head.split(b" ", 2)[1]
        if status != b"200":
            self._fail(client, f"status {status.decode('latin-1')}")
            return b""
        client.head = None
        return body

    def _read_body(self, client: Client, data: bytes, now: int) -> None:
        count = data.count(MARK)
        if count:
            if not client.frames:
                client.first = now
            client.frames += count
            self.frames += count
            if self.sampling:
                self._read_stamps(data, now)
        elif b"data:" not in data and not client.frames:
            client.heartbeats += 1
            self.heartbeats += 1
        if client.script.hose:
            return
        tail = client.tail + data
        client.done = client.done or self._wire.done in tail
        client.tail = tail[-TAIL:]
        if client.done and client.tail.endswith(LAST_CHUNK):
            self._end(client, "")

    def _read_stamps(self, data: bytes, now: int) -> None:
        at = data.find(MARK)
        while at >= 0:
            digits = data[at + 1 : at + 1 + DIGITS]
            if len(digits) == DIGITS and digits.isdigit():
                self.latencies.append(now - int(digits))
            at = data.find(MARK, at + 1)

    def _end(self, client: Client, why: str) -> None:
        """The stream is over: as ordered, or with a reason to complain."""
        if client.done:
            due = client.script.frames * self._wire.times
            why = "" if client.frames == due else "frames missing"
        if why:
            self._fail(client, why)
            return
        self._forget(client, keep=client.kept)
        self.ended += 1
        if client.on_end is not None:
            client.on_end(client)

    def _fail(self, client: Client, why: str) -> None:
        self.errors[why] += 1
        self._forget(client)

    def _forget(self, client: Client, *, keep: bool = False) -> None:
        del self._clients[client.sock.fileno()]
        self._epoll.unregister(client.sock)
        if keep:
            self._idle.append(client.sock)
        else:
            client.sock.close()
