"""Content codings: the same output however the input is cut, in bounded pieces, or Garbled."""

from __future__ import annotations

import gzip
import zlib

import zstandard

from trio_sse_proxy.codings import decode_whole, decoder_for
from trio_sse_proxy.core.errors import Garbled

from ..drawn import Drawn, ways

CODINGS = ("gzip", "deflate", "zstd", "x-gzip", "identity", "br", "gzip, zstd")
LARGEST_PIECE = {"zstd": 9 * 2**20}
ENCODERS = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "x-gzip": lambda data: (
        gzip.compress(data[: len(data) // 2], mtime=0) + gzip.compress(data, mtime=0)
    ),
    "deflate": lambda data: zlib.compress(data),
    "zstd": lambda data: zstandard.compress(data),
}
LIMITS = (0, 10, 1000, 2**24)
BOMB = zlib.compress(bytes(2**21))
WORDS = [
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    b"\x78\x9c",
    b"\x78\x01",
    b"\x28\xb5\x2f\xfd",
    b"\x00" * 8,
]
WORDS += [
    gzip.compress(b"", mtime=0),
    zstandard.compress(b""),
    b"\x50\x2a\x4d\x18\x00\x00\x00\x00",
    b"\x03\x00",
]
SEEDS = [
    bytes([n, 0, 3, 1]) + b"a text to be compressed, a text to be compressed" for n in range(4)
]
SEEDS += [bytes([0, 1, 3, 0]) + gzip.compress(b"x" * 99, mtime=0), bytes([1, 1, 3, 0]) + BOMB]
SEEDS += [
    bytes([1, 1, 3, 0]) + zlib.compress(b"x")[2:],
    bytes([2, 1, 3, 0]) + zstandard.compress(bytes(2**20)) * 2,
]
SEEDS += [
    bytes([2, 1, 3, 0]) + b"\x50\x2a\x4d\x18\x01\x00\x00\x00x" + zstandard.compress(b"y" * 30)
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    coding, limit, seed = drawn.choice(CODINGS), 0, drawn.number()
    limit, encoded, rest = drawn.choice(LIMITS), drawn.number() % 2 == 1, drawn.rest()
    body = ENCODERS[coding](rest) if encoded and coding in ENCODERS else rest
    whole = decode_whole(body, coding, limit)
    assert whole is None or len(whole) <= limit or coding == "identity"
    if decoder_for(coding) is None:
        assert whole == (body if coding == "identity" else None)
        return
    said = [_decoded(chunks, coding) for chunks in ways(body, seed)]
    assert all(one == said[0] for one in said), "the cuts show"
    out, complete, garbled = said[0]
    if not garbled:
        assert (whole == out) is (len(out) <= limit)
    if encoded:
        assert complete
        assert out.endswith(rest)


def _decoded(chunks, coding):
    decoder, out, garbled = decoder_for(coding), bytearray(), False
    try:
        for chunk in chunks:
            for piece in decoder.decode(chunk):
                assert 0 < len(piece) <= LARGEST_PIECE.get(coding, 2**18)
                out += piece
                if len(out) > 2**25:
                    break
    except Garbled:
        garbled = True
    return (None, None, True) if garbled else (bytes(out), decoder.complete, False)
