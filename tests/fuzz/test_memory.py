"""However much comes, no parser holds more than its bound: measured, not accounted."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib

import pytest

from trio_sse_proxy.codings import PIECE, decode_whole, decoder_for
from trio_sse_proxy.core.errors import Garbled
from trio_sse_proxy.core.sse import FrameScanner
from trio_sse_proxy.upstreams.reply import MAX_HEAD, Reply

MIB = 2**20
READ = 65_536
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def peak(work) -> int:
    """Bytes that were allocated at once while `work` ran."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "piece", [b"x" * READ, b"x\r" * (READ // 2), b"data: x\n" * (READ // 8), b"\r\n" * 9]
)
def test_the_scanner_holds_a_frame_of_the_limit_and_one_read(piece):
    def endless():
        scanner = FrameScanner(MIB)
        for _ in range(8 * MIB // max(len(piece), 1024)):
            scanner.cut(piece)

    assert peak(endless) < 2 * MIB + 8 * READ  # joining what is held needs as much again


@pytest.mark.parametrize(
    ("start", "pieces"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", [b"X: " + b"y" * 8000 + b"\r\n"], id="fields"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", [b"y" * READ], id="one field"),
        pytest.param(b"HTTP/1.1 200 ", [b"y" * READ], id="reason"),
        pytest.param(b"", [b"HTTP/1.1 100 Continue\r\nX: " + b"y" * 9000 + b"\r\n\r\n"], id="1xx"),
        pytest.param(IN_CHUNKS + b"0\r\n", [b"X: " + b"y" * 8000 + b"\r\n"], id="trailers"),
        pytest.param(IN_CHUNKS, [b"1;" + b"y" * READ, b"\r\nx\r\n"], id="extensions"),
        pytest.param(IN_CHUNKS, [b"1000\r\n" + b"x" * 4096 + b"\r\n"], id="body"),
    ],
)
def test_a_reply_holds_one_head_and_one_read(start, pieces):
    def endless():
        reply = Reply(to_head=False)
        if start:
            reply.feed(start)
        for piece in itertools.islice(itertools.cycle(pieces), 16 * MIB // len(pieces[0])):
            try:
                reply.feed(piece)
            except Garbled:
                return
            reply.take()

    assert peak(endless) < 4 * MAX_HEAD + 4 * READ


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_decoded_piece_by_piece(coding):
    engine = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    bomb = b"".join(engine.compress(bytes(MIB)) for _ in range(64)) + engine.flush()

    def decode():
        decoder = decoder_for(coding)
        for start in range(0, len(bomb), READ):
            assert all(len(piece) <= PIECE for piece in decoder.decode(bomb[start : start + READ]))

    assert peak(decode) < 4 * PIECE
    assert peak(lambda: decode_whole(bomb, coding, MIB)) < 4 * MIB
