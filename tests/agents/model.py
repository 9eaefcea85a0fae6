"""A server that plays a model: one planned answer after the other, whatever is said to it.

Agents also ask on the side, for a title or a first impression, of a smaller model; those questions get
a word at once and stand in `asides`. What the plan does not foresee is refused for good, and is a
failure of the test that reads `asked`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scripted import ScriptedUpstream
from scripted.steps import End, Frames, Headers, Reset, Script, Status, Wait
from scripted.talk import DIALECTS as TALKS
from scripted.talk import compact, dialect_of

from .turns import DIALECTS, Say, Turn, turn

if TYPE_CHECKING:
    from scripted import Visit

MODEL = "scripted-model"
SMALL = "scripted-small"
TOO_LONG = (
    "This model's maximum context length is 1000 tokens. However, your messages came to 2000."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, as the model server sees it; `number` counts from 0."""

    visit: Visit
    number: int

    @property
    def body(self) -> dict[str, Any]:
        return self.visit.json()

    @property
    def dialect(self) -> str:
        return dialect_of(self.visit.target)

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body["messages"]

    def told(self, turn: Turn) -> Any:
        # Claude Code takes two answers with one id for the halves of one.
        turn = replace(turn, key=f"{self.number}{self.visit.key}")
        return DIALECTS[self.dialect](turn, str(self.body.get("model")))


Play = Callable[[Asked], Script]


def whole(turn: Turn) -> Play:
    def play(asked: Asked) -> Script:
        told = asked.told(turn)
        if not asked.streams:
            return (Status(200, told.answer()),)
        frames = told.prelude() + told.output() + told.ending()
        return (Headers(), Frames(frames), End())

    return play


def silent(turn: Turn, seconds: float, *, after: int = 0) -> Play:
    """A silence after the prelude and `after` frames of output."""

    def play(asked: Asked) -> Script:
        told = asked.told(turn)
        output = told.output()
        begun = (Headers(), Frames(told.prelude() + output[:after]), Wait(seconds))
        return (*begun, Frames(output[after:] + told.ending()), End())

    return play


def cut_before_output(turn: Turn) -> Play:
    def play(asked: Asked) -> Script:
        return (Headers(), Frames(asked.told(turn).prelude()), Wait(0.05), Reset())

    return play


def cut_after_output(turn: Turn, *, left: int = 3) -> Play:
    """A reset `left` frames before the output is whole. JSON is cut in its midst."""

    def play(asked: Asked) -> Script:
        told = asked.told(turn)
        if not asked.streams:
            body = told.answer()
            return (Headers(len(body), "application/json"), Frames((body[:40],)), Reset())
        return (Headers(), Frames(told.prelude() + told.output()[:-left]), Wait(0.05), Reset())

    return play


def error_late(turn: Turn, status: int = 500, *, left: int = 3) -> Play:
    """An error frame in place of the last `left` frames of output."""

    def play(asked: Asked) -> Script:
        told = asked.told(turn)
        talk = TALKS[asked.dialect](model=MODEL)
        if not asked.streams:
            return (Status(status, talk.error_body(status)),)
        frames = told.prelude() + told.output()[:-left] + talk.error_frames(status)
        return (Headers(), Frames(frames), End())

    return play


def refused(status: int, message: str, code: str | None = None) -> Play:
    """An HTTP error in the shape OpenAI gives it, or, on Messages, Anthropic."""

    def play(asked: Asked) -> Script:
        error: dict[str, Any] = {"type": "invalid_request_error", "message": message}
        if asked.dialect == "messages":
            body: dict[str, Any] = {"type": "error", "error": error}
        else:
            body = {"error": error | {"param": None, "code": code}}
        return (Status(status, compact(body).encode()),)

    return play


def too_long(asked: Asked) -> Script:
    """The prompt is longer than the model can read, in the words of each dialect's own vendor."""
    words = (
        "prompt is too long: 2000 tokens > 1000 maximum"
        if asked.dialect == "messages"
        else TOO_LONG
    )
    return refused(400, words, "context_length_exceeded")(asked)


def late(play: Play, seconds: float) -> Play:
    """The same, after a silence before the head of the answer."""
    return lambda asked: (Wait(seconds), *play(asked))


class Model:
    """A context manager; `asked` holds the questions to the model proper, in the order they came."""

    def __init__(self, *plan: Play) -> None:
        self._plan = plan
        self.asked: list[Asked] = []
        self.asides: list[Visit] = []
        self._upstream = ScriptedUpstream(choose=self._choose)

    def __enter__(self) -> Model:
        self._upstream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._upstream.stop()

    @property
    def url(self) -> str:
        return self._upstream.url

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.asked]

    def _choose(self, visit: Visit) -> Script:
        asked = Asked(visit, len(self.asked))
        if visit.method != "POST" or asked.body.get("model") != MODEL:
            self.asides.append(visit)
            return self._aside(asked)
        self.asked.append(asked)
        if asked.number >= len(self._plan):
            return refused(400, "the script is over")(asked)
        return self._plan[asked.number](asked)

    @staticmethod
    def _aside(asked: Asked) -> Script:
        if asked.visit.method != "POST":
            return (Status(404, b"{}"),)
        return whole(turn(Say("aside")))(asked)
