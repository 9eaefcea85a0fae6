"""The worked example: parallel tools, an error result, an image result, and the way back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from messages_talk import DONE, events, fresh

from trio_sse_proxy.dialects.translate.carried import Carried, unpack
from trio_sse_proxy.dialects.translate.messages_request import translate_request
from trio_sse_proxy.dialects.translate.profile import GENERIC, ReasoningEcho

PROFILE = replace(GENERIC, reasoning_echo=ReasoningEcho.TOOL_TURNS)
BASH = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
READ = {"type": "object", "properties": {"p": {"type": "string"}}}
REQUEST = {
    "model": "claude-x",
    "max_tokens": 4096,
    "stream": True,
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: v"},
        {"type": "text", "text": "You code.", "cache_control": {"type": "ephemeral"}},
    ],
    "tools": [
        {"name": "Bash", "description": "Run", "input_schema": BASH},
        {"name": "Read", "input_schema": READ},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Check"}]},
        {"role": "system", "content": "Agents: none"},
        {
            "role": "assistant",
            "content": [
                {
                    "type": "thinking",
                    "thinking": "Two probes.",
                    "signature": Carried().pack(),
                },
                {"type": "tool_use", "id": "call_a", "name": "Bash", "input": {"command": "false"}},
                {"type": "tool_use", "id": "call_b", "name": "Read", "input": {"p": "x.png"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "call_a",
                    "is_error": True,
                    "content": "Exit code 1",
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "call_b",
                    "content": [
                        {
                            "type": "image",
                            "source": {
                                "type": "base64",
                                "media_type": "image/png",
                                "data": "iVBO…",
                            },
                        }
                    ],
                },
                {"type": "text", "text": "go on"},
            ],
        },
    ],
}


def function(name, arguments):
    return {"name": name, "arguments": arguments}


UPSTREAM = {
    "model": "deepseek-y",
    "max_tokens": 4096,
    "stream": True,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "high",
    "messages": [
        {"role": "system", "content": "You code."},
        {"role": "user", "content": "Check"},
        {"role": "user", "content": "<system>Agents: none</system>"},
        {
            "role": "assistant",
            "reasoning_content": "Two probes.",
            "tool_calls": [
                {
                    "id": "call_a",
                    "type": "function",
                    "function": function("Bash", '{"command":"false"}'),
                },
                {"id": "call_b", "type": "function", "function": function("Read", '{"p":"x.png"}')},
            ],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "ERROR: Exit code 1"},
        {"role": "tool", "tool_call_id": "call_b", "content": "[image follows]"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Image from tool call call_b:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO…"}},
                {"type": "text", "text": "go on"},
            ],
        },
    ],
    "tools": [
        {
            "type": "function",
            "function": {"name": "Bash", "description": "Run", "parameters": BASH},
        },
        {"type": "function", "function": {"name": "Read", "parameters": READ}},
    ],
}

ANSWER = [
    b": keep-alive\n\n",
    b'data: {"id":"c9","choices":[{"index":0,"delta":{"role":"assistant","content":null,'
    b'"reasoning_content":"Retry"}}]}\n\n',
    b'data: {"id":"c9","choices":[{"index":0,"delta":{"content":"Trying ls."}}]}\n\n',
    b'data: {"id":"c9","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_c",'
    b'"type":"function","function":{"name":"Bash","arguments":""}}]}}]}\n\n',
    b'data: {"id":"c9","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":'
    b'{"arguments":"{\\"command\\":\\"ls\\"}"}}]}}]}\n\n',
    b'data: {"id":"c9","choices":[{"index":0,"delta":{"content":""},"finish_reason":"tool_calls"}],'
    b'"usage":{"prompt_tokens":120,"completion_tokens":20,"total_tokens":140,'
    b'"prompt_cache_hit_tokens":100}}\n\n',
    DONE,
]

SIGNATURE = Carried().pack()
CLIENT = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_d",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        },
    },
    {"type": "ping"},
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "Retry"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "signature_delta", "signature": SIGNATURE},
    },
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "text_delta", "text": "Trying ls."},
    },
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "call_c", "name": "Bash", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"command":"ls"}'},
    },
    {"type": "content_block_stop", "index": 2},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {
            "input_tokens": 20,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 0,
            "output_tokens": 20,
        },
    },
    {"type": "message_stop"},
]


def translated():
    return translate_request(json.dumps(REQUEST).encode(), PROFILE, model="deepseek-y")


def test_the_request_of_the_example():
    assert translated().body == UPSTREAM
    assert translated().dropped == ()


@pytest.mark.parametrize("size", [1, 2, 7], ids=lambda size: f"{size} at a time")
def test_the_answer_of_the_example(size):
    stream = fresh(translated().back, "d")
    given = stream.opening
    for start in range(0, len(ANSWER), size):
        given += stream.feed(b"".join(ANSWER[start : start + size]))
    assert events(given) == CLIENT
    assert stream.done
    assert stream.failure is None
    assert unpack(SIGNATURE) is not None
