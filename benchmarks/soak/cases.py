"""What people ask for, how often, and what must come of it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from . import TESTS

sys.path.insert(0, str(TESTS))

from scripted.answers import Answer
from scripted.talk import TEXT, Said

if TYPE_CHECKING:
    import random

DIALECTS = ("chat", "responses", "messages")
BEATS = (b": hb\n\n", b'event: ping\ndata: {"type":"ping"}\n\n')
TERMINATORS = {
    "chat": b"data: [DONE]\n\n",
    "responses": b"event: response.completed\n",
    "messages": b"event: message_stop\n",
}
ANSWERS = re.compile(rb"tok\d+ ")
ATTEMPTS = 8


class Outcome(Enum):
    """What must come of a request."""

    WHOLE = "whole"  # the upstream's own answer, to the byte, of one attempt
    FAILED = "failed"  # a status, or an error told on the stream
    LEFT = "left"  # the client does not wait for it
    STUCK = "stuck"  # nor does it read


@dataclass(frozen=True, slots=True)
class Case:
    """`share` of the requests are for one of `scenarios`; what they are is in tests/scripted."""

    name: str
    outcome: Outcome
    share: float
    scenarios: tuple[str, ...]
    streams_only: bool = False
    slow_upload: bool = False

    @property
    def may_be_translated(self) -> bool:
        """Not where it takes members or frames of a size: translated, they are left out."""
        return not self.slow_upload and self.name not in {"large", "stuck"}


def _after(*failures: str) -> tuple[str, ...]:
    """Each fails at the first attempt, and is well at the second."""
    return tuple(f"{failure},normal" for failure in failures)


CASES = (
    Case("at once", Outcome.WHOLE, 20, ("normal", "pieces-of-7", "until-close", "endless-body")),
    Case("paced", Outcome.WHOLE, 25, ("paced", "paced-slowly")),
    Case("silent", Outcome.WHOLE, 12, (
        "silence-before-headers", "silence-after-headers", "silence-after-prelude",
        "silence-mid-stream",
    )),
    Case("large", Outcome.WHOLE, 1, ("large-prelude", "frame-5mb"), streams_only=True),
    Case("slow upload", Outcome.WHOLE, 4, ("normal", "paced"), slow_upload=True),
    Case("asked again", Outcome.WHOLE, 12, _after(
        "reset-before-headers", "fin-before-headers", "reset-after-headers", "fin-after-prelude",
        "status-503", "status-429-short", "passing-error-before-output",
    )),
    Case("ended too early", Outcome.WHOLE, 2, _after(
        "eof-before-headers", "eof-after-headers", "eof-after-prelude",
    ), streams_only=True),
    Case("cut", Outcome.FAILED, 6, (
        "reset-after-output", "fin-after-output", "eof-after-output", "garbage-in-body",
    ), streams_only=True),
    Case("errors", Outcome.FAILED, 6, (
        "status-400", "status-401", "late-status-400", "final-error-before-output", "redirect",
        "final-error-after-output", "passing-error-after-output-failed", "html", "garbage",
    )),
    Case("ended by an operator", Outcome.FAILED, 1, ("endless-tokens",), streams_only=True),
    Case("left", Outcome.LEFT, 12, (
        "hang-before-headers", "hang-after-headers", "hang-after-prelude", "hang-after-output",
        "endless-tokens", "paced", "silence-before-headers", "status-503", "silence-mid-stream",
    )),
    # Larger than what the kernel holds between us and a client that does not read.
    Case("stuck", Outcome.STUCK, 1, ("frame-5mb",), streams_only=True),
)  # fmt: skip
OPERATOR = "ended by an operator"


@dataclass(frozen=True, slots=True)
class Wish:
    """One request."""

    case: Case
    dialect: str
    stream: bool
    scenario: str
    translated: bool
    number: int

    @property
    def model(self) -> str:
        """Unique, since upstreams count attempts by it; routes and operators look at its end."""
        mark = "-operator" if self.case.name == OPERATOR else ""
        return f"{self.scenario}#{self.number}{mark}{'-chat' if self.translated else ''}"

    @property
    def body(self) -> bytes:
        """What is sent."""
        said = [{"role": "user", "content": "Count."}]
        members = {"input": said} if self.dialect == "responses" else {"messages": said}
        more = {"padding": "x" * 200_000} if self.case.slow_upload else {}
        return json.dumps(
            {"model": self.model, "stream": self.stream, "max_tokens": 9, **members, **more}
        ).encode()


def draw(number: int, chance: random.Random) -> Wish:
    """What the n-th person asks for."""
    (case,) = chance.choices(CASES, [case.share for case in CASES])
    dialect = chance.choice(DIALECTS)
    return Wish(
        case=case,
        dialect=dialect,
        stream=case.streams_only or chance.random() < 0.7,
        scenario=chance.choice(case.scenarios),
        translated=dialect != "chat" and case.may_be_translated and chance.random() < 0.3,
        number=number,
    )


def complaint(wish: Wish, status: int, body: bytes, *, complete: bool) -> str | None:
    """What is wrong with an answer that was read to its end; None if nothing is."""
    if wish.case.outcome is Outcome.FAILED:
        return _not_failed(wish, status, body, complete)
    if status != 200:
        return f"status {status}: {body[:200]!r}"
    if not complete:
        return f"cut after {len(body)} bytes"
    if wish.translated:
        return _wrong_text(wish, body)
    got = _without_beats(wish, body)
    if any(got == _without_beats(wish, answer) for answer in _possible(wish)):
        return None
    return f"{len(got)} bytes that no attempt has sent: {got[:150]!r}"


def _without_beats(wish: Wish, body: bytes) -> bytes:
    """Those of the upstream, too, if they look like ours."""
    if not wish.stream:
        return body.lstrip()
    for beat in BEATS:
        body = body.replace(beat, b"")
    return body


def _possible(wish: Wish) -> list[bytes]:
    """The whole answers of each attempt."""
    how = {"echo": 200_000} if wish.scenario == "large-prelude" else {}
    how |= {"padding": 5_000_000} if wish.scenario == "frame-5mb" else {}
    said = (Said(wish.model, attempt, **how) for attempt in range(1, ATTEMPTS))
    return [b"".join(Answer(wish.dialect, wish.stream, one, 0.0).frames()) for one in said]


def _not_failed(wish: Wish, status: int, body: bytes, complete: bool) -> str | None:
    if status >= 300:
        return None
    if not wish.stream:
        told = not complete or b'"error"' in body
        return None if told else f"status {status}, and no error: {body[:100]!r}"
    if TERMINATORS[wish.dialect] in body:
        return "the terminator, after a failure"
    if not complete or b'"error"' not in body:
        return f"{'no error was told' if complete else 'cut'}: {body[-200:]!r}"
    return None


def _wrong_text(wish: Wish, body: bytes) -> str | None:
    if wish.stream:
        if body.count(TERMINATORS[wish.dialect]) != 1:
            return f"not one terminator: {body[-200:]!r}"
        kinds = (b'"response.output_text.delta"', b'"text_delta"')
        body = b"".join(f for f in body.split(b"\n\n") if any(kind in f for kind in kinds))
    text = b"".join(ANSWERS.findall(body)).decode()
    return None if text == TEXT else f"another text: {text!r}"
