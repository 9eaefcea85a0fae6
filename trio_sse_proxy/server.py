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

So `Connection` takes the place of its TCPServer, `Calls` of its TaskGroup, and `H11`, `H2` and their
streams (each in a module of its own) are its protocol classes with the methods overridden that the
list above asks for. Nothing of it is patched. What they use of Hypercorn beyond its documentation is
asserted, against the installed release, by `tests/test_server_pins.py`.

`python -m hypercorn -k trio` with the same application works too, without the list above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from .connection import Connection
from .crowd import Crowd, turn_away
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
from .wire import Wire

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from hypercorn.typing import AppWrapper

    from .calls import ASGIApp

FAREWELL = 1.5  # seconds for telling the clients that are still there when the drain is over
TURNS = 16  # of the event loop that it lasts at the least: a starved one may take seconds for each
GO_AWAY = 0.25  # seconds for telling clients of HTTP/2 that their connections are about to close


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
