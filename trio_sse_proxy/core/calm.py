"""How much an HTTP/2 client may ask for beside requests and bodies, before it counts as hostile.

Some frames cost the one who reads them far more than the one who sends them: a request and its reset in
forty bytes (CVE-2023-44487), an empty DATA, CONTINUATION, PING or SETTINGS frame in nine. So they are
counted before the library acts on them, by their heads alone, and resets also by what follows from
them, since a client can have the server reset a stream as well (CVE-2025-8671). What is over either
count in `SPAN` seconds ends the connection with ENHANCE_YOUR_CALM (RFC 9113, section 10.5).

Window updates are what a client answers DATA with: for each frame of it `UPDATES` more are free.
"""

from __future__ import annotations

SPAN = 10.0  # seconds
UPDATES = 4
SMALL = (
    32  # bytes of payload under which DATA, CONTINUATION and HEADERS are all frame and no matter
)
PREFACE = 24  # bytes ahead of the first frame

_HEAD = 9
_DATA, _HEADERS, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 8, 9
_END_STREAM = 1


class Bucket:
    """Lets `size` things through at once, and as many again in each `SPAN`; 0 lets all through."""

    __slots__ = ("_at", "_level", "_size")

    def __init__(self, size: int, now: float) -> None:
        self._size = size
        self._level = 0.0
        self._at = now

    def take(self, amount: int, now: float) -> bool:
        """Count `amount` more; False if that is too much."""
        if not self._size:
            return True
        leaked = (now - self._at) * self._size / SPAN
        self._level = max(0.0, self._level - leaked) + amount
        self._at = now
        return self._level <= self._size


class Calm:
    """The counts of one connection: at most `resets` and `frames` in `SPAN` seconds."""

    __slots__ = ("_frames", "_head", "_resets", "_rest", "free_updates")

    def __init__(self, *, resets: int, frames: int, now: float) -> None:
        self._resets = Bucket(resets, now)
        self._frames = Bucket(frames, now)
        self._rest = PREFACE  # bytes until the next frame begins
        self._head = b""  # the begin of a head that was cut
        self.free_updates = 0
        """Window updates that answer what was sent."""

    def sent_data(self) -> None:
        """One more DATA frame went out."""
        self.free_updates += UPDATES

    def reset(self, now: float) -> bool:
        """A stream was reset, whoever did it; False if that is one too many."""
        return self._resets.take(1, now)

    def read(self, data: bytes, now: float) -> bool:
        """Count the frames that begin in `data`; False if they are too many."""
        data, at, costly = self._head + data, self._rest, 0
        end = len(data)
        while at + _HEAD <= end:
            size, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
            if kind in {_DATA, _HEADERS, _CONTINUATION}:
                costly += size < SMALL and kind != _HEADERS and not data[at + 4] & _END_STREAM
            elif kind == _WINDOW_UPDATE and self.free_updates:
                self.free_updates -= 1
            else:
                costly += 1
            at += _HEAD + size
        self._head = data[at:]
        self._rest = max(0, at - end)
        return self._frames.take(costly, now) if costly else True
