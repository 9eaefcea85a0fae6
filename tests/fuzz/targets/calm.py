"""The count of an HTTP/2 client's costly frames: that of the frames, and the same for every cut."""

from __future__ import annotations

from trio_sse_proxy.core.calm import PREFACE, SMALL, UPDATES, Calm

from ..drawn import Drawn, ways

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind, flags=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + b"\x00\x00\x00\x01" + payload


WORDS = [_frame(kind) for kind in (*range(10), 0x42, 255)]
WORDS += [_frame(kind, 1) for kind in (0, 1, 9)] + [_frame(3, 0, b"\x00\x00\x00\x08")]
WORDS += [_frame(kind, 0, b"x" * size) for kind in (0, 1, 9) for size in (1, SMALL - 1, SMALL, 300)]
WORDS += [b"\xff\xff\xff", b"\x00\x00\x00", _frame(8, 0, b"\x00\x00\x00\x01") * 5, _PREFACE]
_USUAL = _frame(4) + _frame(1, 4, b"x" * 40) + _frame(0, 0, b"x" * 99) + _frame(0, 1)
SEEDS = [
    b"\x05\x00\x01" + _PREFACE + _USUAL + _frame(8, 0, b"\x00\x00\x00\x01") * 7 + _frame(6),
    b"\x02\x00\x02" + _PREFACE + _USUAL + _frame(0) * 9 + _frame(9) * 3,
    b"\x01\x00\x05" + _PREFACE + _frame(9, 0, b"x" * SMALL) * 3,
    b"\x00\x03\x03"
    + _PREFACE
    + b"".join(_frame(kind, kind & 1, b"x" * kind) for kind in range(40)),
    b"\x01\x00\x04" + _PREFACE + _frame(0, 0, b"x" * (SMALL - 1)) + _frame(0, 0, b"x" * SMALL),
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    most, sent, seed, said = drawn.number() + 1, drawn.number() % 4, drawn.number(), drawn.rest()
    costly, free = _costly(said, sent * UPDATES)
    for pieces in ways(said, seed):
        calm = Calm(resets=1, frames=most, now=0.0)
        for _ in range(sent):
            calm.sent_data()
        verdicts = [calm.read(piece, 0.0) for piece in pieces]
        # What ends the connection is the first piece over it; those after it may have no such frame.
        assert all(verdicts) == (costly <= most), f"{costly} costly frames, {most} allowed"
        assert calm.free_updates == free


def _costly(said, free):
    """RFC 9113, section 4.1, frame by frame: how many cost more to read than to send, of all begun."""
    count, at = 0, PREFACE
    while len(head := said[at : at + 9]) == 9:
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        at += 9 + length
        match kind:
            case 1:  # HEADERS: a request is counted elsewhere
                continue
            case 0 | 9 if length >= SMALL or flags & 1:  # DATA, CONTINUATION with something in it
                continue
            case 8 if free:  # WINDOW_UPDATE
                free -= 1
            case _:
                count += 1
    return count, free
