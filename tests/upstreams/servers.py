"""Scripted upstreams for these tests: over memory streams, and over real sockets."""

from __future__ import annotations

import functools
import socket
import struct
from contextlib import asynccontextmanager

import trio
from trio.testing import memory_stream_pair


class MemoryUpstream:
    """Answers each connection with `script(stream)`; `connect` is what TrioTransport takes."""

    def __init__(self, nursery, script):
        self.nursery = nursery
        self.script = script
        self.connections = 0

    async def connect(self, origin, within):
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        self.connections += 1
        self.nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream):
        try:
            await self.script(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.send_stream.close()
            stream.receive_stream.close()


class Requests:
    """The requests that come over one stream, read just well enough for tests."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    async def fill(self):
        data = await self.stream.receive_some(65536)
        self.buffer += data
        return bool(data)

    async def head(self):
        """One head without its blank line; None at the end of the stream."""
        while b"\r\n\r\n" not in self.buffer:
            if not await self.fill():
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head

    async def exactly(self, size):
        while len(self.buffer) < size:
            if not await self.fill():
                raise trio.BrokenResourceError("the request ended early")
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def chunked(self):
        body = b""
        while True:
            while b"\r\n" not in self.buffer:
                if not await self.fill():
                    raise trio.BrokenResourceError("the request ended early")
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            size = int(line, 16)
            body += (await self.exactly(size + 2))[:size]
            if not size:
                return body

    async def whole(self):
        """(head, body), or None at the end of the stream."""
        head = await self.head()
        if head is None:
            return None
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return head, await self.chunked()
        size = 0
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        return head, await self.exactly(size)


def answer(body=b"hello", *, status=b"200 OK", fields=b""):
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), fields, body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def reset(stream):
    """Close `stream` with RST instead of FIN."""
    sock = stream.socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@functools.cache
def _not_listening():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def closed_port():
    """A port of this machine that nobody listens on, nor is given meanwhile: it is kept for that."""
    return _not_listening().getsockname()[1]


@asynccontextmanager
async def serving(script, ssl_context=None):
    """The port of a server on real sockets that runs `script(stream)` per connection."""

    async def handle(stream):
        try:
            if ssl_context is not None:
                stream = trio.SSLStream(
                    stream, ssl_context, server_side=True, https_compatible=True
                )
            await script(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
