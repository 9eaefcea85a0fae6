"""TLS towards upstreams: whom we trust, and a connection that hands over whole reads.

trio's SSLStream gives out one TLS record a call, with a trip through the scheduler for each. A
server that flushes every frame fills one read with many small records, so we drive the standard
library's SSLObject ourselves and drain it after each read from the socket.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING

import certifi
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from .lines import SocketLine

READ_SIZE = 65_536


def make_ssl_context(ca_file: str | None = None, system_store: bool = False) -> ssl.SSLContext:
    """A verifying client context that speaks HTTP/1.1.

    Trusts certifi's roots; with `ca_file` (PEM) those of that file instead; with `system_store` the
    operating system's, and those of `ca_file` in addition. Raises OSError for a file that is
    missing or holds no certificate. Slow (tens of milliseconds) and half a megabyte: make it once.
    """
    if system_store:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(cafile=ca_file)
    else:
        context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


@cache
def default_ssl_context() -> ssl.SSLContext:
    """The context for whoever brings none; made when the first https upstream is asked."""
    return make_ssl_context()


class TlsLine:
    """TLS over a socket; the same interface as SocketLine. Call `handshake` first."""

    __slots__ = (
        "_ended",
        "_incoming",
        "_lower",
        "_outgoing",
        "_send_lock",
        "_unsent",
        "ssl_object",
    )

    resumable = True

    def __init__(self, lower: SocketLine, context: ssl.SSLContext, server_name: str) -> None:
        """`server_name` goes out as SNI, and the certificate must be valid for it."""
        self._lower = lower
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name
        )
        self._ended = False
        # A reader may have to answer the peer (renegotiation, key update) while a writer is at it;
        # records must reach the socket in the order they left the SSLObject.
        self._send_lock = trio.Lock()
        self._unsent = memoryview(b"")  # encrypted, so it must go out before anything else does

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket underneath."""
        return self._lower.socket

    @property
    def bytes_sent(self) -> int:
        """Bytes the kernel has taken so far, the handshake's included."""
        return self._lower.bytes_sent

    @property
    def has_unsent(self) -> bool:
        """See Line: records wait that were made but not sent."""
        return bool(self._unsent or self._outgoing.pending)

    async def handshake(self) -> None:
        """Agree on keys and verify the peer. Raises ssl.SSLError, OSError, trio's stream errors."""
        while True:
            try:
                self.ssl_object.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._pull()
            else:
                await self._flush()
                return

    async def receive(self) -> bytes:
        """The plain text of everything one read brought; b"" at the end of the stream."""
        while not self._ended:
            await self._pull()
            data = self._drain()
            # A sender who is at it sends that too; it may be held up until somebody reads on.
            if self._outgoing.pending and not self._send_lock.locked():
                await self._flush()
            if data:
                return data
        return b""

    async def each(self, handle: Callable[[bytes], bool]) -> None:
        """See Line."""
        if self._ended:  # of which the socket may say nothing: the peer need not close it
            return

        def decrypt(data: bytes) -> bool:
            self._incoming.write(data)
            plain = self._drain()
            go_on = handle(plain) if plain else True
            return go_on and not self._ended and not self._outgoing.pending

        await self._lower.each(decrypt)
        if self._outgoing.pending and not self._send_lock.locked():
            await self._flush()

    async def send(self, data: bytes) -> None:
        """Encrypt and send all of `data`."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view) or self.has_unsent:
                sent += await self.send_some(view[sent:])

    async def send_some(self, data: bytes | memoryview) -> int:
        """See Line. What it takes is encrypted and waits in here until the next step.

        In slices, so that a large body is not held encrypted as a whole.
        """
        await self._flush()
        taken = data[:READ_SIZE]
        if taken:
            self.ssl_object.write(taken)
        return len(taken)

    def close(self) -> None:
        """Close the socket now, without a farewell; harmless to repeat."""
        self._lower.close()

    def reset(self) -> None:
        """See Line."""
        self._lower.reset()

    def is_quiet(self) -> bool:
        """False if bytes or an end of stream wait, so that the connection must not be reused."""
        return not self._ended and not self._incoming.pending and self._lower.is_quiet()

    async def _pull(self) -> None:
        data = await self._lower.receive()
        if data:
            self._incoming.write(data)
        else:
            self._ended = True
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Send what waits; cancelled, it keeps what it has not sent."""
        async with self._send_lock:
            while self.has_unsent:
                if not self._unsent:
                    self._unsent = memoryview(self._outgoing.read())
                self._unsent = self._unsent[await self._lower.send_some(self._unsent) :]

    def _drain(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while True:
                piece = self.ssl_object.read(READ_SIZE)
                if not piece:
                    self._ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # With or without a close_notify: HTTP servers seldom send one, and a message that ends
            # too early shows by its own framing.
            self._ended = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
