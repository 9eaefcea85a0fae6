"""What a client may send in one request costs in proportion to its size, whatever it repeats."""

from __future__ import annotations

import json
import time

import pytest

from trio_sse_proxy.dialects.translate.chat_think import ThinkSplitter
from trio_sse_proxy.dialects.translate.profile import GENERIC
from trio_sse_proxy.dialects.translate.ways import WAYS

CALLS = 8_000


def messages(ids):
    used = [{"type": "tool_use", "id": i, "name": "f", "input": {}} for i in ids]
    results = [{"type": "tool_result", "tool_use_id": i, "content": "x"} for i in ids]
    told = [{"role": "assistant", "content": used}, {"role": "user", "content": results}]
    return {"model": "m", "max_tokens": 1, "messages": told}


def responses(ids):
    used = [{"type": "function_call", "call_id": i, "name": "f", "arguments": "{}"} for i in ids]
    outputs = [{"type": "function_call_output", "call_id": i, "output": "x"} for i in ids]
    return {"model": "m", "input": [*used, *outputs]}


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(["a"] * CALLS, id="all the same"),
        pytest.param([f"a_{n % 97}" for n in range(CALLS)], id="some the same"),
        pytest.param([f"a{n}" for n in range(CALLS)], id="all different"),
    ],
)
@pytest.mark.parametrize(("way", "request_of"), [("messages", messages), ("responses", responses)])
def test_many_calls_in_one_turn_are_told_apart_in_linear_time(way, request_of, ids):
    body = json.dumps(request_of(ids)).encode()
    began = time.process_time()
    chat = json.loads(WAYS[way](body, GENERIC, "k", 1).body)
    assert time.process_time() - began < 2  # it took several times as long, with everybody waiting
    called = [call["id"] for call in chat["messages"][0]["tool_calls"]]
    assert len(set(called)) == len(called) == CALLS
    assert [message["tool_call_id"] for message in chat["messages"][1:]] == called


def test_a_text_of_nothing_but_tags_is_split_in_linear_time():
    """An upstream's frame may be large."""
    began = time.process_time()
    assert ThinkSplitter().feed("<think></think>" * 200_000 + "x") == [("text", "x")]
    assert time.process_time() - began < 2  # it took more than ten
