"""What a request wants of the demo upstream, and what it will say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable


class Trick(Enum):
    """What the first words of a message make the demo upstream do; they may be combined."""

    FAST = "fast"  # no silence
    CUT = "cut"  # the first attempt breaks before its first token
    ERROR = "error"  # the first attempt is answered with 529
    BREAK = "break"  # breaks off in the middle of the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. `prompt_tokens` counts the words of its last message, which is guess enough."""

    model: str
    stream: bool
    prompt: str
    tricks: frozenset[Trick]
    include_usage: bool
    prompt_tokens: int


def understand(body: bytes) -> Ask | None:
    """The request in `body`, in whichever of the three dialects; None if it is no JSON object."""
    try:
        request: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    fields = cast("dict[str, Any]", request)
    prompt = _last_message(fields.get("messages", fields.get("input")))
    options = fields.get("stream_options")
    return Ask(
        model=str(fields.get("model") or "demo"),
        stream=fields.get("stream") is True,
        prompt=prompt,
        tricks=_tricks(prompt),
        include_usage=isinstance(options, dict)
        and cast("dict[str, Any]", options).get("include_usage") is True,
        prompt_tokens=max(1, len(prompt.split())),
    )


def _last_message(conversation: Any) -> str:
    """The last text of the user, wherever the dialect has put it."""
    if isinstance(conversation, str):
        return conversation
    texts: list[str] = []
    for message in _list(conversation):
        if isinstance(message, dict):
            fields = cast("dict[str, Any]", message)
            if fields.get("role") == "user":
                texts.extend(_texts(fields.get("content")))
    return texts[-1].strip() if texts else ""


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = [cast("dict[str, Any]", part) for part in _list(content) if isinstance(part, dict)]
    return [part["text"] for part in parts if isinstance(part.get("text"), str)]


def _list(value: Any) -> list[Any]:
    return list(cast("Iterable[Any]", value)) if isinstance(value, list) else []


def _tricks(prompt: str) -> frozenset[Trick]:
    """The tricks named by the words the message begins with."""
    names = {trick.value: trick for trick in Trick}
    tricks: set[Trick] = set()
    for word in re.findall(r"\w+", prompt.lower()):
        if word not in names:
            break
        tricks.add(names[word])
    return frozenset(tricks)


def reply(ask: Ask, *, silence: float, thinking: float) -> tuple[str, ...]:
    """The answer, a word at a time with the space after it; the times in seconds."""
    words = " ".join(ask.prompt.split()) or "nothing"
    echo = words if len(words) <= 200 else f"{words[:199]}…"
    if silence or thinking:
        waited = (
            f"I kept silent for {silence:g} seconds before my headers and for {thinking:g} more"
            " before this text. What you saw meanwhile were heartbeats of the proxy."
        )
    else:
        waited = "I left the silence out, as you asked."
    text = (
        "I am the demo upstream of trio-sse-proxy: no language model, but about as slow as one."
        f" You said: “{echo}” {waited} Begin a message with one of these words to see more:"
        " “cut” breaks my first attempt before its first token, and the proxy asks again unseen;"
        " “error” makes me answer 529 once; “break” breaks off in the middle of the text, and you"
        " are told so; “fast” leaves the silence out."
    )
    return tuple(re.findall(r"\S+\s*", text))
