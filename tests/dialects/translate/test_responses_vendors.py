"""What each preset is for: one request and answer as that vendor wants and gives them."""

from __future__ import annotations

import pytest
from responses_frames import DONE, REASONING, answer, calling, chunk, frame, sent, tool

from trio_sse_proxy.dialects.translate.profile import PRESETS, Profile

CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
SAID = {"role": "assistant", "content": "x"}
USER = {"role": "user", "content": "y"}
THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}


def turns(name, *items):
    return sent(PRESETS[name], input=list(items), tools=[tool("f")])["messages"]


def test_every_preset_is_a_profile_and_generic_is_the_default():
    assert set(PRESETS) == {
        "deepseek", "mimo", "kimi", "minimax", "mistral", "openai", "vllm", "sglang", "llamacpp",
        "ollama", "exo", "openrouter", "gemini", "generic",
    }  # fmt: skip
    assert PRESETS["generic"] == Profile()


@pytest.mark.parametrize("name", ["deepseek", "mimo"])
def test_deepseek_and_mimo_want_reasoning_with_every_turn(name):
    first, _, second, _ = turns(name, SAID, USER, THOUGHT, CALL, OUTPUT)
    assert first["reasoning_content"]
    assert second["reasoning_content"] == "t"
    body = sent(PRESETS[name], reasoning={"effort": "none"})
    assert body["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("xhigh", "high"), ("max", "high")],
)
def test_mimo_knows_three_efforts(asked, told):
    body = sent(PRESETS["mimo"], reasoning={"effort": asked})
    assert body["reasoning_effort"] == told
    assert body["thinking"] == {"type": "enabled"}


@pytest.mark.parametrize("name", ["mimo", "minimax"])
def test_mimo_and_minimax_get_no_tool_choice_auto(name):
    assert "tool_choice" not in sent(PRESETS[name], tools=[tool("f")], tool_choice="auto")


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_sends_nulls_or_empty_calls(name):
    for message in turns(name, SAID, USER, CALL, OUTPUT):
        assert None not in message.values()
        assert message.get("tool_calls") != []


def test_minimax_thinks_inside_its_content():
    frames = (chunk({"content": "<think>a</think>b"}), chunk(finish="stop"), DONE)
    items = answer(*frames, profile=PRESETS["minimax"], **REASONING)["output"]
    assert [item["type"] for item in items] == ["reasoning", "message"]


def test_mistral_gets_ids_of_nine():
    called, result = turns("mistral", CALL, OUTPUT)
    assert len(result["tool_call_id"]) == 9
    assert called["tool_calls"][0]["id"] == result["tool_call_id"]


def test_openai_gets_no_unknown_keys_in_messages():
    body = sent(
        PRESETS["openai"],
        instructions="s",
        input=[THOUGHT, CALL, OUTPUT],
        prompt_cache_key="k",
        service_tier="flex",
        max_output_tokens=5,
    )
    assert body["messages"][0]["role"] == "developer"
    assert body["messages"][1].keys() == {"role", "tool_calls"}
    assert (body["prompt_cache_key"], body["service_tier"]) == ("k", "flex")
    assert body["max_completion_tokens"] == 5


@pytest.mark.parametrize("name", ["vllm", "ollama", "openrouter"])
def test_some_call_it_reasoning(name):
    assert turns(name, THOUGHT, CALL)[0]["reasoning"] == "t"


def test_gemini_sends_whole_calls_without_index_and_says_stop():
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    response = answer(
        calling("{}", index=None, id="a", name="f", **signed),
        calling("{}", index=None, id="b", name="f"),
        chunk(finish="stop"),
        DONE,
        **REASONING,
    )
    calls = [item["call_id"] for item in response["output"][1:]]
    assert calls == ["a", "b"]
    returned = turns("gemini", *response["output"])[0]["tool_calls"]
    assert [call.get("extra_content") for call in returned] == [signed["extra_content"], None]


def test_mistral_sends_its_thinking_as_parts_of_the_content():
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}
    content = [thinking, {"type": "text", "text": "b"}]
    items = answer(chunk({"content": content}), chunk(finish="stop"), DONE, **REASONING)["output"]
    assert items[0]["summary"][0]["text"] == "a"
    assert items[1]["content"][0]["text"] == "b"


def test_azure_sends_a_chunk_without_choices_and_a_choice_without_delta():
    filters = frame({"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]})
    late = frame({"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]})
    frames = (filters, chunk({"content": "x"}), late, chunk(finish="stop"), DONE)
    assert answer(*frames)["output"][0]["content"][0]["text"] == "x"
