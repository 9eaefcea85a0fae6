"""Hypercorn's protocols, served by a loop of our own.

Hypercorn parses and writes HTTP/1.1 and HTTP/2 here and calls the application. Its own trio worker
is not used, for five reasons found by trying it (0.18):

- it writes to the socket under a shield without a deadline, so that one client which stopped
  reading keeps the process from exiting;
- an exception on one connection ends the server, and a DATA frame that comes after an early answer
  is enough to raise one;
- an application that returns in the middle of a body leaves an HTTP/2 stream open for ever;
- it waits for its own signals, and stops accepting before the streams have ended;
- every body write passes h11, a lock and a cancel scope: most of what a forwarded frame costs.

So `Connection` takes the place of its TCPServer, `Calls` of its TaskGroup, and `H11`, `H2` and
their streams (in `http1` and `http2`) are its protocol classes with the methods overridden that the
list above asks for. Nothing of it is patched. What they use of Hypercorn beyond its documentation is
asserted, against the installed release, by `tests/test_server_pins.py`.

`python -m hypercorn -k trio` with the same application works too, without the list above.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from .calls import Calls, Inbox
from .crowd import Crowd, turn_away
from .http1 import H11, H11Stream
from .http2 import H2, MAX_STREAMS
from .listening import (
    Acceptor,
    BindError,
    Stop,
    heed_signals,
    open_signals,
    open_sockets,
    url_of,
)
from .plain_http1 import chunk
from .wire import CONNECTION, Wire, Written

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from hypercorn.typing import AppWrapper

    from .calls import ASGIApp
    from .core.headers import Headers

HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS
LINGER = 2.0  # seconds a refused upload is read on, so that the refusal arrives
FAREWELL = 1.5  # seconds for telling the clients that are still there when the drain is over
TURNS = 16  # of the event loop that it lasts at the least: a starved one may take seconds for each
GO_AWAY = 0.25  # seconds for telling clients of HTTP/2 that their connections are about to close


log = structlog.get_logger(__name__)


class Drainer(Protocol):
    """What the server asks of the application when it is to end."""

    def begin_drain(self) -> None:
        """From now on refuse what is new; let what runs finish."""
        ...

    async def drained(self) -> None:
        """Return once no stream runs."""
        ...

    def end_streams(self) -> None:
        """End what still runs; each client is told in its dialect."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where and how to listen; times in seconds, 0 is for ever. `Settings` explains the rest."""

    bind: str = "127.0.0.1:8787"
    certfile: str | None = None
    keyfile: str | None = None
    write_stall_timeout: float = 30.0
    drain_timeout: float = 30.0
    keep_alive: float = 75.0
    header_timeout: float = 20.0
    max_connections: int = 0
    max_header_bytes: int = 64 * 1024
    max_header_fields: int = 256
    max_resets: int = 200
    max_control_frames: int = 2000


async def serve_until_signalled(
    app: ASGIApp,
    drainer: Drainer,
    listening: Listening,
    *,
    on_listening: Callable[[Sequence[str]], None],
) -> int:
    """Listen, call `on_listening` with the URLs, serve until SIGTERM or SIGINT; the exit code.

    0 after a drain, 128 + the signal's number if a second one cut it short. The application's
    lifespan is the caller's business. Raises BindError before anything was served.
    """
    server = Server(app, listening)
    stop = Stop()
    sockets = open_sockets(listening.bind, write_stall_timeout=listening.write_stall_timeout)
    with open_signals() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heed_signals, signals, stop)
            await server.serve(drainer, sockets, stop, on_listening=on_listening)
            nursery.cancel_scope.cancel("server ended")
    return 128 + stop.signum if stop.insisted.is_set() else 0


async def _wind_down(drainer: Drainer, stop: Stop, drain_timeout: float) -> None:
    async with trio.open_nursery() as nursery:

        async def heed_insistence() -> None:
            await stop.insisted.wait()
            nursery.cancel_scope.cancel("asked twice to stop")

        nursery.start_soon(heed_insistence)
        drainer.begin_drain()
        with trio.move_on_after(drain_timeout) as patience:
            await drainer.drained()
        if patience.cancelled_caught:
            drainer.end_streams()
            for _ in range(TURNS):
                with trio.move_on_after(FAREWELL / TURNS) as patience:
                    await drainer.drained()
                if not patience.cancelled_caught:
                    break
        nursery.cancel_scope.cancel("drained")


class Server:
    """What all connections share, and the register of those that are open."""

    def __init__(self, app: ASGIApp, listening: Listening) -> None:
        self.listening = listening
        self.config = _configure(listening)
        self.tls = _tls(self.config)
        self.app = cast("AppWrapper", app)  # Hypercorn only hands it on to `Calls`
        self.context = WorkerContext(None)
        self.connections: set[Connection] = set()
        self.crowd = Crowd(listening.max_connections)

    async def serve(
        self,
        drainer: Drainer,
        sockets: Sequence[socket.socket],
        stop: Stop,
        *,
        on_listening: Callable[[Sequence[str]], None] = lambda urls: None,
    ) -> None:
        """Serve on `sockets` until `stop` is asked for, drain, close everything, return.

        Takes at most `drain_timeout` + FAREWELL + GO_AWAY seconds from then on, whatever clients do.
        Closes `sockets` in any case. Cancelling it ends at once, without a drain.
        """
        try:
            async with trio.open_nursery() as nursery:
                for sock in sockets:
                    nursery.start_soon(self._accept, Acceptor(sock), nursery)
                on_listening([url_of(sock, tls=self.tls is not None) for sock in sockets])
                await self._wait_for_the_end(drainer, stop)
                nursery.cancel_scope.cancel("server ended")
        finally:
            for sock in sockets:
                sock.close()

    async def _wait_for_the_end(self, drainer: Drainer, stop: Stop) -> None:
        try:
            await stop.asked.wait()
            await _wind_down(drainer, stop, self.listening.drain_timeout)
            await self._go_away()
        finally:
            # Also when cancelled: nothing else wakes a write that waits under its shield.
            self.close()

    async def _go_away(self) -> None:
        """Tell clients of HTTP/2 which of their requests were taken on (RFC 9113, section 6.8).

        Not when the drain begins, as that section would have it: httpx and other clients over h2 give
        up the answers they are reading as soon as they are told so.
        """
        protocols = [getattr(connection, "protocol", None) for connection in self.connections]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._close_in, GO_AWAY)
            async with trio.open_nursery() as telling:
                for protocol in protocols:
                    if isinstance(protocol, H2):
                        telling.start_soon(protocol.go_away)
            nursery.cancel_scope.cancel("all were told")

    async def _close_in(self, seconds: float) -> None:
        """Nothing else wakes a write that is stuck."""
        await trio.sleep(seconds)
        self.close()

    async def _accept(self, acceptor: Acceptor, nursery: trio.Nursery) -> None:
        """Wait for connections and serve the first of them; another task accepts on.

        So it is served at once: a task that had to be woken for it would be half a turn of the event
        loop late, with the system calls that belong to that.
        """
        first = self._welcome_all_others(await acceptor.accept(), nursery)
        nursery.start_soon(self._accept, acceptor, nursery)
        if first is not None:
            await first.serve()

    def _welcome_all_others(
        self, accepted: list[socket.socket], nursery: trio.Nursery
    ) -> Connection | None:
        """The first of these connections, which is not served yet; None if there is no room for it."""
        first = self._admit(accepted[0], nursery)
        for other in accepted[1:]:
            self.welcome(other, nursery=nursery)
        return first

    def _admit(self, accepted: socket.socket, nursery: trio.Nursery) -> Connection | None:
        """A new connection; None if there is no room for it."""
        if not self.crowd.has_room():
            turn_away(accepted)
            return None
        wire = Wire(accepted, self.tls, self.listening.write_stall_timeout)
        connection = Connection(self, wire, nursery)
        self.connections.add(connection)
        self.crowd.enter(connection)
        return connection

    def welcome(self, accepted: socket.socket, *, nursery: trio.Nursery) -> None:
        """Serve a new connection in a task of its own, if there is room for it."""
        connection = self._admit(accepted, nursery)
        if connection is not None:
            connection.start(connection.begin)

    def close(self) -> None:
        """Close every socket, at once; tasks that wait on one are woken."""
        for connection in self.connections:
            connection.wire.close()


def _configure(listening: Listening) -> Config:
    config = Config()
    config.certfile, config.keyfile = listening.certfile, listening.keyfile
    config.errorlog = None  # it would write lines of its own format; we log
    config.include_date_header = config.include_server_header = False
    config.keep_alive_max_requests = 2**31
    config.h11_max_incomplete_size = listening.max_header_bytes
    config.h2_max_header_list_size = listening.max_header_bytes
    config.h2_max_concurrent_streams = MAX_STREAMS
    return config


def _tls(config: Config) -> ssl.SSLContext | None:
    try:
        return config.create_ssl_context()
    except OSError as error:  # of which ssl.SSLError is one
        words = error.strerror or str(error)
        raise BindError(f"cannot use certificate {config.certfile}: {words}") from error


class Connection:
    """One client's connection, from accept to close: Hypercorn's TCPServer, rebuilt.

    One task reads. Over HTTP/1.1 the task that has read a request also serves it, and another one
    reads on: so the request is forwarded before any task is switched. Over HTTP/2 each request has
    a task of its own. The reader's deadline is also the keep-alive timeout.

    The tasks live in the server's nursery. None needs another to end first, and one nursery for each
    connection would be a tenth of what a waiting stream takes up.
    """

    __slots__ = (
        "_ended",
        "_held",
        "_lingering",
        "_nursery",
        "_read_by",
        "_reading",
        "_receiving",
        "_resume",
        "_unread",
        "address",
        "calls",
        "client",
        "protocol",
        "server",
        "state",
        "wire",
    )
    protocol: H11 | H2

    def __init__(self, server: Server, wire: Wire, nursery: trio.Nursery) -> None:
        self.server = server
        self.wire = wire
        self.state = ConnectionState({CONNECTION: self})
        self.client: tuple[str, int] | None = None
        self.address: tuple[str, int] | None = None
        self.calls = Calls(self)
        self._nursery = nursery
        self._reading: trio.CancelScope | None = None
        """Around the reader, once it has to wait."""
        self._read_by = math.inf
        self._unread = False
        """No task reads: the one that did is serving what it has read."""
        self._receiving = self._resume = self._lingering = self._ended = False
        self._held = b""

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of this connection."""
        self._nursery.start_soon(self._run, task)

    def serve(self) -> Awaitable[None]:
        """Serve until either side closes, or, over HTTP/1.1, as long as the first request lasts."""
        return self._run(self.begin)

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        """What `task` raises is logged, and ends this connection alone."""
        failed = True
        try:
            await task()
            failed = False
        # Not `except Exception`: a group can hold our errors and the server's own cancellation.
        except* Exception as errors:
            log.error("connection failed", exc_info=errors)
            with suppress(Exception):  # its protocol may be what has failed
                await self._gone()
        finally:
            if failed:
                self._close_wire()

    async def begin(self) -> None:
        """Serve until either side closes."""
        try:
            self.client, self.address = self.wire.addresses()
            agreed = await self._shake_hands() if self.wire.tls else None
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self._close_wire()
            return
        if agreed == "h2":
            self.protocol = H2(self)
            await self.protocol.initiate()
        else:
            self.protocol = H11(self)
        self._rest()
        await self._serve_on()

    async def _shake_hands(self) -> str | None:
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            return await self.wire.shake_hands()

    async def _serve_on(self) -> None:
        """Read up to the next request, and serve it; see that the reading goes on."""
        if not self.protocol.has_room:
            await self.protocol.have_room()
        await self._read()
        call, self.calls.next = self.calls.next, None
        if call is None:
            await self.protocol.handle(Closed())
            self._close_wire()
        else:
            # As good as: what is held will be the first it looks at, unless it has to wait for room.
            self._receiving = self.protocol.has_room
            self._unread = True
            if not self.protocol.has_whole:
                self.read_on()
            await call()
            self.read_on()

    def read_on(self) -> None:
        """See that somebody reads while a request is served.

        If all of it is there, not before that matters: when the application waits for more, or
        something to be written waits for the reader. By then the upstream has been asked.
        """
        if self._unread:
            self._unread = False
            self.start(self._serve_on)

    def _close_wire(self) -> None:
        self._ended = True
        self.wire.close()
        if self in self.server.connections:
            self.server.connections.remove(self)
            self.server.crowd.leave(self)

    def evict(self) -> None:
        """Close now; the application hears that its client has left."""
        self.wire.close()
        self._end("evicted")

    def write_now(self, body: bytes) -> Written:
        """See ClientConnection."""
        if self._held or not self.protocol.in_chunks:
            return Written.NOTHING
        framed = chunk(body)
        sent = self.wire.send_now(framed)
        if sent == len(framed):
            return Written.WHOLLY
        self._held = framed[sent:] if sent else b""
        return Written.PARTLY if sent else Written.NOTHING

    def begin_now(self, status: int, headers: Headers, *, followed: bool) -> bool:
        """See ClientConnection."""
        stream = self.protocol.stream if isinstance(self.protocol, H11) else None
        return isinstance(stream, H11Stream) and stream.begin_now(
            status, headers, followed=followed
        )

    def abort(self) -> None:
        """See ClientConnection."""
        if self.protocol.may_be_reset:
            self.wire.reset()
            self._end("aborted")

    def progressed_at(self) -> float:
        """See ClientConnection."""
        return self.wire.progressed_at()

    def is_gone(self) -> bool:
        """See ClientConnection."""
        return self.wire.is_gone()

    def open_inbox(self) -> Inbox:
        """For an HTTP/1.1 request: its reader waits until the application takes its body."""
        return Inbox(self.wire.is_gone, self.evict, self.read_on)

    def make_call(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call the application: whoever has read an HTTP/1.1 request is about to."""
        self.calls.next = call

    async def send(self, event: Event) -> None:
        """What Hypercorn's protocols call to write, to close, and to say they are idle or busy."""
        if isinstance(event, RawData):
            if event.data:  # the end of a body of known length is no bytes
                await self.write(event.data)
            return
        if self._held:
            await self.write(b"")
        if isinstance(event, Updated):
            self._rest() if event.idle else self.work()
        elif isinstance(event, Closed):
            await self._close()

    async def write(self, data: bytes) -> None:
        """Write `data`. A client that is gone raises nothing: the application hears of it."""
        if self._held:
            data, self._held = self._held + data, b""
            if self._reading is not None and self._reading.deadline != self._read_by:
                self._reading.deadline = self._read_by
        if not await self.wire.send(data):
            await self._gone()

    @property
    def is_behind(self) -> bool:
        """True if something waits to go out with the next write."""
        return bool(self._held)

    @property
    def is_read(self) -> bool:
        """True while the reader waits, and will see to what is held."""
        return self._receiving

    def hold(self, data: bytes, *, followed: bool = False) -> None:
        """Let `data` go out with what is written next, or by itself if nothing follows in this step.

        The reader sends it then, woken by its deadline; which is left alone if something does follow.
        """
        self._held += data
        if followed:
            return
        self.read_on()
        if self._reading is not None:
            self._reading.deadline = -math.inf

    async def write_soon(self, data: bytes) -> None:
        """The same if there is a reader, else write it now."""
        if self._receiving:
            self.hold(data)
        else:
            await self.write(data)

    async def _read(self) -> None:
        """Read until there is a request to serve, either side closes, or the time for it is up.

        The scope is made anew only after it was cancelled to have the reader do something else.
        """
        over = self._receiving = False
        if not (self._held or self._resume) and (data := self.wire.receive_now()):
            # More often than not the request is there by now. To wait takes longer than to read it.
            await self._handle(data)
        while not (over or self._ended or self.calls.next):
            if self._held:
                await self.write(b"")
            if self._resume:
                self._resume = False
                await self._handle(b"")
            data = b""
            with trio.CancelScope(deadline=self._read_by) as scope:
                self._reading = scope
                data = await self._receive()
            self._receiving, self._reading = False, None
            if scope.cancelled_caught:
                over = trio.current_time() >= self._read_by
            elif data:
                await self._handle(data)
            else:
                over = not (self._resume or self.calls.next)

    async def _receive(self) -> bytes:
        """Read and handle until there is no more to read, or something else to do.

        What is returned is yet to be handled: no cancellation may come in the middle of that.
        """
        while not (self._resume or self.calls.next):
            self._receiving = True
            data = await self.wire.receive()
            self._receiving = False
            if not data or (self._reading is not None and self._reading.cancel_called):
                return data
            await self._handle(data)
            del data  # or it would be kept until the next comes
        return b""

    async def _handle(self, data: bytes) -> None:
        """Handle what came; b"" goes on with what was held back."""
        if self._lingering or self._ended:
            return
        if self._held:  # for what comes may have to wait for the application
            await self.write(b"")
        try:
            await self.protocol.handle(RawData(data))
        except H2ProtocolAssumedError as assumed:  # in clear text, with prior knowledge
            self.protocol = H2(self)
            await self.protocol.initiate()
            self._rest()  # what h11 took for a request was none
            await self.protocol.handle(RawData(assumed.data))
        if isinstance(self.protocol, H11) and self.protocol.in_head:
            allowed = self.server.listening.header_timeout or math.inf
            self._set_read_by(min(self._read_by, trio.current_time() + allowed))

    def work(self) -> None:
        """There is a request: from here on the client may be silent."""
        self._set_read_by(math.inf)
        self.server.crowd.work(self)

    def _rest(self) -> None:
        if self._ended:  # and has left the crowd, while the end of an answer was being written
            return
        self._set_read_by(trio.current_time() + (self.server.listening.keep_alive or math.inf))
        self.server.crowd.rest(self)
        if self.protocol.held_back:
            self._resume = True
            if self._receiving:
                self._wake_reader("requests were held back")

    def _set_read_by(self, deadline: float) -> None:
        if not self._lingering:
            self._read_by = deadline
            if self._reading is not None:
                self._reading.deadline = deadline

    def _wake_reader(self, why: str) -> None:
        if self._reading is not None:
            self._reading.cancel(why)

    async def _close(self) -> None:
        """Close, but not on a client that still sends: the reset would overtake our answer."""
        if not self.protocol.refused_early:
            await self._gone()
            return
        self.wire.finish()
        self._set_read_by(trio.current_time() + LINGER)
        self._lingering = True
        await self.protocol.handle(Closed())

    async def _gone(self) -> None:
        self.wire.close()
        await self.protocol.handle(Closed())
        self._end("connection closed")

    def _end(self, why: str) -> None:
        self._ended = True
        self._wake_reader(why)
