"""Change members of a JSON object without touching the rest of it.

A request is renamed or gets an id on its way, and is the client's own in all else: a decoder and an
encoder would round its large numbers, drop its repeated keys and rewrite its escapes, and prompts
cached by their bytes would miss. So the object is cut at its own level only, and what is inside of
its values is passed over, for the upstream to judge.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Every repeated character is possessive, and groups are repeated a bounded number of times: time is
# linear in the input. Groups are not possessive: until 3.11.5 `re` gets those wrong (gh-106052).
_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"[^"]*+"'  # of a masked body
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?"
_WORD = rb"true|false|null|NaN|-?Infinity"  # the last two are Python's, and some clients'

_BEGIN = re.compile(_SPACE + rb"\{" + _SPACE)
_NAME = re.compile(rb"(%b)%b:%b" % (_STRING, _SPACE, _SPACE))
_SCALAR = re.compile(rb"%b|%b|%b" % (_STRING, _NUMBER, _WORD))
_PLAIN = rb'[^"\[\]{}]*+'
_FLAT = rb"\{%b(?:%b%b){0,100}\}" % (_PLAIN, _STRING, _PLAIN)
# Objects without brackets inside are most of what there is: many of them are passed over in one go. A
# quote by itself opens a string that never ends.
_STEP = re.compile(rb'(?:%b%b){1,100}|%b|["\[\]{}]' % (_FLAT, _PLAIN, _STRING))
_OPENING, _CLOSING = (b"{", b"["), (b"}", b"]")
_NEXT = re.compile(rb"%b(?:(,)%b|\}%b\Z)" % (_SPACE, _SPACE, _SPACE))
_EMPTY = re.compile(rb"\}%b\Z" % _SPACE)


class _Member(NamedTuple):
    """A member's name, unescaped, and where its value stands in the body."""

    name: str
    start: int
    stop: int


def with_members(body: bytes, members: Mapping[str, object]) -> bytes:
    """The JSON object `body` with these members; every other byte of it as it was, in its place.

    A member that is there has its value replaced, everywhere if it is there more than once, because
    readers do not agree on which one counts. The others are added at the end. Raises ValueError if
    `body` is no JSON object, as far as its own level shows, or a value is nothing JSON can say.
    """
    values = {name: _encode(value) for name, value in members.items()}
    missing = dict(values)
    pieces: list[bytes] = []
    copied = 0
    found = list(_members(body))
    for name, start, stop in found:
        if name in values:
            pieces += body[copied:start], values[name]
            copied = stop
            missing.pop(name, None)
    end = found[-1].stop if found else body.index(b"{") + 1
    pieces.append(body[copied:end])
    added = [b"%b:%b" % (_encode(name), value) for name, value in missing.items()]
    if found and added:
        pieces.append(b",")
    return b"".join((*pieces, b",".join(added), body[end:]))


def _members(body: bytes) -> Iterator[_Member]:
    masked = _mask(body)
    begin = _BEGIN.match(masked)
    if begin is None:
        raise ValueError("no JSON object: it does not begin with a brace")
    at = begin.end()
    if _EMPTY.match(masked, at):
        return
    more = True
    while more:
        name = _NAME.match(masked, at)
        if name is None:
            raise ValueError(f"no JSON object: no member's name at byte {at}")
        stop = _end_of_value(masked, name.end())
        yield _Member(_decode(body[slice(*name.span(1))]), name.end(), stop)
        after = _NEXT.match(masked, stop)
        if after is None:
            raise ValueError(f"no JSON object: neither a comma nor its end at byte {stop}")
        at = after.end()
        more = after[1] is not None


def _mask(body: bytes) -> bytes:
    """The body with escaped backslashes and quotes struck out, so that the next quote ends a string.

    Two replacements in C, so that long strings, most of what is long, cost next to nothing to skip.
    Backslashes pair off from the left, as `replace` does; what is put there is nothing JSON has
    outside of strings.
    """
    return body.replace(rb"\\", b"__").replace(rb"\"", b"__")


def _end_of_value(masked: bytes, at: int) -> int:
    if masked[at : at + 1] not in (b"{", b"["):
        scalar = _SCALAR.match(masked, at)
        if scalar is None:
            raise ValueError(f"no JSON object: no value at byte {at}")
        return scalar.end()
    depth = 1
    for found in _STEP.finditer(masked, at + 1):
        what = found[0]
        if what in _OPENING:
            depth += 1
        elif what in _CLOSING:
            depth -= 1
            if not depth:
                return found.end()
        elif len(what) == 1:
            break
    raise ValueError("no JSON object: it breaks off inside a value")


def _decode(name: bytes) -> str:
    text = name.decode("utf-8", "replace")
    return str(json.loads(text, strict=False)) if "\\" in text else text[1:-1]


def _encode(value: object) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"nothing JSON can say: {error}") from error
