"""What the frames of one stream have in common, so that most of them need no search.

Between two tokens of an answer nothing changes but the token. So one frame that was found harmless
teaches the *template* of those to come: a head up to the quote that opens the text, and a tail from
the quote that closes it, with the blank line behind:

    head = data: {"id":"c1","choices":[{"index":0,"delta":{"content":"      tail = "}}]}\\n\\n

Some frames that come together are of the template if they are exactly head, text, tail, head, text,
tail, and so on, where no text holds a line end, a quote that is not escaped, or the half of an escape
at its end. Then each is one frame, and its JSON is that of the frame learned from, with another string
at the same place: no other finish_reason, choice, count or error can be in it. If that string is one
that is only shown, as those named by `shown` are, it tells whatever the learned one told: nothing.
(Where it is not valid in a string, the JSON is broken, and clients get what came, as ever.)

The converse does not matter. What is not of the template is searched as before.

How to see it quickly: cut at every LF, take from each line with text what is not head or tail, and put
the whole together again. If that gives the bytes that came, they were of the template. This is a few
walks through memory in C; no search for a long needle, at which CPython is slow.

OpenAI pads its chunks with an `obfuscation` of varying length: a second text, with a middle before it.

A template is learned again when frames come that are not of it (text after reasoning, a tool call, a
clock that ticks): some times at first, then as often as has been earned, most of it by recognising. So a
stream whose frames have nothing in common pays a quarter more for its search, half a microsecond a frame
that comes alone and next to nothing for one among many.
"""

from __future__ import annotations

import re
from io import BytesIO
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from ..core.sse import parse
from .wire import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Callable

LEARNING = 64
"""The price of learning. It takes as long as four searches, so a call that had to search earns 1; one
that recognised its frames saves half a search and more, and earns `SAVED`."""

SAVED = 4

MAX_FIXED = 4096
"""Bytes of a template: a waiting stream keeps them."""

_CREDIT = 8 * LEARNING  # for prelude, reasoning, text and tools, which may come within a few frames
_NONE = b" "  # the tail before anything was learned: no frame ends so
_PLAIN = bytes(set(range(256)) - set(b'"\\\r\n'))  # bytes that change nothing wherever they stand
_STRING = rb'[^"\\]*+(?:\\.[^"\\]*+)*'  # no possessive group: until 3.11.5 `re` gets those wrong
_PADDING = re.compile(rb'"obfuscation": ?"(?=%b"[^"]*\Z)' % _STRING)
_END_OF_STRING = re.compile(_STRING)


def shown(*keys: str) -> re.Pattern[bytes]:
    """Matches up to where the string begins that is the value of one of these keys."""
    return re.compile(rb'"(?:%b)": ?"' % "|".join(keys).encode())


class Template:
    """The template of one stream's frames, as far as it has been learned."""

    __slots__ = (
        "_credit",
        "_head",
        "_inner",
        "_line",
        "_lines",
        "_middle",
        "_odd",
        "_seam",
        "_shown",
        "_size",
        "_tail",
        "_text",
    )

    def __init__(self, shown: re.Pattern[bytes]) -> None:
        self._shown = shown
        self._credit = _CREDIT
        self._head = self._middle = self._seam = b""
        self._tail = _NONE
        self._odd = b""  # what is not plain in the middle
        self._size = 0  # of head and tail
        self._inner = slice(0)  # what is between them
        self._line, self._lines = 0, 1  # which line of a frame has the text, and of how many
        self._text: Callable[[bytes], bytes] = bytes  # takes it from that line

    def count(self, frames: bytes) -> int:
        """How many frames these are; 0 if they are not all of the template."""
        self._credit += SAVED
        if not (frames.endswith(self._tail) and frames.startswith(self._head)):
            return 0
        room = len(frames) - self._size
        if room >= self._size:
            return self._count_many(frames, room)
        if room < 0:  # head and tail overlap
            return 0
        text = frames[self._inner]
        if text.translate(None, _PLAIN) == self._odd and self._middle in text:
            return 1  # with nothing odd but the middle: no escapes, as most often
        return int(b"\n" not in text and self._hides_nothing([text]))

    def _count_many(self, frames: bytes, room: int) -> int:
        # BytesIO finds line ends with memchr; `split` looks at one byte after the other.
        texts = [*map(self._text, islice(BytesIO(frames), self._line, None, self._lines))]
        inner = self._seam.join(texts)
        same = len(inner) == room and frames.startswith(inner, len(self._head))
        return len(texts) if same and self._hides_nothing(texts) else 0

    def learn(self, frames: bytes, tells: Callable[[bytes], bool]) -> None:
        """Take the last of these frames as the example, if it is time and it is fit to be one.

        `tells` is asked whether it must be looked at: together with others it need not have been.
        """
        self._credit -= SAVED - 1  # nothing was recognised
        if self._credit < LEARNING:
            return
        self._credit -= LEARNING
        self._tail = _NONE
        frame = frames[:-2].rpartition(b"\n\n")[2] + b"\n\n" if b"\r" not in frames else b""
        opening = self._shown.search(frame)
        if opening and _is_json(frame) and not tells(frame):
            self._take(frame, opening.end())

    def _take(self, frame: bytes, begin: int) -> None:
        """Learn from `frame`, whose text begins at `begin`."""
        head, tail = frame[:begin], frame[_end_of_string(frame, begin) :]
        padding = _PADDING.search(tail)
        middle = tail[: padding.end()] if padding else b""
        tail = tail[_end_of_string(tail, len(middle)) :] if padding else tail
        if len(frame) > MAX_FIXED or b"\n" in middle or tail.find(b"\n") != len(tail) - 2:
            return
        self._head, self._middle, self._tail, self._seam = head, middle, tail, tail + head
        self._odd = middle.translate(None, _PLAIN)
        self._size = len(head) + len(tail)
        self._inner = slice(len(head), -len(tail))
        self._line = head.count(b"\n")
        self._lines = self._line + 2
        self._text = itemgetter(slice(begin - head.rfind(b"\n") - 1, 1 - len(tail)))

    def _hides_nothing(self, texts: list[bytes]) -> bool:
        """True if every string ends where its text does. No LF is in these texts."""
        if self._middle:
            number = len(texts)
            texts = [half for text in texts for half in text.split(self._middle, 1)]
            if len(texts) != 2 * number:
                return False
        joined = b"\n".join(texts)
        if b"\\" in joined:
            # A pair stands for one backslash and escapes nothing; what then stands alone does.
            joined = (joined + b"\n").replace(rb"\\", b"").replace(rb"\"", b"")
            if b"\\\n" in joined:
                return False
        return b'"' not in joined and b"\r" not in joined


def _is_json(frame: bytes) -> bool:
    event = parse(frame)
    try:
        msgspec.json.decode(event.data if event else b"")
    except UNREADABLE:
        return False
    return True


def _end_of_string(data: bytes, begin: int) -> int:
    found = _END_OF_STRING.match(data, begin)
    return found.end() if found else begin
