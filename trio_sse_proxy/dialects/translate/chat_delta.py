"""What a piece of a Chat answer says, however the vendor spells it.

`delta` of a chunk and `message` of a whole completion have the same fields, so the same functions
read both. Nothing here raises: what is of another type than expected says nothing.
"""

from __future__ import annotations

from typing import Any

from ...core.failure import Cause, Failure
from ..errors import failure_of_error
from ..wire import dumps, fields, items, text

Json = dict[str, Any]

_REASONING = ("reasoning_content", "reasoning")  # in the order in which they are believed
_GROWING = ("text", "summary", "data")  # the fields of a detail that come in pieces

_FAILURES = {
    "abort": Cause.SERVER_ERROR,  # SGLang
    "error": Cause.SERVER_ERROR,  # OpenRouter
    "insufficient_system_resource": Cause.OVERLOADED,  # DeepSeek
    "network_error": Cause.SERVER_ERROR,  # Zhipu
}


def first_choice(choices: object) -> Json:
    """The choice with index 0, or without one: nobody asked for more. {} if there is none."""
    for choice in map(fields, items(choices)):
        if not choice.get("index"):
            return choice
    return {}


def failure_of_choice(choice: Json) -> Failure | None:
    """The failure that some vendors tell as a finish_reason; None if this is none."""
    reason = choice.get("finish_reason")
    cause = _FAILURES.get(reason) if isinstance(reason, str) else None
    if cause is None:
        return None
    if choice.get("error"):
        return failure_of_error(choice["error"])
    return Failure(cause=cause, message=f"the upstream gave up its answer ({reason})")


def tells_usage(usage: object, choice: Json) -> bool:
    """True if a chunk with this `usage` and first choice tells counts (Moonshot: in the choice)."""
    return bool(fields(usage) or fields(choice.get("usage")))


def reasoning_of(delta: Json) -> str:
    """The reasoning; vendors that send it under two names send the same twice."""
    for key in _REASONING:
        if found := text(delta.get(key)):
            return found
    details = items(delta.get("reasoning_details"))
    if details and (found := "".join(map(_detail_text, details))):
        return found
    return _parts(delta.get("content"), "thinking")


def text_of(delta: Json) -> str:
    """The text."""
    content = delta.get("content")
    return content if isinstance(content, str) else _parts(content, "text")


def refusal_of(delta: Json) -> str:
    """What the model says in place of an answer."""
    return text(delta.get("refusal"))


def calls_of(delta: Json) -> list[Json]:
    """The pieces of tool calls. The one call of the older API is told as the first of the newer."""
    if (found := delta.get("tool_calls")) is not None:
        return [fields(call) for call in items(found) if call]
    old = fields(delta.get("function_call"))
    return [{"index": 0, "function": old}] if old else []


def arguments_of(call: Json) -> str:
    """The arguments, or a piece of them, as JSON; some vendors send them decoded."""
    found = fields(call.get("function")).get("arguments")
    return dumps(fields(found)).decode() if isinstance(found, dict) else text(found)


def extras_of(call: Json) -> Json:
    """What a vendor hung on a call and wants back with it (Gemini: `extra_content`)."""
    return {key: call[key] for key in ("extra_content",) if call.get(key)}


def details_of(delta: Json) -> list[Json]:
    """What a vendor hung on its reasoning and wants back with it (OpenRouter)."""
    found = delta.get("reasoning_details")
    return [detail for detail in items(found) if isinstance(detail, dict)] if found else []


def add_details(known: list[Json], pieces: list[Json]) -> None:
    """Put the pieces of details together: those of one index and type are one, as for any delta."""
    for piece in pieces:
        last = known[-1] if known else {}
        if piece.get("index") is None or _place(piece) != _place(last):
            known.append(dict(piece))
            continue
        for field, value in piece.items():
            grows = field in _GROWING and isinstance(last.get(field), str)
            last[field] = last[field] + text(value) if grows else value


def _place(detail: Json) -> tuple[object, object]:
    return detail.get("index"), detail.get("type")


def _detail_text(detail: object) -> str:
    told = fields(detail)
    return text(told.get("text")) or text(told.get("summary"))


def _parts(content: object, kind: str) -> str:
    """The text of the parts of one type: Mistral sends a list where there is `thinking` too."""
    found: list[str] = []
    for part in map(fields, items(content)):
        if part.get("type") == kind:
            inner = part.get(kind)
            found.append(text(inner) or _parts(inner, "text"))
    return "".join(found)
