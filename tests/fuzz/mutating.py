"""Changes to inputs that a blind mutation of bytes would hardly find.

Words of the format are put in, pieces are repeated, dropped or moved, and JSON is changed as a tree: a
value for another one, a member more or less. Deterministic for a seed.
"""

from __future__ import annotations

import json
import random
import re

_JSON = re.compile(rb"[{\[].*[}\]]")  # within a line
ODD = (
    *(None, True, False, 0, 1, -1, 2**53, 2**64, 10**30, 1.5, -0.0, 1e308, float("nan")),
    *("", "x", " ", "\ud800", "\u2028", "\x00", "a\r\nb", "\u017f", [], {}, [[]], [{}], {"": None}),
)


def mutate(data: bytes, words: list[bytes], seed: int, limit: int = 4096) -> bytes:
    """`data` changed in one to three places."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 2, 3))):
        data = draw.choice(_CHANGES)(data, words, draw)
    return data[:limit]


def _insert(data, words, draw):
    at = draw.randrange(len(data) + 1)
    return data[:at] + (draw.choice(words) if words else b"\n") + data[at:]


def _replace(data, words, draw):
    start, stop = _span(data, draw)
    return data[:start] + (draw.choice(words) if words else b"") + data[stop:]


def _repeat(data, words, draw):
    start, stop = _span(data, draw)
    return data[:stop] + data[start:stop] * draw.choice((1, 1, 2, 9)) + data[stop:]


def _drop(data, words, draw):
    start, stop = _span(data, draw)
    return data[:start] + data[stop:]


def _move(data, words, draw):
    start, stop = _span(data, draw)
    rest = data[:start] + data[stop:]
    at = draw.randrange(len(rest) + 1)
    return rest[:at] + data[start:stop] + rest[at:]


def _byte(data, words, draw):
    at = draw.randrange(len(data)) if data else 0
    return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]


def _span(data, draw):
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 16, 64, 300)))


def _tree(data, words, draw):
    """Change one JSON text in `data`, if there is one."""
    found = list(_JSON.finditer(data))
    if not found:
        return _insert(data, words, draw)
    place = draw.choice(found)
    try:
        value = json.loads(place[0].decode("utf-8", "replace"))
        spaced = (",", ":") if draw.random() < 0.8 else None
        text = json.dumps(_changed(value, words, draw), separators=spaced).encode()
    except (ValueError, RecursionError):
        return _byte(data, words, draw)
    return data[: place.start()] + text + data[place.end() :]


def _changed(value, words, draw):
    places = list(_places(value))
    if not places or draw.random() < 0.05:
        return _odd(value, words, draw)
    holder, key = draw.choice(places)
    match draw.randrange(5):
        case 0 if isinstance(holder, dict):
            holder[_name(words, draw)] = _odd(value, words, draw)
        case 1 if isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        case 2:
            del holder[key]
        case 3:
            other, name = draw.choice(places)
            holder[key] = json.loads(json.dumps(other[name] if name in _keys(other) else None))
        case _:
            holder[key] = _odd(value, words, draw)
    return value


def _places(value):
    for key in _keys(value):
        yield value, key
        yield from _places(value[key])


def _keys(value):
    if isinstance(value, dict):
        return list(value)
    return range(len(value)) if isinstance(value, list) else ()


def _odd(value, words, draw):
    if words and draw.random() < 0.5:
        return _name(words, draw)
    return draw.choice(ODD)


def _name(words, draw):
    return draw.choice(words or [b"x"]).decode("utf-8", "replace").strip('"')


_CHANGES = (_insert, _replace, _repeat, _drop, _move, _byte, _tree, _tree, _tree)
