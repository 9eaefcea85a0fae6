"""One answer in the form of each dialect: as frames of a stream, and as a whole.

Each form gives its frames in four parts: the opening, which shows nothing yet; one frame per word;
the closing, with the token counts and the terminator; and the same answer as one JSON document.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ask import Ask

REASONING_TOKENS = 8  # what the pause before the text is said to have cost
Json = dict[str, Any]


class Form(Protocol):
    """One answer, to be written out once."""

    def opening(self) -> bytes:
        """The frames before the first word."""
        ...

    def word(self, text: str) -> bytes:
        """The frame of the next word."""
        ...

    def closing(self) -> bytes:
        """The frames after the last word, terminator included."""
        ...

    def whole(self) -> Json:
        """The answer as a client gets it that does not stream."""
        ...


class ChatForm:
    """Chat Completions."""

    def __init__(self, ask: Ask, words: Sequence[str], *, number: int, now: int) -> None:
        self._ask = ask
        self._text = "".join(words)
        self._usage: Json = {
            "prompt_tokens": ask.prompt_tokens,
            "completion_tokens": len(words) + REASONING_TOKENS,
            "total_tokens": ask.prompt_tokens + len(words) + REASONING_TOKENS,
            "completion_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
        }
        self._head: Json = {"id": f"chatcmpl-demo{number}", "created": now, "model": ask.model}

    def opening(self) -> bytes:
        """See Form."""
        return self._chunk({"role": "assistant", "content": ""})

    def word(self, text: str) -> bytes:
        """See Form."""
        return self._chunk({"content": text})

    def closing(self) -> bytes:
        """See Form."""
        frames = self._chunk({}, finish_reason="stop")
        if self._ask.include_usage:
            frames += self._data([], usage=self._usage)
        return frames + b"data: [DONE]\n\n"

    def whole(self) -> Json:
        """See Form."""
        message = {"role": "assistant", "content": self._text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return self._head | {
            "object": "chat.completion",
            "choices": [choice],
            "usage": self._usage,
        }

    def _chunk(self, delta: Json, *, finish_reason: str | None = None) -> bytes:
        return self._data([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _data(self, choices: list[Json], *, usage: Json | None = None) -> bytes:
        chunk = self._head | {"object": "chat.completion.chunk", "choices": choices}
        if self._ask.include_usage:
            chunk["usage"] = usage
        return b"data: " + _dump(chunk) + b"\n\n"


class ResponsesForm:
    """Responses."""

    def __init__(self, ask: Ask, words: Sequence[str], *, number: int, now: int) -> None:
        self._text = "".join(words)
        self._item_id = f"msg_demo{number}"
        self._place: Json = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        self._next_number = 0
        self._usage: Json = {
            "input_tokens": ask.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(words) + REASONING_TOKENS,
            "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
            "total_tokens": ask.prompt_tokens + len(words) + REASONING_TOKENS,
        }
        self._head: Json = {
            "id": f"resp_demo{number}",
            "object": "response",
            "created_at": now,
            "model": ask.model,
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
        item = self._item("in_progress", [])
        return b"".join(
            (
                self._event("response.created", {"response": begun}),
                self._event("response.in_progress", {"response": begun}),
                self._event("response.output_item.added", {"output_index": 0, "item": item}),
                self._event("response.content_part.added", self._place | {"part": _part("")}),
            )
        )

    def word(self, text: str) -> bytes:
        """See Form."""
        return self._event(
            "response.output_text.delta", self._place | {"delta": text, "logprobs": []}
        )

    def closing(self) -> bytes:
        """See Form."""
        text, part = self._text, _part(self._text)
        item = self._item("completed", [part])
        return b"".join(
            (
                self._event(
                    "response.output_text.done", self._place | {"text": text, "logprobs": []}
                ),
                self._event("response.content_part.done", self._place | {"part": part}),
                self._event("response.output_item.done", {"output_index": 0, "item": item}),
                self._event("response.completed", {"response": self.whole()}),
            )
        )

    def whole(self) -> Json:
        """See Form."""
        item = self._item("completed", [_part(self._text)])
        return self._head | {"status": "completed", "output": [item], "usage": self._usage}

    def _item(self, status: str, content: list[Json]) -> Json:
        return {
            "id": self._item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _event(self, kind: str, fields: Json) -> bytes:
        event = {"type": kind, "sequence_number": self._next_number} | fields
        self._next_number += 1
        return _named(kind, event)


class MessagesForm:
    """Messages."""

    def __init__(self, ask: Ask, words: Sequence[str], *, number: int, now: int) -> None:
        self._ask = ask
        self._text = "".join(words)
        self._output_tokens = len(words) + REASONING_TOKENS
        self._head: Json = {
            "id": f"msg_demo{number}",
            "type": "message",
            "role": "assistant",
            "model": ask.model,
        }

    def opening(self) -> bytes:
        """See Form."""
        message: Json = self._head | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(0),
        }
        block = {"type": "text", "text": ""}
        return (
            _named("message_start", {"type": "message_start", "message": message})
            + _named(
                "content_block_start",
                {"type": "content_block_start", "index": 0, "content_block": block},
            )
            + _named("ping", {"type": "ping"})
        )

    def word(self, text: str) -> bytes:
        """See Form."""
        delta = {"type": "text_delta", "text": text}
        return _named(
            "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        )

    def closing(self) -> bytes:
        """See Form."""
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        usage = {"output_tokens": self._output_tokens}
        return (
            _named("content_block_stop", {"type": "content_block_stop", "index": 0})
            + _named("message_delta", {"type": "message_delta", "delta": delta, "usage": usage})
            + _named("message_stop", {"type": "message_stop"})
        )

    def whole(self) -> Json:
        """See Form."""
        return self._head | {
            "content": [{"type": "text", "text": self._text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": self._usage(self._output_tokens),
        }

    def _usage(self, output_tokens: int) -> Json:
        return {
            "input_tokens": self._ask.prompt_tokens,
            "output_tokens": output_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        }


FORMS: dict[str, type[ChatForm | ResponsesForm | MessagesForm]] = {
    "chat": ChatForm,
    "responses": ResponsesForm,
    "messages": MessagesForm,
}
"""By the names of the dialects."""


def models(now: int) -> Json:
    """The list of models, with the fields both vendors' clients look for."""
    model = {
        "id": "demo",
        "object": "model",
        "type": "model",
        "display_name": "Demo",
        "created": now,
        "created_at": "2025-01-01T00:00:00Z",
        "owned_by": "trio-sse-proxy",
    }
    return {
        "object": "list",
        "data": [model],
        "has_more": False,
        "first_id": "demo",
        "last_id": "demo",
    }


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _named(kind: str, fields: Json) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _dump(fields) + b"\n\n"


def _dump(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
