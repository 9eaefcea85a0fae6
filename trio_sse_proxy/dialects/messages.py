"""Messages: `POST …/messages`.

A stream is `message_start block* message_delta+ message_stop`, with `ping` and `error` anywhere.
Every event has an `event:` line: clients skip those without. Token counts come in two parts, the
prompt's with `message_start` and all of them with the last `message_delta`, where what is absent
keeps its earlier value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..core.failure import Cause, Failure
from ..core.sse import count_frames, parse
from ..core.usage import Usage
from .base import Dialect, DialectStream, Sight
from .causes import TABLE, message_with_code, upstream_status
from .errors import failure_of_error
from .template import Template, shown
from .wire import count, dumps, fields, loads, named, read, text

if TYPE_CHECKING:
    from collections.abc import Callable

_HEARTBEAT = named("ping", {"type": "ping"})
_EVENT_HEARTBEAT = named(
    "message_delta",
    {
        "type": "message_delta",
        "delta": {"stop_reason": None, "stop_sequence": None},
        "usage": {"output_tokens": 0},
    },
)

_CONTEXT_PREFIX = "prompt is too long"
_SILENT_BLOCKS = {"text": "text", "thinking": "thinking"}  # by type, the field deltas fill
_SHOWN = shown("text", "thinking", "partial_json")
_COUNTS = (  # kept for as long as the stream runs, so no others are
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens_details",
)


class _Event(msgspec.Struct):
    type: Any = None
    message: Any = None
    content_block: Any = None
    delta: Any = None
    usage: Any = None
    error: Any = None


class _Answer(msgspec.Struct):
    usage: Any = None


_EVENT = msgspec.json.Decoder(_Event)
_ANSWER = msgspec.json.Decoder(_Answer)


class MessagesStream:
    """What is known of one attempt's Messages stream."""

    __slots__ = (
        "_counts",
        "_ended",
        "_started",
        "_stopping",
        "_template",
        "answer_id",
        "failure",
        "forwarded",
    )

    awaits_failed = False

    def __init__(self) -> None:
        self.forwarded = False
        self.failure: Failure | None = None
        self.answer_id: str | None = None  # the message's `id`, told by message_start
        self._started = False
        self._stopping = False  # a stop_reason was told
        self._ended = False
        self._counts: dict[str, Any] = {}
        self._template: Template | None = None  # until frames are skimmed

    @property
    def finished(self) -> bool:
        """Only message_stop completes this stream."""
        return self._ended

    @property
    def usage(self) -> Usage | None:
        """The counts of message_start, overridden by those of message_delta."""
        return _usage(self._counts)

    def look(self, frame: bytes) -> Sight:
        """Judge one whole frame and remember what it tells."""
        event = parse(frame)
        data = event.data.strip() if event else b""
        if not event or not data or data.startswith(b"[DONE]"):
            return Sight.IDLE
        told = read(_EVENT, data)
        if told is None and event.type != "error":
            return Sight.OUTPUT
        told = told or _Event(error=event.data.decode("utf-8", "replace"))
        kind = text(told.type) or event.type
        if "error" in (kind, event.type) or told.error:
            self.failure = failure_of_error(loads(data) or told.error)
            return Sight.ERROR
        return self._look_at_event(kind, told)

    def _look_at_event(self, kind: str, told: _Event) -> Sight:
        match kind:
            case "ping":
                return Sight.IDLE
            case "message_start":
                self._started = True
                message = fields(told.message)
                self.answer_id = text(message.get("id")) or None
                self._note_counts(message.get("usage"))
                return Sight.PRELUDE
            case "content_block_start":
                return _sight(not _is_silent(fields(told.content_block)))
            case "content_block_delta":
                return _sight(not _is_empty(told.delta))
            case "message_delta":
                return self._look_at_message_delta(told)
            case "message_stop":
                self._ended = True
                return Sight.END
            case _:
                return Sight.OUTPUT

    def _look_at_message_delta(self, told: _Event) -> Sight:
        self._note_counts(told.usage)
        stopping = bool(fields(told.delta).get("stop_reason"))
        self._stopping = self._stopping or stopping
        return _sight(stopping)

    def _note_counts(self, usage: object) -> None:
        told = fields(usage)
        self._counts.update({key: told[key] for key in _COUNTS if told.get(key) is not None})

    def skim(self, frames: bytes) -> int:
        """How many frames these are; 0 if one may tell something."""
        template = self._template
        number = template.count(frames) if template is not None else 0
        if not number and not _tells(frames):
            number = count_frames(frames)
            self._template = template = template or Template(_SHOWN)
            template.learn(frames, _tells)
        return number

    def byte_heartbeat(self) -> bytes:
        """A ping, as Anthropic sends it."""
        return _HEARTBEAT

    def event_heartbeat(self, agent: str, skip: Callable[[], None] | None = None) -> bytes | None:
        """A message_delta that changes nothing.

        Before message_start only Claude Code bears it. After the stop_reason it would take that
        back, and nothing but message_stop is missing: then there is none.
        """
        if self._stopping:
            return None
        if self.forwarded and self._started:
            return _EVENT_HEARTBEAT
        claude = any(token.startswith("claude-cli") for token in agent.split())
        return _EVENT_HEARTBEAT if claude else None

    def error_frames(self, failure: Failure) -> bytes:
        """One `error` event; no block is closed before it, since clients act on a closed block."""
        return named("error", _error(failure))


class Messages:
    """Messages."""

    name = "messages"

    def http_status(self, failure: Failure) -> int:
        """The upstream's own status, else that of the cause."""
        return upstream_status(failure) or TABLE[failure.cause].messages_status

    def error_body(self, failure: Failure) -> bytes:
        """`{"type":"error","error":{"type","message"}}`."""
        return dumps(_error(failure))

    def answer_usage(self, body: bytes) -> Usage | None:
        """The token counts of a whole message."""
        answer = read(_ANSWER, body)
        return _usage(fields(answer.usage)) if answer else None

    def open_stream(self) -> DialectStream:
        """A fresh state for one attempt."""
        return MessagesStream()


MESSAGES: Dialect = Messages()


def _tells(frames: bytes) -> bool:
    """True if one of these frames may end the stream, tell a count, or be no progress.

    The three events that are about the message as a whole share a beginning. What does not
    begin with a comment or ping begins with an event, and is progress whatever follows.
    """
    return (
        b"message_" in frames
        or b'"error"' in frames
        or b"event: error" in frames
        or b"event:error" in frames
        or frames.startswith((b":", b"\n", b"\r", b"event: ping", b"event:ping"))
        or (len(frames) < 256 and b"ping" in frames)
    )


def _sight(is_output: bool) -> Sight:
    return Sight.OUTPUT if is_output else Sight.PRELUDE


def _is_silent(block: dict[str, Any]) -> bool:
    """True for a block that begins empty and is filled by deltas."""
    field = _SILENT_BLOCKS.get(text(block.get("type")))
    return field is not None and not block.get(field)


def _is_empty(delta: object) -> bool:
    told = fields(delta)
    return bool(told) and all(key == "type" or value in ("", None) for key, value in told.items())


def _error(failure: Failure) -> dict[str, Any]:
    kind = TABLE[failure.cause].messages_type
    return {"type": "error", "error": {"type": kind, "message": _message(failure)}}


def _message(failure: Failure) -> str:
    """Claude Code compacts the conversation on exactly this beginning."""
    message = message_with_code(failure)
    if failure.cause is not Cause.CONTEXT_EXCEEDED or message.startswith(_CONTEXT_PREFIX):
        return message
    if message.lower().startswith(_CONTEXT_PREFIX):
        return _CONTEXT_PREFIX + message[len(_CONTEXT_PREFIX) :]
    return f"{_CONTEXT_PREFIX}: {message}"


def _usage(told: dict[str, Any]) -> Usage | None:
    """`input_tokens` leaves out both cached parts here; ours counts the whole prompt."""
    fresh = count(told.get("input_tokens"))
    cached = count(told.get("cache_read_input_tokens"))
    written = count(told.get("cache_creation_input_tokens"))
    usage = Usage(
        input_tokens=None if fresh is None else fresh + (cached or 0) + (written or 0),
        output_tokens=count(told.get("output_tokens")),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=count(fields(told.get("output_tokens_details")).get("thinking_tokens")),
    )
    return None if usage == Usage() else usage
