"""An agent whose history has grown too long has it summed up and goes on."""

from __future__ import annotations

import pytest

from .agents import Claude, Codex
from .model import late, too_long, whole
from .turns import Say, Think, turn

pytestmark = pytest.mark.agents

# Reasonix does neither: an answer that the prompt is too long ends its task.
SUMMING = pytest.mark.parametrize("agent", [Codex(), Claude()], ids=["codex", "claude"])
WINDOW = 100_000  # tokens
SUMMARY = "What was done: three looks."
END = turn(Say("All done."))


@pytest.fixture
def looks(agent):
    """Enough turns for there to be something to sum up."""
    return [
        turn(Think(f"Look {n}."), Say(f"Reading {n}."), agent.shell(f"call_{n}", f"echo look{n}"))
        for n in range(3)
    ]


def last_words(asked):
    return str(asked.messages[-1]["content"])


def whole_text(asked):
    return str(asked.messages)


@SUMMING
def test_an_upstream_that_says_the_prompt_is_too_long_is_answered_with_a_shorter_one(
    agent, place, stage, looks
):
    """Claude Code does it by itself; Codex ends the turn, and does it when it is told to go on."""
    plan = [*map(whole, looks), too_long, whole(turn(Say(SUMMARY))), whole(END)]
    with stage(*plan) as on:
        ran = agent.ask(place, on.url, "Do it.")
        if agent.name == "codex":
            assert "ran out of room" in ran.out
            ran = agent.ask(place, on.url, "Go on.", "resume", "--last")
    assert agent.said(ran) == "All done."
    assert_it_was_summed_up(on.model.asked[-2:])


@SUMMING
def test_it_is_heard_too_when_the_stream_has_begun(agent, place, stage, looks):
    """The proxy has to begin the stream for a server that takes its time. Claude Code asks without
    streaming after any failure of a stream, and then gets to hear it with the status it needs."""
    again = [too_long] if agent.name == "claude" else []
    plan = [*map(whole, looks), late(too_long, 2.0), *again, whole(turn(Say(SUMMARY))), whole(END)]
    with stage(*plan, settings="commit_after = 1.0") as on:
        ran = agent.ask(place, on.url, "Do it.")
        if agent.name == "codex":
            assert "ran out of room" in ran.out
            ran = agent.ask(place, on.url, "Go on.", "resume", "--last")
        assert on.records()[3]["status"] == 200
    assert agent.said(ran) == "All done."
    assert_it_was_summed_up(on.model.asked[-2:])


@SUMMING
def test_a_prompt_that_comes_near_the_window_is_made_shorter_in_time(agent, place, stage, looks):
    """Agents decide by the counts that the upstream sends: they have to arrive."""
    long = turn(Think("Much."), agent.shell("call_9", "echo look9"), tokens=WINDOW - 2_000)
    plan = [*map(whole, looks), whole(long), whole(turn(Say(SUMMARY))), whole(END)]
    window = {"window": WINDOW}
    if agent.name == "claude":
        window = {"CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(WINDOW)}
    with stage(*plan) as on:
        ran = agent.ask(place, on.url, "Do it.", **window)
    assert agent.said(ran) == "All done."
    assert_it_was_summed_up(on.model.asked[-2:])


def assert_it_was_summed_up(asked):
    """The question for a summary, and the first one that has it in place of what it sums up."""
    summing, after = asked
    assert "summary" in last_words(summing)
    assert "Reading 0." in whole_text(summing)
    assert SUMMARY in whole_text(after)
    assert "Reading 0." not in whole_text(after)
