"""A server of ours on a loopback port, with a toy application behind it."""

from __future__ import annotations

import functools
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from patience import NEVER, PATIENCE, until

from trio_sse_proxy.listening import Stop, open_sockets
from trio_sse_proxy.server import Listening, Server


class Idle:
    """A drainer with nothing to drain."""

    def begin_drain(self):
        pass

    async def drained(self):
        await trio.lowlevel.checkpoint()

    def end_streams(self):
        pass


@dataclass
class Running:
    server: Server
    port: int
    stop: Stop
    ended: trio.Event = field(default_factory=trio.Event)
    clients: list[trio.SocketStream] = field(default_factory=list)

    async def connect(self, **options):
        """A connected trio stream; `receive_buffer` in bytes makes a client with a small window."""
        sock = socket.socket()
        if "receive_buffer" in options:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
        sock.connect(("127.0.0.1", self.port))
        self.clients.append(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        return self.clients[-1]

    async def stuck(self):
        """Wait until the server cannot write to one of its clients."""
        await until(lambda: any(each.wire.stuck_for() for each in self.server.connections))

    async def exchange(self, request):
        """Send `request`, return everything up to the end of the connection."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await read_all(stream)


async def read_all(stream):
    got = bytearray()
    with trio.fail_after(PATIENCE):
        async for data in stream:
            got += data
    return bytes(got)


async def read_until(stream, mark, got=b""):
    found, at = bytearray(got), 0
    with trio.fail_after(PATIENCE):
        while found.find(mark, at) < 0:
            at = max(0, len(found) - len(mark))
            data = await stream.receive_some()
            assert data, f"the connection ended at {bytes(found)!r}, without {mark!r}"
            found += data
    return bytes(found)


@asynccontextmanager
async def serving(app, *, drainer=None, **listening):
    """Serve `app`; at the end the server has to stop, in time, with no connection left."""
    listening = {"drain_timeout": 0.2, "write_stall_timeout": NEVER, **listening}
    settings = Listening(bind="127.0.0.1:0", **listening)
    sockets = open_sockets(settings.bind, write_stall_timeout=settings.write_stall_timeout)
    running = Running(Server(app, settings), sockets[0].getsockname()[1], Stop())

    async def run():
        serve = functools.partial(running.server.serve, drainer or Idle(), sockets, running.stop)
        await serve()
        running.ended.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield running
            running.stop.ask()
            with trio.fail_after(PATIENCE):
                await running.ended.wait()
    finally:
        for client in running.clients:
            client.socket.close()
    assert not running.server.connections


def start(status=200, headers=()):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data=b"", *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}
