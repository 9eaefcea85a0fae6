"""What one Chat upstream understands, where Chat upstreams differ.

They agree on the frame of Chat Completions and on little beside it: how reasoning is asked for, under
which name it comes and whether it must be sent back; what a system message may be and where it may
stand; which ids a tool call may have. Each such difference is one switch here, and each vendor that is
known well enough one preset. A preset is a start: whoever knows his server better sets switches one by
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping


class ThinkingStyle(StrEnum):
    """How a request says how much the model is to think."""

    REASONING_EFFORT = "reasoning_effort"  # {"reasoning_effort": "high"}
    THINKING_TYPE = "thinking_type"  # {"thinking": {"type": "enabled"}}
    ENABLE_THINKING = "enable_thinking"  # {"enable_thinking": true}
    CHAT_TEMPLATE_KWARGS = "chat_template_kwargs"  # {"chat_template_kwargs": {…: true}}
    NONE = "none"


class ReasoningField(StrEnum):
    """The key of an assistant message under which its reasoning is sent back."""

    REASONING_CONTENT = "reasoning_content"
    REASONING = "reasoning"
    NONE = "none"


class ReasoningEcho(StrEnum):
    """Which earlier turns are sent with their reasoning."""

    TOOL_TURNS = "tool_turns"
    ALL = "all"
    NEVER = "never"


class SystemMode(StrEnum):
    """What becomes of a system message that is not among the first."""

    USER = "user"  # a user message, wrapped in <system>…</system>
    KEEP = "keep"  # stays where and what it is
    LEADING = "leading"  # joins the first


class EmptyContent(StrEnum):
    """The `content` of an assistant message that has tool calls and no text."""

    OMIT = "omit"
    EMPTY = "empty"  # ""
    NULL = "null"


class ToolImages(StrEnum):
    """Where an image goes that a tool gave back."""

    USER_MESSAGE = "user_message"  # behind the group of tool messages
    INLINE = "inline"  # into the tool message
    DROP = "drop"


class ToolIdShape(StrEnum):
    """What a vendor demands of the ids of tool calls."""

    ANY = "none"
    MISTRAL9 = "mistral9"  # nine letters and digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The switches of one upstream. The defaults suit a server of which nothing is known."""

    base: str = "generic"
    """The preset it began as: what its other switches are compared with where they are shown."""

    max_tokens_field: str = "max_tokens"
    max_output_tokens: int | None = None
    """More than this is never asked for; None: no bound."""
    vision: bool = True
    files: bool = False
    """Whether user messages may have `file` parts."""

    stream_usage: bool = True
    """Whether `stream_options` may be sent, without which most servers tell no counts."""
    inline_think: bool = False
    """Whether text may hold `<think>…</think>`, which is to be told as reasoning."""
    length_as_completed: bool = False
    refusal_as_text: bool = True

    thinking_style: ThinkingStyle = ThinkingStyle.REASONING_EFFORT
    effort_map: Mapping[str, str] = field(default_factory=dict[str, str])
    """From none, minimal, low, medium, high, xhigh, max to what the vendor knows; "": not sent."""
    reasoning_field: ReasoningField = ReasoningField.REASONING_CONTENT
    reasoning_echo: ReasoningEcho = ReasoningEcho.TOOL_TURNS
    reasoning_placeholder: str | None = None
    """Stands in for the reasoning of earlier turns that have none; None: such turns go without."""

    system_mode: SystemMode = SystemMode.USER
    developer_role: bool = False
    """Whether the first message is to have the role `developer` instead of `system`."""
    empty_content: EmptyContent = EmptyContent.OMIT
    tool_images: ToolImages = ToolImages.USER_MESSAGE
    tool_id_shape: ToolIdShape = ToolIdShape.ANY

    tool_choice_auto: bool = True
    """Whether `tool_choice: "auto"` is sent, which is what leaving it out means."""
    parallel_tool_calls: bool = True
    """Whether `parallel_tool_calls` is sent."""
    web_search_tool: Mapping[str, Any] | None = None
    """The vendor's own tool to be sent where the client offers its web search; None: dropped."""

    pass_fields: tuple[str, ...] = ()
    """Fields of the client's request, dropped otherwise, which the vendor understands."""
    extra_body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields added to every request; they win over ours."""
    tokenizer_url: str | None = None
    """The path of an endpoint that counts the tokens of a conversation, as vLLM's `/tokenize` does,
    from the server's root; None: counts are estimated."""

    def limit(self, tokens: int) -> dict[str, Any]:
        """The field that bounds the answer to so many tokens."""
        most = tokens if self.max_output_tokens is None else self.max_output_tokens
        return {self.max_tokens_field: min(tokens, most)}

    def thinking(self, effort: str | None) -> dict[str, Any]:
        """The fields that ask for this effort: none, minimal, low, medium, high, xhigh, max.

        None asks for nothing. Styles that switch thinking on and off send the effort beside it only
        where `effort_map` names it: most servers of these styles know no efforts.
        """
        if effort is None:
            return {}
        style = self.thinking_style
        fallback = effort if style is ThinkingStyle.REASONING_EFFORT else ""
        mapped = self.effort_map.get(effort, fallback)
        fields: dict[str, Any] = {"reasoning_effort": mapped} if mapped else {}
        on = effort != "none"
        match style:
            case ThinkingStyle.REASONING_EFFORT:
                return fields
            case ThinkingStyle.THINKING_TYPE:
                return {"thinking": {"type": "enabled" if on else "disabled"}, **fields}
            case ThinkingStyle.ENABLE_THINKING:
                return {"enable_thinking": on, **fields}
            case ThinkingStyle.CHAT_TEMPLATE_KWARGS:
                # Qwen's templates read the one, DeepSeek's the other; Jinja ignores what is not read.
                return {"chat_template_kwargs": {"enable_thinking": on, "thinking": on}, **fields}
            case ThinkingStyle.NONE:
                return {}
            case _:
                assert_never(style)


_NO_REASONING = "(no reasoning recorded)"

GENERIC = Profile()

_MUST_ECHO = replace(
    GENERIC,
    # DeepSeek V4 and MiMo, thinking: 400 "reasoning_content must be passed back" where a turn lacks it.
    thinking_style=ThinkingStyle.THINKING_TYPE,
    reasoning_echo=ReasoningEcho.ALL,
    reasoning_placeholder=_NO_REASONING,
)

_PRESETS: Mapping[str, Profile] = {
    "generic": GENERIC,
    "deepseek": _MUST_ECHO,
    "mimo": replace(
        _MUST_ECHO,
        effort_map={
            "minimal": "low",
            "low": "low",
            "medium": "medium",
            "high": "high",
            "xhigh": "high",
            "max": "high",
        },
        tool_choice_auto=False,
    ),
    "kimi": replace(GENERIC, max_tokens_field="max_tokens"),
    "minimax": replace(
        GENERIC, inline_think=True, system_mode=SystemMode.USER, tool_choice_auto=False
    ),
    "mistral": replace(GENERIC, tool_id_shape=ToolIdShape.MISTRAL9),
    "openai": replace(
        GENERIC,
        max_tokens_field="max_completion_tokens",
        developer_role=True,
        reasoning_field=ReasoningField.NONE,  # unknown keys of messages are rejected
        pass_fields=("prompt_cache_key", "service_tier", "verbosity"),
    ),
    "vllm": replace(
        GENERIC,
        thinking_style=ThinkingStyle.CHAT_TEMPLATE_KWARGS,
        reasoning_field=ReasoningField.REASONING,
        tokenizer_url="/tokenize",
    ),
    "sglang": replace(GENERIC, thinking_style=ThinkingStyle.CHAT_TEMPLATE_KWARGS),
    "llamacpp": replace(GENERIC, thinking_style=ThinkingStyle.CHAT_TEMPLATE_KWARGS),
    "ollama": replace(GENERIC, reasoning_field=ReasoningField.REASONING),
    "exo": GENERIC,
    "openrouter": replace(GENERIC, reasoning_field=ReasoningField.REASONING),
    "gemini": GENERIC,  # its thought signatures return with the calls, as any vendor's extras do
}

PRESETS: Mapping[str, Profile] = {
    name: replace(preset, base=name) for name, preset in _PRESETS.items()
}
"""By the name settings give them."""
