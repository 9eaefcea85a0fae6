"""`POST …/messages/count_tokens`: the upstream's own count where it has one, else an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..wire import count, dumps, fields, items, loads, text
from .profile import ReasoningField

if TYPE_CHECKING:
    from .messages_request import Request

Json = dict[str, Any]

ESTIMATE_HEADER = (b"x-proxy-estimate", b"1")
"""Marks an answer that nobody counted."""

PER_IMAGE = 1_500
"""Tokens, about what an image of the largest size costs that is not scaled down."""


def tokenizer_request(request: Request) -> bytes:
    """What to ask a tokenizer endpoint: vLLM's `/tokenize` takes a conversation."""
    kept = ("model", "messages", "tools")
    return dumps({key: request.body[key] for key in kept if key in request.body})


def tokenizer_count(body: bytes) -> int | None:
    """The count in its answer; None if there is none in it."""
    told = fields(loads(body))
    for key in ("count", "input_tokens"):
        if (counted := count(told.get(key))) is not None:
            return counted
    tokens = told.get("tokens")
    return len(items(tokens)) if isinstance(tokens, list) else count(tokens)


def count_answer(tokens: int) -> bytes:
    """The body for the client."""
    return dumps({"input_tokens": tokens})


def estimate(request: Request) -> int:
    """About how many tokens the prompt has: a token for four ASCII characters or one other.

    Counted is what a model reads: texts, tools, names and arguments of calls, images. Nothing of
    the notation is, so short prompts come out a little low.
    """
    texts, images = _told(request.body)
    everything = "".join(texts)
    other = sum(not char.isascii() for char in everything) if not everything.isascii() else 0
    return -(-(len(everything) - other) // 4) + other + PER_IMAGE * images


def _told(body: Json) -> tuple[list[str], int]:
    texts = [dumps(fields(tool)).decode() for tool in items(body.get("tools"))]
    images = 0
    for message in map(fields, items(body.get("messages"))):
        content = message.get("content")
        texts.append(text(content))
        for part in map(fields, items(content)):
            texts.append(text(part.get("text")))
            images += part.get("type") != "text"
        texts += [text(message.get(key.value)) for key in ReasoningField]
        for call in map(fields, items(message.get("tool_calls"))):
            function = fields(call.get("function"))
            texts += [text(function.get("name")), text(function.get("arguments"))]
    return texts, images
