"""Chat Completions: `POST …/chat/completions`.

A stream is `chunk* [usage chunk] "[DONE]"`, all events unnamed. It is complete with `[DONE]`, or
where the body ends after every choice had its `finish_reason`: not every vendor sends `[DONE]`.

Vendors differ most in where they put what: token counts in a last chunk without choices, on the
chunk that finishes, on every chunk, or inside the first choice; reasoning under three names; `null`
for everything they do not say. An `error` key makes a chunk an error whatever else it holds, and
whatever `[DONE]` follows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..core.sse import count_frames, parse
from ..core.usage import Usage
from .base import Dialect, DialectStream, Sight
from .causes import openai_body, openai_error, openai_status
from .errors import failure_of_error
from .template import Template, shown
from .wire import carries_id, count, fields, items, loads, read, text, unnamed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.failure import Failure

MAX_CHOICES = 128
"""As many as OpenAI allows. The others are taken for one that never finishes, so that a stream that
numbers them without end costs no more memory, and only `[DONE]` completes it."""

_HEARTBEAT = b": hb\n\n"
# After an `id:` line openai-python takes any blank line for an event, and its empty data for broken
# JSON. A comment line alone becomes part of the next frame.
_HEARTBEAT_AFTER_ID = b": hb\n"

_EMPTY: tuple[object, ...] = (None, "", [], {})

_SHOWN = shown("content", "reasoning_content", "reasoning", "arguments", "refusal", "text")


class _Chunk(msgspec.Struct):
    id: Any = None
    object: Any = None
    model: Any = None
    type: Any = None
    choices: Any = None
    usage: Any = None
    error: Any = None
    prompt_filter_results: Any = None


class _Answer(msgspec.Struct):
    choices: Any = None
    usage: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_ANSWER = msgspec.json.Decoder(_Answer)


class ChatStream:
    """What is known of one attempt's Chat stream."""

    __slots__ = (
        "_done",
        "_finished_choices",
        "_has_id",
        "_id",
        "_model",
        "_seen_choices",
        "_skimmed",
        "_template",
        "failure",
        "forwarded",
        "usage",
    )

    awaits_failed = False

    def __init__(self) -> None:
        self.forwarded = False
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self._id = ""
        self._model = ""
        self._has_id = False
        self._skimmed = b""
        self._template: Template | None = None  # until frames are skimmed
        self._seen_choices: set[int] = set()
        self._finished_choices: set[int] = set()
        self._done = False

    @property
    def answer_id(self) -> str | None:
        """The `id` of its chunks."""
        return self._id or None

    @property
    def finished(self) -> bool:
        """True after `[DONE]`, or once every choice seen has had its finish_reason."""
        return self._done or (bool(self._seen_choices) and not self._unfinished)

    @property
    def _unfinished(self) -> set[int]:
        return self._seen_choices - self._finished_choices

    def look(self, frame: bytes) -> Sight:
        """Judge one whole frame and remember what it tells."""
        self._has_id = self._has_id or carries_id(frame)
        event = parse(frame)
        data = event.data.strip() if event else b""
        if not event or not data:
            return Sight.IDLE
        if data.startswith(b"[DONE]"):
            self._done = True
            return Sight.END
        chunk = read(_CHUNK, data)
        if chunk is None:
            return Sight.OUTPUT
        # A name alone makes no error: openai-python raises on the key only.
        if chunk.error or chunk.object == "error":
            self.failure = failure_of_error(loads(data))
            return Sight.ERROR
        if chunk.choices is None and "ping" in (event.type, chunk.type):
            return Sight.IDLE
        return self._look_at_chunk(chunk)

    def _look_at_chunk(self, chunk: _Chunk) -> Sight:
        self._id = self._id or text(chunk.id)
        self._model = self._model or text(chunk.model)
        self.usage = _usage_in(chunk.usage, chunk.choices) or self.usage
        choices = items(chunk.choices)
        if not choices and not _is_bare(chunk):
            return Sight.OUTPUT
        sights = [self._look_at_choice(fields(choice)) for choice in choices]
        for sight in (Sight.ERROR, Sight.OUTPUT):
            if sight in sights:
                return sight
        return Sight.PRELUDE

    def _look_at_choice(self, choice: dict[str, Any]) -> Sight:
        index = min(count(choice.get("index")) or 0, MAX_CHOICES)
        self._seen_choices.add(index)
        reason = choice.get("finish_reason")
        if reason == "error" and choice.get("error"):
            self.failure = failure_of_error(choice["error"])
            return Sight.ERROR
        if reason and index < MAX_CHOICES:
            self._finished_choices.add(index)
        if reason or choice.get("text") or _has_output(fields(choice.get("delta"))):
            return Sight.OUTPUT
        return Sight.OUTPUT if _has_output(fields(choice.get("message"))) else Sight.PRELUDE

    def skim(self, frames: bytes) -> int:
        """How many frames these are; 0 if one may tell something."""
        template = self._template
        number = template.count(frames) if template is not None else 0
        if not number:
            if self._tells(frames):
                return 0
            number = count_frames(frames)
            self._template = template = template or Template(_SHOWN)
            template.learn(frames, self._tells)
        self._skimmed = frames
        return number

    def _tells(self, frames: bytes) -> bool:
        """True if one of these frames may end the stream, finish a choice, tell a count, or be a ping.

        Of what occurs in every chunk, the harmless spellings are counted: a finish_reason or usage
        that is not literally `null`, however spaced, leaves a difference.
        """
        return (
            frames.startswith((b":", b"\n", b"\r", b"event"))
            or b'"error"' in frames
            or b"[DONE]" in frames
            or _says(frames, b'"finish_reason"', b'"finish_reason":null', b'"finish_reason": null')
            or (
                b'"usage"' in frames
                and _says(frames, b'"usage"', b'"usage":null', b'"usage": null')
            )
            or (len(frames) < 256 and b"ping" in frames)
            or self._has_other_choice(frames)
        )

    def _has_other_choice(self, frames: bytes) -> bool:
        """True if these frames may belong to a choice other than the first.

        Otherwise a stream of two choices that is cut after the first has finished would pass as
        complete. Tool calls have indices too; those that open their array are told apart.
        """
        first = frames.count(b'"index":0') or frames.count(b'"index": 0')
        other = frames.count(b'"index"') - first
        if other and other != _other_tools(frames):
            return True
        if first:
            self._seen_choices.add(0)
        return False

    def byte_heartbeat(self) -> bytes:
        """A comment."""
        self._has_id = self._has_id or carries_id(self._skimmed)
        return _HEARTBEAT_AFTER_ID if self._has_id else _HEARTBEAT

    def event_heartbeat(self, agent: str, skip: Callable[[], None] | None = None) -> bytes | None:
        """None: whatever is not a chunk breaks clients, and an empty chunk breaks `choices[0]`."""
        return None

    def error_frames(self, failure: Failure) -> bytes:
        """An `error` where `choices` would be, as servers send it; `[DONE]` does not follow.

        With `choices`, however empty, the Vercel AI SDK's provider for OpenAI takes it for a chunk
        like any other and never tells of the error. A client that ignores the key still sees a
        stream that never finished.
        """
        return unnamed(
            {
                "id": self._id or "chatcmpl-proxy",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": self._model,
                "error": openai_error(failure),
            }
        )


class Chat:
    """Chat Completions."""

    name = "chat"

    def http_status(self, failure: Failure) -> int:
        """The upstream's own status, else that of the cause."""
        return openai_status(failure)

    def error_body(self, failure: Failure) -> bytes:
        """`{"error":{"message","type","param","code"}}`."""
        return openai_body(failure)

    def answer_usage(self, body: bytes) -> Usage | None:
        """The token counts of a whole completion."""
        answer = read(_ANSWER, body)
        return _usage_in(answer.usage, answer.choices) if answer else None

    def open_stream(self) -> DialectStream:
        """A fresh state for one attempt."""
        return ChatStream()


CHAT: Dialect = Chat()


def _says(frames: bytes, key: bytes, null: bytes, spaced_null: bytes) -> bool:
    """True if `key` occurs with anything but `null` after it."""
    return frames.count(key) != (frames.count(null) or frames.count(spaced_null))


def _other_tools(frames: bytes) -> int:
    """How many deltas there are for tool calls other than the first."""
    openings = (b'"tool_calls":[{"index":', b'"tool_calls": [{"index": ')
    return sum(frames.count(opening) - frames.count(opening + b"0") for opening in openings)


def _is_bare(chunk: _Chunk) -> bool:
    """True for what is sent beside the answer: counts and filter results, without choices."""
    if chunk.choices is not None:
        return bool(chunk.choices == [])
    named = chunk.object == "chat.completion.chunk"
    return named or (chunk.usage, chunk.prompt_filter_results) != (None, None)


def _has_output(delta: dict[str, Any]) -> bool:
    return any(_is_output(key, value) for key, value in delta.items())


def _is_output(key: str, value: object) -> bool:
    """Whatever is not empty counts, since a client may show it; but a role says nothing yet."""
    if key == "audio":
        return _has_output({**fields(value), "id": None, "expires_at": None})
    return key != "role" and value not in _EMPTY


def _usage_in(usage: object, choices: object) -> Usage | None:
    """The counts at the top, or those of a choice (Moonshot)."""
    found = _usage(fields(usage)) if usage else None
    for choice in items(choices):
        if found is None and (told := fields(choice).get("usage")):
            found = _usage(fields(told))
    return found


def _usage(told: dict[str, Any]) -> Usage | None:
    if not told:
        return None
    prompt = fields(told.get("prompt_tokens_details"))
    completion = fields(told.get("completion_tokens_details"))
    cached = (
        prompt.get("cached_tokens"),
        told.get("prompt_cache_hit_tokens"),  # DeepSeek
        told.get("cached_tokens"),  # Moonshot
    )
    usage = Usage(
        input_tokens=count(told.get("prompt_tokens")),
        output_tokens=count(told.get("completion_tokens")),
        cached_tokens=next((n for place in cached if (n := count(place)) is not None), None),
        cache_write_tokens=count(prompt.get("cache_write_tokens")),
        reasoning_tokens=count(completion.get("reasoning_tokens")),
    )
    return None if usage == Usage() else usage
