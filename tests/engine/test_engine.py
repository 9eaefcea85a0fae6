"""Requests of agents, in their own dialects, answered by an engine that is asked in Chat.

`python -m pytest -m engine` runs them; the engine installs itself on the first run. The model is random,
so nothing is expected of what it says, only that each side understands the other.
"""

from __future__ import annotations

import json
import time

import anthropic
import openai
import pytest

from .asked import CLAUDE_CALLED, CODEX_CALLED, MODEL, claude, codex

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TURNS = 8
"""Answers asked for of each kind: enough for texts, and for calls of every tool."""
BOUND = 0.5  # seconds


@pytest.fixture
def responses(proxy):
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="k", max_retries=0) as client:
        yield client.responses


@pytest.fixture
def messages(proxy):
    with anthropic.Anthropic(base_url=proxy.url, api_key="k", max_retries=0) as client:
        yield client.messages


def sent(asked):
    """As the SDKs take it: what they have no word for goes as it is."""
    known = {"model", "stream", "max_tokens", "messages", "input"}
    extra = {key: value for key, value in asked.items() if key not in known}
    return {key: asked[key] for key in asked if key in known and key != "stream"} | {
        "extra_body": extra | {"stream": asked["stream"]}
    }


def assert_calls_are_whole(calls):
    """Codex and Claude Code run what they are told to; the engine's grammar saw to the arguments."""
    for name, arguments in calls:
        assert name in {"exec_command", "apply_patch", "list_agents", "Bash", "Read"}, name
        assert isinstance(arguments, (dict, str))
        if name == "Bash":
            assert arguments["command"] in ("ls", "false")
        if name == "exec_command":
            assert arguments["cmd"] in ("ls", "cat greeting.txt")
        if name == "Read":
            assert isinstance(arguments["lines"], int)


def calls_of_codex(response):
    for item in response.output:
        if item.type == "function_call":
            yield item.name, json.loads(item.arguments)
        elif item.type == "custom_tool_call":
            yield item.name, item.input


@pytest.mark.parametrize("more", [(), CODEX_CALLED], ids=["first turn", "second turn"])
def test_codex_streaming(responses, more):
    kinds, calls = set(), []
    for _ in range(TURNS):
        events = list(responses.create(**sent(codex(*more)), stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed", events[-1]
        response = events[-1].response
        assert response.id == events[0].response.id
        assert response.model == MODEL
        usage = response.usage
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 100
        done = [event.item for event in events if event.type == "response.output_item.done"]
        assert [item.id for item in done] == [item.id for item in response.output]
        kinds |= {item.type for item in done}
        calls += calls_of_codex(response)
    assert "message" in kinds
    assert calls, "no tool was called, which proves little"
    assert_calls_are_whole(calls)


@pytest.mark.parametrize("more", [(), CODEX_CALLED], ids=["first turn", "second turn"])
def test_codex_whole(responses, more):
    for _ in range(TURNS):
        response = responses.create(**sent(codex(*more, stream=False)))
        assert response.status == "completed"
        assert response.usage.output_tokens > 0
        assert_calls_are_whole(calls_of_codex(response))


def test_codex_comes_back_with_what_it_was_told(responses):
    """Turn after turn, each answer goes back as it came, calls answered."""
    said = []
    for turn in range(6):
        response = responses.create(**sent(codex(*said, stream=False)))
        said += [item.model_dump(exclude_none=True) for item in response.output]
        for item in response.output:
            kind = {"function_call": "function_call_output"}.get(item.type)
            kind = kind or {"custom_tool_call": "custom_tool_call_output"}.get(item.type)
            if kind:
                said.append({"type": kind, "call_id": item.call_id, "output": f"done {turn}"})
        again = {"role": "user", "content": [{"type": "input_text", "text": "again"}]}
        said.append({"type": "message", **again})
    assert len(said) >= 12


def calls_of_claude(message):
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


@pytest.mark.parametrize("more", [(), CLAUDE_CALLED], ids=["first turn", "second turn"])
def test_claude_code_streaming(messages, more):
    kinds, calls = set(), []
    for _ in range(TURNS):
        with messages.stream(**sent(claude(*more))) as stream:
            message = stream.get_final_message()
        assert message.model == MODEL
        kinds |= {block.type for block in message.content}
        calls += calls_of_claude(message)
        assert message.stop_reason == ("tool_use" if calls_of_claude(message) else "end_turn")
        assert message.usage.input_tokens + message.usage.cache_read_input_tokens > 100
        assert message.usage.output_tokens > 0
    assert "text" in kinds
    assert calls, "no tool was called, which proves little"
    assert_calls_are_whole(calls)


@pytest.mark.parametrize("more", [(), CLAUDE_CALLED], ids=["first turn", "second turn"])
def test_claude_code_whole(messages, more):
    for _ in range(TURNS):
        message = messages.create(**sent(claude(*more, stream=False)))
        assert message.stop_reason in ("end_turn", "tool_use")
        assert message.usage.output_tokens > 0
        assert_calls_are_whole(calls_of_claude(message))


def test_claude_code_comes_back_with_what_it_was_told(messages):
    said = []
    for turn in range(6):
        message = messages.create(**sent(claude(*said, stream=False)))
        content = [block.model_dump(exclude_none=True) for block in message.content]
        if content:
            said.append({"role": "assistant", "content": content})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": f"done {turn}"}
            for block in message.content
            if block.type == "tool_use"
        ]
        said.append({"role": "user", "content": [*results, {"type": "text", "text": "again"}]})
    assert len(said) >= 6


def test_claude_code_counts_tokens(messages):
    asked = claude()
    counting = {key: asked[key] for key in ("model", "system", "messages", "tools")}
    with messages.with_streaming_response.count_tokens(**counting) as answer:
        assert answer.headers["x-proxy-estimate"] == "1"
        assert json.loads(answer.read())["input_tokens"] > 200


def test_a_schema_is_kept_to(responses, messages):
    """Structured output reaches the engine as a grammar."""
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "c", "schema": schema, "strict": True}
    response = responses.create(model=MODEL, input="hi", extra_body={"text": {"format": form}})
    assert json.loads(response.output_text)["colour"] in ("red", "green")
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    said = [{"role": "user", "content": "hi"}]
    message = messages.create(model=MODEL, max_tokens=200, messages=said, extra_body=wanted)
    assert json.loads(message.content[0].text)["colour"] in ("red", "green")


def test_a_limit_is_told_as_one(responses, messages):
    response = responses.create(model=MODEL, input="hi", max_output_tokens=1)
    assert response.incomplete_details.reason == "max_output_tokens"
    said = [{"role": "user", "content": "hi"}]
    message = messages.create(model=MODEL, max_tokens=1, messages=said)
    assert message.stop_reason == "max_tokens"


def test_a_prompt_that_is_too_long_makes_agents_compact(responses, messages):
    much = "too much " * 60_000
    with pytest.raises(openai.BadRequestError) as refused:
        responses.create(model=MODEL, input=much)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": much}])


def leave(stream):
    """Read a little and go, as a user does who presses Escape."""
    for number, _ in enumerate(stream):
        if number == 20:
            break
    stream.close()


@pytest.mark.parametrize("agent", ["codex", "claude code"])
def test_leaving_stops_the_engine(engine, endless, agent):
    engine.wait_until_idle(10.0)
    if agent == "codex":
        with openai.OpenAI(base_url=f"{endless.url}/v1", api_key="k", max_retries=0) as client:
            stream = client.responses.create(model=MODEL, input="hi", stream=True)
            next(iter(stream))
            assert engine.busy()
            leave(stream)
    else:
        with anthropic.Anthropic(base_url=endless.url, api_key="k", max_retries=0) as client:
            said = [{"role": "user", "content": "hi"}]
            asked = {"model": MODEL, "max_tokens": 200_000, "messages": said}
            stream = client.messages.create(**asked, stream=True)
            next(iter(stream))
            leave(stream)
    assert engine.wait_until_idle(10.0) < BOUND
    assert engine.stopped()[-1] < 20_000


def test_whoever_stays_is_served_on(engine, endless):
    """What the test above relies on: left alone, the engine would go on for long."""
    engine.wait_until_idle(10.0)
    with openai.OpenAI(base_url=f"{endless.url}/v1", api_key="k", max_retries=0) as client:
        stream = client.responses.create(model=MODEL, input="hi", stream=True)
        until = time.monotonic() + 2 * BOUND
        for _ in stream:
            if time.monotonic() > until:
                break
        assert engine.busy()
        stream.close()
    engine.wait_until_idle(10.0)
