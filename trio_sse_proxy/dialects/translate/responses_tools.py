"""The tools of a Responses request, as the functions of a Chat request.

Tools come from three places: the request's own list, and the items of its history that added some
(`additional_tools`) or listed what a search for tools found (`tool_search_output`). Hosted tools, which
OpenAI's servers run themselves, have no counterpart and are left out; a request that insists on one is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..wire import fields, items, text
from .refusals import Declined
from .tools import Kind, Tool, ToolBook, function

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from .profile import Profile

Json = dict[str, Any]

SEARCH = "tool_search"

_WEB_SEARCH = "web_search"
_SEARCH_PARAMETERS: Json = {
    "type": "object",
    "properties": {"query": {"type": "string"}},
    "required": ["query"],
}
_INPUT: Json = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class _Offer:
    tool: Tool
    definition: Json
    deferred: bool


class Offers:
    """All tools of one request, as they are found."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._offers: dict[tuple[str | None, str], _Offer] = {}
        self._found: set[tuple[str | None, str]] = set()  # listed by a search
        self._vendor: list[Json] = []
        self.dropped: list[str] = []

    def add(self, tools: object, *, found: bool = False) -> None:
        """Enter a list of tools; `found` says that a search listed them, so none is deferred."""
        for entry in map(fields, items(tools)):
            if entry.get("type") == "namespace":
                name = text(entry.get("name"))
                late = entry.get("defer_loading") is True
                for inner in map(fields, items(entry.get("tools"))):
                    self._enter(inner, name or None, late=late, found=found)
            else:
                self._enter(entry, None, late=False, found=found)

    def _enter(self, entry: Json, namespace: str | None, *, late: bool, found: bool) -> None:
        kind = _kind_of(entry)
        if kind is None:
            self._drop(text(entry.get("type")) or "unknown")
            return
        name = SEARCH if kind is Kind.SEARCH else text(entry.get("name"))
        if not name:
            raise Declined(f"a tool of type {kind.value} has no name", param="tools")
        tool = Tool(name, namespace, kind)
        late = late or entry.get("defer_loading") is True
        self._offers.setdefault((namespace, name), _Offer(tool, entry, late))
        if found:
            self._found.add((namespace, name))

    def _drop(self, kind: str) -> None:
        if kind.startswith(_WEB_SEARCH) and self._profile.web_search_tool is not None:
            vendors = dict(self._profile.web_search_tool)
            if vendors not in self._vendor:
                self._vendor.append(vendors)
        else:
            self.dropped.append(f"tool:{kind}")

    def book(self) -> ToolBook:
        """The names of all tools, also of those not offered just now: the history may call them."""
        return ToolBook([offer.tool for offer in self._offers.values()])

    def request_fields(self, book: ToolBook, choice: object, parallel: object) -> Json:
        """`tools`, `tool_choice` and `parallel_tool_calls`, as far as they may be sent.

        Raises Declined if the choice is one that cannot be kept.
        """
        picked = _Choice(choice, book)
        offered = {name: tool for name, tool in self._offered(book) if picked.allows(name)}
        tools = [*offered.values(), *self._vendor]
        chosen = picked.told(offered, any_tools=bool(tools))
        if not tools:
            return {}
        told: Json = {"tools": tools}
        if chosen is not None and (chosen != "auto" or self._profile.tool_choice_auto):
            told["tool_choice"] = chosen
        if isinstance(parallel, bool) and self._profile.parallel_tool_calls:
            told["parallel_tool_calls"] = parallel
        return told

    def _offered(self, book: ToolBook) -> Iterator[tuple[str, Json]]:
        searching = any(offer.tool.kind is Kind.SEARCH for offer in self._offers.values())
        for key, offer in self._offers.items():
            if not (searching and offer.deferred and key not in self._found):
                flat = book.flat(*key)
                yield flat, _as_function(flat, offer)


class _Choice:
    """The client's `tool_choice`."""

    def __init__(self, choice: object, book: ToolBook) -> None:
        self._only: set[str] | None = None
        self._forced: str | None = None
        self._word: str | None = None
        told = fields(choice)
        kind = told.get("type")
        if choice is None:
            return
        if choice in ("auto", "none", "required"):
            self._word = text(choice)
        elif kind in ("function", "custom") and told.get("name"):
            self._forced = _flat(book, told)
        elif kind == "allowed_tools":
            mode = told.get("mode")
            self._word = "required" if mode == "required" else "auto"
            self._only = {_flat(book, entry) for entry in map(fields, items(told.get("tools")))}
        else:
            raise Declined(
                f"tool_choice {text(choice) or text(kind) or 'of this kind'} cannot be translated "
                "for this upstream, which knows only functions",
                param="tool_choice",
                code="unsupported_parameter",
            )

    def allows(self, flat: str) -> bool:
        """True if a tool of this name may be offered."""
        return self._only is None or flat in self._only

    def told(self, offered: Container[str], *, any_tools: bool) -> str | Json | None:
        """As Chat has it; None where the client said nothing."""
        if self._forced is not None and self._forced in offered:
            return {"type": "function", "function": {"name": self._forced}}
        if self._forced is not None or (self._word == "required" and not any_tools):
            message = "tool_choice wants a call of a tool that this upstream is not offered"
            raise Declined(message, param="tool_choice", code="unsupported_parameter")
        return self._word


def _flat(book: ToolBook, told: Json) -> str:
    return book.flat(text(told.get("namespace")) or None, text(told.get("name")) or SEARCH)


def _kind_of(entry: Json) -> Kind | None:
    """What becomes of a tool; None for what is hosted elsewhere, or unknown."""
    match entry.get("type"):
        case "function":
            return Kind.FUNCTION
        case "custom":
            return Kind.CUSTOM
        case "tool_search" if entry.get("execution") == "client":
            return Kind.SEARCH
        case _:
            return None


def _as_function(flat: str, offer: _Offer) -> Json:
    told = offer.definition
    description = text(told.get("description"))
    match offer.tool.kind:
        case Kind.FUNCTION:
            return function(flat, description, told.get("parameters"), strict=told.get("strict"))
        case Kind.SEARCH:
            return function(flat, description, told.get("parameters") or _SEARCH_PARAMETERS)
        case Kind.CUSTOM:
            return function(flat, description + _grammar(told, description), _INPUT)


def _grammar(told: Json, description: str) -> str:
    """What the model is told of the grammar its input must follow; nobody holds it to that."""
    form = fields(told.get("format"))
    form = fields(form.get("grammar")) or form
    if not form.get("definition"):
        return ""
    gap = "\n\n" if description else ""
    return f"{gap}Input grammar ({text(form.get('syntax'))}):\n{text(form['definition'])}"
