"""Writing an answer in a dialect: as the frames of a stream, or as one JSON document.

Everything else in this folder reads what a server wrote; this is for those who have a text and no
server. A form gives the opening, which shows nothing yet; frames for every piece of text or reasoning,
which may alternate; and the closing, with the token counts and the terminator.

Counts that are unknown are left out, since unknown is not 0. Chat and Responses clients fail on counts
that lack the input's or the output's, so they get both or none. Messages clients cannot do without:
there, and only there, an unknown count is written as 0; the input's comes late, with the closing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from io import StringIO
from typing import Any, Protocol

from ..core.usage import Usage
from .wire import named, renumbered, unnamed

Json = dict[str, Any]


class Stop(Enum):
    """Why a text ends."""

    END = "end"  # the model was done
    LENGTH = "length"  # it was not, but has used up the tokens it may


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What is known before the first word.

    `key` makes the answer's ids unique: letters and digits. `created` is in seconds since 1970.
    `include_usage` is Chat's: without it a stream must not tell token counts.
    """

    key: str
    model: str
    created: int
    include_usage: bool = False


class Form(Protocol):
    """One answer, to be written out once: as frames, or whole."""

    def opening(self) -> bytes:
        """The frames before the first word."""
        ...

    def text(self, delta: str) -> bytes:
        """The frames of a piece of text that is not empty."""
        ...

    def reasoning(self, delta: str) -> bytes:
        """The frames of a piece of reasoning that is not empty."""
        ...

    def closing(self, usage: Usage, stop: Stop) -> bytes:
        """The frames after the last word, terminator included."""
        ...

    def whole(self, text: str, reasoning: str, usage: Usage, stop: Stop) -> Json:
        """The answer as a client gets it that does not stream."""
        ...

    def skip(self, count: int, held: bytes) -> bytes:
        """Leave out so many of the numbers that events have, if they have any; see core.call."""
        ...


class ChatForm:
    """Chat Completions. Reasoning stands in `reasoning_content`, the name most servers use."""

    def __init__(self, heading: Heading) -> None:
        self._include_usage = heading.include_usage
        self._head: Json = {
            "id": f"chatcmpl-{heading.key}",
            "created": heading.created,
            "model": heading.model,
        }

    def opening(self) -> bytes:
        """See Form."""
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, delta: str) -> bytes:
        """See Form."""
        return self._chunk({"content": delta})

    def reasoning(self, delta: str) -> bytes:
        """See Form."""
        return self._chunk({"reasoning_content": delta})

    def closing(self, usage: Usage, stop: Stop) -> bytes:
        """See Form."""
        frames = self._chunk({}, finish_reason=_CHAT_STOP[stop])
        counts = _chat_usage(usage)
        if self._include_usage and counts is not None:
            frames += self._data([], usage=counts)
        return frames + b"data: [DONE]\n\n"

    def whole(self, text: str, reasoning: str, usage: Usage, stop: Stop) -> Json:
        """See Form."""
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if reasoning:
            message["reasoning_content"] = reasoning
        choice: Json = {
            "index": 0,
            "message": message,
            "finish_reason": _CHAT_STOP[stop],
            "logprobs": None,
        }
        answer = self._head | {"object": "chat.completion", "choices": [choice]}
        counts = _chat_usage(usage)
        return answer if counts is None else answer | {"usage": counts}

    def skip(self, count: int, held: bytes) -> bytes:
        """See Form."""
        return held

    def _chunk(self, delta: Json, *, finish_reason: str | None = None) -> bytes:
        return self._data([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _data(self, choices: list[Json], *, usage: Json | None = None) -> bytes:
        chunk = self._head | {"object": "chat.completion.chunk", "choices": choices}
        if self._include_usage:
            chunk["usage"] = usage
        return unnamed(chunk)


class ResponsesForm:
    """Responses. Its last event repeats the whole answer, so that is kept until then."""

    def __init__(self, heading: Heading) -> None:
        self._key = heading.key
        self._next_number = 0
        self._done: list[Json] = []
        self._open: str | None = None  # the type of the item that grows
        self._grown = StringIO()
        self._head: Json = {
            "id": f"resp_{heading.key}",
            "object": "response",
            "created_at": heading.created,
            "model": heading.model,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
        }

    def opening(self) -> bytes:
        """See Form."""
        begun: Json = self._head | {"status": "in_progress", "output": [], "usage": None}
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def text(self, delta: str) -> bytes:
        """See Form."""
        return self._grow("message", delta)

    def reasoning(self, delta: str) -> bytes:
        """See Form."""
        return self._grow("reasoning", delta)

    def closing(self, usage: Usage, stop: Stop) -> bytes:
        """See Form. A client looks for its text in a message, so there is one, if need be empty."""
        frames = b""
        if self._open != "message":
            frames = self._close_item() + self._open_item("message")
        frames += self._close_item(_RESPONSES_STOP[stop])
        answer = self._answer(self._done, usage, stop)
        return frames + self._event(f"response.{answer['status']}", response=answer)

    def whole(self, text: str, reasoning: str, usage: Usage, stop: Stop) -> Json:
        """See Form."""
        items = [self._item("reasoning", 0, reasoning)] if reasoning else []
        items.append(self._item("message", len(items), text, _RESPONSES_STOP[stop]))
        return self._answer(items, usage, stop)

    def skip(self, count: int, held: bytes) -> bytes:
        """See Form."""
        self._next_number += count
        return renumbered(held, count)

    def _answer(self, items: list[Json], usage: Usage, stop: Stop) -> Json:
        answer = self._head | {
            "status": _RESPONSES_STOP[stop],
            "output": items,
            "usage": _responses_usage(usage),
        }
        if stop is Stop.LENGTH:
            answer["incomplete_details"] = {"reason": "max_output_tokens"}
        return answer

    def _grow(self, kind: str, delta: str) -> bytes:
        frames = b""
        if self._open != kind:
            frames = self._close_item() + self._open_item(kind)
        self._grown.write(delta)
        if kind == "reasoning":
            return frames + self._event("response.reasoning_text.delta", **self._at, delta=delta)
        return frames + self._event(
            "response.output_text.delta", **self._at, delta=delta, logprobs=[]
        )

    def _open_item(self, kind: str) -> bytes:
        self._open = kind
        self._grown = StringIO()
        item = self._item(kind, len(self._done), None, "in_progress")
        return self._event(
            "response.output_item.added", output_index=len(self._done), item=item
        ) + self._event("response.content_part.added", **self._at, part=_part(kind, ""))

    def _close_item(self, status: str = "completed") -> bytes:
        if (kind := self._open) is None:
            return b""
        text, place = self._grown.getvalue(), self._at
        item = self._item(kind, len(self._done), text, status)
        if kind == "reasoning":
            frames = self._event("response.reasoning_text.done", **place, text=text)
        else:
            frames = self._event("response.output_text.done", **place, text=text, logprobs=[])
        frames += self._event("response.content_part.done", **place, part=_part(kind, text))
        frames += self._event(
            "response.output_item.done", output_index=place["output_index"], item=item
        )
        self._done.append(item)
        self._open = None
        return frames

    @property
    def _at(self) -> Json:
        """Where the item that grows stands."""
        index = len(self._done)
        item_id = self._item_id(self._open or "message", index)
        return {"item_id": item_id, "output_index": index, "content_index": 0}

    def _item_id(self, kind: str, index: int) -> str:
        # Some clients drop ids that do not begin with what they are ids of.
        return f"{'rs' if kind == 'reasoning' else 'msg'}_{self._key}{index:x}"

    def _item(self, kind: str, index: int, text: str | None, status: str = "completed") -> Json:
        content = [] if text is None else [_part(kind, text)]
        item: Json = {"id": self._item_id(kind, index), "type": kind, "status": status}
        if kind == "reasoning":
            return item | {"summary": [], "content": content}
        return item | {"role": "assistant", "content": content}

    def _event(self, kind: str, **told: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._next_number} | told
        self._next_number += 1
        return named(kind, event)


class MessagesForm:
    """Messages. Thinking has no signature: clients send it back, and no server here checks it."""

    def __init__(self, heading: Heading) -> None:
        self._index = 0
        self._open: str | None = None  # the type of the block that grows
        self._head: Json = {
            "id": f"msg_{heading.key}",
            "type": "message",
            "role": "assistant",
            "model": heading.model,
        }

    def opening(self) -> bytes:
        """See Form."""
        message: Json = self._head | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _messages_usage(Usage()),
        }
        return _event("message_start", message=message) + _event("ping")

    def text(self, delta: str) -> bytes:
        """See Form."""
        return self._grow("text", {"type": "text_delta", "text": delta})

    def reasoning(self, delta: str) -> bytes:
        """See Form."""
        return self._grow("thinking", {"type": "thinking_delta", "thinking": delta})

    def closing(self, usage: Usage, stop: Stop) -> bytes:
        """See Form. A client looks for its text in a text block, so there is one, if need be empty."""
        frames = b"" if self._open == "text" else self._close_block() + self._open_block("text")
        delta = {"stop_reason": _MESSAGES_STOP[stop], "stop_sequence": None}
        return b"".join(
            (
                frames,
                self._close_block(),
                _event("message_delta", delta=delta, usage=_messages_usage(usage)),
                _event("message_stop"),
            )
        )

    def whole(self, text: str, reasoning: str, usage: Usage, stop: Stop) -> Json:
        """See Form."""
        content: list[Json] = [{"type": "text", "text": text}]
        if reasoning:
            content.insert(0, {"type": "thinking", "thinking": reasoning, "signature": ""})
        return self._head | {
            "content": content,
            "stop_reason": _MESSAGES_STOP[stop],
            "stop_sequence": None,
            "usage": _messages_usage(usage),
        }

    def skip(self, count: int, held: bytes) -> bytes:
        """See Form."""
        return held

    def _grow(self, kind: str, delta: Json) -> bytes:
        frames = b"" if self._open == kind else self._close_block() + self._open_block(kind)
        return frames + _event("content_block_delta", index=self._index, delta=delta)

    def _open_block(self, kind: str) -> bytes:
        self._open = kind
        block = {"type": kind, kind: ""}
        if kind == "thinking":
            block["signature"] = ""
        return _event("content_block_start", index=self._index, content_block=block)

    def _close_block(self) -> bytes:
        if self._open is None:
            return b""
        frame = _event("content_block_stop", index=self._index)
        self._open = None
        self._index += 1
        return frame


FORMS: dict[str, type[ChatForm | ResponsesForm | MessagesForm]] = {
    "chat": ChatForm,
    "responses": ResponsesForm,
    "messages": MessagesForm,
}
"""By the names of the dialects."""

_CHAT_STOP = {Stop.END: "stop", Stop.LENGTH: "length"}
_RESPONSES_STOP = {Stop.END: "completed", Stop.LENGTH: "incomplete"}
_MESSAGES_STOP = {Stop.END: "end_turn", Stop.LENGTH: "max_tokens"}


def _chat_usage(usage: Usage) -> Json | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    counts: Json = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def _responses_usage(usage: Usage) -> Json | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    counts: Json = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens is not None:
        counts["input_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        counts["output_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def _messages_usage(usage: Usage) -> Json:
    """Cached tokens are counted apart from the input here, and together with it in ours."""
    cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    counts: Json = {
        "input_tokens": max(0, (usage.input_tokens or 0) - cached - written),
        "output_tokens": usage.output_tokens or 0,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
    }
    if usage.reasoning_tokens is not None:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counts


def _part(kind: str, text: str) -> Json:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _event(kind: str, **told: Any) -> bytes:
    return named(kind, {"type": kind} | told)
