"""Each switch of a profile, by its own name: what it changes for both dialects, and what without it.

How the translations work in detail is tested beside them; this says that no switch is idle.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from trio_sse_proxy.dialects.translate.profile import (
    GENERIC,
    PRESETS,
    EmptyContent,
    ReasoningEcho,
    ReasoningField,
    SystemMode,
    ThinkingStyle,
    ToolIdShape,
    ToolImages,
)
from trio_sse_proxy.dialects.translate.refusals import Declined
from trio_sse_proxy.dialects.translate.ways import WAYS

KEY = "0123456789abcdef01234567"
IMAGE = "data:image/png;base64,aQ=="
SOURCE = {"type": "base64", "media_type": "image/png", "data": "aQ=="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "aQ=="}
TOOLS = {
    "responses": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "messages": [{"name": "f", "input_schema": {"type": "object"}}],
}
both = pytest.mark.parametrize("dialect", list(WAYS))


def says(words):
    return {"type": "message", "role": "user", "content": words}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


ASKED = {
    "responses": {
        "input": [
            says("go"),
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_image", "image_url": IMAGE}],
            },
            {"type": "message", "role": "assistant", "content": "yes"},
            {"type": "message", "role": "system", "content": "later"},
            says("on"),
        ],
        "instructions": "first",
        "max_output_tokens": 9_000,
        "reasoning": {"effort": "high", "summary": "auto"},
    },
    "messages": {
        "messages": [
            user({"type": "text", "text": "go"}),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                ],
            },
            user(
                {
                    "type": "tool_result",
                    "tool_use_id": "c",
                    "content": [{"type": "image", "source": SOURCE}],
                }
            ),
            {"role": "assistant", "content": "yes"},
            {"role": "system", "content": "later"},
            user({"type": "text", "text": "on"}),
        ],
        "system": "first",
        "max_tokens": 9_000,
        "output_config": {"effort": "high"},
    },
}


def translated(dialect, profile, **more):
    asked = {"model": "m", "stream": True, "tools": TOOLS[dialect], **ASKED[dialect], **more}
    return WAYS[dialect](json.dumps(asked).encode(), profile, KEY, 0)


def sent(dialect, more=None, **switches):
    """The Chat request."""
    return json.loads(translated(dialect, replace(GENERIC, **switches), **(more or {})).body)


def message(dialect, place, **switches):
    return sent(dialect, **switches)["messages"][place]


def told_back(dialect, *chunks, **switches):
    """The events of the client for some deltas, the last of which may be a finish_reason."""
    translator = translated(dialect, replace(GENERIC, **switches)).open()
    given = translator.opening
    for chunk in chunks:
        delta = {} if isinstance(chunk, str) else chunk
        finish = chunk if isinstance(chunk, str) else None
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        given += translator.feed(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    given += translator.feed(b"data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in given.decode().splitlines() if line[:6] == "data: "]


def kinds(events):
    return [event["type"] for event in events]


@both
@pytest.mark.parametrize("preset", list(PRESETS))
def test_switch_base(dialect, preset):
    """It names the preset, and changes nothing by itself."""
    assert PRESETS[preset].base == preset
    assert sent(dialect, base=preset) == sent(dialect)


@both
def test_switch_max_tokens_field(dialect):
    assert sent(dialect)["max_tokens"] == 9_000
    other = sent(dialect, max_tokens_field="max_completion_tokens")
    assert (other["max_completion_tokens"], "max_tokens" in other) == (9_000, False)


@both
def test_switch_max_output_tokens(dialect):
    assert sent(dialect, max_output_tokens=4_000)["max_tokens"] == 4_000
    assert sent(dialect, max_output_tokens=40_000)["max_tokens"] == 9_000


@both
def test_switch_vision(dialect):
    assert IMAGE in json.dumps(sent(dialect))
    assert IMAGE not in json.dumps(blind := sent(dialect, vision=False))
    assert "model has no vision" in json.dumps(blind)


@both
def test_switch_files(dialect):
    part = {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": "data:application/pdf;base64,aQ==",
    }
    more = {
        "responses": {"input": [says([part])]},
        "messages": {"messages": [user({"type": "document", "source": PDF})]},
    }[dialect]
    assert "file" in [
        one["type"] for one in sent(dialect, more, files=True)["messages"][-1]["content"]
    ]
    with pytest.raises(Declined):
        sent(dialect, more)


@both
def test_switch_stream_usage(dialect):
    assert sent(dialect)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(dialect, stream_usage=False)


@both
def test_switch_inline_think(dialect):
    chunks = ({"content": "<think>hm</think>yes"}, "stop")
    assert "<think>" in json.dumps(told_back(dialect, *chunks))
    told = told_back(dialect, *chunks, inline_think=True)
    assert "<think>" not in json.dumps(told)
    assert "hm" in json.dumps(told)


def test_switch_length_as_completed():
    """On Messages a length is a stop_reason like any other."""
    chunks = ({"content": "yes"}, "length")
    assert kinds(told_back("responses", *chunks))[-1] == "response.incomplete"
    told = told_back("responses", *chunks, length_as_completed=True)
    assert kinds(told)[-1] == "response.completed"


def test_switch_refusal_as_text():
    """Messages has no other word for it than text."""
    chunks = ({"refusal": "no"}, "stop")
    assert "response.output_text.delta" in kinds(told_back("responses", *chunks))
    told = told_back("responses", *chunks, refusal_as_text=False)
    assert "response.refusal.delta" in kinds(told)


@both
@pytest.mark.parametrize(
    ("style", "written"),
    [
        (ThinkingStyle.REASONING_EFFORT, {"reasoning_effort": "high"}),
        (ThinkingStyle.THINKING_TYPE, {"thinking": {"type": "enabled"}}),
        (ThinkingStyle.ENABLE_THINKING, {"enable_thinking": True}),
        (
            ThinkingStyle.CHAT_TEMPLATE_KWARGS,
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
        ),
        (ThinkingStyle.NONE, {}),
    ],
)
def test_switch_thinking_style(dialect, style, written):
    body = sent(dialect, thinking_style=style)
    ways = ("reasoning_effort", "thinking", "enable_thinking", "chat_template_kwargs")
    assert {key: body[key] for key in ways if key in body} == written


@both
def test_switch_effort_map(dialect):
    assert sent(dialect, effort_map={"high": "max"})["reasoning_effort"] == "max"
    assert "reasoning_effort" not in sent(dialect, effort_map={"high": ""})


@both
def test_switch_reasoning_field(dialect):
    assert message(dialect, 2)["reasoning_content"] == "hm"
    other = message(dialect, 2, reasoning_field=ReasoningField.REASONING)
    assert (other["reasoning"], "reasoning_content" in other) == ("hm", False)
    assert "hm" not in json.dumps(sent(dialect, reasoning_field=ReasoningField.NONE))


@both
@pytest.mark.parametrize(
    ("echo", "with_reasoning"),
    [(ReasoningEcho.TOOL_TURNS, 1), (ReasoningEcho.ALL, 2), (ReasoningEcho.NEVER, 0)],
)
def test_switch_reasoning_echo(dialect, echo, with_reasoning):
    body = sent(dialect, reasoning_echo=echo, reasoning_placeholder="-")
    assert sum("reasoning_content" in one for one in body["messages"]) == with_reasoning


@both
def test_switch_reasoning_placeholder(dialect):
    turns = [
        one["reasoning_content"]
        for one in sent(dialect, reasoning_echo=ReasoningEcho.ALL, reasoning_placeholder="(none)")[
            "messages"
        ]
        if one["role"] == "assistant"
    ]
    assert turns == ["hm", "(none)"]


@both
@pytest.mark.parametrize(
    ("mode", "leading", "later"),
    [
        (SystemMode.USER, "first", {"role": "user", "content": "<system>later</system>"}),
        (SystemMode.KEEP, "first", {"role": "system", "content": "later"}),
        (SystemMode.LEADING, "first\n\nlater", {"role": "user", "content": "on"}),
    ],
)
def test_switch_system_mode(dialect, mode, leading, later):
    messages = sent(dialect, system_mode=mode)["messages"]
    assert messages[0] == {"role": "system", "content": leading}
    assert messages[6] == later


@both
def test_switch_developer_role(dialect):
    assert message(dialect, 0)["role"] == "system"
    assert message(dialect, 0, developer_role=True)["role"] == "developer"


@both
def test_switch_empty_content(dialect):
    assert "content" not in message(dialect, 2)
    assert message(dialect, 2, empty_content=EmptyContent.EMPTY)["content"] == ""
    assert message(dialect, 2, empty_content=EmptyContent.NULL)["content"] is None


@both
def test_switch_tool_images(dialect):
    assert message(dialect, 3)["content"] == "[image follows]"
    assert IMAGE in json.dumps(message(dialect, 4))
    inline = message(dialect, 3, tool_images=ToolImages.INLINE)
    assert inline["content"] == [{"type": "image_url", "image_url": {"url": IMAGE}}]
    assert IMAGE not in json.dumps(sent(dialect, tool_images=ToolImages.DROP))


@both
def test_switch_tool_id_shape(dialect):
    assert message(dialect, 3)["tool_call_id"] == "c"
    body = sent(dialect, tool_id_shape=ToolIdShape.MISTRAL9)["messages"]
    assert body[3]["tool_call_id"] == body[2]["tool_calls"][0]["id"]
    assert len(body[3]["tool_call_id"]) == 9


@both
def test_switch_tool_choice_auto(dialect):
    more = {"tool_choice": {"responses": "auto", "messages": {"type": "auto"}}[dialect]}
    assert sent(dialect, more)["tool_choice"] == "auto"
    assert "tool_choice" not in sent(dialect, more, tool_choice_auto=False)


@both
def test_switch_parallel_tool_calls(dialect):
    more = {
        "responses": {"parallel_tool_calls": False},
        "messages": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    }[dialect]
    assert sent(dialect, more)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in sent(dialect, more, parallel_tool_calls=False)


@both
def test_switch_web_search_tool(dialect):
    search = {"responses": {"type": "web_search"}, "messages": {"type": "web_search_20250305"}}
    more = {"tools": [*TOOLS[dialect], search[dialect] | {"name": "web_search"}]}
    vendors = {"type": "vendor_search"}
    assert len(sent(dialect, more)["tools"]) == 1
    assert vendors in sent(dialect, more, web_search_tool=vendors)["tools"]


@both
def test_switch_pass_fields(dialect):
    more = {"service_tier": "flex"}
    assert "service_tier" not in sent(dialect, more)
    assert sent(dialect, more, pass_fields=("service_tier",))["service_tier"] == "flex"


@both
def test_switch_extra_body(dialect):
    assert sent(dialect, extra_body={"top_k": 5, "max_tokens": 1})["top_k"] == 5
    assert sent(dialect, extra_body={"max_tokens": 1})["max_tokens"] == 1


@both
def test_switch_tokenizer_url(dialect):
    """It says where to count; the request itself stays what it is. See relay/test_translated.py."""
    assert sent(dialect, tokenizer_url="/tokenize") == sent(dialect)


def test_every_switch_has_a_test_of_its_name():
    mine = Path(__file__).read_text()
    assert [
        one.name for one in fields(GENERIC) if f"\ndef test_switch_{one.name}(" not in mine
    ] == []
