"""The worked example: a second turn, with reasoning, a custom tool and a namespace."""

from __future__ import annotations

import json

from responses_frames import KEY, events, fresh

from trio_sse_proxy.dialects.translate.carried import Carried, unpack
from trio_sse_proxy.dialects.translate.profile import GENERIC
from trio_sse_proxy.dialects.translate.responses_request import translate_request

EXEC = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
CAT = '{"cmd":"cat a.txt"}'
PATCH = "*** Begin Patch\n…"

REQUEST = {
    "model": "mimo-x",
    "stream": True,
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "reasoning": {"effort": "medium", "summary": "auto"},
    "tools": [
        {"type": "function", "name": "exec_command", "parameters": EXEC, "strict": False},
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edit files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
        },
        {
            "type": "namespace",
            "name": "agents",
            "description": "",
            "tools": [
                {
                    "type": "function",
                    "name": "list",
                    "parameters": {"type": "object", "properties": {}},
                }
            ],
        },
        {"type": "web_search"},
    ],
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "Be brief."}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Fix a.txt"}],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Look first."}],
            "encrypted_content": Carried("Look first.").pack(),
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Reading."}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "exec_command",
            "arguments": CAT,
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "helo\n"},
    ],
}

SENT = {
    "model": "mimo-v2",
    "stream": True,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "medium",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Fix a.txt"},
        {
            "role": "assistant",
            "content": "Reading.",
            "reasoning_content": "Look first.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "exec_command", "arguments": CAT},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "helo\n"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "exec_command", "parameters": EXEC}},
        {
            "type": "function",
            "function": {
                "name": "apply_patch",
                "description": "Edit files.\n\nInput grammar (lark):\nstart: /.+/",
                "parameters": {
                    "type": "object",
                    "properties": {"input": {"type": "string"}},
                    "required": ["input"],
                    "additionalProperties": False,
                },
            },
        },
        {
            "type": "function",
            "function": {"name": "list", "parameters": {"type": "object", "properties": {}}},
        },
    ],
}


def data(text):
    return b"data: " + text.encode() + b"\n\n"


FRAMES = [
    data('{"id":"c1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'),
    data('{"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"Typo."}}]}'),
    data(
        '{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_2","type":'
        '"function","function":{"name":"apply_patch","arguments":"{\\"input\\":\\"*** Be"}}]}}]}'
    ),
    data(
        '{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":'
        '{"arguments":"gin Patch\\\\n…\\"}"}}]}}]}'
    ),
    data('{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}'),
    data(
        '{"id":"c1","choices":[],"usage":{"prompt_tokens":90,"completion_tokens":12,"total_tokens":102,'
        '"prompt_tokens_details":{"cached_tokens":64}}}'
    ),
    data("[DONE]"),
]


def translated():
    return translate_request(json.dumps(REQUEST).encode(), GENERIC, model="mimo-v2")


def test_the_request_becomes_the_one_of_the_example():
    request = translated()
    assert request.body == SENT
    assert request.dropped == ("tool:web_search",)


def test_the_stream_becomes_the_one_of_the_example():
    stream = fresh(translated().back)
    found = events(stream.opening + b"".join(map(stream.feed, FRAMES)))
    assert [event["sequence_number"] for event in found] == list(range(13))
    rs, ctc = f"rs_{KEY}0", f"ctc_{KEY}1"
    thought = {"type": "summary_text", "text": "Typo."}
    part = {"item_id": rs, "output_index": 0, "summary_index": 0}
    at = {"item_id": ctc, "output_index": 1}
    call = {
        "type": "custom_tool_call",
        "id": ctc,
        "call_id": "call_2",
        "name": "apply_patch",
        "input": PATCH,
    }
    reasoning = found[7]["item"]
    assert unpack(reasoning.pop("encrypted_content")) == Carried("Typo.")
    assert reasoning == {"type": "reasoning", "id": rs, "summary": [thought]}
    body = [
        {key: value for key, value in event.items() if key != "sequence_number"}
        for event in found[2:12]
    ]
    empty = {"type": "summary_text", "text": ""}
    begun = {"type": "reasoning", "id": rs, "summary": []}
    part_added = {"type": "response.reasoning_summary_part.added", **part, "part": empty}
    part_done = {"type": "response.reasoning_summary_part.done", **part, "part": thought}
    assert body == [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        part_added,
        {"type": "response.reasoning_summary_text.delta", **part, "delta": "Typo."},
        {"type": "response.reasoning_summary_text.done", **part, "text": "Typo."},
        part_done,
        {"type": "response.output_item.done", "output_index": 0, "item": reasoning},
        {"type": "response.output_item.added", "output_index": 1, "item": call | {"input": ""}},
        {"type": "response.custom_tool_call_input.delta", **at, "delta": PATCH},
        {"type": "response.custom_tool_call_input.done", **at, "input": PATCH},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
    ]


def test_the_last_event_repeats_everything():
    stream = fresh(translated().back)
    found = events(stream.opening + b"".join(map(stream.feed, FRAMES)))
    response = found[-1]["response"]
    assert found[-1]["type"] == "response.completed"
    assert response["status"] == "completed"
    assert response["id"] == found[0]["response"]["id"] == found[1]["response"]["id"]
    assert response["model"] == "mimo-x"
    assert response["output"] == [found[7]["item"], found[11]["item"]]
    assert response["usage"] == {
        "input_tokens": 90,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 102,
    }
    assert stream.done


def test_a_call_of_a_flat_name_goes_back_into_its_namespace():
    stream = fresh(translated().back)
    call = '{"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"name":"list"}}]}}]}'
    found = events(stream.feed(data(call)) + stream.feed(FRAMES[4]) + stream.feed(FRAMES[6]))
    assert found[-2]["item"] == {
        "type": "function_call",
        "id": f"fc_{KEY}0",
        "call_id": "c",
        "name": "list",
        "namespace": "agents",
        "arguments": "{}",
        "status": "completed",
    }
