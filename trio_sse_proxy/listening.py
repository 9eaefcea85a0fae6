"""Listening sockets, accepting on them, and the signals that end it.

The sockets are made here and not by Hypercorn because what is set on a listening socket is
inherited by every connection accepted from it, and three of these options decide whether a client
that went away is noticed at all.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from .core.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
    from contextlib import AbstractContextManager

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel takes less where it is told to."""

SEND_BUFFER = 256 * 1024
"""Bytes the kernel keeps for one slow client.

Left alone, Linux grows it to 4 MB: minutes of tokens, during which a client that stopped reading
looks like one that reads. This much still carries 2 MB/s to a client 100 ms away.
"""

KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds, seconds (macOS's name for the same), seconds, probes: for a client that vanished without
a word while nothing is being written to it."""

BACKSTOP = 4
"""How many stall timeouts the kernel waits for a client that acknowledges nothing.

It is there for clients that vanished while little was written to them. It also ends slow ones that
never open their window far, wherefore it must come late, and is taken off a connection as soon as
a write has to wait there, which is watched more closely (`wire.Transport`)."""

ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""`localhost` names ::1 also on machines without IPv6: enough if one of its addresses works."""

STDERR = 2

ACCEPT_BATCH = 64  # connections taken at once, before other tasks get their turn
ACCEPT_PAUSE = 0.1  # seconds; out of descriptors or memory, trying again at once would only spin
TELL_EVERY = 10.0  # seconds; that it goes on like this

log = structlog.get_logger(__name__)


class BindError(ProxyError):
    """The server cannot listen as it was told to; the words say where and why."""


def open_sockets(bind: str, *, write_stall_timeout: float = 0.0) -> list[socket.socket]:
    """Listen on every address that `bind` ("host:port", "[::1]:port", ":port") stands for.

    Port 0 lets the kernel choose, the same port for every address. `write_stall_timeout` is in
    seconds, 0 leaves it to the system. Raises BindError, and then leaves nothing open.
    """
    host, port = _split(bind)
    opened: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in _resolve(bind, host, port):
            if port == 0 and opened:
                chosen: int = opened[0].getsockname()[1]
                address = (address[0], chosen, *address[2:])
            try:
                opened.append(_listen(family, address, write_stall_timeout))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
        if absent and not opened:
            raise absent
    except OSError as error:
        for sock in opened:
            sock.close()
        words = error.strerror or str(error)
        raise BindError(f"cannot listen on {bind}: {words}") from error
    return opened


def url_of(sock: socket.socket, *, tls: bool) -> str:
    """How a client reaches `sock`."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if sock.family == socket.AF_INET6 else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


class Acceptor:
    """Takes connections from one listening socket.

    trio's own listener is not used: it keeps the plain socket object to itself, and writing
    to that one directly is a quarter of the cost of a frame (`wire.Wire.send`).
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._told_at = -math.inf

    async def accept(self) -> list[socket.socket]:
        """All that have arrived, waiting for the first; nothing a client does ends that.

        Not more than ACCEPT_BATCH. A cancellation comes before any was taken, or not at all.
        """
        accepted: list[socket.socket] = []
        while not accepted:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                while len(accepted) < ACCEPT_BATCH:
                    accepted.append(self._listener.accept()[0])
            except BlockingIOError:
                pass
            except ConnectionError:  # it left while it waited
                pass
            except OSError as error:
                if not accepted:
                    self._tell(error)
                    await trio.sleep(ACCEPT_PAUSE)
        return accepted

    def _tell(self, error: OSError) -> None:
        if trio.current_time() - self._told_at >= TELL_EVERY:
            self._told_at = trio.current_time()
            log.warning("accepting failed", error=str(error), again_in=ACCEPT_PAUSE)


class Stop:
    """What has been asked of the server: nothing yet, to drain, or to end at once."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.insisted = trio.Event()
        self.signum = 0
        """The signal that came last; 0 if none did."""

    def ask(self, signum: int = 0) -> None:
        """Ask once to drain, again to end at once."""
        self.signum = signum
        (self.insisted if self.asked.is_set() else self.asked).set()


def open_signals() -> AbstractContextManager[AsyncIterator[int]]:
    """Receive SIGTERM and SIGINT (Windows: also Ctrl-Break) from here on, in the main thread."""
    signals = [signal.SIGTERM, signal.SIGINT]
    if sys.platform == "win32":
        signals.append(signal.SIGBREAK)
    return trio.open_signal_receiver(*signals)


async def heed_signals(signals: AsyncIterator[int], stop: Stop) -> None:
    """Pass what `open_signals` receives on to `stop`, until cancelled."""
    async for signum in signals:
        stop.ask(signum)


@contextmanager
def open_hangups() -> Generator[AsyncIterator[int] | None]:
    """Receive SIGHUP from here on, in the main thread; None on Windows, which has no such signal."""
    if sys.platform == "win32":
        yield None
    else:
        with trio.open_signal_receiver(signal.SIGHUP) as hangups:
            yield hangups


async def heed_hangups(
    hangups: AsyncIterator[int] | None, reload: Callable[[], Awaitable[None]]
) -> None:
    """Call `reload` at each of what `open_hangups` receives, until cancelled.

    SIGHUP has two meanings: read your settings again, and (the older one) your terminal is gone. Who
    closes the window in which a server runs wants it to end; so that is what it does then.
    """
    in_terminal = os.isatty(STDERR)
    if hangups is None:
        return
    async for _ in hangups:
        if in_terminal and not os.isatty(STDERR):
            signal.raise_signal(signal.SIGTERM)
        else:
            await reload()


def _split(bind: str) -> tuple[str, int]:
    host, colon, port = bind.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) < 65536):
        raise BindError(f"cannot listen on {bind}: want HOST:PORT, as in 127.0.0.1:8787")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BindError(
            f"cannot listen on {bind}: an IPv6 address wants brackets, as in [::1]:8787"
        )
    return host, int(port)


_Address = tuple[str, int, *tuple[int, ...]]


def _resolve(bind: str, host: str, port: int) -> Iterator[tuple[socket.AddressFamily, _Address]]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise BindError(f"cannot listen on {bind}: {error}") from error
    for family, _, _, _, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            yield family, address  # type: ignore[misc]  # without IPv6 support it may be bytes


def _listen(
    family: socket.AddressFamily, address: _Address, write_stall_timeout: float
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        for level, option, value in _options(family, write_stall_timeout):
            sock.setsockopt(level, option, value)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _options(
    family: socket.AddressFamily, write_stall_timeout: float
) -> Iterator[tuple[int, int, int]]:
    """What the platform has of what we want, as arguments for `setsockopt`."""
    if sys.platform == "win32":
        # There, SO_REUSEADDR would let any other program take the port from us.
        yield socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1
    else:
        yield socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
    if family == socket.AF_INET6:
        yield socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1
    yield socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    yield socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            yield socket.IPPROTO_TCP, getattr(socket, name), value
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = min(math.ceil(BACKSTOP * write_stall_timeout * 1000), 2**31 - 1)
        yield socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds
