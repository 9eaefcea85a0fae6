"""Why a Chat answer ended, and what it cost, as Messages tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Collection

Json = dict[str, Any]

_REASONS = {
    "length": "max_tokens",
    "model_length": "max_tokens",
    "content_filter": "refusal",
    "sensitive": "refusal",  # Zhipu
    "model_context_window_exceeded": "model_context_window_exceeded",
}

_MATCHED = (
    "stop_reason",
    "matched_stop",
)  # vLLM, SGLang; tokens are numbers there, strings strings


def stop_of_choice(
    choice: Json, *, called: bool, stop_sequences: Collection[str] = ()
) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence` for the choice that finished; {} if none said so.

    Calls count, not what the vendor says of them: Gemini says `stop` after calls, and a client that
    is told of calls where there are none has nothing to answer with. A vendor names in the same
    fields what else made it stop, so only what the client asked for is believed.
    """
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason in _REASONS:
        return _REASONS[reason], None
    if called:
        return "tool_use", None
    for key in _MATCHED:
        matched = choice.get(key)
        if isinstance(matched, str) and matched in stop_sequences:
            return "stop_sequence", matched
    return "end_turn", None


def usage_of(usage: Usage | None) -> Json:
    """The counts of Messages, where what was read from a cache or written to one is no input.

    Clients read them without asking whether they are there: what is unknown is 0.
    """
    known = usage or Usage()
    cached, written = known.cached_tokens or 0, known.cache_write_tokens or 0
    counts: Json = {
        "input_tokens": max(0, (known.input_tokens or 0) - cached - written),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": known.output_tokens or 0,
    }
    if known.reasoning_tokens is not None:
        counts["output_tokens_details"] = {"thinking_tokens": known.reasoning_tokens}
    return counts
