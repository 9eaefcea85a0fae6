"""A Messages request as a Chat request.

Claude Code's requests are the measure: what it sends is taken, what Chat has no word for is left out
and reported, and only what the model would miss, or the client rely on, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..wire import count, fields, items, loads, text
from .messages_back import WayBack
from .messages_dropped import Dropped
from .messages_history import Conversation
from .messages_tools import Tools
from .refusals import Declined

if TYPE_CHECKING:
    from .profile import Profile

Json = dict[str, Any]

MAX_STOPS = 4
"""As many as OpenAI takes."""

_READ = frozenset(
    (
        *("model", "messages", "max_tokens", "stream", "system", "temperature", "top_p"),
        *("tools", "tool_choice", "stop_sequences", "thinking", "output_config", "output_format"),
    )
)

_BUDGETS = ((10_000, "high"), (5_000, "medium"), (2_000, "low"))  # tokens; as other gateways do


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`body` is for the upstream; `dropped` says what has no counterpart there."""

    body: Json
    dropped: tuple[str, ...]
    back: WayBack


def translate_request(body: bytes | Json, profile: Profile, *, model: str | None = None) -> Request:
    """The Chat request for a Messages request; `model` is the upstream's name, if it has another.

    Raises Declined, a Refused with status 400, for what cannot be translated.
    """
    told = _object(body)
    limit = count(told.get("max_tokens"))
    if not limit:
        raise Declined("max_tokens: a positive number is required", param="max_tokens")
    return _translate(told, profile, model, profile.limit(limit))


def translate_count(body: bytes | Json, profile: Profile, *, model: str | None = None) -> Request:
    """The same for `count_tokens`, which sets no limit."""
    return _translate(_object(body), profile, model, {})


def _object(body: bytes | Json) -> Json:
    told = loads(body) if isinstance(body, bytes) else body
    if not isinstance(told, dict):
        raise Declined("the request's body is no JSON object")
    return fields(told)


def _translate(told: Json, profile: Profile, model: str | None, limit: Json) -> Request:
    asked = text(told.get("model"))
    if not asked:
        raise Declined("model: a name is required", param="model")
    dropped = Dropped()
    tools = Tools(told.get("tools"), profile, dropped)
    stops = [stop for stop in items(told.get("stop_sequences")) if stop and text(stop)]
    messages = Conversation(profile, tools.book, dropped).read(
        told.get("system"), told.get("messages")
    )
    chat: Json = {"model": model or asked, **limit}
    chat["stream"] = told.get("stream") is True
    if chat["stream"] and profile.stream_usage:
        chat["stream_options"] = {"include_usage": True}
    chat |= _numbers(told) | profile.thinking(effort_of(told)) | _response_format(told)
    if stops:
        chat["stop"] = stops[:MAX_STOPS]
    if len(stops) > MAX_STOPS:
        dropped.field("stop_sequences")
    chat |= _passed(told, profile, dropped)
    chat["messages"] = messages
    chat |= tools.fields(told.get("tool_choice"))
    chat |= profile.extra_body
    back = WayBack(
        model=asked,
        stream=chat["stream"],
        book=tools.book,
        stop_sequences=frozenset(stops),
        inline_think=profile.inline_think,
    )
    return Request(body=chat, dropped=dropped.words, back=back)


def effort_of(told: Json) -> str | None:
    """How much the model is to think: an effort; None if the request leaves it to the model."""
    thinking = fields(told.get("thinking"))
    match thinking.get("type"):
        case "disabled":
            return "none"
        case "enabled":
            budget = count(thinking.get("budget_tokens")) or 0
            return next((effort for least, effort in _BUDGETS if budget >= least), "minimal")
        case _:
            return text(fields(told.get("output_config")).get("effort")) or None


def _numbers(told: Json) -> Json:
    return {key: told[key] for key in ("temperature", "top_p") if told.get(key) is not None}


def _response_format(told: Json) -> Json:
    """The older `output_format` says the same as `output_config.format`."""
    wanted = fields(fields(told.get("output_config")).get("format")) or fields(
        told.get("output_format")
    )
    if wanted.get("type") != "json_schema":
        return {}
    schema = {"name": "answer", "schema": fields(wanted.get("schema")), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _passed(told: Json, profile: Profile, dropped: Dropped) -> Json:
    """What this upstream understands beyond Chat; the rest of what nobody has read is dropped."""
    passed: Json = {}
    for key, value in told.items():
        if key in _READ or value is None:
            continue
        if key in profile.pass_fields:
            passed[key] = value
        elif key == "metadata" and "user" in profile.pass_fields:
            passed |= _user(value)
        else:
            dropped.field(key)
    return passed


def _user(metadata: object) -> Json:
    user = text(fields(metadata).get("user_id"))
    return {"user": user} if user else {}
