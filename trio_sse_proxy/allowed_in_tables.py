"""What the settings of upstreams and routes may be, beside the rules of `allowed.py`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

from .allowed import Allowed, Refused, label, members, one_of, split_url, words

if TYPE_CHECKING:
    from collections.abc import Callable


def labels() -> Allowed:
    """Labels in an order that counts: at least one, and none twice."""
    return Allowed("a list of different names, at least one", _each_once(label().parse))


def some_of(*names: str) -> Allowed:
    """At least one of a few words, none twice."""
    return Allowed(f"one or more of {', '.join(names)}", _each_once(one_of(*names).parse))


def globs(what: str, pattern: str) -> Allowed:
    """At least one glob, each of which fits `pattern` from end to end."""

    def parse_one(value: object) -> str:
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Allowed(what, _each_once(parse_one))


def _each_once(parse_one: Callable[[object], object]) -> Callable[[object], object]:
    def parse(value: object) -> tuple[object, ...]:
        items = tuple(parse_one(item) for item in members(value))
        if not items or len(set(items)) < len(items):
            raise ValueError
        return items

    return parse


def renames() -> Allowed:
    """A table from names or globs to names."""

    def parse(value: object) -> dict[str, str]:
        table = entries(value)
        if not all(name and isinstance(other, str) and other for name, other in table.items()):
            raise ValueError
        return cast("dict[str, str]", table)

    return Allowed('a table such as { "gpt-4*" = "qwen3-32b" }', parse)


def entries(value: object) -> dict[str, object]:
    """A table's entries. Raises TypeError if it is none."""
    if not isinstance(value, dict):
        raise TypeError
    table = cast("dict[object, object]", value)
    return {_text(name): entry for name, entry in table.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


TOKEN = r"[!#$%&'*+.^`|~\w-]+"
"""A header's name (RFC 9110, section 5.6.2)."""


def header_names() -> Allowed:
    """Any number of header names."""
    return words("a list of header names", TOKEN)


def header_name() -> Allowed:
    """One header name."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(TOKEN, value, re.ASCII):
            raise ValueError
        return value.lower()

    return Allowed("a header's name", parse)


def path_on_server() -> Allowed:
    """An absolute path, perhaps with a query."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"/(?!/)[!-~]*", value) or "#" in value:
            raise ValueError
        return value

    return Allowed("a path such as /health", parse)


PLACEHOLDERS = ("id", "stream_id", "model")


def call_url() -> Allowed:
    """Where an abort call goes: a path on the upstream's server, or a URL."""

    def parse(value: object) -> str:
        text = with_placeholders(value)
        if text.startswith("/"):
            return cast("str", path_on_server().parse(text))
        url = split_url(text, "http", "https")
        # A model's name comes from the client, who shall not say which host is called.
        if "@" in url.netloc or "{" in url.netloc or "#" in text:
            raise ValueError
        return text

    return Allowed("a path such as /cancel/{id}, or a URL with placeholders in its path", parse)


def call_body() -> Allowed:
    """What an abort call sends: text, or a table, which is sent as JSON."""

    def parse(value: object) -> str:
        text = value if isinstance(value, str) else json.dumps(entries(value), allow_nan=False)
        return with_placeholders(text)

    return Allowed("a text, or a table to send as JSON", parse)


def with_placeholders(value: object) -> str:
    """`value` if it is a text that names no other placeholders than there are.

    Braces around anything but a word are left alone: a JSON text has plenty.
    """
    text = _text(value)
    for name in re.findall(r"\{(\w+)\}", text):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise Refused(f"must have no other placeholders than {known}")
    return text


def method() -> Allowed:
    """The method of a call."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value.upper() not in ("POST", "DELETE", "PUT", "GET"):
            raise ValueError
        return value.upper()

    return Allowed("POST, DELETE, PUT or GET", parse)


def named_or_table(*names: str, what: str) -> Allowed:
    """One of a few words, or a table (or what was made of one), which is judged elsewhere."""
    words = one_of(*names)

    def parse(value: object) -> object:
        if isinstance(value, str):
            return words.parse(value)
        if value is None or isinstance(value, int | float | list | tuple):
            raise TypeError
        return value

    return Allowed(f"{', '.join(names)}, or {what}", parse)
