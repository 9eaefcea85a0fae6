"""Server-sent events as bytes: where one frame ends, and what one frame says.

We forward what came, whole frame by whole frame, so the question asked most often is not "what does
this say?" but "where may something of ours go in between?". That is only at a *frame end*: after a
blank line. A line ends at LF, CR or CR LF and nowhere else (WHATWG HTML, "Interpreting an event
stream"), so a blank line is a line end directly after a line end.

Two things make it less simple than `split("\\n\\n")`:

- A lone CR may turn out to be half of a CR LF whose LF comes with the next read. The line is complete
  at once (waiting could hold back the last frame of a silent stream), and the LF, should it come, is
  part of the same line end. It is forwarded like any byte, except when something of ours was written in
  between: there it would be a stray empty line and is dropped.
- A frame without end must not fill the memory. Beyond `max_frame_bytes` its bytes are let through
  unfinished, and the scanner says that it stands `inside` a frame: nothing of ours may be written
  until its end has passed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BOM = b"\xef\xbb\xbf"
HEAD = 512  # bytes kept of an oversized frame; its `event` line and type stand there

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_ID_LINE = re.compile(rb"(?:^|[\r\n])id(?:[:\r\n]|$)")


@dataclass(frozen=True, slots=True)
class Event:
    """What a client's parser dispatches for one frame."""

    type: str
    data: bytes


class FrameScanner:
    """Cuts one stream of bytes at its frame ends.

    However the bytes are cut on the way in, what comes out joined with `rest` is what came in (less a
    byte order mark at the very start, and less the LF described above).
    """

    __slots__ = (
        "_after_cr",
        "_drop_lf",
        "_fresh",
        "_held",
        "_held_size",
        "_max_frame_bytes",
        "_tail",
        "head",
        "inside",
    )

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self.inside = False
        """True while a frame larger than the limit is passing through unfinished."""
        self.head = b""
        """The first bytes of that frame: all that can be known of it afterwards."""
        # The unfinished frame is kept in the pieces it came in: joining at each read would cost the
        # square of its size when it comes a few bytes at a time.
        self._held: list[bytes] = []
        self._held_size = 0
        self._tail = b""  # its last bytes, where the line end may stand that completes a blank line
        self._fresh = True  # nothing but, perhaps, a piece of a byte order mark has come yet
        self._after_cr = False
        self._drop_lf = False

    @property
    def rest(self) -> bytes:
        """The unfinished frame."""
        return b"".join(self._held)

    def cut(self, chunk: bytes) -> bytes:
        """Everything up to the last frame end in what has come; the rest waits.

        This is the hot path: without CR in the stream it is one search from the right.
        """
        least = 0
        if self._fresh or self._after_cr:
            chunk, least = self._begin(chunk)
            if self._fresh:
                return b""
        if self._held:
            return self._cut_with_held(chunk)
        end = self._last_end(chunk) or least
        if end:
            self.inside = False
            if end == len(chunk):
                return chunk
        return self._keep(chunk, end)

    def split(self, chunk: bytes) -> list[bytes]:
        """The same, frame by frame: for as long as each one is looked at.

        A piece of an oversized frame comes as a piece of its own, with `inside` True after it.
        """
        ready = self.cut(chunk)
        return split_frames(ready) if ready else []

    def wrote_our_own(self) -> None:
        """Something of ours follows the last frame: a late LF of its line end must not follow that."""
        self._drop_lf = self._after_cr

    def close(self) -> bytes:
        """The stream is over: what never got its blank line. No client dispatches it."""
        return self._take_held()

    def _cut_with_held(self, chunk: bytes) -> bytes:
        end = self._last_end(chunk) or self._end_astride(chunk)
        if not end:
            return self._keep(chunk, 0)
        # A chunk may be one of many that are large and cut anywhere: it is copied once.
        ready = b"".join((*self._held, memoryview(chunk)[:end]))
        self._forget_held()
        self.inside = False
        return ready + self._keep(chunk[end:], 0)

    def _end_astride(self, chunk: bytes) -> int:
        """The index behind a blank line that began in what is held; 0 if there is none."""
        begun = len(self._tail)
        return max(self._last_end(self._tail + chunk[:2]) - begun, 0)

    def _take_held(self) -> bytes:
        held = b"".join(self._held)
        self._forget_held()
        return held

    def _forget_held(self) -> None:
        self._held.clear()
        self._held_size = 0
        self._tail = b""

    def _keep(self, chunk: bytes, end: int) -> bytes:
        """Hand out `chunk` up to `end` and hold what follows, or let it through if it is too much."""
        ready, rest = chunk[:end], chunk[end:]
        if rest:
            self._held.append(rest)
            self._held_size += len(rest)
            self._tail = (self._tail + rest)[-3:]
            if self.inside or self._held_size > self._max_frame_bytes:
                return ready + self._let_through()
        return ready

    def _let_through(self) -> bytes:
        # A trailing line end stays behind: with the next byte it may become the blank line.
        held = self._take_held()
        if not self.inside:
            self.inside = True
            self.head = held[:HEAD]
        keep = len(held.rstrip(b"\r\n"))
        if keep < len(held):
            self._held.append(held[keep:])
            self._held_size = len(held) - keep
            self._tail = held[keep:]
        return held[:keep]

    def _begin(self, chunk: bytes) -> tuple[bytes, int]:
        """The rare states: the stream's first bytes, and the byte after a lone CR.

        Returns the bytes to go on with, and how many of them belong to what has gone out already.
        """
        if self._fresh:
            chunk = self._take_held() + chunk
            if len(chunk) < len(BOM) and BOM.startswith(chunk):
                self._held.append(chunk)
                self._held_size = len(chunk)
                return b"", 0
            self._fresh = False
            return chunk.removeprefix(BOM), 0
        if not chunk:
            return chunk, 0
        late_lf = chunk[:1] == b"\n"
        drop, self._drop_lf, self._after_cr = self._drop_lf, False, False
        if late_lf and drop:
            return chunk[1:], 0
        return chunk, int(late_lf)

    def _last_end(self, chunk: bytes) -> int:
        """The index behind the last blank line; 0 if there is none."""
        if b"\r" in chunk:
            end = _last_end_with_cr(chunk)
            self._after_cr = end == len(chunk) and chunk.endswith(b"\r")
            return end
        at = chunk.rfind(b"\n\n")
        return at + 2 if at >= 0 else 0


def _last_end_with_cr(chunk: bytes) -> int:
    """Of two line ends the last two bytes, or those before an LF, are none but these three pairs."""
    at = chunk.rfind(b"\n\r")
    for pair in (b"\n\n", b"\r\r"):
        at = max(at, chunk.rfind(pair, max(at, 0)))
    if at < 0:
        return 0
    end = at + 2
    return end + 1 if chunk[at + 1] == 0x0D and chunk[end : end + 1] == b"\n" else end


def split_frames(frames: bytes) -> list[bytes]:
    """Cut whole frames, joined, apart; a piece without a frame end is the last one."""
    if frames.endswith(b"\n\n") and frames.count(b"\n\n") == 1 and b"\r" not in frames:
        return [frames]
    found: list[bytes] = []
    start = 0
    for blank in _BLANK_LINE.finditer(frames):
        found.append(frames[start : blank.end()])
        start = blank.end()
    if start < len(frames):
        found.append(frames[start:])
    return found


def parse(frame: bytes) -> Event | None:
    """What a client dispatches for this frame; None for comments and frames without a `data` line."""
    if frame.startswith(b"data: ") and frame.endswith(b"\n\n") and b"\r" not in frame:
        line = frame[6:-2]
        if b"\n" not in line:
            return Event("message", line)  # a single line, as most frames are
    kind = ""
    data: list[bytes] = []
    for line in _LINE_END.split(frame):
        name, colon, value = line.partition(b":")
        if colon and value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode("utf-8", "replace")
    if not data:
        return None
    return Event(kind or "message", b"\n".join(data))


def has_id(frames: bytes) -> bool:
    """True if an `id` line occurs: some clients then choke on an empty event after a comment."""
    return _ID_LINE.search(frames) is not None


def count_frames(frames: bytes, *, unfinished: bool = False) -> int:
    """How many whole frames these are, with a piece of another behind them if `unfinished`.

    Cheap where lines end in LF.
    """
    return frames.count(b"\n\n") or len(split_frames(frames)) - unfinished
