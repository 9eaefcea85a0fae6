"""What was found out about a server, and which settings follow from it.

A preset is the start, as everywhere; a switch is set over it only where an answer contradicts it. And
only towards caution: a server that took a field once is no reason to send it where its preset does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..dialects.translate.profile import (
    PRESETS,
    EmptyContent,
    ReasoningEcho,
    ThinkingStyle,
    ToolIdShape,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..dialects.translate.profile import Profile

PLACEHOLDER = "(no reasoning recorded)"

_HOSTS = {
    "deepseek.com": "deepseek",
    "xiaomimimo.com": "mimo",
    "mimo-v2.com": "mimo",
    "moonshot.ai": "kimi",
    "moonshot.cn": "kimi",
    "kimi.com": "kimi",
    "minimax.io": "minimax",
    "minimaxi.com": "minimax",
    "minimax.chat": "minimax",
    "mistral.ai": "mistral",
    "openai.com": "openai",
    "openrouter.ai": "openrouter",
    "googleapis.com": "gemini",
}
_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llamacpp",
    "llama.cpp": "llamacpp",
    "library": "ollama",
    "ollama": "ollama",
    "exo": "exo",
}
_METRICS = {"vllm:": "vllm", "sglang:": "sglang", "llamacpp:": "llamacpp"}


@dataclass(slots=True, kw_only=True)
class Findings:
    """None, in all that may be true or false, means that it could not be told."""

    base_url: str
    model: str = ""
    models: int = 0
    owners: set[str] = field(default_factory=set[str])
    """Who the list of models says they belong to."""
    server: str = ""
    """What the server's header fields call it."""
    metrics: str = ""
    """How the names of its metrics begin."""

    dialects: dict[str, bool | None] = field(default_factory=dict[str, "bool | None"])
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    """What it said instead, by dialect or by what was asked about."""
    in_part: dict[str, str] = field(default_factory=dict[str, str])
    """Dialects that it speaks, but not as the agents need it, and why."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Fields of Chat that it does not take, and what it said."""

    terminated: bool | None = None
    """Its streams end with `[DONE]`."""
    usage_asked: bool | None = None
    usage_unasked: bool | None = None
    reasoning: list[str] = field(default_factory=list[str])
    inline_think: bool = False
    developer: bool | None = None
    effort: bool | None = None
    tools: bool | None = None
    """It called one when asked to."""
    calls: int = 0
    pieces: int = 0
    """In how many pieces the arguments came."""
    call_ids: list[str] = field(default_factory=list[str])
    history: bool | None = None
    """It took an earlier call and its result."""
    empty_content: EmptyContent = EmptyContent.OMIT
    echo_needed: bool = False
    short_ids: bool = False
    images: bool | None = None
    abort: bool | None = None
    abort_words: str = "it has no metrics that would tell"
    error: str = ""
    """What its error for an unknown model looks like."""

    @property
    def preset(self) -> tuple[str, str]:
        """The preset it resembles, and by what."""
        host = urlsplit(self.base_url).hostname or ""
        for end, name in _HOSTS.items():
            if host == end or host.endswith(f".{end}"):
                return name, f"its address is one of {end}"
        for owner in sorted(self.owners):
            if name := _OWNERS.get(owner.lower(), ""):
                return name, f"its models belong to {owner!r}"
        for begin, name in _METRICS.items():
            if self.metrics == begin:
                return name, f"its metrics are called {begin}…"
        if "llama.cpp" in self.server.lower():
            return "llamacpp", f"it calls itself {self.server!r}"
        return "generic", "nothing tells which server it is"

    @property
    def spoken(self) -> tuple[str, ...]:
        """The dialects it surely speaks, and as agents need it: else they are better off translated."""
        return tuple(
            name for name, speaks in self.dialects.items() if speaks and name not in self.in_part
        )

    def overrides(self) -> Iterator[tuple[str, Any, str]]:
        """Switches that differ from the preset's: name, value, and why."""
        preset = PRESETS[self.preset[0]]
        for name, value, why in (*self._refusals(), *self._observed(preset)):
            if getattr(preset, name) != value:
                yield name, value, why

    def _refusals(self) -> Iterator[tuple[str, Any, str]]:
        switches: dict[str, tuple[str, Any]] = {
            "stream_options": ("stream_usage", False),
            "max_tokens": ("max_tokens_field", "max_completion_tokens"),
            "tool_choice": ("tool_choice_auto", False),
            "parallel_tool_calls": ("parallel_tool_calls", False),
        }
        for refused, said in self.refused.items():
            if refused in switches:
                yield *switches[refused], f"it refused {refused} ({said})"

    def _observed(self, preset: Profile) -> Iterator[tuple[str, Any, str]]:
        if self.inline_think:
            yield "inline_think", True, "its text begins with <think>"
        named = [name for name in self.reasoning if name in ("reasoning_content", "reasoning")]
        if named and preset.reasoning_field.value not in (*named, "none"):
            yield "reasoning_field", named[0], f"it tells its reasoning as {named[0]}"
        if self.echo_needed:
            why = f"it wants reasoning back ({self.reasons.get('history', '')})"
            yield "reasoning_echo", ReasoningEcho.ALL, why
            yield "reasoning_placeholder", PLACEHOLDER, "for turns that have none"
        if self.empty_content is not EmptyContent.OMIT:
            yield "empty_content", self.empty_content, "it refused a message without content"
        if self.short_ids:
            yield "tool_id_shape", ToolIdShape.MISTRAL9, "it refused other ids of calls"
        if self.developer is False and preset.developer_role:
            yield "developer_role", False, "it refused the role developer"
        if self.images is False:
            yield "vision", False, f"it refused an image ({self.reasons.get('images', '')})"
        if self.effort is False and preset.thinking_style is ThinkingStyle.REASONING_EFFORT:
            yield "thinking_style", ThinkingStyle.NONE, "it refused reasoning_effort"


def is_mistrals_complaint(said: str) -> bool:
    """True if this is what is said of ids that are no nine letters and digits."""
    return re.search(r"tool.?call.?id|length of 9|a-zA-Z0-9", said, re.IGNORECASE) is not None
