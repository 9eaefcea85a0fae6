"""What a translation profile may be: the name of a preset, or a table of switches over one."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from .allowed import Allowed, Refused
from .allowed_in_tables import entries, path_on_server
from .dialects.translate.profile import GENERIC, PRESETS, Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BASE = "base"
_DEFAULTS = {
    field.name: getattr(GENERIC, field.name) for field in fields(Profile) if field.name != _BASE
}


def profile_or_none() -> Allowed:
    """A profile as settings tell it; None stays None."""

    def parse(value: object) -> Profile | None:
        if value is None or isinstance(value, Profile):
            return value
        if isinstance(value, str):
            return _preset(value)
        table = dict(entries(value))
        base = table.pop(_BASE, "generic")
        if not isinstance(base, str):
            raise Refused("base must be the name of a preset")
        switches: dict[str, Any] = {name: _switch(name, told) for name, told in table.items()}
        return replace(_preset(base), **switches)

    names = ", ".join(PRESETS)
    return Allowed(f"{names}; or a table with `base`, one of these, and switches", parse)


def _preset(name: str) -> Profile:
    if name not in PRESETS:
        raise Refused(f"there is no preset {name!r}{_nearest(name, PRESETS)}")
    return PRESETS[name]


def _switch(name: str, told: object) -> object:
    """The value of one switch. Raises Refused, in words."""
    if name not in _DEFAULTS:
        raise Refused(f"there is no switch {name!r}{_nearest(name, _DEFAULTS)}")
    words, parse = _rule(name)
    try:
        return parse(told)
    except (TypeError, ValueError):
        raise Refused(f"the switch {name} must be {words}") from None


def _rule(name: str) -> tuple[str, Callable[[object], object]]:
    match _DEFAULTS[name]:
        case StrEnum() as default:
            kind = type(default)
            return " or ".join(kind), lambda told: kind(told)
        case bool():
            return "true or false", _boolean
        case tuple():
            return "a list of field names", _names
        case _ if name == "max_output_tokens":
            return "a whole number, at least 1", _positive
        case _ if name == "tokenizer_url":
            return "a path such as /tokenize", path_on_server().parse
        case _ if name == "effort_map":
            return "a table from efforts to words", _words
        case dict() | None if name != "reasoning_placeholder":
            return "a table", entries
        case _:
            return "a text", _text


def _boolean(told: object) -> bool:
    if not isinstance(told, bool):
        raise TypeError
    return told


def _positive(told: object) -> int:
    if isinstance(told, bool) or not isinstance(told, int) or told < 1:
        raise TypeError
    return told


def _text(told: object) -> str:
    if not isinstance(told, str) or not told:
        raise TypeError
    return told


def _names(told: object) -> tuple[str, ...]:
    if not isinstance(told, list | tuple):
        raise TypeError
    return tuple(_text(name) for name in cast("list[object]", told))


def _words(told: object) -> dict[str, str]:
    table = entries(told)
    if not all(isinstance(word, str) for word in table.values()):
        raise TypeError
    return cast("dict[str, str]", table)


def _nearest(name: str, names: Iterable[str]) -> str:
    [found] = get_close_matches(name, names, n=1, cutoff=0.0)
    return f"; the nearest is {found}"
