"""Whole answers, errors and token counts on Messages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from messages_talk import KEY, assistant, call, image, request, result, text, use, user, way_back

from trio_sse_proxy.core.failure import Cause, Refused
from trio_sse_proxy.dialects import MESSAGES
from trio_sse_proxy.dialects.translate.carried import Carried, unpack
from trio_sse_proxy.dialects.translate.messages_answer import failure_of_answer, translate_answer
from trio_sse_proxy.dialects.translate.messages_count import (
    count_answer,
    estimate,
    tokenizer_count,
    tokenizer_request,
)
from trio_sse_proxy.dialects.translate.messages_request import translate_count
from trio_sse_proxy.dialects.translate.profile import GENERIC


def answer(message, finish="stop", back=None, **more):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    body = {"id": "c1", "object": "chat.completion", "choices": [choice], **more}
    translated = translate_answer(json.dumps(body).encode(), back or way_back(), KEY)
    return json.loads(translated)


def test_an_answer_has_its_blocks_in_the_order_thinking_text_calls():
    message = {"content": "So.", "reasoning_content": "Hm.", **call(0, "a", "Bash", '{"x":1}')}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 4}
    assert answer(message, "tool_calls", usage=usage) == {
        "id": f"msg_{KEY}",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": Carried().pack()},
            {"type": "text", "text": "So."},
            {"type": "tool_use", "id": "a", "name": "Bash", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "output_tokens": 5,
        },
    }


def test_an_answer_may_be_empty():
    assert answer({"content": None})["content"] == []


def test_an_answer_has_its_refusal_as_text():
    assert answer({"content": None, "refusal": "No."})["content"] == [text("No.")]


def test_an_answer_has_its_inline_thinking_taken_out():
    message = {"content": "<think>Hm.</think>\n\nSo."}
    thinking, said = answer(message, back=way_back(inline_think=True))["content"]
    assert (thinking["thinking"], said["text"]) == ("Hm.", "So.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", {}),
        (None, {}),
        ({"x": 1}, {"x": 1}),
        ('{"x"', {"__invalid_json": '{"x"'}),
        ("[1]", {"__invalid_json": "[1]"}),
    ],
)
def test_an_answers_call_has_an_object_for_input(arguments, told):
    (block,) = answer(call(0, "a", "Bash", arguments))["content"]
    assert block["input"] == told


def test_an_answer_carries_what_the_vendor_wants_back():
    extra = {"google": {"thought_signature": "sig"}}
    thinking, _ = answer(call(0, "a", "Bash", "{}", extra_content=extra))["content"]
    assert thinking["thinking"] == ""
    assert unpack(thinking["signature"]).extras == {"a": {"extra_content": extra}}


def test_blank_lines_before_an_answer_are_json():
    assert translate_answer(b'\n\n {"choices":[{"message":{}}]}', way_back(), KEY)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", Cause.PROTOCOL),
        (b"<html>", Cause.PROTOCOL),
        (b'{"choices":[]}', Cause.PROTOCOL),
        (b'{"error":{"message":"slow down","code":429}}', Cause.RATE_LIMITED),
        (b'{"choices":[{"message":{}}],"error":"boom"}', Cause.SERVER_ERROR),
    ],
)
def test_what_is_no_answer_is_refused(body, cause):
    with pytest.raises(Refused) as caught:
        translate_answer(body, way_back(), KEY)
    assert caught.value.failure.cause is cause


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (400, {"message": "bad"}, (400, "invalid_request_error")),
        (422, {"message": "bad"}, (400, "invalid_request_error")),
        (401, {"message": "who?"}, (401, "authentication_error")),
        (429, {"message": "x", "code": "insufficient_quota"}, (402, "billing_error")),
        (402, {"message": "pay"}, (402, "billing_error")),
        (403, {"message": "no"}, (403, "permission_error")),
        (404, {"message": "no"}, (404, "not_found_error")),
        (413, {"message": "big"}, (413, "request_too_large")),
        (429, {"message": "slow"}, (429, "rate_limit_error")),
        (503, {"message": "busy"}, (529, "overloaded_error")),
        (500, {"message": "boom"}, (500, "api_error")),
        (502, {"message": "boom"}, (502, "api_error")),
    ],
)
def test_an_upstreams_error_has_the_status_and_type_of_messages(status, error, told):
    failure = failure_of_answer(status, json.dumps({"error": error}).encode())
    body = json.loads(MESSAGES.error_body(failure))
    assert (MESSAGES.http_status(failure), body["error"]["type"]) == told
    assert body["error"]["message"] == error["message"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_context_that_is_too_long_makes_claude_code_compact(status):
    message = "This model's maximum context length is 8192 tokens"
    failure = failure_of_answer(status, json.dumps({"error": {"message": message}}).encode())
    assert MESSAGES.http_status(failure) == 400
    error = json.loads(MESSAGES.error_body(failure))["error"]
    assert error == {"type": "invalid_request_error", "message": f"prompt is too long: {message}"}


def test_when_to_come_back_is_kept():
    assert failure_of_answer(429, b"{}", 7.0).retry_after == 7.0


# --- count_tokens --------------------------------------------------------------------------------


def test_count_needs_no_limit():
    body = {"model": "m", "messages": [user(text("hi"))]}
    counting = translate_count(body, GENERIC, model="up")
    assert "max_tokens" not in counting.body
    assert json.loads(tokenizer_request(counting)) == {
        "model": "up",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_count_of_an_upstream_is_taken_as_it_is():
    assert tokenizer_count(b'{"count":7,"tokens":[1,2]}') == 7
    assert tokenizer_count(b'{"input_tokens":8}') == 8
    assert tokenizer_count(b'{"tokens":[1,2,3]}') == 3
    assert tokenizer_count(b'{"error":"no"}') is None
    assert tokenizer_count(b"no") is None
    assert json.loads(count_answer(7)) == {"input_tokens": 7}


@pytest.mark.parametrize(
    ("said", "tokens"),
    [("abcd", 1), ("abcde", 2), ("上下文", 3), ("abc上", 2), ("x" * 4_000, 1_000)],
)
def test_estimate_is_a_token_for_four_ascii_characters_or_one_other(said, tokens):
    assert estimate(request(user(text(said)))) == tokens


def test_estimate_counts_images():
    assert estimate(request(user(text("abcd"), image(), image("x" * 100_000)))) == 3_001


def test_estimate_counts_system_tools_arguments_and_results():
    plain = estimate(request(user(text("abcd"))))
    schema = {"type": "object", "properties": {"x" * 400: {"type": "string"}}}
    assert estimate(request(user(text("abcd")), system="y" * 400)) == plain + 100
    assert estimate(request(tools=[{"name": "n", "input_schema": schema}])) > plain + 100
    called = [user(text("abcd")), assistant(use(x="z" * 400)), user(result(content="w" * 400))]
    assert estimate(request(*called)) > plain + 200


def test_estimate_counts_thinking_that_goes_up():
    thinking = {"type": "thinking", "thinking": "t" * 400, "signature": ""}
    said = [user(text("a")), assistant(thinking, use()), user(result())]
    silent = replace(GENERIC, reasoning_field=type(GENERIC.reasoning_field).NONE)
    assert estimate(request(*said)) == estimate(request(*said, profile=silent)) + 100
