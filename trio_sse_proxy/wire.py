"""One accepted connection, down to its bytes: written with a deadline, closed without waiting.

Two rules make the rest of the listening side simple.

A write happens wholly or not at all. It is shielded from cancellation from its first byte to its
last, since half a chunk, or a lost HTTP/2 header block, spoils whatever follows on the connection.
What ends a write that gets nowhere is this module's own deadline, or a `close` from another task.
Getting nowhere means that the client acknowledged not one byte in all that time: how long a write
takes says nothing about it, since the kernel wakes a writer only for a good deal of room.

Closing never waits. trio is told of it first: that wakes every task that waits on the socket, also
from under its shield.

The socket is a plain one that does not block, and whoever has to wait asks trio for just that: trio's
own socket objects would pass every call through its scheduler, and keep four more frames for each
client that waits.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import sys
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import trio

if sys.platform == "linux":
    import fcntl
    import termios

if TYPE_CHECKING:
    import ssl

    from .core.headers import Headers

CONNECTION = "trio_sse_proxy.connection"
"""Where the `state` of an ASGI scope holds the request's ClientConnection; absent elsewhere."""

READ = 64 * 1024  # bytes
TLS_RECORD = 16 * 1024  # bytes; the most one TLS record carries (RFC 8446 section 5.1)
YIELD_EVERY = 16  # writes
LOOK_EVERY = 0.5  # seconds; at a write that waits, whether it gets any further
LOOKS = 8  # at the least, before it counts as stalled

# Linger for no time at all: `close` sends a reset and drops what was not sent yet. The two fields
# are ints, on Windows unsigned shorts.
RESET = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)


class Written(Enum):
    """What became of a write that did not wait."""

    NOTHING = "nothing"  # it has to be done again, by one that may wait
    PARTLY = "partly"  # taken, but the rest goes out with the next one that may wait
    WHOLLY = "wholly"


class ClientConnection(Protocol):
    """What the application may ask of the connection its request came on."""

    def begin_now(self, status: int, headers: Headers, *, followed: bool) -> bool:
        """Begin the answer without waiting; its head goes out with what is written next, or soon.

        Not soon, but only then, if it is `followed` at once by the first of the body. False: nothing
        was done, and a message has to do it. Headers as in ASGI.
        """
        ...

    def write_now(self, body: bytes) -> Written:
        """Write a piece of the body under way, not the last one and not empty, without waiting.

        It costs far less than a message does; what it cannot do, or fails at, a message will.
        """
        ...

    def abort(self) -> None:
        """Give up on a client whose write is stuck: immediate, from any task, harmless to repeat.

        HTTP/1.1: the socket is closed, the stuck write returns, `receive` says http.disconnect.
        HTTP/2: other streams share the socket, so it is closed only if it is itself what is stuck;
        this stream is reset, whatever waits to be sent on it.
        """
        ...

    def progressed_at(self) -> float:
        """When the client last took bytes, by trio's clock; looked up now, without waiting.

        HTTP/1.1: when the kernel last took some of the write under way, or was last seen to have
        fewer left to deliver; now, if no write waits. HTTP/2: when the stream last gave some to its
        connection, or, unless the stream itself is out of window, when the connection progressed.
        """
        ...

    def has_end(self) -> bool:
        """True if the end of the answer is here, and goes out as the client takes it.

        So on HTTP/2, where whoever sent it can be cancelled while it waits for a window. On HTTP/1.1
        it is False: a write happens wholly or not at all, and its end is the end of the call.
        """
        ...

    def left_early(self) -> bool:
        """True if the client left before it had the end that was sent; asked once that is settled."""
        ...

    def is_gone(self) -> bool:
        """True if the client has left, as far as can be told now, without waiting.

        On Linux also if what it sent last has not been read yet; elsewhere such a client is seen
        only if it reset the connection.
        """
        ...


class Transport(trio.abc.Stream):
    """The bare socket, given up once a write has got nowhere for `stall` seconds (0: never)."""

    def __init__(self, accepted: socket.socket, stall: float) -> None:
        accepted.setblocking(False)
        self.plain = accepted
        self._stall = stall
        self._reads = 0
        self._drained = False
        self._waiting = False
        self._moved_at = -math.inf
        self._unsent = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What came; b"" once the client has left. Raises BrokenResourceError, ClosedResourceError.

        Lets other tasks on as `Wire.send` does: when it has to wait, and every YIELD_EVERY reads. After
        a read that brought less than it could there is nothing more as a rule: then it waits at once.
        """
        most = max_bytes or READ
        if self._drained:
            await self._wait_readable()
        elif (self._reads + 1) % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        self._reads += 1
        while True:
            try:
                data = self.plain.recv(most)
                self._drained = 0 < len(data) < most
                return data
            except (BlockingIOError, InterruptedError):
                pass  # to wait in here would keep the exception and its traceback meanwhile
            except OSError as error:
                raise trio.BrokenResourceError from error
            await self._wait_readable()

    async def _wait_readable(self) -> None:
        if self.plain.fileno() < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self.plain)

    def receive_now(self) -> bytes:
        """What came, without waiting; b"" if that is nothing, or cannot be told."""
        if self._drained:
            return b""
        try:
            data = self.plain.recv(READ)
        except OSError:  # also if it would block; who waits for more will see
            data = b""
        # Also if nothing came; but then it may have been the end of the stream.
        self._drained = len(data) < READ
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`, with a checkpoint or without. Raises BrokenResourceError."""
        try:
            rest = memoryview(data)[self.send_now(data) :]
            if rest:
                await self._wait_and_send(rest)
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room. Raises ClosedResourceError."""
        if self.plain.fileno() < 0:  # closed between two waits
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_writable(self.plain)

    async def aclose(self) -> None:
        """Close now."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close now; the kernel still delivers what was written. Harmless to repeat."""
        if self.plain.fileno() >= 0:
            trio.lowlevel.notify_closing(self.plain)
            self.plain.close()

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Write what the kernel has room for; how many bytes that was. Raises OSError."""
        try:
            return self.plain.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def progressed_at(self) -> float:
        """When the write under way last got any further; now, if there is none."""
        now = trio.current_time()
        if not self._waiting:
            return now
        unsent = _unsent(self.plain)
        if unsent < self._unsent:
            self._moved_at = now
        self._unsent = unsent
        return self._moved_at

    def reset(self) -> None:
        """Close now, with a reset."""
        with suppress(OSError):
            self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    async def _wait_and_send(self, rest: memoryview) -> None:
        look_every = min(LOOK_EVERY, self._stall / LOOKS or math.inf)
        self._waiting = True
        try:
            while rest:
                self._moved_at, self._unsent = trio.current_time(), _unsent(self.plain)
                sent = 0
                while not sent:
                    with trio.move_on_after(look_every):
                        await self.wait_send_all_might_not_block()
                        sent = self.send_now(rest)
                    if not sent:
                        self._look()
                rest = rest[sent:]
        finally:
            self._waiting = False

    def _look(self) -> None:
        """Give up if it is time to."""
        quiet = trio.current_time() - self.progressed_at()
        if self._stall and quiet >= self._stall:
            self.reset()
            raise trio.BrokenResourceError("the client takes nothing any more")
        if sys.platform == "linux":
            # From here on our own deadline watches. The kernel's (see `listening`) begins with the
            # first time the window is shut, and does not begin anew for a client that opens it by
            # less than a segment at a time, as those do that read slowly but steadily (measured).
            with suppress(OSError):  # no TCP
                self.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


class Wire:
    """A connection's socket, with TLS or without."""

    def __init__(
        self, accepted: socket.socket, tls: ssl.SSLContext | None, write_stall_timeout: float
    ) -> None:
        self._transport = Transport(accepted, write_stall_timeout)
        self._plain = accepted
        self._tls: trio.SSLStream[Transport] | None = None
        if tls is not None:
            transport = self._transport
            self._tls = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        self._lock: trio.Lock | None = None
        """Held by whoever waits to write; made when somebody has to."""
        self._in_a_row = 0

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
        try:
            return bytes(await (self._tls or self._transport).receive_some(READ))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def receive_now(self) -> bytes:
        """What is there already, without waiting; b"" if that is nothing, or cannot be told."""
        if self._tls is not None:
            return b""
        return self._transport.receive_now()

    async def send(self, data: bytes) -> bool:
        """Write all of `data`; False if the client is gone. Not a point of cancellation.

        Nearly always the kernel has room: then one direct system call does it, with no lock,
        cancel scope or trip through the scheduler. Every YIELD_EVERY such writes the other tasks
        get their turn all the same, so that one that never waits for anything cannot starve them.
        """
        if self._tls is None and (self._lock is None or not self._lock.locked()):
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

    def send_now(self, data: bytes) -> int:
        """Write what the kernel has room for, in turn; how many bytes that was. Fails silently."""
        if self._tls is not None or (self._lock is not None and self._lock.locked()):
            return 0
        try:
            return self._plain.send(data)
        except OSError:  # also if it would block; whoever writes next will see
            return 0

    def progressed_at(self) -> float:
        """When the write under way last got any further; now, if there is none that waits."""
        return self._transport.progressed_at()

    def stuck_for(self) -> float:
        """How long, in seconds, the write under way has got no further; 0 if there is none."""
        return max(0.0, trio.current_time() - self.progressed_at())

    def is_gone(self) -> bool:
        """See ClientConnection."""
        return self._plain.fileno() < 0 or _has_hung_up(self._plain)

    def finish(self) -> None:
        """Say that no more will be written, where TCP alone can say so."""
        if self._tls is None:
            with suppress(OSError):
                self._plain.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close now; the kernel still delivers what was written."""
        self._transport.close()

    def reset(self) -> None:
        """Close now, with a reset, so that the client can tell it from an orderly end."""
        self._transport.reset()

    async def _send_patiently(self, data: bytes) -> bool:
        """Wait for the client to make room; one that makes none in time is reset."""
        if self._lock is None:
            self._lock = trio.Lock()
        with trio.CancelScope(shield=True):
            async with self._lock:
                try:
                    if self._tls is None:
                        await self._transport.send_all(data)
                    else:
                        await self._encrypt(self._tls, data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self.close()
                    return False
        return True

    @staticmethod
    async def _encrypt(tls: trio.SSLStream[Transport], data: bytes) -> None:
        for begin in range(0, len(data), TLS_RECORD):  # or it would hold all of it twice
            await tls.send_all(data[begin : begin + TLS_RECORD])


if sys.platform == "linux":

    def _unsent(sock: socket.socket) -> int:
        """Bytes the client has not acknowledged (tcp(7), SIOCOUTQ); 0 if the socket is closed."""
        try:
            answer = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def _has_hung_up(sock: socket.socket) -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
        return bool(poll.poll(0))

else:

    def _unsent(sock: socket.socket) -> int:
        """Not to be had here: what counts is what the kernel takes."""
        return 0

    def _has_hung_up(sock: socket.socket) -> bool:
        try:
            return not sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
