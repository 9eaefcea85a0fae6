"""What a model server says in each of the three dialects. Data only: nothing here waits or sends.

The text of every answer is numbered, "tok0 tok1 …", so that a test can see whether anything was
lost or doubled. Ids carry the number of the attempt, so that a prelude of another attempt shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

WORDS = 12
TEXT = "".join(f"tok{n} " for n in range(WORDS))

# status -> (type, code) of an OpenAI error, type of an Anthropic error
ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "invalid_request_error"),
    401: ("authentication_error", "invalid_api_key", "authentication_error"),
    403: ("permission_error", None, "permission_error"),
    404: ("invalid_request_error", "model_not_found", "not_found_error"),
    429: ("rate_limit_error", "rate_limit_exceeded", "rate_limit_error"),
    500: ("server_error", None, "api_error"),
    503: ("server_error", "overloaded", "overloaded_error"),
    529: ("server_error", "overloaded", "overloaded_error"),
}


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def unnamed(value: Any) -> bytes:
    return f"data: {compact(value)}\n\n".encode()


def named(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {compact(value)}\n\n".encode()


class Talk(Protocol):
    """One dialect's way of giving the numbered text."""

    def prelude(self) -> tuple[bytes, ...]: ...
    def output(self) -> tuple[bytes, ...]: ...
    def ending(self) -> tuple[bytes, ...]:
        """From the end of the text to the terminator."""
        ...

    def terminator(self) -> bytes:
        """The very last frame of `ending`."""
        ...

    def answer(self) -> bytes:
        """The same without streaming."""
        ...

    def error_body(self, status: int) -> bytes:
        """The body of an HTTP error."""
        ...

    def error_frames(self, status: int) -> tuple[bytes, ...]:
        """The frames that tell of a failure on a stream; on Responses `error`, then `failed`."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What all three have in common: `echo` bytes of the request repeated in the prelude, `usage:
    null` on every event with `null_usage`, `padding` bytes of an unknown field in one output frame,
    a call of a tool after the text with `calls` (see `calls.py`).
    """

    model: str
    attempt: int = 1
    echo: int = 0
    null_usage: bool = False
    padding: int = 0
    calls: bool = False

    def extra(self, word: int) -> dict[str, Any]:
        """The unknown fields of the output frame that carries `word`."""
        padding = {"obfuscation": "x" * self.padding} if self.padding and word == 3 else {}
        return padding | ({"usage": None} if self.null_usage else {})


class Chat(Said):
    def prelude(self):
        return (self._chunk({"role": "assistant", "content": ""}, **self._echoed()),)

    def output(self):
        return tuple(self._chunk({"content": f"tok{n} "}, **self.extra(n)) for n in range(WORDS))

    def ending(self):
        usage = self._chunk(None, usage=self._usage())
        return (self._chunk({}, finish="stop"), usage, self.terminator())

    def terminator(self):
        return b"data: [DONE]\n\n"

    def answer(self):
        message = {"role": "assistant", "content": TEXT}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        kind = "chat.completion"
        return compact(self._head(kind) | {"choices": [choice], "usage": self._usage()}).encode()

    def error_body(self, status):
        return compact({"error": openai_error(status)}).encode()

    def error_frames(self, status):
        return (unnamed({"error": openai_error(status)}),)

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"chatcmpl-{self.attempt}"
        return {"id": name, "object": kind, "created": 1_750_000_000, "model": self.model}

    def _chunk(self, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        head = self._head("chat.completion.chunk")
        null = {"usage": None} if self.null_usage else {}
        return unnamed(head | {"choices": [] if delta is None else [choice]} | null | more)

    def _echoed(self) -> dict[str, Any]:
        return {"prompt_filter_results": "e" * self.echo} if self.echo else {}

    def _usage(self) -> dict[str, Any]:
        return {"prompt_tokens": 7, "completion_tokens": WORDS, "total_tokens": 7 + WORDS}


class Responses(Said):
    """One message item. `sequence_number` counts through the whole stream."""

    def prelude(self):
        return tuple(map(named, self._events()[:4]))

    def output(self):
        return tuple(map(named, self._events()[4 : 4 + WORDS]))

    def ending(self):
        return tuple(map(named, self._events()[4 + WORDS :]))

    def terminator(self):
        return self.ending()[-1]

    def answer(self):
        return compact(self._response("completed")).encode()

    def error_body(self, status):
        return compact({"error": openai_error(status)}).encode()

    def error_frames(self, status):
        error = openai_error(status)
        failed = self._response("failed") | {
            "error": {"code": error["code"] or error["type"], "message": error["message"]}
        }
        return (
            named({"type": "error", "sequence_number": 90, "error": error}),
            named({"type": "response.failed", "sequence_number": 91, "response": failed}),
        )

    def _events(self) -> list[dict[str, Any]]:
        item, place = {"item_id": "msg_1", "output_index": 0}, {"content_index": 0}
        empty = {"type": "output_text", "text": "", "annotations": []}
        bare = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
        start = self._response("in_progress")
        events: list[tuple[str, dict[str, Any]]] = [
            ("created", {"response": start}),
            ("in_progress", {"response": start}),
            ("output_item.added", {"output_index": 0, "item": bare | {"status": "in_progress"}}),
            ("content_part.added", item | place | {"part": empty}),
        ]
        for n in range(WORDS):
            delta = {"delta": f"tok{n} ", "logprobs": []}
            events.append(("output_text.delta", item | place | delta | self.extra(n)))
        done = self._response("completed")
        events += [
            ("output_text.done", item | place | {"text": TEXT, "logprobs": []}),
            ("content_part.done", item | place | {"part": empty | {"text": TEXT}}),
            ("output_item.done", {"output_index": 0, "item": done["output"][0]}),
            ("completed", {"response": done}),
        ]
        return [
            {"type": f"response.{name}", "sequence_number": number} | more
            for number, (name, more) in enumerate(events)
        ]

    def _response(self, status: str) -> dict[str, Any]:
        done = status == "completed"
        text = {"type": "output_text", "text": TEXT, "annotations": []}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
        usage = {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": WORDS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7 + WORDS,
        }
        return {
            "id": f"resp_{self.attempt}",
            "object": "response",
            "created_at": 1_750_000_000,
            "status": status,
            "model": self.model,
            "instructions": "e" * self.echo or None,
            "output": [message | {"content": [text]}] if done else [],
            "usage": usage if done else None,
            "error": None,
            "incomplete_details": None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }


class Messages(Said):
    def prelude(self):
        echoed = {"echo": "e" * self.echo} if self.echo else {}
        message = self._message([], None, 1) | echoed
        block = {"type": "text", "text": ""}
        return (
            named({"type": "message_start", "message": message}),
            named({"type": "content_block_start", "index": 0, "content_block": block}),
            named({"type": "ping"}),
        )

    def output(self):
        return tuple(
            named(
                {"type": "content_block_delta", "index": 0}
                | {"delta": {"type": "text_delta", "text": f"tok{n} "}}
                | self.extra(n)
            )
            for n in range(WORDS)
        )

    def ending(self):
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return (
            named({"type": "content_block_stop", "index": 0}),
            named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": WORDS}}),
            self.terminator(),
        )

    def terminator(self):
        return named({"type": "message_stop"})

    def answer(self):
        message = self._message([{"type": "text", "text": TEXT}], "end_turn", WORDS)
        return compact(message).encode()

    def error_body(self, status):
        return compact(self._error(status) | {"request_id": "req_scripted"}).encode()

    def error_frames(self, status):
        return (named(self._error(status)),)

    def _error(self, status: int) -> dict[str, Any]:
        error = {"type": ERRORS[status][2], "message": f"scripted {status}"}
        return {"type": "error", "error": error}

    def _message(self, content: list[Any], stop: str | None, tokens: int) -> dict[str, Any]:
        return {
            "id": f"msg_{self.attempt}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": tokens},
        }


def openai_error(status: int) -> dict[str, Any]:
    kind, code, _ = ERRORS[status]
    return {"message": f"scripted {status}", "type": kind, "param": None, "code": code}


DIALECTS: dict[str, type[Chat] | type[Responses] | type[Messages]] = {
    "chat": Chat,
    "responses": Responses,
    "messages": Messages,
}
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def dialect_of(path: str) -> str:
    """The dialect a path asks for; Chat for paths of no dialect, whose requests get its answer."""
    for name, suffix in PATHS.items():
        if path.partition("?")[0].endswith(suffix.removeprefix("/v1")):
            return name
    return "chat"
