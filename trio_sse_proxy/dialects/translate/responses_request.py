"""A Responses request as a Chat request, and what must be remembered for the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..wire import count, fields, loads, text
from .history import History
from .refusals import Declined, unsupported
from .responses_input import Told, added_tools
from .responses_tools import Offers

if TYPE_CHECKING:
    from .profile import Profile
    from .tools import ToolBook

Json = dict[str, Any]

_NOT_HERE = {
    "conversation": "conversations are kept in a store, and this proxy has none",
    "prompt": "prompts are kept in a store, and this proxy has none",
    "background": "an answer in the background needs a store, and this proxy has none",
}

_KNOWN = frozenset(
    # Translated; or without effect on the answer, so that there is nothing to report.
    (  # noqa: SIM905
        "model instructions input stream max_output_tokens temperature top_p top_logprobs "
        "parallel_tool_calls reasoning text tools tool_choice previous_response_id conversation prompt "
        "background store truncation metadata user safety_identifier prompt_cache_key service_tier "
        "include"
    ).split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """What the answer's translation must know of its request."""

    model: str
    """As the client named it: every object sent back carries this name."""
    stream: bool
    book: ToolBook
    profile: Profile
    summary: bool
    """Whether the client wants to see reasoning."""
    echo: Json
    """The fields of a response that repeat the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`body` goes upstream; `dropped` says what could not ("item:compaction", "tool:web_search",
    "field:max_tool_calls"), each once, in the order met; `back` is for the translation of the answer."""

    body: Json
    dropped: tuple[str, ...]
    back: WayBack


def translate_request(body: bytes | Json, profile: Profile, *, model: str | None = None) -> Request:
    """Translate a Responses request for the Chat upstream that `profile` describes.

    `model` is what the upstream calls the model; None: as the client does. Raises Declined (a Refused,
    status 400) for what cannot be translated and must not be lost.
    """
    asked = _read(body)
    _refuse_what_needs_a_store(asked)
    offers = Offers(profile)
    offers.add(asked.get("tools"))
    for tools, found in added_tools(asked.get("input")):
        offers.add(tools, found=found)
    book = offers.book()
    history = History(profile)
    history.system(text(asked.get("instructions")))
    told = Told(history, book, profile)
    told.tell(asked.get("input"))
    reasoning = fields(asked.get("reasoning")) | fields(told.overrides.get("reasoning"))
    form = fields(asked.get("text")) | fields(told.overrides.get("text"))
    choice, parallel = asked.get("tool_choice"), asked.get("parallel_tool_calls")
    sent: Json = {
        "model": model if model is not None else asked["model"],
        **_streaming(asked, profile),
        **_sampling(asked, profile),
        **profile.thinking(text(reasoning.get("effort")) or None),
        **_text_form(form, profile),
        **{key: asked[key] for key in profile.pass_fields if asked.get(key) is not None},
        "messages": history.messages(),
        **offers.request_fields(book, choice, parallel),
        **profile.extra_body,
    }
    fields_dropped = [f"field:{key}" for key in asked if key not in {*_KNOWN, *profile.pass_fields}]
    dropped = tuple(dict.fromkeys([*fields_dropped, *offers.dropped, *told.dropped]))
    back = WayBack(
        model=text(asked["model"]),
        stream=asked.get("stream") is True,
        book=book,
        profile=profile,
        summary=_wants_summary(reasoning),
        echo=_echo(asked),
    )
    return Request(body=sent, dropped=dropped, back=back)


def _read(body: bytes | Json) -> Json:
    asked = loads(body) if isinstance(body, bytes) else body
    if not isinstance(asked, dict):
        raise Declined("the body is no JSON object")
    known = fields(asked)
    if not text(known.get("model")):
        raise Declined("model must be a string", param="model", code="missing_required_parameter")
    return known


def _refuse_what_needs_a_store(asked: Json) -> None:
    if asked.get("previous_response_id") is not None:
        raise Declined(
            "previous_response_id points into a store, and this proxy keeps none: send the whole "
            "conversation as input",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    for key, why in _NOT_HERE.items():
        if asked.get(key) not in (None, False):
            raise unsupported(why, key)


def _streaming(asked: Json, profile: Profile) -> Json:
    if asked.get("stream") is not True:
        return {"stream": False}
    usage = {"stream_options": {"include_usage": True}} if profile.stream_usage else {}
    return {"stream": True, **usage}


def _sampling(asked: Json, profile: Profile) -> Json:
    told: Json = {}
    if limit := count(asked.get("max_output_tokens")):
        told |= profile.limit(limit)
    told |= {key: asked[key] for key in ("temperature", "top_p") if asked.get(key) is not None}
    if logprobs := count(asked.get("top_logprobs")):
        told |= {"logprobs": True, "top_logprobs": logprobs}
    return told


def _text_form(form: Json, profile: Profile) -> Json:
    told: Json = {}
    wanted = fields(form.get("format"))
    if wanted.get("type") == "json_object":
        told["response_format"] = {"type": "json_object"}
    elif wanted.get("type") == "json_schema":
        keys = ("name", "schema", "strict", "description")
        schema = {key: wanted[key] for key in keys if wanted.get(key) is not None}
        told["response_format"] = {"type": "json_schema", "json_schema": schema}
    if form.get("verbosity") is not None and "verbosity" in profile.pass_fields:
        told["verbosity"] = form["verbosity"]
    return told


def _wants_summary(reasoning: Json) -> bool:
    """`generate_summary` is the name that `summary` had."""
    return any(reasoning.get(key) not in (None, "none") for key in ("summary", "generate_summary"))


def _echo(asked: Json) -> Json:
    """What a response repeats of its request, with the API's defaults where it said nothing."""

    def said(key: str, default: object) -> object:
        value = asked.get(key)
        return default if value is None else value

    return {
        "instructions": asked.get("instructions"),
        "metadata": said("metadata", {}),
        "parallel_tool_calls": said("parallel_tool_calls", True),
        "tool_choice": said("tool_choice", "auto"),
        "tools": said("tools", []),
        "temperature": said("temperature", 1.0),
        "top_p": said("top_p", 1.0),
        "max_output_tokens": asked.get("max_output_tokens"),
        "previous_response_id": None,
        "reasoning": said("reasoning", {"effort": None, "summary": None}),
        "text": said("text", {"format": {"type": "text"}}),
        "truncation": said("truncation", "disabled"),
        "store": False,
    }
