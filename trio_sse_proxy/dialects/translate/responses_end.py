"""How a Chat answer ended, and what it cost, as Responses tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..chat import CHAT
from ..wire import count, fields, items, loads

if TYPE_CHECKING:
    from .profile import Profile

Json = dict[str, Any]

_TOO_LONG = "max_output_tokens"
_REASONS = {
    "length": _TOO_LONG,
    "model_length": _TOO_LONG,
    "model_context_window_exceeded": _TOO_LONG,
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Zhipu
}


def why_incomplete(finish: object, profile: Profile) -> str | None:
    """The reason in `incomplete_details` for a finish_reason; None for an answer that is complete.

    Codex fails a turn that ended for its length; a profile may call such an answer complete.
    """
    reason = _REASONS.get(finish) if isinstance(finish, str) else None
    return None if reason == _TOO_LONG and profile.length_as_completed else reason


def is_cut(finish: object) -> bool:
    """True if the last call may be half of one, whatever the profile calls it."""
    return isinstance(finish, str) and finish in _REASONS


def usage_in(data: bytes) -> Json | None:
    """The counts in a chunk or completion, as Responses has them.

    None if there are none, or if one is missing without which Codex fails the turn. It does so too
    where details are given and lack a field: so all are there, and what is unknown is 0.
    """
    usage = CHAT.answer_usage(data)
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": _total(data) or usage.input_tokens + usage.output_tokens,
    }


def _total(data: bytes) -> int | None:
    told = fields(loads(data))
    places = (told.get("usage"), *(fields(one).get("usage") for one in items(told.get("choices"))))
    counts = (count(fields(place).get("total_tokens")) for place in places)
    return next((total for total in counts if total is not None), None)
