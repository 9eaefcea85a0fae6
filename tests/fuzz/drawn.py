"""What a target draws from its input: a few choices from the first bytes, the rest as it is.

So inputs stay readable, and a mutation of the text leaves the choices alone.
"""

from __future__ import annotations

import json
import random


class Drawn:
    """The input, read from its front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """From 0 to 255; 0 where the input is over."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def choice(self, options):
        """One of some options."""
        return options[self.number() % len(options)]

    def rest(self) -> bytes:
        """All that has not been drawn."""
        return self._data[self._at :]


def pieces(data: bytes, seed: int) -> list[bytes]:
    """`data` cut somehow; every seed cuts in another way, small pieces among large ones."""
    draw, cut, at = random.Random(seed), [], 0
    while at < len(data):
        size = draw.choice((1, 1, 2, 3, 5, 8, 21, 90, 1000))
        cut.append(data[at : at + size])
        at += size
    return cut


def ways(data: bytes, seed: int) -> list[list[bytes]]:
    """`data` in one piece, cut somehow, and, if it is not large, byte by byte."""
    found = [[data] if data else [], pieces(data, seed)]
    if len(data) <= 400:
        found.append([data[n : n + 1] for n in range(len(data))])
    return found


def strict_json(data: bytes):
    """The value of a JSON text that any parser takes; fails for NaN and the like, and for no JSON."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except ValueError as error:
        raise AssertionError(f"no JSON: {error}: {data[:200]!r}") from error
