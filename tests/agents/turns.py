"""What a model says in one turn, in each dialect. Data only.

A turn is a few parts in order. Each dialect cuts it into the frames before any output, the output, and
the frames from the last of it to the terminator, so that something can go wrong in between.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from scripted.talk import compact, named, unnamed

Frames = tuple[bytes, ...]
CREATED = 1_750_000_000
PIECE = 7  # letters in one delta


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `custom` is for a tool that takes text, as Codex's `apply_patch` does where the
    dialect has such tools; on Chat it is a function with the one argument `input`."""

    id: str
    name: str
    arguments: dict[str, Any]
    custom: bool = False

    @property
    def json(self) -> str:
        return json.dumps(self.arguments)


@dataclass(frozen=True, slots=True)
class Turn:
    """`tokens` is how long the prompt was, as the model counts it; `key` is part of every id."""

    parts: tuple[Think | Say | Call, ...]
    tokens: int = 100
    key: str = "1"

    @property
    def calls(self) -> list[Call]:
        return [part for part in self.parts if isinstance(part, Call)]


def turn(*parts: Think | Say | Call, tokens: int = 100) -> Turn:
    return Turn(parts, tokens)


def pieces(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)] or [""]


class Chat:
    def __init__(self, turn: Turn, model: str) -> None:
        self.turn, self.model = turn, model

    def prelude(self) -> Frames:
        return (self._chunk({"role": "assistant", "content": None}),)

    def output(self) -> Frames:
        deltas: list[dict[str, Any]] = []
        for part in self.turn.parts:
            match part:
                case Think(text):
                    deltas += [{"reasoning_content": piece} for piece in pieces(text)]
                case Say(text):
                    deltas += [{"content": piece} for piece in pieces(text)]
                case Call():
                    deltas += self._call(part)
        return tuple(map(self._chunk, deltas))

    def ending(self) -> Frames:
        finish = "tool_calls" if self.turn.calls else "stop"
        counts = self._head() | {"choices": [], "usage": self._usage()}
        return (self._chunk({}, finish), unnamed(counts), b"data: [DONE]\n\n")

    def answer(self) -> bytes:
        said = "".join(part.text for part in self.turn.parts if isinstance(part, Say))
        thought = "".join(part.text for part in self.turn.parts if isinstance(part, Think))
        calls = [
            {"id": call.id, "type": "function"}
            | {"function": {"name": call.name, "arguments": call.json}}
            for call in self.turn.calls
        ]
        message = {"role": "assistant", "content": said, "reasoning_content": thought}
        message |= {"tool_calls": calls} if calls else {}
        finish = "tool_calls" if calls else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        head = self._head() | {"object": "chat.completion"}
        return compact(head | {"choices": [choice], "usage": self._usage()}).encode()

    def _call(self, call: Call) -> list[dict[str, Any]]:
        index = self.turn.calls.index(call)
        first = {"index": index, "id": call.id, "type": "function"}
        first |= {"function": {"name": call.name, "arguments": ""}}
        more = [{"index": index, "function": {"arguments": piece}} for piece in pieces(call.json)]
        return [{"tool_calls": [each]} for each in (first, *more)]

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return unnamed(self._head() | {"choices": [choice]})

    def _head(self) -> dict[str, Any]:
        head = {"id": f"chatcmpl-{self.turn.key}", "object": "chat.completion.chunk"}
        return head | {"created": CREATED, "model": self.model}

    def _usage(self) -> dict[str, Any]:
        prompt, said = self.turn.tokens, 20
        cached = {"prompt_tokens_details": {"cached_tokens": 0}}
        total = {"total_tokens": prompt + said}
        return {"prompt_tokens": prompt, "completion_tokens": said} | total | cached


class Responses:
    def __init__(self, turn: Turn, model: str) -> None:
        self.turn, self.model = turn, model

    def prelude(self) -> Frames:
        return self._numbered([("created", {"response": self._response("in_progress")})], 0)

    def output(self) -> Frames:
        events = [
            event
            for place, part in enumerate(self.turn.parts)
            for event in self._events(place, part)
        ]
        return self._numbered(events, 1)

    def ending(self) -> Frames:
        first = 1 + len(self.output())
        return self._numbered([("completed", {"response": self._response("completed")})], first)

    def answer(self) -> bytes:
        return compact(self._response("completed")).encode()

    def _events(self, place: int, part: Think | Say | Call) -> list[tuple[str, dict[str, Any]]]:
        at, item = {"output_index": place}, self._item(place, part)
        inside = at | {"item_id": item["id"]}
        added, done = ("output_item.added", at), ("output_item.done", at | {"item": item})
        match part:
            case Think(text):
                begun = item | {"summary": []}
                kind, more = "reasoning_summary_text.delta", inside | {"summary_index": 0}
                empty = {"part": {"type": "summary_text", "text": ""}}
                opening = [("reasoning_summary_part.added", more | empty)]
            case Say(text):
                begun, kind, opening = item | {"content": []}, "output_text.delta", []
                more = inside | {"content_index": 0}
            case Call(custom=True):
                text, begun, opening, more = (
                    part.arguments["input"],
                    item | {"input": ""},
                    [],
                    inside,
                )
                kind = "custom_tool_call_input.delta"
            case Call():
                text, begun, opening, more = part.json, item | {"arguments": ""}, [], inside
                kind = "function_call_arguments.delta"
        deltas = [(kind, more | {"delta": piece}) for piece in pieces(text)]
        return [(added[0], at | {"item": begun}), *opening, *deltas, done]

    def _item(self, place: int, part: Think | Say | Call) -> dict[str, Any]:
        match part:
            case Think(text):
                summary = [{"type": "summary_text", "text": text}]
                return {"id": f"rs_{place}", "type": "reasoning", "summary": summary} | {
                    "encrypted_content": f"sealed {text}"
                }
            case Say(text):
                content = [{"type": "output_text", "text": text, "annotations": []}]
                said = {"id": f"msg_{place}", "type": "message", "role": "assistant"}
                return said | {"status": "completed", "content": content}
            case Call(id=name, custom=True):
                told = {"id": f"ctc_{place}", "type": "custom_tool_call", "call_id": name}
                return told | {"name": part.name, "input": part.arguments["input"]}
            case Call(id=name):
                told = {"id": f"fc_{place}", "type": "function_call", "call_id": name}
                return told | {"name": part.name, "arguments": part.json}

    def _response(self, status: str) -> dict[str, Any]:
        done = status == "completed"
        items = [self._item(place, part) for place, part in enumerate(self.turn.parts)]
        usage = {"input_tokens": self.turn.tokens, "input_tokens_details": {"cached_tokens": 0}}
        usage |= {"output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 0}}
        return {
            "id": f"resp_{self.turn.key}",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "model": self.model,
            "output": items if done else [],
            "usage": usage | {"total_tokens": self.turn.tokens + 20} if done else None,
            "error": None,
            "incomplete_details": None,
        }

    def _numbered(self, events: list[tuple[str, dict[str, Any]]], first: int) -> Frames:
        return tuple(
            named({"type": f"response.{name}", "sequence_number": number} | more)
            for number, (name, more) in enumerate(events, first)
        )


class Messages:
    def __init__(self, turn: Turn, model: str) -> None:
        self.turn, self.model = turn, model

    def prelude(self) -> Frames:
        return (named({"type": "message_start", "message": self._message([], None)}),)

    def output(self) -> Frames:
        return tuple(
            named(event)
            for place, part in enumerate(self.turn.parts)
            for event in self._events(place, part)
        )

    def ending(self) -> Frames:
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        usage = {"input_tokens": self.turn.tokens, "output_tokens": 20}
        counts = named({"type": "message_delta", "delta": delta, "usage": usage})
        return (counts, named({"type": "message_stop"}))

    def answer(self) -> bytes:
        blocks = [self._block(part) for part in self.turn.parts]
        return compact(self._message(blocks, self._reason)).encode()

    def _events(self, place: int, part: Think | Say | Call) -> list[dict[str, Any]]:
        at = {"index": place}
        block = self._block(part)
        match part:
            case Think(text):
                begun = block | {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(text)]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case Say(text):
                begun = block | {"text": ""}
                deltas = [{"type": "text_delta", "text": piece} for piece in pieces(text)]
            case Call():
                begun = block | {"input": {}}
                kind = {"type": "input_json_delta"}
                deltas = [kind | {"partial_json": piece} for piece in pieces(part.json)]
        start = {"type": "content_block_start"} | at | {"content_block": begun}
        grown = [{"type": "content_block_delta"} | at | {"delta": delta} for delta in deltas]
        return [start, *grown, {"type": "content_block_stop"} | at]

    @staticmethod
    def _block(part: Think | Say | Call) -> dict[str, Any]:
        match part:
            case Think(text):
                return {"type": "thinking", "thinking": text, "signature": f"sealed {text}"}
            case Say(text):
                return {"type": "text", "text": text}
            case Call():
                told = {"type": "tool_use", "id": part.id, "name": part.name}
                return told | {"input": part.arguments}

    @property
    def _reason(self) -> str:
        return "tool_use" if self.turn.calls else "end_turn"

    def _message(self, blocks: list[Any], reason: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_{self.turn.key}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {"input_tokens": self.turn.tokens, "output_tokens": 1},
        }


DIALECTS: dict[str, type[Chat] | type[Responses] | type[Messages]] = {
    "chat": Chat,
    "responses": Responses,
    "messages": Messages,
}
