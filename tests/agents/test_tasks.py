"""Whole tasks: turn after turn, tools and all, on a server that speaks Chat alone."""

from __future__ import annotations

import pytest

from .agents import FILE, Codex, patch
from .model import cut_before_output, whole
from .turns import Call, Say, Think, turn

pytestmark = pytest.mark.agents

TASK = "Mend the greeting."
THOUGHTS = ["First I look.", "There is a typo.", "Two things at once.", "And now the image."]
HELLO, LOG = "echo heard; sleep 0.3; cat greeting.txt", "echo kept > log.txt && echo written"


@pytest.fixture
def turns(agent, place):
    """A task as a model would go about it."""
    first, second, third, fourth = map(Think, THOUGHTS)
    return [
        turn(first, Say("Reading."), agent.read(place, "call_1")),
        turn(second, agent.edit(place, "call_2", "helo", "hello")),
        turn(third, agent.shell("call_3", HELLO), agent.shell("call_4", LOG)),
        turn(fourth, Say("A picture."), agent.look(place, "call_5")),
        turn(Say("All done.")),
    ]


@pytest.fixture
def done(agent, place, stage, turns):
    """What was asked of the model, once the task is done."""
    with stage(*map(whole, turns)) as on:
        ran = agent.ask(place, on.url, TASK)
        assert agent.said(ran) == "All done.", ran
        return on.model, on.records()


def answers(messages):
    """Tool messages, by the call they answer."""
    return {each["tool_call_id"]: each["content"] for each in messages if each["role"] == "tool"}


def test_a_task_is_done(done, turns, place):
    """One run of each agent serves for everything that a good run has to show."""
    model, records = done
    assert (place.work / FILE).read_text() == "hello\n"
    assert (place.work / "log.txt").read_text() == "kept\n"
    for number, asked in enumerate(model.asked):
        assert asked.visit.target == "/v1/chat/completions"
        assert_the_turns_before_it_come_back(asked.messages, turns[:number])
    last = model.asked[-1].messages
    results = answers(last)
    assert list(results) == ["call_1", "call_2", "call_3", "call_4", "call_5"]
    assert "helo" in results["call_1"]
    assert "heard\nhello" in results["call_3"]
    assert "written" in results["call_4"]
    assert_the_image_is_seen(last)
    mine = [each for each in records if each["ending"] == "completed"]
    assert all(each["usage"]["input_tokens"] == 100 for each in mine)


def assert_the_turns_before_it_come_back(messages, turns):
    """As assistant messages: the reasoning, the text, and the calls, with nothing in between."""
    said = [each for each in messages if each["role"] == "assistant"]
    assert len(said) == len(turns)
    for each, told in zip(said, turns, strict=True):
        thought, *_ = told.parts
        assert each["reasoning_content"] == thought.text
        assert [call["id"] for call in each["tool_calls"]] == [call.id for call in told.calls]
        texts = [part.text for part in told.parts if isinstance(part, Say)]
        assert (each.get("content") or "") == "".join(texts)


def assert_the_image_is_seen(messages):
    images = [
        part["image_url"]["url"]
        for each in messages
        if isinstance(each.get("content"), list)
        for part in each["content"]
        if part["type"] == "image_url"
    ]
    assert len(images) == 1
    assert images[0].startswith("data:image/")


def test_a_cut_before_output_is_invisible(agent, place, stage, turns):
    first, *_, last = turns
    plan = (cut_before_output(first), whole(first), cut_before_output(last), whole(last))
    with stage(*plan) as on:
        ran = agent.ask(place, on.url, TASK)
    assert agent.said(ran) == "All done."
    one, two, three, four = on.model.bodies
    assert one == two
    assert three == four
    assert_the_turns_before_it_come_back(on.model.asked[3].messages, turns[:1])


@pytest.mark.parametrize("agent", [Codex()], ids=["codex"])
def test_codex_takes_a_patch_in_a_shell_command_for_one_from_a_model_it_does_not_know(
    agent, place, stage
):
    command = f"apply_patch <<'EOF'\n{patch('helo', 'hello')}\nEOF"
    plan = (whole(turn(agent.shell("call_1", command))), whole(turn(Say("All done."))))
    with stage(*plan) as on:
        ran = agent.ask(place, on.url, TASK, known=False)
    assert agent.said(ran) == "All done."
    assert (place.work / FILE).read_text() == "hello\n"
    tools = [each["function"]["name"] for each in on.model.bodies[0]["tools"]]
    assert "exec_command" in tools
    assert "apply_patch" not in tools


SCRIPT = f"""
const ran = await tools.exec_command({{cmd: "echo kept > log.txt; cat {FILE}"}});
text(ran.output);
"""


@pytest.mark.parametrize("agent", [Codex()], ids=["codex"])
def test_codex_runs_programs_that_the_model_writes(agent, place, stage):
    """Its newest models get their tools in the history, and one of them takes a program as text."""
    program = Call("call_1", "exec", {"input": SCRIPT}, custom=True)
    plan = (whole(turn(Think("A program."), program)), whole(turn(Say("All done."))))
    with stage(*plan) as on:
        ran = agent.ask(place, on.url, TASK, mode="code_mode_only")
    assert agent.said(ran) == "All done."
    assert (place.work / "log.txt").read_text() == "kept\n"
    first, second = on.model.asked
    assert "exec" in [each["function"]["name"] for each in first.body["tools"]]
    assert answers(second.messages)["call_1"].endswith("helo\n")
