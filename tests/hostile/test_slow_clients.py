"""Clients that take their time, and what they may take of ours."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest
import trio
from patience import PATIENCE

from .conftest import BRISK, LOW
from .wire import (
    END_HEADERS,
    HEADERS,
    LOST,
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


async def drip(stream, drop, *, every=0.2):
    """Send `drop` again and again until the server has closed."""
    with trio.fail_after(PATIENCE), suppress(*LOST):
        while await ended(stream, within=every) is None:
            await stream.send_all(drop)


@asynccontextmanager
async def no_sooner_than(seconds):
    """What happens in there is to take so long. By whose fault it takes longer, nobody knows."""
    began = trio.current_time()
    yield
    assert trio.current_time() - began >= seconds


async def test_a_head_a_byte_at_a_time_is_given_up_after_header_timeout(brisk_port):
    async with await connect(brisk_port) as stream, no_sooner_than(BRISK["header-timeout"]):
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        await drip(stream, b"x")


async def test_the_second_head_on_a_connection_has_no_longer(brisk_port):
    async with await connect(brisk_port) as stream, no_sooner_than(BRISK["header-timeout"]):
        await stream.send_all(b"GET /-/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await read(stream, until=b"ok")
        await drip(stream, b"G")


async def test_a_connection_that_says_nothing_is_closed_after_keep_alive(brisk_port):
    async with no_sooner_than(BRISK["keep-alive"]), await connect(brisk_port) as stream:
        assert await ended(stream, within=PATIENCE) is not None


async def test_an_http2_connection_without_a_request_is_closed_after_keep_alive(brisk_port):
    async with no_sooner_than(BRISK["keep-alive"]), greeted(brisk_port) as stream:
        assert await ended(stream, within=PATIENCE) is not None


async def test_an_http2_connection_whose_request_was_taken_back_is_closed_after_keep_alive(
    brisk_port,
):
    async with greeted(brisk_port) as stream, no_sooner_than(BRISK["keep-alive"]):
        await stream.send_all(
            frame(HEADERS, END_HEADERS, 1, request()) + frame(RST, 0, 1, bytes(4))
        )
        assert await ended(stream, within=PATIENCE) is not None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_a_body_that_does_not_go_on_gets_408_also_where_it_is_streamed(port, path):
    async with await connect(port) as stream, no_sooner_than(LOW["body-timeout"]):
        await stream.send_all(post(b"{", length=100, path=path))
        with trio.fail_after(PATIENCE):
            assert (await read(stream, until=b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")


async def test_one_slow_body_on_http2_ends_and_its_connection_lives(port):
    async with greeted(port) as stream:
        await stream.send_all(frame(HEADERS, END_HEADERS, 1, request()))
        with trio.fail_after(PATIENCE):
            await read(stream, until=b"body_timeout")
        await stream.send_all(frame(HEADERS, END_HEADERS | 1, 3, request("GET", "/-/healthz")))
        with trio.fail_after(PATIENCE):
            assert b"ok" in await read(stream, until=b"ok")


async def test_a_client_that_waits_for_its_answer_is_not_slow(brisk_port, upstream):
    model = upstream.model("paced-slowly")  # longer than any of the timeouts
    async with await connect(brisk_port) as stream:
        await stream.send_all(chat(model))
        with trio.fail_after(PATIENCE):
            assert b"[DONE]" in await read(stream, until=b"[DONE]")
