"""HTTP/1.1 where reading, serving and closing meet: each in the phase in which it could go wrong."""

from __future__ import annotations

import pytest
import structlog.testing
import trio
import trio.testing
from patience import until
from serving import body, read_all, read_until, serving, start

from trio_sse_proxy.http1 import PIPELINED

pytestmark = [pytest.mark.slow, pytest.mark.steady]

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def hello(scope, receive, send):
    await send(start())
    await send(body(b"hello"))


async def test_a_connection_that_ends_in_its_last_write_leaves_its_place():
    async def app(scope, receive, send):
        await send(start())
        await send(body(bytes(8_000_000)))

    async with serving(app) as running:
        client = await running.connect(receive_buffer=4096)
        await client.send_all(GET)
        await running.stuck()
        await client.send_eof()
        await until(lambda: not running.server.connections)
        await trio.testing.wait_all_tasks_blocked(0.02)
        crowd = running.server.crowd
        assert (crowd._here, len(crowd._resting)) == (0, 0)


async def test_a_head_is_sent_though_the_reader_waits_for_room():
    """The second request is answered with more behind it than is read ahead."""

    async def app(scope, receive, send):
        if scope["path"] == "/first":
            await may_answer.wait()
            await send(start(headers=[(b"content-length", b"0")]))
            await send(body())
        else:
            await send(start(headers=[(b"x-second", b"1")]))
            await trio.sleep_forever()

    may_answer = trio.Event()
    async with serving(app) as running, trio.open_nursery() as nursery:
        client = await running.connect()
        await client.send_all(GET.replace(b"/", b"/first", 1))
        nursery.start_soon(client.send_all, GET + bytes(4 * PIPELINED))
        await trio.sleep(0.1)
        may_answer.set()
        await read_until(client, b"x-second")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", [b"GET", b"PUT"])
@pytest.mark.parametrize("behind", [GET, b"rubbish\r\n\r\n", b"\x00"])
async def test_what_comes_with_the_last_request_does_not_spoil_its_answer(method, behind):
    last = method + b" / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    async with serving(hello) as running:
        got = await running.exchange(last + behind)
    assert (got.count(b"HTTP/1.1 200"), got.count(b"HTTP/1.1"), got[-5:]) == (1, 1, b"0\r\n\r\n")


async def test_the_preface_of_http_2_behind_a_request_fails_nothing():
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    async with serving(hello) as running, await running.connect() as client:
        with structlog.testing.capture_logs() as logs:
            await client.send_all(GET + preface)
            await read_until(client, b"0\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.02)
    assert logs == []


async def test_the_time_for_a_head_is_up_also_where_a_connection_may_rest_for_ever():
    async with serving(hello, keep_alive=0, header_timeout=0.25) as running:
        async with await running.connect() as client:
            await client.send_all(GET[:-5])
            assert await read_all(client) == b""
        async with await running.connect() as client:
            await client.send_all(GET + GET[:-5])
            assert (await read_all(client)).count(b"200") == 1


async def test_too_many_headers_are_refused_and_the_connection_ends():
    head = GET[:-2] + b"a:\r\n" * 300 + b"\r\n"
    async with serving(hello) as running:
        client = await running.connect()
        await client.send_all(head)
        await read_until(client, b"431")
        await until(lambda: not running.server.connections)
