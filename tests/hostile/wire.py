"""Bare sockets for clients that keep to no standard."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import asynccontextmanager, suppress

import trio
from hpack import Decoder, Encoder
from patience import PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
QUIET = 0.3  # seconds behind an answer, in which another one would come
LOST = (trio.BrokenResourceError, trio.ClosedResourceError)


async def connect(port: int, *, window: int = 0) -> trio.SocketStream:
    """A connected stream; `window` in bytes makes a client that takes little at a time."""
    sock = trio.socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


def post(body: bytes = b"", *, path: str = "/v1/chat/completions", length: object = None) -> bytes:
    """A request by Content-Length, which may lie."""
    length = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
    return head.encode() + body


def chat(model: str, *, stream: bool = True, close: bool = False) -> bytes:
    """A proper request for `model`."""
    request = post(json.dumps({"model": model, "stream": stream}).encode())
    return request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1) if close else request


async def read(stream: trio.SocketStream, *, until: bytes = b"", most: int = 2**22) -> bytes:
    """What comes up to `until`, or to the end, or `most` bytes; a reset is an end too."""
    got = b""
    with suppress(*LOST):
        while not (until and until in got) and len(got) < most:
            data = await stream.receive_some(65536)
            if not data:
                break
            got += data
    return got


async def ended(stream: trio.SocketStream, *, within: float) -> float | None:
    """After how many seconds the server closed, whatever it says until then; None: it did not."""
    began = trio.current_time()
    with trio.move_on_after(within) as scope, suppress(*LOST):
        while await stream.receive_some(65536):
            pass
    return None if scope.cancelled_caught else trio.current_time() - began


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send the pieces, in a write each; all that comes until the connection ends, or nothing follows."""
    got = b""
    async with await connect(port) as stream:
        with suppress(*LOST):
            for piece in pieces:
                await stream.send_all(piece)
        with suppress(*LOST):
            while True:
                with trio.move_on_after(QUIET if got else PATIENCE) as scope:
                    got += (data := await stream.receive_some(65536))
                if scope.cancelled_caught or not data:
                    break
    return got


def reset(stream: trio.SocketStream) -> None:
    """Leave without a word."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


# HTTP/2, frame by frame: a library would refuse to send most of what is sent here.


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113, section 4.1)."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack(">I", stream) + payload


def request(
    method: str = "POST", path: str = "/v1/chat/completions", *more: tuple[str, str]
) -> bytes:
    """A header block that depends on no other."""
    fields = [
        (":method", method),
        (":path", path),
        (":scheme", "http"),
        (":authority", "localhost"),
    ]
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode([*fields, *more])


def window(size: int, stream: int = 0) -> bytes:
    """A window update."""
    return frame(WINDOW, 0, stream, struct.pack(">I", size))


def settings(**values: int) -> bytes:
    """`i4=0` sets the initial window, by the numbers of RFC 9113, section 6.5.2."""
    pairs = ((int(name[1:]), value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


@asynccontextmanager
async def greeted(port: int, **values: int):
    """A connection that speaks HTTP/2 by prior knowledge."""
    async with await connect(port) as stream:
        await stream.send_all(PREFACE + settings(**values))
        await stream.receive_some(65536)
        await stream.send_all(frame(SETTINGS, ACK))
        yield stream


async def pour(stream: trio.SocketStream, data: bytes, *, within: float) -> float | None:
    """Send `data` over and over, reading what comes; after how long the server closed, or None."""
    began = trio.current_time()
    over: list[float] = []

    async def listen() -> None:
        with suppress(*LOST):
            while await stream.receive_some(65536):
                pass
        over.append(trio.current_time() - began)
        nursery.cancel_scope.cancel()

    with trio.move_on_after(within):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with suppress(*LOST):
                while True:
                    await stream.send_all(data)
            await trio.sleep_forever()
    return over[0] if over else None


def goodbye(got: bytes) -> int | None:
    """The error code of a GOAWAY among the frames in `got`."""
    while len(got) >= 9:
        size = int.from_bytes(got[:3], "big")
        if got[3] == GOAWAY:
            return int.from_bytes(got[13:17], "big")
        got = got[9 + size :]
    return None


def statuses(got: bytes) -> list[str]:
    """Of the answers whose heads are among the whole frames in `got`."""
    decoder, found = Decoder(), []
    while len(got) >= 9 + (size := int.from_bytes(got[:3], "big")):
        if got[3] == HEADERS:
            found.append(dict(decoder.decode(got[9 : 9 + size]))[":status"])
        got = got[9 + size :]
    return found
