"""Questions put by real client programs, and what their users saw."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import Any

from scripted import TEXT
from scripted.calls import CALL

from .installing import PROGRAMS, PYTHON, node

TIME = 180.0  # seconds for all questions of a client; on an idle machine ten are enough
COUNTS = [7, 12]  # tokens in and out, as the scripted upstream counts them
WHOLE = {"stop", "end_turn", "completed", "tool_calls", "tool_use", "tool-calls"}


@dataclass(frozen=True, slots=True)
class Question:
    """`client` is a program, `way` one of its ways to ask, `scenarios` what the upstream plays.

    `leave` is "output" to leave at the first text, or the seconds after which to leave. With
    `translated` the upstream speaks Chat alone; with `events` the proxy sends event heartbeats; with
    `spaced` it sends white space before JSON.
    """

    client: str
    way: str
    scenarios: str
    stream: bool = True
    translated: bool = False
    events: bool = False
    spaced: bool = False
    leave: str | float | None = None

    @property
    def proxy(self) -> str:
        """The name of the one it is put to."""
        return "translated" if self.translated else "spaced" if self.spaced else "direct"

    def __str__(self) -> str:
        marks = ["" if self.stream else "json", "translated" if self.translated else ""]
        marks += ["events" if self.events else "", "spaced" if self.spaced else ""]
        marks += [f"leaving {self.leave}" if self.leave else ""]
        return " ".join(filter(None, [self.client, self.way, self.scenarios, *marks]))


@dataclass(slots=True)
class Seen:
    """What the user of a client got: `finish` and `usage` as it reports them, `calls` those that it
    hands over for running, `error` what it raised, `heard` what it told a callback alone.

    `left` is a reading of `time.monotonic`; `attempts` the requests the upstream got.
    """

    key: int
    text: str = ""
    calls: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    finish: str | None = None
    usage: list[int | None] | None = None
    error: dict[str, Any] | None = None
    heard: dict[str, Any] | None = None
    left: float | None = None
    seconds: float = 0.0
    attempts: int = 0

    @property
    def whole(self) -> bool:
        """The text once, of one answer, finished, counted, and nothing told."""
        right = self.text == TEXT and self.calls in ([], [CALL]) and len(self.ids) <= 1
        return right and self.finish in WHOLE and self.usage == COUNTS and self.error is None

    @property
    def told(self) -> bool:
        """A failure told as one, after no more than the right beginning, and nothing to run."""
        return self.error is not None and TEXT.startswith(self.text) and self.calls == []

    def says(self, words: str) -> bool:
        return self.error is not None and words in self.error["message"]


def command(client: str) -> list[str]:
    if client == "langchain_python":
        return [str(PYTHON), str(PROGRAMS / "langchain_python.py")]
    return [str(node()), str(PROGRAMS / f"{client}.mjs")]


def ask(client: str, asked: list[dict[str, Any]]) -> list[Seen]:
    """Put all questions at once in one process of that client; answers in the order asked."""
    lines = "".join(json.dumps(one | {"key": key}) + "\n" for key, one in enumerate(asked))
    done = subprocess.run(
        command(client), input=lines, text=True, capture_output=True, timeout=TIME, cwd=PROGRAMS
    )
    seen = [Seen(**json.loads(line)) for line in done.stdout.splitlines()]
    seen.sort(key=lambda one: one.key)
    assert (done.returncode, len(seen)) == (0, len(asked)), done.stderr[-3000:]
    return seen
