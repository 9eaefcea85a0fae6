"""A client that sends its next requests without waiting: how much is read ahead, and for how long."""

from __future__ import annotations

import pytest
import trio
from patience import PATIENCE, until
from serving import body, read_until, serving, start

from trio_sse_proxy.http1 import PIPELINED
from trio_sse_proxy.wire import READ

from .wire import reset

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def answer(scope, receive, send):
    await send(start(headers=[(b"content-length", b"2")]))
    await send(body(b"ok"))


async def stream(scope, receive, send):
    async with trio.open_nursery() as nursery:

        async def watch():
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await send(start())
        while True:
            await send(body(b"hello", more=True))
            await trio.sleep(0.02)


def waiting(connection):
    return len(connection.protocol.connection.trailing_data[0])


async def test_what_waits_behind_a_request_does_not_grow_with_the_requests_answered():
    async with serving(answer) as running, trio.open_nursery() as nursery:
        client = await running.connect()
        got = 0

        async def send():
            while True:
                await client.send_all(GET * 2000)

        nursery.start_soon(send)
        with trio.fail_after(PATIENCE):
            while got < 500:
                got += (await client.receive_some(65536)).count(b"ok")
        (connection,) = running.server.connections
        assert waiting(connection) <= PIPELINED + 2 * READ
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("leave", [reset, lambda client: client.socket.close()])
async def test_a_client_that_leaves_with_much_behind_its_request_leaves_nothing(leave):
    async with serving(stream) as running:
        client = await running.connect()
        await client.send_all(GET * 8000)
        await read_until(client, b"hello")
        leave(client)
        await until(lambda: not running.server.connections)
