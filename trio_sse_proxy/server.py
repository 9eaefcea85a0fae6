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
their streams are its protocol classes with the methods overridden that the list above asks for.
Nothing of it is patched. What they use of Hypercorn beyond its documentation is asserted, against the
installed release, by `tests/test_server_pins.py`.

`python -m hypercorn -k trio` with the same application works too, without the list above.
"""

from __future__ import annotations

import math
import string
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import events
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import filter_pseudo_headers, suppress_body
from priority.priority import MissingStreamError, PriorityTree

from .core.calm import Calm
from .crowd import Crowd, turn_away
from .listening import (
    BindError,
    Stop,
    accept_forever,
    heed_signals,
    open_signals,
    open_sockets,
    url_of,
)
from .plain_http1 import Http1
from .wire import CONNECTION, Wire, Written

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    from hypercorn.typing import (
        AppWrapper,
        ASGIReceiveEvent,
        ASGISendEvent,
        H11SendableEvent,
        HTTPResponseStartEvent,
        HTTPScope,
        Scope,
    )

    from .core.headers import Headers

    ASGIApp = Callable[
        [
            MutableMapping[str, Any],
            Callable[[], Awaitable[MutableMapping[str, Any]]],
            Callable[[MutableMapping[str, Any]], Awaitable[None]],
        ],
        Awaitable[None],
    ]
    Put = Callable[[ASGIReceiveEvent], Awaitable[None]]
    Send = Callable[[ASGISendEvent | None], Awaitable[None]]

HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS
LINGER = 2.0  # seconds a refused upload is read on, so that the refusal arrives
FAREWELL = 1.5  # seconds for telling the clients that are still there when the drain is over
TURNS = 16  # of the event loop that it lasts at the least: a starved one may take seconds for each
GO_AWAY = 0.25  # seconds for telling clients of HTTP/2 that their connections are about to close
CUT_GRACE = 0.5  # seconds for what was written to leave before its HTTP/2 stream is reset
STUCK = 1.0  # seconds; a write that waits longer holds up every stream of its connection
PIPELINED = 64 * 1024  # bytes of next requests read ahead while one is being answered
MAX_STREAMS = 1000  # of one HTTP/2 connection
HELD = 64 * 1024  # bytes of a request body that wait for the application before its reader does
SLICE = 4096  # bytes of HTTP/2 frames handled in a row, which may be hundreds
PIECES = 16  # of a body handled in a row, however small
CRUMB = 16  # bytes; bodies whose chunks are smaller on average cost far more than they bring
CRUMBS = 4096  # chunks of a body about which that is not asked
LOOK_EVERY = 0.5  # seconds; whether a client is still there while its body is not read
UPLOADS = 4 * 2**20  # bytes of request bodies that may wait on one HTTP/2 connection

GOAWAY = b"\0\0\x08\x07\0\0\0\0\0"  # its header (RFC 9113, sections 4.1 and 6.8)
TOKEN = b"!#$%&'*+-.^_`|~" + (string.ascii_letters + string.digits).encode()  # RFC 9110, 5.6.2
NOT_IN_VALUES = b"\0\n\v\f\r"  # which h11 refuses as well

ASGI = {"spec_version": "2.1", "version": "3.0"}  # as Hypercorn says
NO_WEBSOCKET = b"WebSocket is not offered here: use POST and read server-sent events.\n"

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
                    welcome = partial(self.welcome, nursery=nursery)
                    nursery.start_soon(accept_forever, sock, welcome)
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

    def welcome(self, accepted: socket.socket, *, nursery: trio.Nursery) -> None:
        """Serve a new connection, if there is room for it."""
        if not self.crowd.has_room():
            turn_away(accepted)
            return
        wire = Wire(accepted, self.tls, self.listening.write_stall_timeout)
        connection = Connection(self, wire, nursery)
        self.connections.add(connection)
        self.crowd.enter(connection)
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
        self._receiving = self._resume = self._lingering = self._ended = False
        self._held = b""

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of this connection."""
        self._nursery.start_soon(self._run, task)

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
        """Read up to the next request, see that the reading goes on, and serve it."""
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
            self.start(self._serve_on)
            await call()

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
        chunk = _chunk(body)
        sent = self.wire.send_now(chunk)
        if sent == len(chunk):
            return Written.WHOLLY
        self._held = chunk[sent:] if sent else b""
        return Written.PARTLY if sent else Written.NOTHING

    def begin_now(self, status: int, headers: Headers, *, followed: bool) -> bool:
        """See ClientConnection."""
        stream = self.protocol.stream if isinstance(self.protocol, H11) else None
        return isinstance(stream, H11Stream) and stream.begin_now(
            status, headers, followed=followed
        )

    def abort(self) -> None:
        """See ClientConnection."""
        if isinstance(self.protocol, H11) or self.wire.stuck_for() > STUCK:
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
        return Inbox(self.wire.is_gone, self.evict)

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
        if self._reading is not None and not followed:
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


class Inbox:
    """What one application call has yet to `receive`.

    The body waits as bytes, not as the pieces it came in, which may be as small as the client
    likes. Nothing else waits: a disconnect reaches the application at once, and makes void what is
    there of an unfinished body. After the call has returned nobody reads any more, and what comes
    is dropped; Hypercorn's own would stop the connection there.
    """

    def __init__(self, is_gone: Callable[[], bool], evict: Callable[[], None]) -> None:
        self._is_gone = is_gone
        self.taken = False
        """True once the application was called."""
        self._evict = evict
        self._pieces = self._size = 0
        self._body = bytearray()
        self._whole = self._told_whole = False
        self._closed = False
        self._left: Any = None
        self._news: trio.Event | None = None
        self._room: trio.Event | None = None

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message; if it is a piece of a body, wait until there is room for the next.

        That is somebody else's turn to make, so whoever is to serve the request does not wait.
        """
        self.add(message)
        if message["type"] == "http.request":
            await self._count(len(message["body"]))
        while len(self._body) >= HELD and self._left is None and self.taken:
            self._room = trio.Event()
            with trio.move_on_after(LOOK_EVERY):
                await self._room.wait()
            # Whoever waits here does not read, and nothing else would tell that the client left.
            if len(self._body) >= HELD and self._is_gone():
                self.add({"type": "http.disconnect"})

    async def _count(self, size: int) -> None:
        """Thousands of tiny pieces come in one read, and what each costs is out of all proportion."""
        self._pieces += 1
        self._size += size
        if self._pieces > CRUMBS + self._size // CRUMB:
            self._evict()
        if not self._pieces % PIECES:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def add(self, message: ASGIReceiveEvent) -> None:
        """Add a message."""
        if message["type"] != "http.request":
            self._left = message
            if not self._whole:
                self._empty()
        elif self._closed or self._left is not None:
            self._done_with(len(message["body"]))
        else:
            self._body += message["body"]
            self._whole = not message["more_body"]
        if self._news is not None:
            self._news.set()

    async def receive(self) -> Any:
        """The next message; after the disconnect, that one again (ASGI, HTTP "Disconnect")."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (self._body or (self._whole and not self._told_whole)):
            if self._left is not None:
                await trio.lowlevel.checkpoint()  # or who asks for ever would starve the others
                return self._left
            self._news = trio.Event()
            await self._news.wait()
        body, self._told_whole = bytes(self._body), self._whole
        self._empty()
        return {"type": "http.request", "body": body, "more_body": not self._whole}

    def close(self) -> None:
        """Nobody will `receive` any more."""
        self._closed = True
        self._empty()

    def _empty(self) -> None:
        size = len(self._body)
        self._body = bytearray()
        self._done_with(size)

    def _done_with(self, size: int) -> None:
        """So many bytes have been taken, or dropped."""
        if self._room is not None:
            self._room.set()


class Upload(Inbox):
    """The inbox of an HTTP/2 request, in which nothing ever waits for room.

    Its reader is that of all streams. What bounds a body here is the window of its stream, which is
    given back only as the application takes the body.
    """

    def __init__(self, protocol: H2, stream_id: int) -> None:
        super().__init__(protocol.link.is_gone, protocol.link.evict)
        self._protocol = protocol
        self._stream_id = stream_id

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message."""
        self.add(message)

    async def receive(self) -> Any:
        """See Inbox."""
        message = await super().receive()
        await self._protocol.send_windows()
        return message

    def _done_with(self, size: int) -> None:
        self._protocol.give_back(size, self._stream_id)


class Calls(TaskGroup):
    """The application calls of one connection."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self.next: Callable[[], Awaitable[None]] | None = None
        """A call over HTTP/1.1 that whoever has read the request is to make."""

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Send) -> Put:
        """Prepare a call, or start it; what is returned passes it a message."""
        client = cast("Connection | H2Stream", scope["state"][CONNECTION])
        inbox = client.open_inbox()
        call = partial(self._call, app, scope, inbox, send)
        if isinstance(client, Connection):
            self.next = call
        else:
            self.spawn(call)
        return inbox.put

    def spawn(self, func: Callable[..., Awaitable[None]], *args: Any) -> None:
        """What Hypercorn's protocols call to run a task of theirs."""
        self._link.start(partial(func, *args))

    @staticmethod
    async def _call(app: AppWrapper, scope: Scope, inbox: Inbox, send: Send) -> None:
        inbox.taken = True
        try:
            await cast("ASGIApp", app)(cast("Any", scope), inbox.receive, cast("Any", send))
        except* Exception as errors:
            log.error("application failed", exc_info=errors)
        finally:
            inbox.close()
        # Not when cancelled: that comes from the connection, which is at its end then.
        await send(None)


def _protocol_arguments(link: Connection) -> tuple[Any, ...]:
    """What the constructors of H11Protocol and H2Protocol take."""
    server, wire = link.server, link.wire
    shared = (server.app, server.config, server.context, link.calls, link.state)
    return (*shared, wire.tls, link.client, link.address, link.send)


def _stream_arguments(protocol: H11 | H2, stream_id: int) -> tuple[Any, ...]:
    """What the constructor of HTTPStream takes."""
    shared = (protocol.app, protocol.config, protocol.context, protocol.task_group)
    ends = (protocol.ssl, protocol.client, protocol.server)
    return (*shared, *ends, protocol.stream_send, stream_id)


class H11Stream(HTTPStream):
    """One HTTP/1.1 request.

    A chunk of a body is framed here and written straight to the wire. h11 would only check that
    the response is in its body, which `_chunked` says, and add the same bytes; its state stays.
    """

    def __init__(self, protocol: H11, request: h11.Request) -> None:
        super().__init__(*_stream_arguments(protocol, STREAM_ID))
        self._protocol = protocol
        self._link = protocol.link
        self._is_1_1 = request.http_version >= b"1.1"
        self._chunked = False
        self._until_close = False

    async def open(self, request: h11.Request) -> None:
        """Have the application called. What HTTPStream does with a Request, in fewer steps."""
        self.start_time = time()
        path, _, query = request.target.partition(b"?")
        self.scope = cast(
            "HTTPScope",
            {
                "type": "http",
                "http_version": request.http_version.decode(),
                "asgi": ASGI,
                "method": request.method.decode("ascii").upper(),
                "scheme": self.scheme,
                "path": unquote(path.decode("ascii")),
                "raw_path": path,
                "query_string": query,
                "root_path": "",
                "headers": list(request.headers),
                "client": self.client,
                "server": self.server,
                "state": self._link.state.copy(),
                "extensions": {},
            },
        )
        self.app_put = await self.task_group.spawn_app(
            self.app, self.config, self.scope, self.app_send
        )

    def begin_now(self, status: int, headers: Headers, *, followed: bool) -> bool:
        """See ClientConnection."""
        if self.closed or self.state is not ASGIHTTPState.REQUEST or not self._link.is_read:
            return False
        self.response = cast(
            "HTTPResponseStartEvent",
            {"type": "http.response.start", "status": status, "headers": headers},
        )
        self._link.hold(self._protocol.head(status, list(headers)), followed=followed)
        self.state = ASGIHTTPState.RESPONSE
        self._learn_framing()
        return True

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """What the application calls to answer; None once it has returned.

        A cancellation arrives here, before anything is done, or not at all.
        """
        if message is None:
            if self._until_close and self.state is ASGIHTTPState.RESPONSE and not self.closed:
                # Nothing else tells the client that this is not the end of the body.
                self._link.wire.reset()
            await super().app_send(None)
            return
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        kind: str = message["type"]
        if kind == "http.response.start" and self.state is ASGIHTTPState.REQUEST:
            await self._begin(cast("HTTPResponseStartEvent", message))
            return
        if kind == "http.response.body":
            more = bool(message.get("more_body", False))
            if more and self._chunked:
                body = cast("bytes", message.get("body", b""))
                if body or self._link.is_behind:
                    await self._link.write(_chunk(body) if body else b"")
                return
            if self._chunked and not more and message.get("body"):
                await self._finish(cast("bytes", message.get("body")))
                return
        await super().app_send(message)

    @property
    def in_chunks(self) -> bool:
        """True while the next piece of its body is a chunk."""
        return self._chunked and self.state is ASGIHTTPState.RESPONSE and not self.closed

    async def _begin(self, message: HTTPResponseStartEvent) -> None:
        """Write status and headers, together with the first of the body if that follows at once."""
        self.response = message
        headers = [(name, value.strip()) for name, value in message.get("headers", ())]
        await self._link.write_soon(self._protocol.head(int(message["status"]), headers))
        self.state = ASGIHTTPState.RESPONSE
        self._learn_framing()

    async def _finish(self, body: bytes) -> None:
        """Send the last chunk and the end of the body, in one write."""
        await self._link.write(_chunk(body) + self._protocol.end_of_body())
        self.state = ASGIHTTPState.CLOSED
        await self.send(events.StreamClosed(stream_id=STREAM_ID))

    def _learn_framing(self) -> None:
        """How h11 delimits this body, by its own rules (RFC 9112 section 6.3)."""
        chunked = self._protocol.connection.in_chunks
        if chunked is not None:
            self._chunked = chunked
            return
        method, status = self.scope["method"], int(self.response["status"])
        if suppress_body(method, status) or method == "CONNECT":
            return
        names = {bytes(name).strip().lower() for name, _ in self.response.get("headers", [])}
        unknown = b"content-length" not in names or b"transfer-encoding" in names
        self._chunked = unknown and self._is_1_1
        self._until_close = unknown and not self._is_1_1


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Paused(Exception):  # not an error: it ends a loop
    """The next request waits until this one is answered."""


NOT_PAUSED = trio.Event()  # shared by all connections that were never paused: nobody waits for it


class ReadOn(EventWrapper):
    """Stands where H11Protocol stops its reader for as long as it answers a request.

    A client that pipelined bytes, or offered an upgrade nobody took, would otherwise be noticed
    leaving only at the next write. Here the reader goes on; what it reads waits in h11.
    """

    def __init__(self) -> None:
        self._event = NOT_PAUSED

    async def clear(self) -> None:
        """Called in place of waiting."""
        await super().clear()
        raise _Paused


class H11(H11Protocol):
    """HTTP/1.1 on one connection."""

    # It offers what is used of theirs.
    connection: Http1  # type: ignore[assignment]
    can_read: ReadOn

    def __init__(self, link: Connection) -> None:
        super().__init__(*_protocol_arguments(link))
        limit = self.config.h11_max_incomplete_size
        self.connection = Http1(limit)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.link = link
        self.can_read = ReadOn()
        self.held_back = False

    @property
    def refused_early(self) -> bool:
        """True if all was said while the client still sends."""
        return self.connection.our_state in (h11.DONE, h11.MUST_CLOSE) and (
            self.connection.their_state in (h11.SEND_BODY, h11.ERROR)
        )

    async def handle(self, event: Event) -> None:
        """Bytes from the client, or its end; no bytes: what was held back.

        Never waits for a response, short of PIPELINED.
        """
        if isinstance(event, Closed):
            await self.can_read.set()  # or who waits for room would do so for ever
        elif self.connection.their_state is h11.MUST_CLOSE:
            return  # RFC 9112 section 9.6: no further request; h11 would take it for an error
        if isinstance(event, RawData):
            self.held_back = False
            if event.data:
                self.connection.receive_data(event.data)
            if (whole := self.connection.take_whole()) is not None:
                await self._serve_whole(*whole)
        with suppress(_Paused):
            await (self._handle_events() if isinstance(event, RawData) else super().handle(event))
            return
        await self._hold_back()

    async def _hold_back(self) -> None:
        self.held_back = True
        if not (self.has_room or self.link.calls.next):  # then whoever reads on waits
            await self.have_room()

    @property
    def has_room(self) -> bool:
        """True if more may be read ahead."""
        return not self.held_back or len(self.connection.trailing_data[0]) <= PIPELINED

    async def have_room(self) -> None:
        """Wait until what was held back can be gone on with."""
        await self.can_read.wait()

    @property
    def in_head(self) -> bool:
        """True if the head of a request has begun, right after something was handled."""
        return self.connection.in_head

    @property
    def in_chunks(self) -> bool:
        """True while a body is being sent of which the next piece is a chunk."""
        return isinstance(self.stream, H11Stream) and self.stream.in_chunks

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Status line and headers; from here on they count as sent."""
        if not _are_fields(headers):
            raise h11.LocalProtocolError("a header of the answer is none, or would end its line")
        try:
            return self.connection.head(status, headers)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return b""  # the client sent rubbish, and has been answered

    def end_of_body(self) -> bytes:
        """What ends the body under way; from here on h11 takes it for sent."""
        return self.connection.send(h11.EndOfMessage()) or b""

    async def _serve_whole(self, request: h11.Request, body: bytes) -> None:
        """What the events of a request come to, when all of it is there."""
        self.link.work()
        await self._open_stream(request)
        if isinstance(self.stream, H11Stream):
            await self.stream.app_put({"type": "http.request", "body": body, "more_body": False})

    async def _check_protocol(self, event: h11.Request) -> None:
        # Prior knowledge (RFC 9113 section 3.3). The upgrade from 1.1, h2c, is no longer part of
        # HTTP/2 and a known way to smuggle requests past whatever stands in front: not offered.
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            rest = self.connection.trailing_data[0]
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + rest)

    async def _create_stream(self, request: h11.Request) -> None:
        if _wants_websocket(request):
            await self._refuse_websocket()
        else:
            await self._open_stream(request)

    async def _open_stream(self, request: h11.Request) -> None:
        if len(request.headers) > self.link.server.listening.max_header_fields:
            await self._send_error_response(431)
            await self.link.send(Closed())
            return
        self.stream = stream = H11Stream(self, request)
        await stream.open(request)

    async def _refuse_websocket(self) -> None:
        """RFC 9110 section 15.5.22; agents that try a WebSocket first go on with POST at once."""
        headers = [
            (b"upgrade", b"HTTP/1.1"),
            (b"connection", b"upgrade, close"),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(NO_WEBSOCKET)),
        ]
        answer: tuple[H11SendableEvent, ...] = (
            h11.Response(status_code=426, headers=headers, reason=b"Upgrade Required"),
            h11.Data(data=NO_WEBSOCKET),
            h11.EndOfMessage(),
        )
        await self.link.write(b"".join(self.connection.send(event) or b"" for event in answer))
        await self.link.send(Closed())


def _are_fields(headers: list[tuple[bytes, bytes]]) -> bool:
    """True if these are headers, one line each (RFC 9110 section 5)."""
    names, values = [name for name, _ in headers], b"".join([value for _, value in headers])
    whole = b"" not in names and not b"".join(names).translate(None, TOKEN)
    return whole and len(values.translate(None, NOT_IN_VALUES)) == len(values)


def _wants_websocket(request: h11.Request) -> bool:
    fields = {name: value.lower() for name, value in request.headers}
    tokens = [token.strip() for token in fields.get(b"connection", b"").split(b",")]
    return b"upgrade" in tokens and fields.get(b"upgrade", b"").strip() == b"websocket"


class H2Stream(HTTPStream):
    """One HTTP/2 request, and its ClientConnection: other streams' progress is not its own."""

    def __init__(self, protocol: H2, stream_id: int) -> None:
        super().__init__(*_stream_arguments(protocol, stream_id))
        self._protocol = protocol

    def write_now(self, body: bytes) -> Written:
        """See ClientConnection; windows have to be looked at here."""
        return Written.NOTHING

    def begin_now(self, status: int, headers: Headers, *, followed: bool) -> bool:
        """See ClientConnection; a head here is compressed, in turn with all others."""
        return False

    def abort(self) -> None:
        """See ClientConnection."""
        self._protocol.link.abort()

    def progressed_at(self) -> float:
        """See ClientConnection."""
        return self._protocol.progressed_at(self.stream_id)

    def is_gone(self) -> bool:
        """See ClientConnection."""
        return self.closed or self._protocol.link.is_gone()

    def open_inbox(self) -> Inbox:
        """For what the application will receive."""
        return Upload(self._protocol, self.stream_id)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """What the application calls to answer; None once it has returned."""
        if message is None:
            if self.state is ASGIHTTPState.RESPONSE and not self.closed:
                await self._protocol.cut(self.stream_id)
        elif self.closed:
            await trio.lowlevel.checkpoint()
            return
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        await super().app_send(message)


class Outbox(StreamBuffer):
    """What one HTTP/2 stream has yet to send.

    Hypercorn's own lets a writer on whenever it looked for something to send, also when the window
    was shut and nothing left: a client that gives no window would have us hold all of the stream.
    """

    def __init__(self) -> None:
        super().__init__(EventWrapper)
        self.moved_at = -math.inf
        """When something last left; when there was nothing to leave, what came last."""
        self._has_room = trio.Event()
        self._emptied = trio.Event()
        self._sent = trio.Event()

    async def push(self, data: bytes) -> None:
        """Add `data`, then wait until less than two frames are left, and they get on."""
        if self._complete:
            return
        if not self.buffer:
            self.moved_at = trio.current_time()
        self.buffer.extend(data)
        # A shut window holds the writer up also when there is little to write, as heartbeats are:
        # the deadline for writes that get nowhere would never begin.
        while len(self.buffer) >= BUFFER_HIGH_WATER or self._is_late():
            self._has_room = trio.Event()
            await self._has_room.wait()

    def _is_late(self) -> bool:
        return bool(self.buffer) and trio.current_time() - self.moved_at > STUCK

    async def pop(self, max_length: int) -> bytes:
        """Take up to `max_length` bytes."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if data:
            self.moved_at = trio.current_time()
        if len(self.buffer) < BUFFER_LOW_WATER:
            self._has_room.set()
        if not self.buffer:
            self._emptied.set()
        return data

    async def drain(self) -> None:
        """Wait until all is on the wire, the end of the stream included if that was said."""
        if self._complete:
            await self._sent.wait()
            return
        while self.buffer:
            self._emptied = trio.Event()
            await self._emptied.wait()

    async def close(self) -> None:
        """Drop everything and let everyone on."""
        self._complete = True
        self.buffer = bytearray()
        for event in (self._has_room, self._emptied, self._sent):
            event.set()


# A request that was refused at once, and one that its client has taken back.
MAY_LEAVE_IDLE = (h2.events.RequestReceived, h2.events.StreamReset)


class H2(H2Protocol):
    """HTTP/2 on one connection."""

    held_back = False
    has_room = True  # windows say what may be sent
    refused_early = False
    in_chunks = False  # but frames
    stream_buffers: dict[int, StreamBuffer]

    def __init__(self, link: Connection) -> None:
        super().__init__(*_protocol_arguments(link))
        self.link = link
        # As Hypercorn sets it, without the offer of WebSockets (RFC 8441).
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: self.config.h2_max_concurrent_streams,
                codes.MAX_HEADER_LIST_SIZE: self.config.h2_max_header_list_size,
            },
        )
        listening = link.server.listening
        resets, frames = listening.max_resets, listening.max_control_frames
        self.calm = Calm(resets=resets, frames=frames, now=trio.current_time())
        # It counts its root, and streams that are over until their end has been written.
        self.priority = PriorityTree(maximum_streams=4 * MAX_STREAMS)

    async def initiate(
        self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        """Greet; with a window of the connection that one body that waits does not shut."""
        await super().initiate(headers, settings)
        usual = self.connection.inbound_flow_control_window
        self.connection.increment_flow_control_window(UPLOADS - usual)
        await self._flush()

    async def go_away(self) -> None:
        """Say that requests behind the last that came are not taken on.

        Written past h2, which would refuse to end the streams that are still to be ended.
        """
        last = self.connection.highest_inbound_stream_id
        await self.send(RawData(GOAWAY + struct.pack(">II", last, 0)))

    async def have_room(self) -> None:
        """There always is."""

    def progressed_at(self, stream_id: int) -> float:
        """See ClientConnection."""
        outbox = self.stream_buffers.get(stream_id)
        if not isinstance(outbox, Outbox) or not outbox.buffer:
            return self.link.progressed_at()
        with suppress(h2.exceptions.ProtocolError):  # reset meanwhile
            if self.connection.local_flow_control_window(stream_id) > 0:
                return max(outbox.moved_at, self.link.progressed_at())
        return outbox.moved_at

    def give_back(self, size: int, stream_id: int) -> None:
        """Let the client send that much again, as soon as the next window updates are sent."""
        with suppress(h2.exceptions.ProtocolError):
            self.connection.acknowledge_received_data(size, stream_id)

    async def send_windows(self) -> None:
        """Send what `give_back` prepared."""
        await self._flush()

    async def handle(self, event: Event) -> None:
        """Bytes from the client, or its end, which also lets on whoever waits for window."""
        if isinstance(event, RawData):
            await self._handle_slices(event.data)
            return
        await super().handle(event)
        if isinstance(event, Closed):
            for outbox in list(self.stream_buffers.values()):
                await outbox.close()

    async def _handle_slices(self, data: bytes) -> None:
        """Handle what one read brought, letting others on in between."""
        for at in range(0, len(data), SLICE):
            if at:
                await trio.lowlevel.cancel_shielded_checkpoint()
            piece = data[at : at + SLICE]
            if not self.calm.read(piece, trio.current_time()):
                await self._insist_on_calm()
            if self.closed:
                return
            await super().handle(RawData(piece))

    async def _insist_on_calm(self) -> None:
        """End the connection of a client that asks for too much (see core.calm)."""
        with suppress(h2.exceptions.ProtocolError):
            self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        await self._flush()
        await self.link.send(Closed())

    async def cut(self, stream_id: int) -> None:
        """Reset one stream, after what was written to it if the client takes that in time."""
        outbox = self.stream_buffers.get(stream_id)
        if outbox is not None:
            with trio.move_on_after(CUT_GRACE):
                await outbox.drain()
        with suppress(h2.exceptions.ProtocolError):  # the client was quicker
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        await self._flush()
        if outbox is not None:
            await outbox.close()
            await self._window_updated(stream_id)  # the sender looks at it, and forgets it

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.StreamReset) and not self.calm.reset(
                trio.current_time()
            ):
                await self._insist_on_calm()
                return
            if isinstance(event, h2.events.DataReceived):
                await self._take_data(event)
            elif not isinstance(event, h2.events.PriorityUpdated):  # deprecated, RFC 9113 5.3.2
                await super()._handle_events([event])
            if isinstance(event, MAY_LEAVE_IDLE) and self.idle:
                await self.send(Updated(idle=True))  # which Hypercorn forgets
        await self._flush()

    async def _take_data(self, event: h2.events.DataReceived) -> None:
        """Pass it on. Padding counts as taken, and all of it if the stream was answered early."""
        stream, data = self.streams.get(event.stream_id), event.data or b""
        size = event.flow_controlled_length or 0
        if stream is not None:
            size -= len(data)
            await stream.handle(events.Body(stream_id=event.stream_id, data=data))
        self.give_back(size, event.stream_id)

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        await self._flush()  # the windows of what was dropped with it

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        stream_id = request.stream_id
        fields = dict(reversed(request.headers or []))
        method, path = fields.get(b":method", b""), fields.get(b":path", b"")
        if method == b"CONNECT" or not path or not (path + method).isascii():
            status = b"501" if method == b"CONNECT" else b"400"
            await self._refuse(stream_id, status)
            return
        if len(request.headers) > self.link.server.listening.max_header_fields:
            await self._refuse(stream_id, b"431")
            return
        stream = self.streams[stream_id] = H2Stream(self, stream_id)
        self.stream_buffers[stream_id] = Outbox()
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        await stream.handle(
            events.Request(
                stream_id=stream_id,
                headers=filter_pseudo_headers(request.headers),
                http_version="2",
                method=method.decode("ascii").upper(),
                raw_path=path,
                state=ConnectionState({**self.connection_state, CONNECTION: stream}),
            )
        )

    async def _refuse(self, stream_id: int, status: bytes) -> None:
        headers = [(b":status", status), (b"content-length", b"0")]
        self.connection.send_headers(stream_id, headers, end_stream=True)
        await self._flush()

    async def _send_data(self, stream_id: int) -> None:
        """Send one frame of a stream; its end goes out with the last one."""
        outbox = self.stream_buffers.get(stream_id)
        if outbox is None:
            await self._forget(stream_id)
            return
        try:
            window = self.connection.local_flow_control_window(stream_id)
            size = min(window, self.connection.max_outbound_frame_size)
            data = await outbox.pop(max(0, size))
            ended = outbox.complete
            if data or ended:
                self.connection.send_data(stream_id, data, end_stream=ended)
                self.calm.sent_data()
                await self._flush()
            else:
                self.priority.block(stream_id)
        except h2.exceptions.ProtocolError:  # reset meanwhile
            ended = True
        if ended:
            await self._forget(stream_id)

    async def _forget(self, stream_id: int) -> None:
        with suppress(MissingStreamError):
            self.priority.remove_stream(stream_id)
        outbox = self.stream_buffers.pop(stream_id, None)
        if outbox is not None:
            await outbox.close()
