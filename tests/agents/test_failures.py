"""What each agent makes of what can go wrong, on an upstream of its own dialect and on one of Chat.

`docs/agents.md` has this as a table; here is what keeps it true.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from .agents import REASONIXES, Codex
from .conftest import SILENCE
from .model import (
    cut_after_output,
    cut_before_output,
    error_late,
    silent,
    whole,
)
from .turns import Say, Think, turn

pytestmark = pytest.mark.agents

DONE = "All done, and more than three frames of it."
END = turn(Say(DONE))
LOG = "log.txt"


@pytest.fixture
def call(agent):
    """A turn of two finished parts and a call that leaves a line in a file each time it is made."""
    return turn(
        Think("A look first."), Say("Reading."), agent.shell("call_1", f"echo did >> {LOG}")
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a task: the last word, how often the upstream was asked, how it was told."""

    said: str
    asked: int
    endings: list[str]
    did: int
    """How often the call of the task was made."""
    streams: list[bool]


@pytest.fixture
def seen(agent, place, stage, speaks):
    def seen(*plan, settings="", **changes):
        with stage(*plan, speaks=speaks, settings=settings) as on:
            ran = agent.ask(place, on.url, "Do it.", **changes)
            endings = [each["ending"] for each in on.records()]
        log = place.work / LOG
        did = len(log.read_text().splitlines()) if log.exists() else 0
        asked = on.model.asked
        return Seen(agent.said(ran), len(asked), endings, did, [each.streams for each in asked])

    return seen


def test_a_good_answer(seen):
    assert seen(whole(END)) == Seen(DONE, 1, ["completed"], 0, [True])


def test_a_tool_call(seen, call):
    assert seen(whole(call), whole(END)) == Seen(DONE, 2, ["completed"] * 2, 1, [True] * 2)


@pytest.fixture
def impatient(agent):
    """Codex, when told to give up after half of the silence; Claude Code's 300 s cannot be fewer."""
    limits = f"stream_idle_timeout_ms = {SILENCE * 500:.0f}\nstream_max_retries = 1"
    return {"provider": limits} if agent.name == "codex" else {}


@pytest.mark.parametrize("after", [0, 2], ids=["before output", "amid output"])
def test_silence_is_survived(seen, impatient, after):
    found = seen(silent(END, SILENCE, after=after), **impatient)
    assert found == Seen(DONE, 1, ["completed"], 0, [True])


@pytest.mark.parametrize(("agent", "speaks"), [(Codex(), "chat"), (Codex(), "responses")])
def test_the_same_silence_without_heartbeats_for_it_is_not(seen, impatient):
    plan = (silent(END, SILENCE), whole(END))
    found = seen(*plan, settings="event_heartbeat_clients = []", **impatient)
    assert found == Seen(DONE, 2, ["client_left", "completed"], 0, [True] * 2)


def test_a_cut_before_output_is_invisible(seen):
    """Two requests upstream, one of the agent's."""
    assert seen(cut_before_output(END), whole(END)) == Seen(DONE, 2, ["completed"], 0, [True] * 2)


FAILURES = pytest.mark.parametrize(
    ("fails", "ending"), [(cut_after_output, "truncated"), (error_late, "upstream_error")]
)


@FAILURES
def test_a_failure_amid_text(seen, agent, fails, ending):
    """Codex asks again, Claude Code too but without streaming; Reasonix ends the task with an error."""
    if agent in REASONIXES:
        assert seen(fails(END)) == Seen("", 1, [ending], 0, [True])
    else:
        again = agent.name == "codex"
        found = seen(fails(END), whole(END))
        assert found == Seen(DONE, 2, [ending, "completed"], 0, [True, again])


@FAILURES
def test_a_failure_amid_a_call_never_makes_the_call(seen, agent, call, fails, ending):
    """Codex asks again; Claude Code, which has finished blocks in hand, ends the task with an error."""
    if agent.name == "codex":
        found = seen(fails(call), whole(call), whole(END))
        assert found == Seen(DONE, 3, [ending, "completed", "completed"], 1, [True] * 3)
    else:
        assert seen(fails(call)) == Seen("", 1, [ending], 0, [True])


def test_a_cut_that_is_passed_on_as_one_makes_more_of_them_ask_again(seen, agent, call):
    """`on_failure = "cut"`: all but Claude Code do."""
    cut = {"settings": 'on_failure = "cut"'}
    if agent.name == "claude":
        assert seen(cut_after_output(call), **cut) == Seen("", 1, ["truncated"], 0, [True])
    else:
        found = seen(cut_after_output(call), whole(call), whole(END), **cut)
        assert found == Seen(DONE, 3, ["truncated", "completed", "completed"], 1, [True] * 3)
