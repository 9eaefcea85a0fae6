"""What the user of each client must see for each thing an upstream can do, through the proxy.

The upstream's silences are longer than two of the proxy's heartbeats, so that streams are committed
and beaten meanwhile. Where a client does otherwise for reasons of its own, QUIRKS says what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from scripted import TEXT, WORDS
from scripted.calls import CALL

from .asking import COUNTS, Question, Seen

Check = Callable[[Seen], bool]
HALF = TEXT[: TEXT.index(f"tok{WORDS // 2} ")]

WAYS = {
    "openai": ("chat", "chat helper", "responses", "responses helper"),
    "anthropic": ("messages", "messages helper"),
    "ai_sdk": (
        *("chat", "compatible", "responses", "messages"),
        *("chat textStream", "responses textStream", "messages textStream"),
    ),
    "eventsource": ("chat", "responses", "messages"),
    "langchain": ("chat", "responses", "messages"),
    "langchain_python": ("chat", "responses", "messages"),
}
TRANSLATABLE = ("responses", "messages")  # the upstream may speak Chat instead
FOR_STREAMS_ALONE = ("helper", "textStream")


def whole(attempts: int = 1, *, calls: tuple[str, ...] = ()) -> Check:
    return lambda seen: (
        seen.whole and (seen.attempts, tuple(seen.calls), seen.heard) == (attempts, calls, None)
    )


def refused(code: int) -> Check:
    """The upstream's own status, or its words."""
    return lambda seen: (
        (seen.told and seen.attempts == 1 and not seen.text)
        and (seen.error["status"] == code or seen.says(f"scripted {code}"))
    )


def told(words: str, text: str = "") -> Check:
    """An error with these words after exactly `text`, and no call to run."""
    return lambda seen: seen.told and seen.text == text and seen.says(words)


def cut(text: str) -> Check:
    return lambda seen: (
        seen.told
        and seen.text == text
        and any(
            map(
                seen.says,
                ("connection broke", "in the middle", "ended without", "ended its answer"),
            )
        )
    )


@dataclass(frozen=True, slots=True)
class Row:
    scenarios: str
    check: Check
    stream: bool = True
    events: bool = False
    spaced: bool = False


def both(scenarios: str, check: Check) -> list[Row]:
    return [Row(scenarios, check), Row(scenarios, check, stream=False)]


NORMAL = [
    *both("normal", whole()),
    Row("paced", whole()),
    Row("pieces-of-7", whole()),
    *both("tool-call", whole(calls=(CALL,))),
]
SILENCES = [
    *both("silence-before-headers", whole()),
    Row("silence-before-headers", whole(), stream=False, spaced=True),
    Row("silence-after-headers", whole()),
    Row("silence-after-prelude", whole()),
    Row("silence-mid-stream", whole()),
    Row("silence-amid-call", whole(calls=(CALL,))),
]
EVENTS = [
    Row("silence-before-headers", whole(), events=True),
    Row("silence-after-prelude", whole(), events=True),
    Row("silence-mid-stream", whole(), events=True),
    Row("silence-amid-call", whole(calls=(CALL,)), events=True),
]
REPLAYS = [
    *both("reset-before-headers,normal", whole(2)),
    *both("status-503,normal", whole(2)),
    Row("fin-after-headers,normal", whole(2)),
    Row("eof-after-prelude,normal", whole(2)),
    Row("passing-error-before-output,normal", whole(2)),
    Row("reset-before-headers,silence-before-headers", whole(2)),
    Row("fin-after-output,normal", whole(2), stream=False),
]
CUTS = [
    *(Row(f"{how}-after-output", cut(HALF)) for how in ("reset", "fin", "eof")),
    *(Row(f"call-cut-{how}", cut(TEXT)) for how in ("reset", "eof")),
]
ERRORS = [
    Row("final-error-before-output", told("scripted 400")),
    Row("late-status-400", told("scripted 400")),
    Row("final-error-after-output", told("scripted 400", HALF)),
    Row("passing-error-after-output", told("scripted 529", HALF)),
    Row("passing-error-after-output-failed", told("scripted 529", HALF)),
    *both("status-400", refused(400)),
    *both("status-401", refused(401)),
    *both("status-429-long", refused(429)),
]
TABLES = (NORMAL, SILENCES, EVENTS, REPLAYS, CUTS, ERRORS)


def text_alone(check: Check) -> Check:
    """`textStream` ends without a word: the error goes to a callback."""

    def quirk(seen: Seen) -> bool:
        unfinished = seen.heard and seen.finish in (None, "error")
        return check(replace(seen, error=seen.heard) if unfinished else seen)

    return quirk


def counted_otherwise(check: Check) -> Check:
    """LangChain takes a count of Messages from one event of two (see docs/clients.md)."""

    def quirk(seen: Seen) -> bool:
        known = seen.usage in ([0, 12], [7, 13])
        return check(replace(seen, usage=COUNTS) if known else seen)

    return quirk


def quirks(question: Question, check: Check) -> Check:
    if "textStream" in question.way:
        return text_alone(check)
    if question.client.startswith("langchain") and question.way == "messages" and question.stream:
        return counted_otherwise(check)
    return check


def promised(client: str, table: list[Row]) -> Iterator[tuple[Question, Check]]:
    for way in WAYS[client]:
        for row in table:
            if not row.stream and (client == "eventsource" or way.endswith(FOR_STREAMS_ALONE)):
                continue
            for translated in (False, True)[
                : 1 + (way.startswith(TRANSLATABLE) and not row.spaced)
            ]:
                question = Question(
                    client, way, row.scenarios, row.stream, translated, row.events, row.spaced
                )
                yield question, quirks(question, row.check)
