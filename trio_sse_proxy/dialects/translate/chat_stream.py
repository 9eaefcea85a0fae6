"""Reading the Chat answer of one attempt, and having it told in another dialect.

What an answer says is the same whoever is told of it: reasoning, text and calls in pieces, counts, and
an end. That is read here; a `Teller` writes it down as its dialect has it. The end is told only when the
upstream has told its own, since an error may follow the finish_reason; and a failure leaves open what is
open, since clients act on whatever is closed.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ...core.failure import Cause, Failure
from ...core.sse import parse, split_frames
from ..errors import failure_of_error
from ..wire import fields, loads, read
from .chat_delta import (
    calls_of,
    details_of,
    failure_of_choice,
    first_choice,
    reasoning_of,
    refusal_of,
    tells_usage,
    text_of,
)
from .chat_think import ThinkSplitter

Json = dict[str, Any]


class Teller(Protocol):
    """Writes one answer in the client's dialect; see ToResponses and ToMessages.

    Methods give the frames to be written now. What none was given for, the client does not know.
    """

    @property
    def begun(self) -> bool:
        """True once an item or block was told."""
        ...

    @property
    def is_sound(self) -> bool:
        """True if there is something to act on, and nothing of it is half told."""
        ...

    def opening(self) -> bytes:
        """What goes out before anything has come: the same for every attempt of a request."""
        ...

    def say(self, kind: str, piece: str) -> bytes:
        """A piece, not empty, of `thinking`, `text` or `refusal`."""
        ...

    def call(self, delta: Json) -> bytes:
        """A piece of a tool call."""
        ...

    def details(self, details: list[Json]) -> None:
        """Marks of a vendor on its reasoning, which it wants back."""
        ...

    def counts(self, data: bytes) -> None:
        """A chunk, or a completion, that tells token counts; the last ones count."""
        ...

    def closing(self, choice: Json) -> bytes:
        """The end, of everything that is open too. `choice` is the one that finished; {} if none did."""
        ...

    def error(self, failure: Failure) -> bytes:
        """The frames that tell of `failure`, behind whatever was given."""
        ...

    def skip(self, count: int, held: bytes) -> bytes:
        """Leave out so many of the numbers that events have, if they have any; see core.call."""
        ...


class _Chunk(msgspec.Struct):
    choices: Any = None
    usage: Any = None
    error: Any = None
    object: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ChatStream:
    """One attempt's answer, told by `teller`; `inline_think` as in the profile.

    `failure` says why this attempt cannot be told to its end: then the relay tries another one, or
    writes `fail(failure)`. `done` is True once everything up to the terminator was given.
    """

    def __init__(self, teller: Teller, *, inline_think: bool = False) -> None:
        self._teller = teller
        self._think = ThinkSplitter() if inline_think else None
        self._last_choice: Json = {}  # the one that finished
        self.failure: Failure | None = None
        self.done = False
        self.busy = False
        """See core.call.Numbering: said by whoever hands on what is given."""
        self.opening = teller.opening()
        """What goes out before anything has come."""

    @property
    def finished(self) -> bool:
        """True once a finish_reason came: `end` may be called, and only counts and `[DONE]` follow."""
        return bool(self._last_choice)

    def skip(self, count: int, held: bytes) -> bytes:
        """See core.call.Numbering."""
        return self._teller.skip(count, held)

    def feed(self, frames: bytes) -> bytes:
        """What some whole frames of the upstream come to. Never raises; see `failure`.

        After the first bytes given a client may have shown something.
        """
        if frames.count(b"\n\n") == 1 and frames.endswith(b"\n\n"):
            return self._frame(frames)
        return b"".join(map(self._frame, split_frames(frames)))

    def whole(self, body: bytes) -> bytes:
        """The same for a JSON document: a completion, whose `message` has the fields of a delta."""
        frames = self._chunk(body)
        if not (self.failure or self._last_choice or self._teller.is_sound):
            message = "the upstream's answer is no completion"
            self.failure = Failure(cause=Cause.PROTOCOL, message=message)
        return frames + self.end(terminated=True)

    def end(self, *, terminated: bool = False) -> bytes:
        """The upstream's body is over, or (`terminated`) it said `[DONE]`.

        Complete is what has a finish_reason; and what was terminated, if there is a text or a call,
        and no call is half told. Anything else is a failure.
        """
        if self.done or self.failure:
            return b""
        if self._last_choice or (terminated and self._teller.is_sound):
            return self._closing()
        cause = Cause.TRUNCATED if self._teller.begun else Cause.UNREACHABLE
        message = "the upstream ended its answer before it was complete"
        self.failure = Failure(cause=cause, message=message)
        return b""

    def fail(self, failure: Failure) -> bytes:
        """The frames that tell of `failure`; the body ends right after them."""
        if self.done:
            return b""
        self.done = True
        return self._teller.error(failure)

    def _frame(self, frame: bytes) -> bytes:
        event = parse(frame)
        data = event.data.strip() if event else b""
        if not data or self.done or self.failure:
            return b""
        if data.startswith(b"[DONE]"):
            return self.end(terminated=True)
        return self._chunk(data)

    def _chunk(self, data: bytes) -> bytes:
        chunk = read(_CHUNK, data)
        if chunk is None:
            message = "the upstream sent what is no JSON object"
            self.failure = Failure(cause=Cause.PROTOCOL, message=message)
            return b""
        if chunk.error or chunk.object == "error":
            self.failure = failure_of_error(loads(data))
            return b""
        choice = first_choice(chunk.choices)
        if tells_usage(chunk.usage, choice):
            self._teller.counts(data)
        if not choice:
            # The counts come last where they come alone: nothing but [DONE] is missing.
            return self._closing() if chunk.usage and self._last_choice else b""
        return self._choice(choice)

    def _choice(self, choice: Json) -> bytes:
        if choice.get("finish_reason"):
            self.failure = failure_of_choice(choice)
            if self.failure:
                return b""
            self._last_choice = choice
        teller, frames = self._teller, b""
        delta = fields(choice.get("delta") or choice.get("message"))
        if details := details_of(delta):
            teller.details(details)
        if reasoning := reasoning_of(delta):
            frames = teller.say("thinking", reasoning)
        if text := text_of(delta):
            frames += self._text(text)
        if refusal := refusal_of(delta):
            frames += self._held_text() + teller.say("refusal", refusal)
        if calls := calls_of(delta):
            frames += self._held_text()  # no tag goes on behind a call
            frames += b"".join(map(teller.call, calls))
        return frames

    def _text(self, text: str) -> bytes:
        if self._think is None:
            return self._teller.say("text", text)
        return b"".join(self._teller.say(kind, piece) for kind, piece in self._think.feed(text))

    def _held_text(self) -> bytes:
        held = self._think.flush() if self._think else []
        return b"".join(self._teller.say(kind, piece) for kind, piece in held)

    def _closing(self) -> bytes:
        self.done = True
        return self._held_text() + self._teller.closing(self._last_choice)
