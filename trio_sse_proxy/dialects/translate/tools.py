"""Tools as Chat knows them: functions, each with one flat name.

Responses has tools in namespaces, tools whose input is free text, and a tool that finds other tools;
names on Messages may be longer than Chat allows. All become functions, and the *book* remembers what
each flat name stands for, so that a call finds its way back: agents refuse a call of the wrong kind.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..wire import dumps, fields, loads

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NAME = 64
"""Characters of a function's name, as OpenAI has it; nobody is known to allow fewer."""

BARE_NAMESPACE = "functions"
"""The namespace that newest models have for what used to be in none."""

_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")

Json = dict[str, Any]


class Kind(Enum):
    """What a client calls the thing that became a function."""

    FUNCTION = "function"
    CUSTOM = "custom"  # its input is free text
    SEARCH = "tool_search"


@dataclass(frozen=True, slots=True)
class Tool:
    """What a flat name stands for."""

    name: str
    namespace: str | None = None
    kind: Kind = Kind.FUNCTION


class ToolBook:
    """Flat names of the tools of one request, both ways. All tools are entered at once.

    The first of several definitions of one tool wins: upstreams reject duplicates. Different tools
    that would share a flat name get different ones.
    """

    def __init__(self, tools: list[Tool]) -> None:
        self._flat: dict[tuple[str | None, str], str] = {}
        self._tools: dict[str, Tool] = {}
        unique: dict[tuple[str | None, str], Tool] = {}
        for tool in tools:
            unique.setdefault((tool.namespace, tool.name), tool)
        shared = Counter(name for _, name in unique)
        for tool in unique.values():
            self._enter(tool, unique=shared[tool.name] == 1)

    def _enter(self, tool: Tool, *, unique: bool) -> None:
        names = _candidates(tool, unique=unique)
        flat = next(name for name in names if name not in self._tools)
        self._flat[tool.namespace, tool.name] = flat
        self._tools[flat] = tool

    def flat(self, namespace: str | None, name: str) -> str:
        """The name a tool has upstream; for one that is not in the book, the name it would have."""
        known = self._flat.get((namespace, name))
        return known or flat_name(_qualified(namespace, name))

    def find(self, flat: str) -> Tool:
        """What a call of this name is a call of; an unknown name is a function: the client complains."""
        return self._tools.get(flat) or Tool(flat)


def _candidates(tool: Tool, *, unique: bool) -> Iterator[str]:
    qualified = _qualified(tool.namespace, tool.name)
    if unique or tool.namespace in (None, BARE_NAMESPACE):
        yield flat_name(tool.name)
    yield flat_name(qualified)
    if tool.namespace is not None:
        yield flat_name(f"{tool.namespace}__{tool.name}")
    for number in itertools.count():
        yield _shortened(flat_name(qualified), f"{tool.namespace}/{tool.name}/{number}")


def _qualified(namespace: str | None, name: str) -> str:
    return name if namespace in (None, BARE_NAMESPACE) else f"{namespace}__{name}"


def flat_name(name: str) -> str:
    """`name` in the letters and the length that Chat allows; the same for the same name."""
    clean = _FOREIGN.sub("_", name)
    return clean if len(clean) <= MAX_NAME else _shortened(clean, name)


def _shortened(clean: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{clean[: MAX_NAME - 9]}_{digest}"


def function(
    name: str, description: object, parameters: object, *, strict: object = None, **more: Any
) -> Json:
    """A Chat function tool. What is empty is left out, and so is `strict` unless it is true.

    Some upstreams reject `strict: null`, and all want a schema of an object.
    """
    told: Json = {"name": name}
    if isinstance(description, str) and description:
        told["description"] = description
    told["parameters"] = (
        parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}}
    )
    if strict is True:
        told["strict"] = True
    return {"type": "function", "function": told | more}


def sound_arguments(raw: object) -> str:
    """Arguments of a call as a JSON object: strict upstreams parse the history again.

    What is none is kept under a name that tells the model what it did.
    """
    if isinstance(raw, dict):
        return dumps(fields(raw)).decode()
    text = raw if isinstance(raw, str) else dumps(raw).decode()
    if not text.strip():
        return "{}"
    if isinstance(loads(text.encode("utf-8", "replace")), dict):
        return text
    return dumps({"__invalid_json": text}).decode()
