"""Content codings (RFC 9110, section 8.4.1), undone within bounds.

A few bytes can decode to gigabytes, so nothing here produces more than it was allowed to.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Protocol

import zstandard

from .core.errors import Garbled

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 2**18  # bytes decoded at a time
_ZSTD_SLICE = 256  # a zstd block of four bytes decodes to 128 KiB at the most


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

    def __init__(self, *, deflate: bool) -> None:
        self._deflate = deflate
        self._engine = zlib.decompressobj(zlib.MAX_WBITS | (0 if deflate else 16))
        self._begun = False

    @property
    def complete(self) -> bool:
        return self._engine.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data and not self._engine.eof:
            try:
                piece = self._engine.decompress(data, PIECE)
            except zlib.error as error:
                if not self._deflate or self._begun:
                    raise Garbled(f"the body does not decode: {error}") from error
                self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
                self._begun = True
                continue
            self._begun = True
            data = self._engine.unconsumed_tail
            if piece:
                yield piece


class _Zstd:
    def __init__(self) -> None:
        self._engine = zstandard.ZstdDecompressor().decompressobj()
        self.complete = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE):
            if self.complete:
                return
            try:
                piece = self._engine.decompress(data[start : start + _ZSTD_SLICE])
            except zstandard.ZstdError as error:
                raise Garbled(f"the body does not decode: {error}") from error
            self.complete = self._engine.eof
            if piece:
                yield piece


def decoder_for(coding: str) -> Decoder | None:
    """A decoder for one Content-Encoding; None for those we do not know (br, or several at once)."""
    match coding.strip().lower():
        case "gzip" | "x-gzip":
            return _Zlib(deflate=False)
        case "deflate":
            return _Zlib(deflate=True)
        case "zstd":
            return _Zstd()
        case _:
            return None


def decode_whole(body: bytes, coding: str, limit: int) -> bytes | None:
    """The decoded body; None if the coding is unknown, the body is no such thing, or over `limit`."""
    if not coding.strip() or coding.strip().lower() == "identity":
        return body
    decoder = decoder_for(coding)
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
