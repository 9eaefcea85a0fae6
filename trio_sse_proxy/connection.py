"""One client's connection, from accept to close: Hypercorn's TCPServer, rebuilt (see `server`)."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.typing import ConnectionState

from .calls import Calls, Inbox
from .http1 import H11, H11Stream
from .http2 import H2
from .plain_http1 import chunk
from .wire import CONNECTION, Wire, Written

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .core.headers import Headers
    from .server import Server

HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS
LINGER = 2.0  # seconds a refused upload is read on, so that the refusal arrives

log = structlog.get_logger(__name__)


class Connection:
    """What runs for it, and when.

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

    def has_end(self) -> bool:
        """See ClientConnection."""
        return False

    def left_early(self) -> bool:
        """See ClientConnection."""
        return False

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
