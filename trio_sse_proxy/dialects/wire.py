"""JSON as events carry it: read loosely, written strictly.

An upstream's JSON is read for what it tells, and forwarded as it came. So reading is forgiving
where writing is not: `NaN` and unpaired surrogates, which Python and JavaScript servers do emit and
which msgspec refuses, go to the slower decoder of the standard library.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, cast

import msgspec

from ..core.sse import has_id, parse

T = TypeVar("T")

UNREADABLE = (ValueError, RecursionError)
"""What decoders raise: msgspec's errors and UnicodeError are ValueErrors, deep nesting is not."""

MOST = 2**53
"""What is counted is never more: beyond it JavaScript cannot count, and beyond 2**1024 no metric can."""

FORGIVEN = 4 * 2**20
"""Bytes up to which the slower decoder is asked: it takes 30 ms a megabyte, and nobody else's turn
comes meanwhile."""

_NUMBER = re.compile(rb'^(data: \{"type":"[\w.]+","sequence_number":)(\d+)', re.MULTILINE)

# JSON allows these line separators unescaped; readers built on str.splitlines() break lines there.
_SEPARATORS = (
    ("\u0085".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def is_cut(tail: bytes) -> bool:
    """True if `tail`, behind the last blank line of a body, is a frame whose JSON breaks off.

    Such a frame may bear the name of a terminator all the same, and is none.
    """
    event = parse(tail + b"\n\n")
    data = event.data.strip() if event else b""
    return data.startswith(b"{") and loads(data) is None


def loads(data: bytes) -> Any:
    """The value `data` holds; None where it is no JSON."""
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        pass
    if len(data) > FORGIVEN:
        return None
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except UNREADABLE:
        return None


def read(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """The fields which `decoder` knows of the JSON object `data`; None where it is no object."""
    try:
        return decoder.decode(data)
    except UNREADABLE:
        pass
    try:
        return msgspec.convert(loads(data), decoder.type)
    except UNREADABLE:
        return None


def dumps(value: object) -> bytes:
    """Compact JSON in UTF-8, safe for readers that split lines at more than CR and LF."""
    try:
        text = msgspec.json.encode(value)
    except UnicodeError:
        # An unpaired surrogate, read from an upstream's escape: it can only be written as one.
        text = json.dumps(value, separators=(",", ":")).encode()
    for separator, escaped in _SEPARATORS:
        text = text.replace(separator, escaped)
    return text


def named(kind: str, value: dict[str, Any]) -> bytes:
    """One frame of a dialect whose events have names."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps(value))


def renumbered(frames: bytes, count: int) -> bytes:
    """Events that `named` wrote, type and number first, with numbers that are higher by `count`."""
    return _NUMBER.sub(lambda found: b"%b%d" % (found[1], int(found[2]) + count), frames)


def unnamed(value: dict[str, Any]) -> bytes:
    """One frame of a dialect whose events have none."""
    return b"data: %b\n\n" % dumps(value)


def fields(value: Any) -> dict[str, Any]:
    """`value` if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """`value` if it is a JSON array, else an empty one."""
    return cast("Any", value) if isinstance(value, list) else []


def text(value: Any) -> str:
    """`value` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def count(value: Any) -> int | None:
    """`value` if it is a whole number of something; None if it is unknown, or more than anything is."""
    if isinstance(value, float) and value.is_integer():
        return count(int(value))
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST else None


def carries_id(frames: bytes) -> bool:
    """True if one of these frames has an `id` line.

    Three searches in C come first: frames may be large, and nearly none has one.
    """
    maybe = frames.startswith(b"id") or b"\nid" in frames or b"\rid" in frames
    return maybe and has_id(frames)
