"""Everything but sockets: the application, the HTTP upstream, our transport, and a server in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from test_embedding import call
from trio.testing import memory_stream_pair, wait_all_tasks_blocked
from upstreams.servers import Requests

from trio_sse_proxy import Proxy, Settings
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport

if TYPE_CHECKING:
    from relay.scripted_client import Client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunks(*pieces):
    """Each as a chunk of a chunked body."""
    return [b"%x\r\n%b\r\n" % (len(p), p) if isinstance(p, bytes) else p for p in pieces]


class Hang:
    """A step: wait for the other side to close."""


class Close:
    """A step: close the connection."""


class Early:
    """A first step: answer after the head, without reading the body."""


class MemoryServer:
    """Answers its n-th request with the n-th script: seconds to wait, bytes to send, or a step."""

    def __init__(self, nursery, *scripts) -> None:
        self._nursery = nursery
        self._scripts = list(scripts)
        self.connections = 0
        self.open = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self.left_at: list[float] = []
        """When the proxy closed a connection that was still being answered."""

    async def connect(self, origin, within):
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        self.connections += 1
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream):
        self.open += 1
        try:
            requests = Requests(stream)
            while (request := await self._read(requests)) is not None:
                self.requests.append(request)
                await self._answer(stream, self._scripts.pop(0))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.left_at.append(trio.current_time())
        finally:
            self.open -= 1
            stream.send_stream.close()
            stream.receive_stream.close()

    async def _read(self, requests):
        if self._scripts and self._scripts[0][0] is Early:
            return await requests.head(), b""
        return await requests.whole()

    async def _answer(self, stream, script):
        for step in script:
            if step is Early:
                continue
            if isinstance(step, bytes):
                await stream.send_all(step)
            elif step is Close:
                stream.send_stream.close()
                raise trio.ClosedResourceError
            elif step is Hang:
                assert await stream.receive_some() == b""
                raise trio.BrokenResourceError
            else:
                await self._wait(stream, step)

    async def _wait(self, stream, seconds):
        with trio.move_on_after(seconds):
            if await stream.receive_some() == b"":
                raise trio.BrokenResourceError

    def header(self, name: bytes, request: int = -1) -> list[bytes]:
        lines = self.requests[request][0].split(b"\r\n")[1:]
        fields = [line.partition(b": ") for line in lines]
        return [value for field, _, value in fields if field.lower() == name]

    def target(self, request: int = -1) -> bytes:
        return self.requests[request][0].split(b" ")[1]


@asynccontextmanager
async def whole_path(*scripts, base_url="http://upstream.test", api_key=None, **settings):
    """(ask, server): `ask(client, path)` runs one request; afterwards nothing may be left open."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        server = MemoryServer(nursery, *scripts)
        transport = TrioTransport(connect=server.connect)
        upstream = HttpUpstream(
            name="memory",
            base_url=base_url,
            transport=transport,
            connect_timeout=10.0,
            api_key=api_key,
        )
        proxy = Proxy(Settings(**settings), upstream=upstream)

        async def ask(client, path="/v1/chat/completions", **more) -> Client:
            return await call(proxy, path, client, **more)

        async with proxy.running():
            yield ask, server
            assert transport.pool.busy_connections == 0
            assert not proxy.application.live
        await upstream.aclose()
        await wait_all_tasks_blocked()
        assert server.open == 0
        nursery.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
