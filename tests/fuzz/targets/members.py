"""Members of a request changed in place: the others stay, and every reader sees the new ones."""

from __future__ import annotations

import json

from trio_sse_proxy.core.members import with_members

from ..drawn import Drawn

NEW = (
    {"model": "other"},
    {"model": "m", "user": "u\u2028\ud800"},
    {"stream": None},
    {"": [1, {"a": 2}]},
    {},
)
WORDS = [
    b'"model"',
    b'"m\\u006fdel"',
    b"\\\\",
    b'\\"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"NaN",
]
WORDS += [
    b"-Infinity",
    b"1e5",
    b"-0.0",
    b" ",
    b"\n",
    b'""',
    b'"stream":true',
    b'"a":[{"b":"}"}]',
    b"\xef\xbb\xbf",
]
SEEDS = [
    b"\x00"
    + b'{"model":"m","messages":[{"role":"user","content":"a \\"quoted\\" {x}"}],"stream":true}',
    b"\x01" + b' { "a" : [1, 2, {"b": {}}] , "m\\u006fdel" : "x\\\\" , "model": 1e5 } \n',
    b"\x02" + b"{}",
    b"\x02" + b'{"a":"}\\"","model":"m\\\\"}',
    b"\x03" + b'{"":-0.0,"stream":NaN}',
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    members, body = drawn.choice(NEW), drawn.rest()
    try:
        changed = with_members(body, members)
    except ValueError:
        assert _pairs(body) is None, "a sound object was refused"
        return
    before = _pairs(body)
    if before is None:
        return  # inside of values it is for the upstream to judge
    after = _pairs(changed)
    assert after is not None, "a sound object was broken"
    kept = [(name, value) for name, value in before if name not in members]
    assert repr([pair for pair in after if pair[0] not in members]) == repr(kept)
    for name, value in members.items():
        told = [other for key, other in after if key == name]
        assert told == [value] * max(1, sum(key == name for key, _ in before))
    if not members:
        assert changed == body


def _pairs(body):
    """The object's members in order, repeated ones too; None if a strict reader finds no object."""
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=lambda pairs: _Object(pairs))
    except (ValueError, RecursionError):
        return None
    return [(name, _plain(value)) for name, value in found] if isinstance(found, _Object) else None


class _Object(list):
    pass


def _plain(value):
    if isinstance(value, _Object):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
