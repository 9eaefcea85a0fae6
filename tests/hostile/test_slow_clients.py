"""Clients that take their time, and what they may take of ours."""

from __future__ import annotations

import pytest
import trio

from .wire import (
    END_HEADERS,
    HEADERS,
    RST,
    chat,
    connect,
    ended,
    frame,
    greeted,
    post,
    read,
    request,
)

pytestmark = pytest.mark.slow


async def drip(stream, drop, *, within=5.0, every=0.2):
    """Send `drop` again and again; after how many seconds the server closed."""
    began = trio.current_time()
    while trio.current_time() - began < within:
        if await ended(stream, within=every) is not None:
            return trio.current_time() - began
        await stream.send_all(drop)
    return None


async def test_a_head_a_byte_at_a_time_is_given_up_after_header_timeout(port):
    async with await connect(port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        assert 0.4 < await drip(stream, b"x") < 3.0


async def test_the_second_head_on_a_connection_has_no_longer(port):
    async with await connect(port) as stream:
        await stream.send_all(b"GET /-/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await read(stream, until=b"ok")
        await stream.send_all(b"G")
        assert 0.4 < await drip(stream, b"E") < 3.0


async def test_a_connection_that_says_nothing_is_closed_after_keep_alive(port):
    async with await connect(port) as stream:
        assert 0.7 < await ended(stream, within=5.0) < 3.0


async def test_an_http2_connection_without_a_request_is_closed_after_keep_alive(port):
    async with greeted(port) as stream:
        assert 0.7 < await ended(stream, within=5.0) < 3.0


async def test_an_http2_connection_whose_request_was_taken_back_is_closed_after_keep_alive(port):
    async with greeted(port) as stream:
        await stream.send_all(
            frame(HEADERS, END_HEADERS, 1, request()) + frame(RST, 0, 1, bytes(4))
        )
        assert 0.7 < await ended(stream, within=5.0) < 3.0


async def test_a_body_that_does_not_go_on_gets_408(port):
    async with await connect(port) as stream:
        await stream.send_all(post(b"{", length=100))
        with trio.fail_after(3):
            assert (await read(stream, until=b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_does_not_go_on_gets_408_also_where_it_is_streamed(port, upstream):
    async with await connect(port) as stream:
        await stream.send_all(post(b"{", length=100, path="/v1/files"))
        with trio.fail_after(3):
            assert (await read(stream, until=b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")


async def test_one_slow_body_on_http2_ends_and_its_connection_lives(port):
    async with greeted(port) as stream:
        await stream.send_all(frame(HEADERS, END_HEADERS, 1, request()))
        with trio.fail_after(3):
            await read(stream, until=b"body_timeout")
        await stream.send_all(frame(HEADERS, END_HEADERS | 1, 3, request("GET", "/-/healthz")))
        with trio.fail_after(3):
            await read(stream, until=b"ok")


async def test_a_client_that_waits_for_its_answer_is_not_slow(port, upstream):
    model = upstream.model("paced")
    async with await connect(port) as stream:
        await stream.send_all(chat(model))
        with trio.fail_after(5):
            assert b"[DONE]" in await read(stream, until=b"[DONE]")


async def test_a_body_that_comes_steadily_is_read_to_its_end(port, upstream):
    whole = chat(upstream.model("normal"))[:-1]
    head, body = whole.split(b"\r\n\r\n", 1)
    padded = body + b" " * 30_000 + b"}"
    size = str(len(padded)).encode()
    head = head.rpartition(b"content-length: ")[0] + b"content-length: " + size
    async with await connect(port) as stream:
        await stream.send_all(head + b"\r\n\r\n")
        for at in range(0, len(padded), 2000):
            await stream.send_all(padded[at : at + 2000])
            await trio.sleep(0.1)
        with trio.fail_after(5):
            assert b"[DONE]" in await read(stream, until=b"[DONE]")
