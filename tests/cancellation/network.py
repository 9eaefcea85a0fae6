"""Upstreams at the other end of real socket pairs, at virtual time: the whole transport is there.

A pair of the kernel delivers at once and in order, so a run with a fixed order of tasks is always the
same, descriptors and epoll included.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from math import inf

import trio
from upstreams.servers import Requests, answer

FINAL = (b"[DONE]", b"response.completed", b"message_stop", b'"error"', b"0\r\n\r\n")
"""With one of these the upstream has come to its end, whether or not it closes the body."""
ABORTED = "/abort_request"
"""Where SGLang is told to stop."""


class Hang:
    """A step: wait until the proxy leaves."""


class Close:
    """A step: close the connection."""


@dataclass(frozen=True)
class Late:
    """A first step: so many seconds pass before the request's body is read."""

    seconds: float


class Left(Exception):
    """The proxy has closed the connection."""


@dataclass(eq=False)
class Asked:
    """One request as its upstream saw it, of which the body was read."""

    rid: str | None
    """The id we were given for it, by which we may be told to stop."""
    given: bool = False
    """The answer has come to its end."""


@dataclass(eq=False)
class Connection:
    """`near` is the proxy's socket."""

    host: str
    near: trio.socket.SocketType
    told: bool = False
    """It was used to tell us to stop."""
    busy: bool = True
    """The last request on it, if there was one, has not been answered to its end."""

    @property
    def is_open(self) -> bool:
        return self.near.fileno() >= 0


@dataclass(eq=False)
class Network:
    """Hosts by name; each answers its n-th request with its n-th script.

    A script has steps: seconds to wait, bytes to send, or one of the above. `delays` are seconds that
    connecting to a host takes, the first times, `refusals` how often it is refused first. An abort
    message is answered after `abort_takes` seconds.
    """

    nursery: trio.Nursery
    hosts: dict[str, list] = field(default_factory=dict)
    delays: dict[str, list[float]] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    tls: object = None
    abort_takes: float = 0.2
    asked: list[Asked] = field(default_factory=list)
    aborts: list[str] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    async def connect(self, host, port, **_):
        """Takes the place of `trio.open_tcp_stream`."""
        delays = self.delays.get(host)
        await trio.sleep(delays.pop(0) if delays else 0.0)
        if self.refusals.get(host, 0):
            self.refusals[host] -= 1
            raise ConnectionRefusedError("refused")
        ours, theirs = (trio.socket.from_stdlib_socket(end) for end in socket.socketpair())
        connection = Connection(host, ours)
        self.connections.append(connection)
        self.nursery.start_soon(self._serve, connection, theirs)
        return trio.SocketStream(ours)

    async def _serve(self, connection: Connection, socket) -> None:
        stream = trio.SocketStream(socket)
        if self.tls is not None:
            stream = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        try:
            requests = Requests(stream)
            while await self._answer_one(connection, stream, requests):
                connection.busy = False
        except (Left, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            socket.close()

    async def _answer_one(self, connection, stream, requests) -> bool:
        head = await requests.head()
        if head is None:
            return False
        connection.busy = True
        requests.buffer = head + b"\r\n\r\n" + requests.buffer
        if ABORTED.encode() in head:
            connection.told = True
            _, body = await requests.whole()
            self.aborts.append(json.loads(body)["rid"])
            await self._wait(stream, self.abort_takes)
            await stream.send_all(answer(b"{}"))
            return True
        script = list(self.hosts[connection.host].pop(0))
        if script and isinstance(script[0], Late):
            await trio.sleep(script.pop(0).seconds)
        _, body = await requests.whole()
        asked = Asked(_rid(body))
        self.asked.append(asked)
        for step in script:
            await self._do(stream, asked, step)
        return True

    async def _do(self, stream, asked: Asked, step) -> None:
        if isinstance(step, bytes):
            asked.given = asked.given or any(final in step for final in FINAL)
            await stream.send_all(step)
        elif step is Close:
            raise Left
        else:
            await self._wait(stream, inf if step is Hang else step)

    async def _wait(self, stream, seconds: float) -> None:
        """Be idle, but notice that nobody listens any more."""
        with trio.move_on_after(seconds):
            await stream.receive_some(1)
            raise Left


def _rid(body: bytes) -> str | None:
    try:
        return json.loads(body).get("rid")
    except (ValueError, AttributeError):
        return None
