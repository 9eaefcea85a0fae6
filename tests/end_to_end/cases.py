"""What a client must hear for each thing an upstream can do, through a proxy with a heartbeat of
one second, retries, and an upstream whose silences are longer than that heartbeat.

A row says it for a streamed and for a plain question; None where nothing is promised. The tables in
HASTY are for a proxy that waits for no status, those in PATIENT for one that waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patience import PATIENCE
from scripted import TEXT, WORDS
from scripted.calls import CALL
from scripted.scenarios import SCENARIOS
from scripted.sdk import Case, Heard
from scripted.talk import PATHS

Check = Callable[[Heard], bool]
HALF = TEXT[: TEXT.index(f"tok{WORDS // 2} ")]
TRIES = 4  # one attempt, and three more


def whole(attempts: int = 1) -> Check:
    """The text once, one prelude, one finish, the usage, and nothing told."""
    return lambda heard: heard.whole and heard.attempts == attempts


def whole_call() -> Check:
    """The same, and the call of a tool after it."""
    return lambda heard: heard.whole and (heard.calls, heard.attempts) == (CALL, 1)


def refused(status: int, attempts: int = 1) -> Check:
    """The upstream's own status and words, unchanged."""
    return lambda heard: (
        (heard.status, heard.attempts, heard.text) == (status, attempts, "")
        and ("scripted" in str(heard.told) or "quota" in str(heard.told))
    )


def told(text: str = "", attempts: int = 1) -> Check:
    """An error of the SDK's own after exactly `text`: by a status, or on the stream."""
    return lambda heard: (
        heard.honest_part
        and (heard.text, heard.attempts) == (text, attempts)
        and heard.seconds < PATIENCE
    )


def told_on_stream(text: str = "", attempts: int = 1) -> Check:
    """The same, after a 200: anthropic gives that as the status, openai none."""
    check = told(text, attempts)
    return lambda heard: check(heard) and heard.status in (None, 200)


@dataclass(frozen=True, slots=True)
class Row:
    scenarios: str
    streamed: Check | None
    plain: Check | None
    dialects: tuple[str, ...] = tuple(PATHS)

    def cases(self) -> list[tuple[Case, Check]]:
        return [
            (Case(self.scenarios, dialect, stream), check)
            for dialect in self.dialects
            for stream, check in ((True, self.streamed), (False, self.plain))
            if check is not None
        ]


def both(scenarios: str, check: Check) -> Row:
    return Row(scenarios, check, check)


def names(*beginnings: str) -> list[str]:
    return [name for name in SCENARIOS if name.startswith(beginnings)]


CUT_BEFORE_OUTPUT = [
    f"{cut}-{place}"
    for cut in ("reset", "fin", "eof")
    for place in ("before-headers", "after-headers", "after-prelude")
]
PASSING = names("passing-error-before-output")

SILENCES = [
    both(name, whole()) for name in names("silence-", "paced", "normal") if "call" not in name
]

CALLS = [
    *(both(name, whole_call()) for name in ("tool-call", "silence-amid-call")),
    # Half a call is never taken for a whole one, nor the text before it for the answer.
    *(Row(name, told_on_stream(TEXT), None) for name in names("call-cut-")),
]

ODDITIES = [
    *(both(name, whole()) for name in names("line-ends-", "pieces-", "comments", "id-lines")),
    *(both(name, whole()) for name in names("large-", "usage-", "frame-", "gzip", "until-")),
    *(both(name, whole()) for name in names("multi-", "bom", "endless-body", "after-term")),
    Row("finished-without-terminator", whole(), whole(), ("chat",)),
    Row("finished-without-terminator", told_on_stream(TEXT), None, ("messages",)),
]

REPLAYS = [
    *(both(f"{name},normal", whole(2)) for name in CUT_BEFORE_OUTPUT if "eof" not in name),
    # A plain answer that ends properly is taken at its word.
    *(Row(f"{name},normal", whole(2), None) for name in CUT_BEFORE_OUTPUT if "eof" in name),
    *(both(f"{name},normal", whole(2)) for name in PASSING),
    both("reset-before-headers,status-503,fin-after-prelude,normal", whole(4)),
    both("reset-before-headers,silence-before-headers", whole(2)),
    Row("reset-after-output,normal", None, whole(2)),
    Row("fin-after-output,normal", None, whole(2)),
    *(both(f"status-{code},normal", whole(2)) for code in (500, 503, 529)),
    *(both(f"late-status-{code},normal", whole(2)) for code in (500, 503, 529)),
    both("status-429-short,normal", whole(2)),
    both("status-429-date,normal", whole(2)),
    both("html,normal", whole(2)),
]

REFUSALS = [
    *(both(f"status-{code}", refused(code)) for code in (400, 401, 403, 404)),
    *(both(f"status-429-{kind}", refused(429)) for kind in ("long", "date-long", "quota")),
    Row("status-500", told(attempts=TRIES), refused(500, TRIES)),
]

TOO_LATE = [
    *(
        Row(f"late-status-{code}", told_on_stream(), refused(int(code[:3])))
        for code in ("400", "401", "403", "404", "429-long")
    ),
    Row("late-status-529,status-529", told_on_stream(attempts=TRIES), refused(529, TRIES)),
]

FAILURES = [
    *(
        Row(name, told_on_stream(HALF), None)
        for name in ("reset-after-output", "fin-after-output", "eof-after-output")
    ),
    Row("eof-until-close", told_on_stream(HALF), None),
    *(Row(name, told_on_stream(), refused(400)) for name in names("final-error-before-output")),
    *(
        Row(name, told_on_stream(HALF), None)
        for name in names("final-error-after-", "passing-error-after-")
    ),
    both("reset-before-headers", told(attempts=TRIES)),
    Row("eof-after-prelude", told(attempts=TRIES), None),
    both("garbage", told()),
    Row("garbage-in-body", told(), told()),
    Row("late-json-to-stream", told_on_stream(), None),
    Row("late-redirect", told_on_stream(), None),
]

HASTY = (SILENCES, TOO_LATE, FAILURES)
PATIENT = (CALLS, ODDITIES, REPLAYS, REFUSALS)
