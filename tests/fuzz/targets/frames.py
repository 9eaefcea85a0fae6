"""The frame scanner, against a reference that reads the standard word by word."""

from __future__ import annotations

from core.sse_reference import read_events

from trio_sse_proxy.core.sse import (
    BOM,
    FrameScanner,
    count_frames,
    has_id,
    parse,
    split_frames,
)

from ..drawn import Drawn, ways

OURS = b": hb\n\n"
WORDS = [
    b"\n\n",
    b"\r\r",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\r",
    b"\r\r\n",
    BOM,
    b"data: ",
    b"data",
    b"id: 1",
]
WORDS += [b":", b"event: e\n", b"retry: 1\n", BOM[:1], BOM[:2], b"\x00", b"\xe2\x80\xa8"]
SEEDS = [
    b"\x00\x00" + b"data: x\n\ndata: y\n\n",
    b"\x01\x05" + BOM + b"event: e\r\ndata: x\r\n\r\n: c\r\rdata\r\n\r\n",
    b"\x07\x09" + b"id: 1\ndata: a long line that does not end\ndata: x\n\n\n\nda",
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    seed, limit, stream = drawn.number(), drawn.number(), drawn.rest()
    while stream.startswith(BOM * 2):
        # What comes out begins with the second, which clients then take for the first, if nothing
        # of ours went before: broken either way, so there is nothing to compare with.
        stream = stream.removeprefix(BOM)
    for chunks in ways(stream, seed):
        _as_they_come(stream, chunks)
        _one_by_one(stream, chunks)
        _with_ours_between(stream, chunks, limit or 2**20)
    for frame in split_frames(stream):
        parse(frame)
        has_id(frame)


def _as_they_come(stream, chunks):
    scanner = FrameScanner(2**20)
    out = [scanner.cut(chunk) for chunk in chunks]
    assert b"".join(out) + scanner.rest == stream.removeprefix(BOM)
    assert read_events(b"".join(out)) == read_events(stream), "a frame is late"
    for ready in out:
        frames = split_frames(ready)
        assert b"".join(frames) == ready
        if b"\r" not in ready and b"\n\n\n" not in ready and not ready.startswith(b"\n"):
            assert count_frames(ready) == len(frames)


def _one_by_one(stream, chunks):
    scanner = FrameScanner(2**20)
    events = [parse(frame) for chunk in chunks for frame in scanner.split(chunk)]
    assert [(event.type, event.data) for event in events if event] == read_events(stream)


def _with_ours_between(stream, chunks, limit):
    """However small the limit, something of ours may go in where the scanner says so."""
    scanner = FrameScanner(limit)
    out = []
    for chunk in chunks:
        out.append(scanner.cut(chunk))
        assert len(scanner.rest) <= max(limit, 3), "more is held than the limit"
        assert len(scanner.head) <= 512
        if not scanner.inside:
            out.append(OURS)
            scanner.wrote_our_own()
    assert read_events(b"".join(out) + scanner.rest) == read_events(stream.removeprefix(BOM))
    assert len(scanner.close()) <= max(limit, 3)
    assert not scanner.rest
