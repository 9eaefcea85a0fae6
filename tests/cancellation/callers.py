"""Clients of the real listening side: each has one connection, a socket pair of the kernel.

What they say and get are bytes; `Http1` and `Http2` tell what answers those are.
"""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass, field
from math import inf
from unittest import mock

import h2.connection
import h2.events
import h2.exceptions
import h11
import trio

from trio_sse_proxy import server
from trio_sse_proxy.wire import Wire

SENT_AHEAD = 4096
"""Bytes that the kernel takes for a client that does not read, or twice that."""
HEADERS = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"proxy.test")]


@dataclass(eq=False)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    complete: bool = False


@dataclass(frozen=True)
class Answered:
    """A step: wait until so many requests were answered."""

    count: int


def request(body: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: %d\r\n\r\n"
    return head % (path, len(body)) + body


class Http1:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._h11 = self._next()

    @staticmethod
    def _next() -> h11.Connection:
        asked = h11.Connection(h11.CLIENT)
        asked.send(h11.Request(method="POST", target="/", headers=[("Host", "proxy.test")]))
        asked.send(h11.EndOfMessage())
        return asked

    def take(self, data: bytes) -> bytes:
        """Read on; what has to be said to that. Rubbish raises."""
        self._h11.receive_data(data)
        while (event := self._h11.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Response():
                    self.answers.append(Answer(event.status_code, dict(event.headers)))
                case h11.Data():
                    self.answers[-1].body += event.data
                case h11.EndOfMessage():
                    self.answers[-1].complete = True
                    rest, _ = self._h11.trailing_data
                    self._h11 = self._next()
                    if rest:  # nothing at all would be the end
                        self._h11.receive_data(rest)
                case _:
                    raise AssertionError(event)
        return b""


class Http2:
    """One stream."""

    def __init__(self, body: bytes) -> None:
        self.answers: list[Answer] = []
        self._h2 = h2.connection.H2Connection()
        self._h2.initiate_connection()
        self._h2.send_headers(1, [*HEADERS, (b":path", b"/v1/chat/completions")])
        self._h2.send_data(1, body, end_stream=True)
        self.begin = self._h2.data_to_send()

    def take(self, data: bytes) -> bytes:
        """Read on; what has to be said to that. Rubbish raises."""
        for event in self._h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    fields = dict(event.headers)
                    self.answers.append(Answer(int(fields[b":status"]), fields))
                case h2.events.DataReceived():
                    self.answers[-1].body += event.data
                    self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
                case h2.events.StreamEnded():
                    self.answers[-1].complete = True
                case _:
                    pass
        return self._h2.data_to_send()


@dataclass(eq=False)
class Caller:
    """It says each of `upload` (bytes, seconds to wait, or Answered), and is over once all is said and
    `requests` were answered, or the server has closed. `stuck_from`: from then on it reads nothing."""

    upload: tuple
    requests: int = 1
    wire: Http1 | Http2 = field(default_factory=Http1)
    stuck_from: float = inf
    listens_with: object = None
    trusts_with: object = None
    """How the server is to speak TLS, and how it is trusted."""
    over: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    rubbish: Exception | None = None

    def call(self, listener: server.Server, nursery: trio.Nursery, outside: trio.Nursery) -> None:
        """Connect. The connection's tasks run in `nursery`, the client's own `outside`."""
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD)
        self._socket = trio.socket.from_stdlib_socket(far)
        with mock.patch.object(server, "Wire", PairWire):
            listener.welcome(near, nursery=nursery)
        outside.start_soon(self._live)

    def leave(self) -> None:
        self.left.set()
        self._socket.close()

    async def _live(self) -> None:
        self._news = trio.Event()
        stream = trio.SocketStream(self._socket)
        if self.trusts_with is not None:
            how = {"server_hostname": "a.test", "https_compatible": True}
            stream = trio.SSLStream(stream, self.trusts_with, **how)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._say, stream)
                if not await self._hear(stream):
                    nursery.cancel_scope.cancel()
        finally:
            self._socket.close()
            self.over.set()

    async def _say(self, stream) -> None:
        for step in self.upload:
            if isinstance(step, Answered):
                while self.answered < step.count:
                    await self._news.wait()
            elif isinstance(step, bytes):
                try:
                    await stream.send_all(step)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return  # the other task will see
            else:
                await trio.sleep(step)

    async def _hear(self, stream) -> bool:
        """True if all was answered; False if the connection is over."""
        try:
            while self.answered < self.requests:
                while trio.current_time() >= self.stuck_from:
                    if self.left.is_set() or _has_hung_up(self._socket):
                        return False
                    await trio.sleep(0.25)
                data = await stream.receive_some(65536)
                if not data:
                    return False
                if more := self.wire.take(data):
                    await stream.send_all(more)
                self._news.set()
                self._news = trio.Event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        except (AssertionError, h11.ProtocolError, h2.exceptions.ProtocolError) as rubbish:
            self.rubbish = rubbish
            return False
        return True

    @property
    def answered(self) -> int:
        return sum(one.complete for one in self.wire.answers)


class PairWire(Wire):
    """Ends of socket pairs have no addresses."""

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("192.0.2.1", 40_000), ("192.0.2.2", 80)


def _has_hung_up(sock) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
