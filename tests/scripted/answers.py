"""A good answer cut into the parts at which something can go wrong.

Scenarios are written once, against `Answer`, and fit all three dialects, streamed or not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .calls import CALLING
from .steps import End, Frames, Headers, Script
from .talk import DIALECTS, Said, Talk


@dataclass(frozen=True, slots=True)
class Answer:
    """`silence` is how long "silent" is, in seconds."""

    dialect: str
    stream: bool
    said: Said
    silence: float

    def told(self, **changes: Any) -> Answer:
        """The same, with something added to what is said (see `Said`)."""
        return replace(self, said=replace(self.said, **changes))

    @property
    def talk(self) -> Talk:
        kind = (CALLING if self.said.calls else DIALECTS)[self.dialect]
        return kind(**{name: getattr(self.said, name) for name in Said.__slots__})

    def headers(self, **changes: Any) -> Headers:
        if self.stream:
            return Headers(**changes)
        length = len(self.talk.answer())
        return Headers(**({"framing": length, "content_type": "application/json"} | changes))

    def prelude(self) -> Frames:
        """What comes before anything a client could show; of a JSON body, its first bytes."""
        return Frames(self.talk.prelude() if self.stream else (self.talk.answer()[:9],))

    def output(self, first: int = 0, last: int | None = None, *, every: float = 0.0) -> Frames:
        """The words from `first` to before `last`; of a JSON body, a slice of the same kind."""
        words = self.talk.output() if self.stream else _slices(self.talk.answer()[9:-9])
        return Frames(words[first:last], every)

    def ending(self) -> Frames:
        return Frames(self.talk.ending() if self.stream else (self.talk.answer()[-9:],))

    def frames(self) -> tuple[bytes, ...]:
        """The whole body."""
        return self.prelude().frames + self.output().frames + self.ending().frames

    def whole(self, **changes: Any) -> Script:
        """Everything, at once and properly."""
        return (self.headers(**changes), Frames(self.frames()), End())


def _slices(body: bytes) -> tuple[bytes, ...]:
    size = len(body) // 12 + 1
    return tuple(body[at : at + size] for at in range(0, len(body), size))
