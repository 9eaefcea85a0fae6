"""A Chat stream told as a Messages stream.

The opening goes out with the headers, before any upstream has answered: the ids are ours and the model
is the client's own word for it (Claude Code drops its signed thinking from the history where the model
differs). So attempts may fail and be replaced as long as `feed` has given nothing.

The end is told only when the upstream has told its own: calls run at the end of their block, and an
error may follow the finish_reason. Nothing is ever closed before an error: Claude Code takes a finished
block for a finished answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...core.failure import Cause, Failure
from ...core.sse import parse, split_frames
from ..chat import CHAT
from ..errors import failure_of_error
from ..messages import MESSAGES
from ..wire import fields, loads, named, read
from .chat_delta import calls_of, details_of, first_choice, reasoning_of, text_of
from .chat_think import ThinkSplitter
from .messages_blocks import Blocks
from .messages_stop import failure_of_choice, stop_of_choice, tells_usage, usage_of

if TYPE_CHECKING:
    from ...core.usage import Usage
    from .messages_back import WayBack

Json = dict[str, Any]


class _Chunk(msgspec.Struct):
    choices: Any = None
    usage: Any = None
    error: Any = None
    object: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ToMessages:
    """One attempt's Chat stream, told as Messages.

    `failure` says why this attempt cannot be told to its end: then the relay tries another one (of
    which `another` is the translator) as long as nothing was given, or writes `fail(failure)`.
    `done` is True once everything up to message_stop was given.
    """

    def __init__(self, back: WayBack, key: str, *, opened: bool = False) -> None:
        """`key` makes the ids unique: letters and digits. `opened`: the opening has gone out."""
        self._back = back
        self._key = key
        self._blocks = Blocks(key, back.book)
        self._think = ThinkSplitter() if back.inline_think else None
        self._told = MESSAGES.open_stream()  # what a client of Messages has seen so far
        self._last_choice: Json = {}  # the one that finished
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.done = False
        if opened:
            self.opening()

    def opening(self) -> bytes:
        """`message_start` and a `ping`; the model is exactly what the client asked for."""
        start = named("message_start", {"type": "message_start", "message": self._message()})
        self._told.look(start)
        self._told.forwarded = True
        return start + self._told.byte_heartbeat()

    def another(self) -> ToMessages:
        """The translator of the next attempt: same ids, and the opening is not written again."""
        return ToMessages(self._back, self._key, opened=self._told.forwarded)

    def feed(self, frames: bytes) -> bytes:
        """What some whole frames of the upstream come to. Never raises; see `failure`.

        After the first bytes given a client may have shown something.
        """
        if frames.count(b"\n\n") == 1 and frames.endswith(b"\n\n"):
            return self._frame(frames)
        return b"".join(map(self._frame, split_frames(frames)))

    def whole(self, body: bytes) -> bytes:
        """The same for an upstream that answers the streaming request with a JSON document."""
        frames = self._chunk(body)
        if not (self.failure or self._last_choice or self._blocks.are_sound):
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
        if self._last_choice or (terminated and self._blocks.are_sound):
            return self._closing()
        cause = Cause.TRUNCATED if self._blocks.begun else Cause.UNREACHABLE
        message = "the upstream ended its answer before it was complete"
        self.failure = Failure(cause=cause, message=message)
        return b""

    def fail(self, failure: Failure) -> bytes:
        """One `error` event behind whatever is open; the body ends right after it."""
        if self.done:
            return b""
        self.done = True
        return self._told.error_frames(failure)

    def byte_heartbeat(self) -> bytes:
        """A ping."""
        return self._told.byte_heartbeat()

    def event_heartbeat(self, agent: str) -> bytes | None:
        """A `message_delta` that changes nothing, valid inside a block and between two."""
        return None if self.done else self._told.event_heartbeat(agent)

    @property
    def finished(self) -> bool:
        """True once a finish_reason came: `end` may be called, and only counts and `[DONE]` follow."""
        return bool(self._last_choice)

    def _message(self) -> Json:
        return {
            "id": f"msg_{self._key}",
            "type": "message",
            "role": "assistant",
            "model": self._back.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

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
            self.usage = CHAT.answer_usage(data) or self.usage
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
        delta = fields(choice.get("delta") or choice.get("message"))
        frames = b""
        if reasoning := reasoning_of(delta):
            frames = self._blocks.say("thinking", reasoning)
        if details := details_of(delta):
            self._blocks.details(details)
        if text := text_of(delta):
            frames += self._text(text)
        if calls := calls_of(delta):
            frames += self._held_text()  # no tag goes on behind a call
            frames += b"".join(map(self._blocks.call, calls))
        return frames

    def _text(self, text: str) -> bytes:
        if self._think is None:
            return self._blocks.say("text", text)
        return b"".join(self._blocks.say(kind, piece) for kind, piece in self._think.feed(text))

    def _held_text(self) -> bytes:
        held = self._think.flush() if self._think else []
        return b"".join(self._blocks.say(kind, piece) for kind, piece in held)

    def _closing(self) -> bytes:
        self.done = True
        frames = [self._held_text(), self._blocks.close()]
        reason, sequence = stop_of_choice(
            self._last_choice,
            called=self._blocks.called,
            stop_sequences=self._back.stop_sequences,
        )
        told = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": usage_of(self.usage),
        }
        frames.append(named("message_delta", told))
        frames.append(named("message_stop", {"type": "message_stop"}))
        return b"".join(frames)
