"""Reasoning that a server leaves inside the text, between `<think>` and `</think>`."""

from __future__ import annotations

_TAGS = {"text": "<think>", "thinking": "</think>"}  # what ends each kind
_OTHER = {"text": "thinking", "thinking": "text"}


class ThinkSplitter:
    """Tells text and thinking apart in text that comes in pieces; tags may be cut anywhere.

    White space behind a tag belongs to the tag. What may become a tag is held until it is known.
    """

    __slots__ = ("_after_tag", "_held", "_kind")

    def __init__(self) -> None:
        self._kind = "text"
        self._held = ""
        self._after_tag = False

    def feed(self, piece: str) -> list[tuple[str, str]]:
        """What can be said now: pairs of `text` or `thinking` and a piece that is not empty."""
        said: list[tuple[str, str]] = []
        rest, begin = self._held + piece, 0
        while (at := rest.find(tag := _TAGS[self._kind], begin)) >= 0:
            self._say(said, rest[begin:at])
            begin = at + len(tag)
            self._kind = _OTHER[self._kind]
            self._after_tag = True
        rest = rest[begin:]
        end = len(rest) - _begun(rest, tag)
        self._held = rest[end:]
        self._say(said, rest[:end])
        return said

    def flush(self) -> list[tuple[str, str]]:
        """The text is over: what was held is no tag."""
        said: list[tuple[str, str]] = []
        self._say(said, self._held)
        self._held = ""
        return said

    def _say(self, said: list[tuple[str, str]], piece: str) -> None:
        if self._after_tag:
            piece = piece.lstrip()
        if piece:
            self._after_tag = False
            said.append((self._kind, piece))


def _begun(text: str, tag: str) -> int:
    """How many of the last characters may be the beginning of `tag`."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)
