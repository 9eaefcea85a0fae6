"""The application calls of one connection: who makes them, and what they receive."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
import trio
from hypercorn.trio.task_group import TaskGroup

from .wire import CONNECTION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from hypercorn.config import Config
    from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

    from .connection import Connection
    from .http1 import H11
    from .http2 import H2, H2Stream

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

HELD = 64 * 1024  # bytes of a request body that wait for the application before its reader does
PIECES = 16  # of a body handled in a row, however small
CRUMB = 16  # bytes; bodies whose chunks are smaller on average cost far more than they bring
CRUMBS = 4096  # chunks of a body about which that is not asked
LOOK_EVERY = 0.5  # seconds; whether a client is still there while its body is not read

log = structlog.get_logger(__name__)


class Inbox:
    """What one application call has yet to `receive`.

    The body waits as bytes, not as the pieces it came in, which may be as small as the client
    likes. Nothing else waits: a disconnect reaches the application at once, and makes void what is
    there of an unfinished body. After the call has returned nobody reads any more, and what comes
    is dropped; Hypercorn's own would stop the connection there.
    """

    def __init__(
        self,
        is_gone: Callable[[], bool],
        evict: Callable[[], None],
        read_on: Callable[[], None],
    ) -> None:
        self._is_gone = is_gone
        self._read_on = read_on
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
            self._read_on()
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
        client.make_call(partial(self._call, app, scope, inbox, send))
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


def protocol_arguments(link: Connection) -> tuple[Any, ...]:
    """What the constructors of H11Protocol and H2Protocol take."""
    server, wire = link.server, link.wire
    shared = (server.app, server.config, server.context, link.calls, link.state)
    return (*shared, wire.tls, link.client, link.address, link.send)


def stream_arguments(protocol: H11 | H2, stream_id: int) -> tuple[Any, ...]:
    """What the constructor of HTTPStream takes."""
    shared = (protocol.app, protocol.config, protocol.context, protocol.task_group)
    ends = (protocol.ssl, protocol.client, protocol.server)
    return (*shared, *ends, protocol.stream_send, stream_id)
