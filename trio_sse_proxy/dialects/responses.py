"""Responses: `POST …/responses`.

A stream is `created (queued | in_progress)* item* (completed | incomplete | failed)`, or an `error`
at any point, mostly with a `failed` after it. Every event carries its type twice, in the `event:`
line and in the JSON, and a `sequence_number`. There is no `[DONE]`; a stray one is ignored.

Clients divide on errors: the OpenAI SDKs raise on an `error` event with a nested `error` and on
nothing else; Codex ignores that event and acts on `response.failed`, once the body has ended. So we
send both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.failure import Cause, Failure
from ..core.sse import Event, count_frames, parse, split_frames
from ..core.usage import Usage
from .base import Dialect, DialectStream, Sight
from .causes import TABLE, message_with_code, openai_body, openai_status, seconds
from .errors import failure_of_error
from .wire import carries_id, count, dumps, fields, loads, named, read, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SNAPSHOT = 64 * 1024
"""Bytes of `response` kept for our own events; some servers echo the whole request in it."""

_MAX_SCALAR = 256  # characters of a string that a reduced snapshot keeps

_MAX_UNREAD = 16  # reads skimmed until one frame is looked into for its sequence_number
_MAX_UNREAD_SIZE = 4096  # bytes of a read that is kept beside others

_HEARTBEAT = b": hb\n\n"
_HEARTBEAT_AFTER_ID = b": hb\n"  # see the same in chat.py

_LIFECYCLE = {"response.created", "response.queued", "response.in_progress"}
_NO_EVENT = {"keepalive", "response.keepalive", "ping"}
_MAYBE_NO_EVENT = (b":", b"\n", b"\r", b"event: keep", b"event:keep", b"event: ping", b"event:ping")
_METADATA = {"metadata", "response.metadata"}
_PRELUDE = {
    *_METADATA,
    "response.content_part.added",
    "response.reasoning_summary_part.added",
}
# Any other item means that a hosted tool has begun: work and cost that a replay would repeat.
_SILENT_ITEMS = {"message", "reasoning", "function_call", "custom_tool_call"}
_ENDS = {"response.completed", "response.incomplete"}
_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([\w.]+)"')


class _Event(msgspec.Struct):
    type: Any = None
    sequence_number: Any = None
    delta: Any = None
    item: Any = None
    error: Any = None


class _Lifecycle(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct):
    usage: Any = None
    error: Any = None


_EVENT = msgspec.json.Decoder(_Event)
_LIFECYCLE_EVENT = msgspec.json.Decoder(_Lifecycle)
_ANSWER = msgspec.json.Decoder(_Answer)


class ResponsesStream:
    """What is known of one attempt's Responses stream."""

    __slots__ = (
        "_ended",
        "_has_id",
        "_items_began",
        "_sequence",
        "_shown",
        "_skimmed",
        "_snapshot",
        "_unread",
        "awaits_failed",
        "failure",
        "forwarded",
        "usage",
    )

    def __init__(self) -> None:
        self.forwarded = False
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.awaits_failed = False
        self._ended = False
        self._has_id = False
        self._items_began = False
        self._sequence = -1  # the last one seen
        self._shown = False  # there was output; what begins the answer is skimmed over after it
        self._skimmed = b""
        self._unread: list[bytes] = []  # skimmed since, where a later one may stand
        self._snapshot = b""  # JSON of `response` as last told, at most MAX_SNAPSHOT

    @property
    def answer_id(self) -> str | None:
        """The `id` of the response, told by `response.created`."""
        known = fields(loads(self._snapshot)) if self._snapshot else {}
        return text(known.get("id")) or None

    @property
    def finished(self) -> bool:
        """Only a terminator completes this stream."""
        return self._ended

    def look(self, frame: bytes) -> Sight:
        """Judge one whole frame and remember what it tells."""
        self._has_id = self._has_id or carries_id(frame)
        event = parse(frame)
        data = event.data.strip() if event else b""
        if not event or not data or data.startswith(b"[DONE]"):
            return Sight.IDLE
        told = read(_EVENT, data)
        if told is None:
            return self._look_at_rubbish(event)
        self._note_sequence(told)
        kind = text(told.type) or event.type
        if kind == "response.failed":
            return self._look_at_failed(data)
        if "error" in (kind, event.type) or told.error:
            self.failure = failure_of_error(loads(data))
            self.awaits_failed = True
            return Sight.ERROR
        return self._look_at_event(kind, told, data)

    def _look_at_rubbish(self, event: Event) -> Sight:
        """What is no JSON; or the head of a frame too large to be held, which only names itself."""
        kind = event.type
        if kind == "message" and (named_inside := _TYPE.search(event.data)):
            kind = named_inside[1].decode()
        if kind in _ENDS:
            self._ended = True
            return Sight.END
        if kind == "response.failed":
            self.failure = self.failure or failure_of_error(None)
            self.awaits_failed = False
            return Sight.ERROR
        if event.type != "error":
            self._items_began = self._shown = True
            return Sight.OUTPUT
        self.failure = failure_of_error(event.data.decode("utf-8", "replace"))
        self.awaits_failed = True
        return Sight.ERROR

    def _look_at_failed(self, data: bytes) -> Sight:
        answer = _response_in(data)
        self.usage = _usage(answer.usage) or self.usage
        if answer.error or self.failure is None:
            self.failure = failure_of_error(answer.error)
        self.awaits_failed = False
        return Sight.ERROR

    def _look_at_event(self, kind: str, told: _Event, data: bytes) -> Sight:
        if kind in _NO_EVENT:
            return Sight.IDLE
        if kind in _LIFECYCLE:
            if not self._shown:
                self._snapshot = _snapshot_of(data) or self._snapshot
            return Sight.PRELUDE
        self._items_began = self._items_began or kind not in _METADATA
        if kind in _ENDS:
            self.usage = _usage(_response_in(data).usage) or self.usage
            self._ended = True
            return Sight.END
        if _is_prelude(kind, told):
            return Sight.PRELUDE
        self._shown = True
        return Sight.OUTPUT

    def skim(self, frames: bytes) -> int:
        """How many frames these are; 0 if one may end the stream, or if they may be no progress.

        Names have no spaces in them, so no spelling of the JSON hides them; what does not begin
        with a comment or keepalive begins with an event, and is progress whatever follows.
        """
        telling = (
            b"response.completed" in frames
            or b"response.incomplete" in frames
            or b"response.failed" in frames
            or (
                b"error" in frames
                and (b'"error"' in frames or b"event: error" in frames or b"event:error" in frames)
            )
            or frames.startswith(_MAYBE_NO_EVENT)
            or (len(frames) < 256 and (b"keepalive" in frames or b"ping" in frames))
        )
        if telling:
            return 0
        self._items_began = True
        self._skimmed = frames
        if b"sequence_number" in frames:
            # It may be in a text alone, or of no frame's event: those before are not let go for it.
            unread = self._unread
            if len(unread) >= _MAX_UNREAD or len(frames) > _MAX_UNREAD_SIZE:
                self._last_sequence()
            unread.append(frames)
        return count_frames(frames)

    def byte_heartbeat(self) -> bytes:
        """A comment."""
        self._has_id = self._has_id or carries_id(self._skimmed)
        return _HEARTBEAT_AFTER_ID if self._has_id else _HEARTBEAT

    def event_heartbeat(self, agent: str, skip: Callable[[], None] | None = None) -> bytes | None:
        """An event that clients take for a sign of life, by how far the stream has come for them.

        Before `response.created` strict clients reject any event, so only Codex gets one. Before
        the first item, `response.in_progress` is an ordinary event; repeated after text it breaks
        the stream helper of openai-node, where `keepalive`, which OpenAI sends too, passes.
        """
        begun = self.forwarded and (self._snapshot or self._items_began)
        if not begun:
            codex = any(token.startswith("codex") for token in agent.split())
            return _keepalive(0) if codex else None
        sequence = max(self._last_sequence(), 0)
        if skip is not None:
            sequence = self._sequence = sequence + 1
            self._unread.clear()
            skip()
        if self._items_began or not self._snapshot:
            return _keepalive(sequence)
        return _lifecycle("response.in_progress", sequence, loads(self._snapshot))

    def error_frames(self, failure: Failure) -> bytes:
        """`error` for the SDKs, `response.failed` for Codex.

        The latter repeats the `response` the client knows, since openai-python's helper insists on
        one id; a client that has seen none gets a small one of ours.
        """
        row = TABLE[failure.cause]
        code = row.responses_code
        message = _message(failure)
        known = fields(loads(self._snapshot)) if self.forwarded and self._snapshot else _MINIMAL
        response = {**known, "status": "failed", "error": {"code": code, "message": message}}
        sequence = self._last_sequence() + 1 if self.forwarded else 0
        error = {"type": row.chat_type, "code": code, "message": message, "param": None}
        event = {"type": "error", "sequence_number": sequence, "error": error}
        return named("error", event) + _lifecycle("response.failed", sequence + 1, response)

    def _note_sequence(self, told: _Event) -> None:
        number = count(told.sequence_number)
        if number is not None:
            self._sequence = number
            self._unread.clear()

    def _last_sequence(self) -> int:
        """The last sequence_number that came, or -1; it may be in the frames last skimmed."""
        while self._unread:
            for frame in _from_the_last(self._unread.pop()):
                event = parse(frame)
                told = read(_EVENT, event.data) if event else None
                if told and count(told.sequence_number) is not None:
                    self._note_sequence(told)
                    break
        return self._sequence


class Responses:
    """Responses."""

    name = "responses"

    def http_status(self, failure: Failure) -> int:
        """The upstream's own status, else that of the cause."""
        return openai_status(failure)

    def error_body(self, failure: Failure) -> bytes:
        """The same as on Chat."""
        return openai_body(failure)

    def answer_usage(self, body: bytes) -> Usage | None:
        """The token counts of a whole response."""
        answer = read(_ANSWER, body)
        return _usage(answer.usage) if answer else None

    def open_stream(self) -> DialectStream:
        """A fresh state for one attempt."""
        return ResponsesStream()


RESPONSES: Dialect = Responses()

_MINIMAL: dict[str, Any] = {
    "id": "resp_proxy",
    "object": "response",
    "created_at": 0,
    "status": "failed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": None,
}


def _from_the_last(frames: bytes) -> Iterator[bytes]:
    """Each of whole frames, joined, the last one first; those before it only if they are asked for."""
    if b"\r" in frames:
        yield from reversed(split_frames(frames))
        return
    end = len(frames)
    while end:
        start = frames.rfind(b"\n\n", 0, end - 2) + 2
        start = start if start > 1 else 0
        yield frames[start:end]
        end = start


def _is_prelude(kind: str, told: _Event) -> bool:
    if kind == "response.output_item.added":
        return text(fields(told.item).get("type")) in _SILENT_ITEMS
    return kind in _PRELUDE or (kind.endswith(".delta") and told.delta in ("", None))


def _keepalive(sequence: int) -> bytes:
    return named("keepalive", {"type": "keepalive", "sequence_number": sequence})


def _lifecycle(kind: str, sequence: int, response: object) -> bytes:
    return named(kind, {"type": kind, "sequence_number": sequence, "response": response})


def _message(failure: Failure) -> str:
    """Codex waits as long as the message of a rate limit says, in exactly these words."""
    message = message_with_code(failure)
    delay = seconds(failure.retry_after)
    if failure.cause is not Cause.RATE_LIMITED or delay is None or "ry again in" in message:
        return message
    return f"{message.rstrip(' .')}. Please try again in {delay}s"


def _response_json(data: bytes) -> bytes:
    """The JSON of `response` in a lifecycle event, copied: Raw keeps the whole frame alive."""
    told = read(_LIFECYCLE_EVENT, data)
    return bytes(told.response) if told else b""


def _response_in(data: bytes) -> _Answer:
    return read(_ANSWER, _response_json(data)) or _Answer()


def _snapshot_of(data: bytes) -> bytes:
    """What to keep of a lifecycle event's `response`; b"" where it has none."""
    response = _response_json(data)
    if len(response) <= MAX_SNAPSHOT and response.startswith(b"{"):
        return response
    known = fields(loads(response))
    return dumps(_reduced(known)) if known else b""


def _reduced(response: dict[str, Any]) -> dict[str, Any]:
    """The scalars that are small, and nothing in the lists."""
    small = {key: value for key, value in response.items() if _is_small(value)}
    return {**_MINIMAL, "status": "in_progress", **small, "output": []}


def _is_small(value: object) -> bool:
    return isinstance(value, bool | int | float) or (
        isinstance(value, str) and len(value) <= _MAX_SCALAR
    )


def _usage(value: object) -> Usage | None:
    told = fields(value)
    inputs = fields(told.get("input_tokens_details"))
    outputs = fields(told.get("output_tokens_details"))
    usage = Usage(
        input_tokens=count(told.get("input_tokens")),
        output_tokens=count(told.get("output_tokens")),
        cached_tokens=count(inputs.get("cached_tokens")),
        cache_write_tokens=count(inputs.get("cache_write_tokens")),
        reasoning_tokens=count(outputs.get("reasoning_tokens")),
    )
    return None if usage == Usage() else usage
