"""The tools of a Messages request, and which of them may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..wire import fields, items, text
from .refusals import Declined, unsupported
from .tools import Tool, ToolBook, function

if TYPE_CHECKING:
    from .messages_dropped import Dropped
    from .profile import Profile

Json = dict[str, Any]

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class Tools:
    """The client's own tools. Typed ones run on Anthropic's servers, or are known to its models only."""

    def __init__(self, tools: object, profile: Profile, dropped: Dropped) -> None:
        self._profile = profile
        self._typed: set[str] = set()
        self._hosted: list[Json] = []
        own: dict[str, Json] = {}  # by name; the first definition wins
        for tool in map(fields, items(tools)):
            if _is_own(tool):
                own.setdefault(text(tool.get("name")), tool)
            else:
                self._take_typed(tool, dropped)
        self.book = ToolBook([Tool(name) for name in own])
        self._own = own
        if self._typed and not own and not self._hosted:
            raise unsupported(f"no tool is left without {', '.join(sorted(self._typed))}", "tools")

    def _take_typed(self, tool: Json, dropped: Dropped) -> None:
        kind = text(tool.get("type"))
        mapped = self._profile.web_search_tool
        if mapped is not None and kind.startswith("web_search"):
            self._hosted.append(dict(mapped))
            return
        self._typed.add(text(tool.get("name")) or kind)
        dropped.tool(tool)

    def fields(self, choice: object) -> Json:
        """`tools`, `tool_choice` and `parallel_tool_calls`; nothing at all where there are no tools.

        Upstreams reject a choice without tools to choose from.
        """
        told = fields(choice)
        chosen = self._chosen(told) if told else None
        if not self._own and not self._hosted:
            return {}
        body: Json = {"tools": [*map(self._function, self._own.values()), *self._hosted]}
        if chosen is not None and (chosen != "auto" or self._profile.tool_choice_auto):
            body["tool_choice"] = chosen
        if told.get("disable_parallel_tool_use") is True and self._profile.parallel_tool_calls:
            body["parallel_tool_calls"] = False
        return body

    def _chosen(self, choice: Json) -> str | Json:
        kind = text(choice.get("type"))
        if kind in _CHOICES:
            return _CHOICES[kind]
        if kind != "tool":
            raise Declined(f"tool_choice: unknown type {kind!r}", param="tool_choice")
        name = text(choice.get("name"))
        if name in self._typed:
            raise unsupported(f"tool_choice: this model has no tool {name!r}", "tool_choice")
        if name not in self._own:
            raise Declined(f"tool_choice: there is no tool {name!r}", param="tool_choice")
        return {"type": "function", "function": {"name": self.book.flat(None, name)}}

    def _function(self, tool: Json) -> Json:
        flat = self.book.flat(None, text(tool.get("name")))
        strict = tool.get("strict")
        return function(flat, tool.get("description"), tool.get("input_schema"), strict=strict)


def _is_own(tool: Json) -> bool:
    return bool(text(tool.get("name"))) and tool.get("type") in (None, "custom")
