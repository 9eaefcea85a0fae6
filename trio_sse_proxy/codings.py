"""Content codings (RFC 9110, section 8.4.1), undone within bounds.

A few bytes can decode to gigabytes, so nothing here produces more than it was allowed to; and a body of
nothing but beginnings and ends, which takes long to decode to nothing, is no body.
"""

from __future__ import annotations

import io
import zlib
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio
import zstandard

from .core.errors import Garbled

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 2**18  # bytes decoded at a time
_GZIP = zlib.MAX_WBITS | 16
_ZLIB_SLICE = 2**14  # what a piece, or a member, leaves of a slice is copied
_ZSTD_SLICE = 256  # a zstd block of four bytes decodes to 128 KiB at the most
_ZSTD_WINDOW = 2**23  # bytes a decoder must keep; more is not allowed here (RFC 9659, section 3)
AT_ONCE = (
    2**20
)  # bytes decoded while everybody else waits: it takes 1 to 3 ms; 64 MiB take up to 200

MAX_MEMBERS = 2_000
"""Members of a gzip body, or frames of a zstd one, that is decoded at once. Tools that make many put
64 KiB and more into each; 64 MiB of empty ones would keep everybody waiting for a minute."""


class Decoder(Protocol):
    """Undoes one coding of a body that comes in pieces."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """What `data` adds, in pieces of a bounded size. Raises Garbled."""
        ...

    @property
    def complete(self) -> bool:
        """True if the coding's own end has been seen."""
        ...


class _Zlib:
    """gzip and deflate; the latter with or without its zlib header, as servers disagree on it."""

    def __init__(self, *, deflate: bool, most_members: float) -> None:
        self._deflate = deflate
        self._left = most_members
        self._first: bytes = (
            b""  # a deflate body's first byte, until the second shows which kind it is
        )
        self._engine = None if deflate else zlib.decompressobj(_GZIP)

    @property
    def complete(self) -> bool:
        return self._engine is not None and self._engine.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZLIB_SLICE):
            yield from self._decode_slice(data[start : start + _ZLIB_SLICE])

    def _decode_slice(self, data: bytes) -> Iterator[bytes]:
        engine = self._engine
        if engine is None:
            data = self._first + data
            if len(data) < 2:
                self._first = data
                return
            engine = self._engine = zlib.decompressobj(_wbits(data))
        more = False  # it has taken all there is, and not given all that comes of it
        while data or more:
            if engine.eof:  # a gzip body may have several members (RFC 1952, section 2.2)
                data = data.lstrip(b"\0")  # some are padded, as gzip itself allows
                if self._deflate or not data:
                    return
                self._left = _one_less(self._left)
                engine = self._engine = zlib.decompressobj(_GZIP)
            try:
                piece = engine.decompress(data, PIECE)
            except zlib.error as error:
                raise Garbled(f"the body does not decode: {error}") from error
            data = engine.unused_data if engine.eof else engine.unconsumed_tail
            more = len(piece) == PIECE and not engine.eof
            if piece:
                yield piece


def _one_less(members: float) -> float:
    if members <= 1:
        raise Garbled("the body has too many members")
    return members - 1


def _wbits(begin: bytes) -> int:
    """For a deflate body: with the header of RFC 1950, or, as some servers send it, without."""
    has_header = begin[0] & 0x0F == 8 and int.from_bytes(begin[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


class _Zstd:
    def __init__(self, *, most_members: float) -> None:
        self._left = most_members
        self._engine = self._new_engine()

    @staticmethod
    def _new_engine() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    @property
    def complete(self) -> bool:
        return self._engine.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE):
            yield from self._decode_slice(data[start : start + _ZSTD_SLICE])

    def _decode_slice(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._engine.eof:  # the next frame (RFC 8878, section 3)
                self._left = _one_less(self._left)
                self._engine = self._new_engine()
            try:
                piece = self._engine.decompress(data)
            except zstandard.ZstdError as error:
                raise Garbled(f"the body does not decode: {error}") from error
            data = self._engine.unused_data if self._engine.eof else b""
            if piece:
                yield piece


def decoder_for(coding: str, *, most_members: float = inf) -> Decoder | None:
    """A decoder for one Content-Encoding; None for those we do not know (br, or several at once).

    A body of more than `most_members` members is Garbled.
    """
    match coding.strip().lower():
        case "gzip" | "x-gzip":
            return _Zlib(deflate=False, most_members=most_members)
        case "deflate":
            return _Zlib(deflate=True, most_members=most_members)
        case "zstd":
            return _Zstd(most_members=most_members)
        case _:
            return None


def decode_whole(body: bytes, coding: str, limit: int) -> bytes | None:
    """The decoded body; None if the coding is unknown, the body is no such thing, or over `limit` bytes
    or MAX_MEMBERS."""
    if not coding.strip() or coding.strip().lower() == "identity":
        return body
    decoder = decoder_for(coding, most_members=MAX_MEMBERS)
    if decoder is None:
        return None
    decoded = io.BytesIO()
    try:
        for piece in decoder.decode(body):
            decoded.write(piece)
            if decoded.tell() > limit:
                return None
    except Garbled:
        return None
    return decoded.getvalue()


_turn = trio.lowlevel.RunVar[trio.CapacityLimiter]("turn to decode")


async def decode_aside(body: bytes, coding: str, limit: int) -> bytes | None:
    """The same, on a thread if it is more than AT_ONCE that is decoded.

    One body at a time: each may come to `limit` bytes. Does not wait for little ones. A cancellation
    leaves the thread to come to its end by itself.
    """
    decoded = decode_whole(body, coding, min(limit, AT_ONCE))
    if decoded is not None or limit <= AT_ONCE or decoder_for(coding) is None:
        return decoded
    try:
        turn = _turn.get()
    except LookupError:
        turn = trio.CapacityLimiter(1)
        _turn.set(turn)
    return await trio.to_thread.run_sync(
        decode_whole, body, coding, limit, limiter=turn, abandon_on_cancel=True
    )
