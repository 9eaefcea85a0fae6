"""Writing a piece of a body where the caller stands, without a message and without waiting."""

from __future__ import annotations

import socket

import httpx
import pytest
import trio
from patience import PATIENCE, until
from serving import body, read_all, read_until, serving, start

from trio_sse_proxy.wire import CONNECTION, Written

pytestmark = [pytest.mark.slow, pytest.mark.steady]

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def connection_of(scope):
    return scope["state"][CONNECTION]


async def test_a_piece_written_at_once_is_a_chunk_like_any_other():
    async def app(scope, receive, send):
        await send(start())
        await send(body(b"one", more=True))
        assert connection_of(scope).write_now(b"two") is Written.WHOLLY
        await send(body(b"three", more=True))
        assert connection_of(scope).write_now(b"four") is Written.WHOLLY
        await send(body())

    async with serving(app) as running, await running.connect() as client:
        for _ in range(2):  # and the connection stays usable
            await client.send_all(GET)
            got = await read_until(client, b"0\r\n\r\n")
            assert got.endswith(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n4\r\nfour\r\n0\r\n\r\n")


async def test_before_the_head_has_gone_out_and_after_the_end_nothing_is_written():
    said = []

    async def app(scope, receive, send):
        connection = connection_of(scope)
        said.append(connection.write_now(b"before"))
        await send(start())
        said.append(connection.write_now(b"with the head still waiting"))
        await send(body(b"whole"))
        said.append(connection.write_now(b"after"))

    async with serving(app) as running, await running.connect() as client:
        await client.send_all(GET)
        got = await read_until(client, b"0\r\n\r\n")
        assert got.endswith(b"\r\n\r\n5\r\nwhole\r\n0\r\n\r\n")
    assert said == [Written.NOTHING] * 3


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        (b"GET / HTTP/1.0", ()),
        (b"GET / HTTP/1.1", ((b"content-length", b"8"),)),
        (b"HEAD / HTTP/1.1", ()),
    ],
    ids=["until close", "of known length", "none"],
)
async def test_a_body_that_is_not_in_chunks_is_left_to_messages(request_line, headers):
    said = []

    async def app(scope, receive, send):
        await send(start(headers=headers))
        await send(body(b"four", more=True))
        said.append(connection_of(scope).write_now(b"more"))
        await send(body(b"four"))

    request = request_line + b"\r\nhost: x\r\nconnection: close\r\n\r\n"
    async with serving(app) as running:
        await running.exchange(request)
    assert said == [Written.NOTHING]


async def test_over_http_2_nothing_is_written_at_once():
    said = []

    async def app(scope, receive, send):
        await send(start())
        await send(body(b"one", more=True))
        said.append((scope["http_version"], connection_of(scope).write_now(b"two")))
        await send(body())

    async with serving(app) as running:
        async with httpx.AsyncClient(http1=False, http2=True, timeout=PATIENCE) as client:
            response = await client.get(f"http://127.0.0.1:{running.port}/")
        assert response.content == b"one"
    assert said == [("2", Written.NOTHING)]


async def test_what_the_kernel_has_no_room_for_goes_out_first_with_the_next_write():
    pieces = [bytes([65 + number % 26]) * 50_000 for number in range(200)]
    said = []

    async def app(scope, receive, send):
        await send(start())
        await send(body(b".", more=True))
        for piece in pieces:
            written = connection_of(scope).write_now(piece)
            said.append(written)
            match written:
                case Written.NOTHING:
                    await send(body(piece, more=True))
                case Written.PARTLY:
                    await send(body(b"", more=True))
                case Written.WHOLLY:
                    pass
        await send(body())

    async with serving(app) as running, await running.connect() as client:
        await client.send_all(GET)
        await until(lambda: Written.PARTLY in said)
        got = await read_until(client, b"0\r\n\r\n")
    assert Written.PARTLY in said
    assert Written.WHOLLY in said
    chunks = got.partition(b"\r\n\r\n")[2]
    expected = b"1\r\n.\r\n" + b"".join(b"c350\r\n%b\r\n" % piece for piece in pieces)
    assert chunks == expected + b"0\r\n\r\n"


async def test_a_rest_that_waits_goes_out_before_a_response_that_is_left_in_the_middle():
    async def app(scope, receive, send):
        await send(start())
        await send(body(b".", more=True))
        while not said or said[-1] is Written.WHOLLY:
            said.append(connection_of(scope).write_now(b"x" * 100_000))

    said = []
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(GET)
        await until(lambda: said)
        got = await read_all(client)
    body_of = got.partition(b"\r\n\r\n1\r\n.\r\n")[2]
    whole = b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
    assert body_of == whole * (len(body_of) // len(whole))
    assert not got.endswith(b"0\r\n\r\n")


async def test_to_a_client_that_has_reset_nothing_is_written_and_nothing_raised():
    said = []
    gone, over = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        await send(start())
        await send(body(b"one", more=True))
        await gone.wait()
        await until(connection_of(scope).is_gone)
        said.append(connection_of(scope).write_now(b"two"))
        await send(body(b"two", more=True))
        await receive()
        over.set()

    async with serving(app) as running:
        client = await running.connect()
        await client.send_all(GET)
        await read_until(client, b"one")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.socket.close()
        gone.set()
        with trio.fail_after(PATIENCE):
            await over.wait()
    assert said == [Written.NOTHING]
