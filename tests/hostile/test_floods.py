"""Clients that send as much as they can: each is ended, and others are served meanwhile."""

from __future__ import annotations

import gzip
import struct
from contextlib import suppress

import pytest
import trio
import zstandard
from hpack import Encoder
from patience import PATIENCE

from .bystander import resident, used
from .wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LOST,
    PING,
    PREFACE,
    PRIORITY,
    RST,
    chat,
    connect,
    frame,
    goodbye,
    post,
    pour,
    read,
    request,
    settings,
    statuses,
    window,
)

pytestmark = pytest.mark.slow

MIB = 2**20
ENHANCE_YOUR_CALM = 11
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

FLOODS = {
    "one endless line": (b"GET / HTTP/1.1\r\nx: ", b"y" * 65536),
    "an endless target": (b"GET /", b"y" * 65536),
    "endless header fields": (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 9000),
    "an endless chunk extension": (CHUNKED + b"1;", b"e" * 65536),
    "endless trailers": (CHUNKED + b"0\r\n", b"x: y\r\n" * 9000),
    "chunks of one byte": (CHUNKED, b"1\r\n \r\n" * 10_000),
    "an endless chunked body": (CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "a body over the limit": (post(length=10**12), b" " * 65536),
    "empty lines": (b"", b"\r\n" * 30_000),
}


def resets() -> bytes:
    """Two hundred requests, each taken back at once."""
    block = request()
    return b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, one, block)
        + frame(RST, 0, one, struct.pack(">I", 8))
        for one in range(1, 401, 2)
    )


OPEN = frame(HEADERS, END_HEADERS, 1, request())
HTTP2_FLOODS = {
    "resets": (b"", resets()),
    "empty CONTINUATION": (frame(HEADERS, 0, 1, request()), frame(CONTINUATION, 0, 1) * 7000),
    "CONTINUATION": (frame(HEADERS, 0, 1), frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 500) * 100),
    "PING": (b"", frame(PING, 0, 0, bytes(8)) * 4000),
    "SETTINGS": (b"", settings(i4=65535) * 4000),
    "PRIORITY": (b"", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") * 4000),
    "WINDOW_UPDATE": (OPEN, window(1) * 4000),
    "empty DATA": (OPEN, frame(DATA, 0, 1) * 7000),
    "DATA of one byte": (OPEN, frame(DATA, 0, 1, b" ") * 6000),
    "unknown frames": (b"", frame(0xBE) * 7000),
    "unknown settings": (b"", settings(i77=1) * 4000),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_ended(port, name):
    first, data = FLOODS[name]
    async with await connect(port) as stream:
        await stream.send_all(first)
        assert await pour(stream, data, within=PATIENCE) is not None


@pytest.mark.parametrize("name", HTTP2_FLOODS)
async def test_a_flood_of_http2_frames_ends_its_connection(port, name):
    first, data = HTTP2_FLOODS[name]
    async with await connect(port) as stream:
        await stream.send_all(PREFACE + settings() + first)
        assert await pour(stream, data, within=PATIENCE) is not None


async def test_a_client_that_resets_too_much_is_told_to_calm_down(port):
    async with await connect(port) as stream:
        await stream.send_all(PREFACE + settings())
        for number in range(1, 200, 2):  # one by one, lest the goodbye is lost in a reset
            with suppress(*LOST):
                await stream.send_all(
                    frame(HEADERS, END_HEADERS | END_STREAM, number, request())
                    + frame(RST, 0, number, struct.pack(">I", 8))
                )
            await trio.sleep(0.002)
        with trio.fail_after(PATIENCE):
            assert goodbye(await read(stream)) == ENHANCE_YOUR_CALM


async def test_a_header_table_full_of_references_ends_its_connection(port):
    encoder, big = Encoder(), ("x", "y" * 4000)
    first = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "localhost")]
    blocks = (encoder.encode([*first, big]), encoder.encode([*first, *[big] * 10_000]))
    async with await connect(port) as stream:
        await stream.send_all(PREFACE + settings())
        for number, block in enumerate(blocks):
            await stream.send_all(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block))
        with trio.fail_after(PATIENCE):
            assert goodbye(await read(stream)) is not None


@pytest.mark.parametrize("fields", [101, 10_000])
async def test_a_head_of_too_many_fields_gets_431(port, fields):
    async with await connect(port) as stream:
        await stream.send_all(
            b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * fields + b"\r\n"
        )
        with trio.fail_after(PATIENCE):
            assert (await read(stream)).startswith(b"HTTP/1.1 431 ")


async def test_a_head_of_too_many_fields_gets_431_on_http2(port):
    more = tuple((f"x-{n}", "y") for n in range(101))
    async with await connect(port) as stream:
        block = request("GET", "/v1/models", *more)
        await stream.send_all(
            PREFACE + settings() + frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
        )
        got = b""
        with trio.fail_after(PATIENCE):
            while not statuses(got):
                got += await stream.receive_some(65536)
        assert statuses(got) == ["431"]


BOMBS = {
    "gzip": lambda size: gzip.compress(bytes(size), 6),
    "zstd": lambda size: zstandard.ZstdCompressor().compress(bytes(size)),
}


@pytest.mark.parametrize("coding", BOMBS)
async def test_a_bomb_takes_no_more_memory_than_its_size_allows(proxy, coding):
    bomb = BOMBS[coding](160 * MIB)
    before, worked = resident(proxy.pid), used(proxy.pid)
    head = POST + f"content-encoding: {coding}\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
    async with await connect(proxy.port) as stream:
        await stream.send_all(head + bomb)
        with trio.fail_after(PATIENCE):
            await read(stream, until=b"\r\n\r\n")
    assert resident(proxy.pid) - before < 100 * MIB
    assert used(proxy.pid) - worked < 2


async def test_others_are_served_while_floods_go_on(port, upstream):
    model = upstream.model("paced")
    async with trio.open_nursery() as nursery:
        for first, data in (
            *FLOODS.values(),
            *((PREFACE + a, b) for a, b in HTTP2_FLOODS.values()),
        ):
            nursery.start_soon(_again_and_again, port, first, data)
        await trio.sleep(0.1)
        async with await connect(port) as stream:
            await stream.send_all(chat(model))
            with trio.fail_after(PATIENCE):
                assert b"[DONE]" in await read(stream, until=b"[DONE]")
        nursery.cancel_scope.cancel()


async def _again_and_again(port, first, data):
    while True:
        with suppress(*LOST):
            async with await connect(port) as stream:
                await stream.send_all(first)
                await pour(stream, data, within=1.0)
