"""One accepted connection, down to its bytes: written with a deadline, closed without waiting.

Two rules make the rest of the listening side simple.

A write happens wholly or not at all. It is shielded from cancellation from its first byte to its
last, since half a chunk, or a lost HTTP/2 header block, spoils whatever follows on the connection.
What ends a write that gets nowhere is this module's own deadline, or a `close` from another task.

Closing never waits. trio's socket object is closed, not the plain one underneath: that wakes every
task that waits on it, also from under its shield.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    import ssl

CONNECTION = "trio_sse_proxy.connection"
"""Where the `state` of an ASGI scope holds the request's ClientConnection; absent elsewhere."""

READ = 64 * 1024  # bytes
TLS_RECORD = 16 * 1024  # bytes; the most one TLS record carries (RFC 8446 section 5.1)
YIELD_EVERY = 16  # writes

# Linger for no time at all: `close` sends a reset and drops what was not sent yet. The two fields
# are ints, on Windows unsigned shorts.
RESET = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)


class ClientConnection(Protocol):
    """What the application may ask of the connection its request came on."""

    def abort(self) -> None:
        """Give up on a client whose write is stuck: immediate, from any task, harmless to repeat.

        HTTP/1.1: the socket is closed, the stuck write returns, `receive` says http.disconnect.
        HTTP/2: other streams share the socket, so it is closed only if it is itself what is stuck;
        a stream stuck for want of flow-control window ends when its task is cancelled.
        """
        ...


class Wire:
    """A connection's socket, with TLS or without."""

    def __init__(
        self, accepted: socket.socket, tls: ssl.SSLContext | None, write_stall_timeout: float
    ) -> None:
        self._plain = accepted
        self._socket = trio.socket.from_stdlib_socket(accepted)
        transport = trio.SocketStream(self._socket)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # trio lets a writer wait until all but 16 KiB are on their way. To a slow client that
            # takes longer than the stall deadline, although bytes flow all the time.
            with suppress(OSError):  # it may be gone already, or no TCP
                transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2**31 - 1)
        self._tls: trio.SSLStream[trio.SocketStream] | None = None
        if tls is not None:
            self._tls = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        self._stall = write_stall_timeout
        self._lock = trio.Lock()
        self._in_a_row = 0
        self._waiting_since: float | None = None

    @property
    def tls(self) -> bool:
        """True if the bytes are encrypted."""
        return self._tls is not None

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The client's and our own host and port; OSError if the client is gone already."""
        client, server = self._plain.getpeername(), self._plain.getsockname()
        return (client[0], client[1]), (server[0], server[1])

    async def shake_hands(self) -> str | None:
        """Finish the TLS handshake; the protocol agreed on (ALPN). Raises BrokenResourceError."""
        if self._tls is None:
            return None
        await self._tls.do_handshake()
        agreed: str | None = self._tls.selected_alpn_protocol()
        return agreed

    async def receive(self) -> bytes:
        """What came; b"" once the client has left or the wire is closed."""
        stream = self._tls or self._socket
        try:
            if isinstance(stream, trio.SSLStream):
                return bytes(await stream.receive_some(READ))
            return await stream.recv(READ)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send(self, data: bytes) -> bool:
        """Write all of `data`; False if the client is gone. Not a point of cancellation.

        Nearly always the kernel has room: then one direct system call does it, with no lock,
        cancel scope or trip through the scheduler. Every YIELD_EVERY such writes the other tasks
        get their turn all the same, so that one that never waits for anything cannot starve them.
        """
        if self._tls is None and not self._lock.locked():
            try:
                sent = self._plain.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.close()
                return False
            if sent == len(data):
                self._in_a_row += 1
                if self._in_a_row >= YIELD_EVERY:
                    self._in_a_row = 0
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return True
            data = data[sent:]
        self._in_a_row = 0
        return await self._send_patiently(data)

    def stuck_for(self) -> float:
        """How long, in seconds, the write under way has got no further; 0 if there is none."""
        if self._waiting_since is None:
            return 0.0
        return trio.current_time() - self._waiting_since

    def finish(self) -> None:
        """Say that no more will be written, where TCP alone can say so."""
        if self._tls is None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close now; the kernel still delivers what was written."""
        self._socket.close()

    def reset(self) -> None:
        """Close now, with a reset, so that the client can tell it from an orderly end."""
        with suppress(OSError):
            self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._socket.close()

    async def _send_patiently(self, data: bytes) -> bool:
        """Wait for the client to make room; a client that makes none in time is reset."""
        with trio.CancelScope(shield=True) as scope:
            async with self._lock:
                try:
                    rest = memoryview(data)
                    while rest:
                        self._waiting_since = trio.current_time()
                        if self._stall:
                            scope.deadline = self._waiting_since + self._stall
                        rest = rest[await self._send_some(rest) :]
                    return True
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    self.close()
                    return False
                finally:
                    self._waiting_since = None
        self.reset()
        return False

    async def _send_some(self, rest: memoryview) -> int:
        if self._tls is None:
            return await self._socket.send(rest)
        record = rest[:TLS_RECORD]  # one at a time, so that progress shows
        await self._tls.send_all(record)
        return len(record)
