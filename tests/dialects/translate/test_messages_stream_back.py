"""A Chat stream told as Messages: the blocks, their order, and what vendors do differently."""

from __future__ import annotations

import json

import pytest
from messages_talk import (
    DONE,
    KEY,
    blocks,
    call,
    chunk,
    counts,
    events,
    frame,
    fresh,
    stream_of,
    way_back,
)

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.dialects import MESSAGES
from trio_sse_proxy.dialects.base import look_through
from trio_sse_proxy.dialects.translate.carried import Carried, unpack
from trio_sse_proxy.dialects.translate.tools import Tool, ToolBook

STOP = chunk(finish="stop")
CALLED = chunk(finish="tool_calls")
A = call(0, "a", "Bash", '{"x":1}')


def said(*frames, **more):
    """The blocks that these frames and `[DONE]` come to."""
    stream, given = stream_of(*frames, DONE, **more)
    assert stream.failure is None
    assert stream.done
    return blocks(given)[0]


def text(told):
    return {"type": "text", "text": told}


def thinking(told, **carried):
    return {"type": "thinking", "thinking": told, "signature": Carried(**carried).pack()}


def use(call_id="a", name="Bash", arguments='{"x":1}'):
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


# --- row 1: the opening --------------------------------------------------------------------------


def test_opening_has_the_clients_own_word_for_the_model():
    start, ping = events(fresh(way_back(model="claude-y[1m]")).opening)
    assert start["type"] == "message_start"
    assert start["message"]["model"] == "claude-y[1m]"
    assert start["message"]["id"] == f"msg_{KEY}"
    assert start["message"]["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert ping == {"type": "ping"}


# --- row 2: one block at a time ------------------------------------------------------------------


def test_reasoning_is_thinking_with_a_signature_of_ours():
    (block,) = said(chunk({"reasoning_content": "Hm"}), chunk({"reasoning_content": "."}), STOP)
    assert block == thinking("Hm.")
    assert unpack(block["signature"]) is not None


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_vllm_reasoning_has_either_name(name):
    assert said(chunk({name: "Hm."}), STOP) == [thinking("Hm.")]
    both = {"reasoning_content": "Hm.", "reasoning": "Hm."}
    assert said(chunk(both), STOP) == [thinking("Hm.")]


def test_content_is_text():
    assert said(chunk({"content": "a"}), chunk({"content": "b"}), STOP) == [text("ab")]


def test_refusal_is_text():
    assert said(chunk({"refusal": "No."}), STOP) == [text("No.")]


def test_content_in_parts_is_thinking_and_text():
    """Mistral's reasoning models."""
    parts = [
        {"type": "thinking", "thinking": [text("Hm.")]},
        {"type": "text", "text": "So."},
        {"type": "reference", "reference_ids": [1]},
    ]
    assert said(chunk({"content": parts}), STOP) == [thinking("Hm."), text("So.")]


def test_a_call_never_begins_with_its_arguments():
    """Claude Code ignores what stands in the start of a block."""
    _, given = stream_of(chunk(A), CALLED, DONE)
    start = next(event for event in events(given) if event["type"] == "content_block_start")
    assert start["content_block"] == {"type": "tool_use", "id": "a", "name": "Bash", "input": {}}
    assert blocks(given)[0] == [use()]


def test_a_call_without_arguments_has_no_deltas():
    _, given = stream_of(chunk(call(0, "a", "Bash", "")), CALLED, DONE)
    assert blocks(given)[0] == [use(arguments={})]


def test_a_call_begins_when_its_name_is_known():
    stream, given = stream_of(chunk(call(0, "a")), chunk(call(0, None, None, '{"x"')), end=False)
    assert blocks(given)[0] == []
    given += stream.feed(chunk(call(0, None, "Bash")) + chunk(call(0, None, None, ":1}")))
    assert blocks(given)[0] == [use()]


def test_names_are_the_clients():
    book = ToolBook([Tool("mcp." + "x" * 80)])
    flat = book.flat(None, "mcp." + "x" * 80)
    (block,) = said(chunk(call(0, "a", flat, "{}")), CALLED, back=way_back(book=book))
    assert block["name"] == "mcp." + "x" * 80


def test_calls_in_turns_are_told_one_after_the_other():
    one, other = call(0, "a", "Bash", '{"x"'), call(1, "b", "Read", '{"y"')
    frames = [chunk(one), chunk(other), chunk(call(0, None, None, ":1}"))]
    stream, given = stream_of(*frames, end=False)
    assert blocks(given)[0] == [use(), use("b", "Read", '{"y"')]
    given += stream.feed(chunk(call(1, None, None, ":2}")) + CALLED + DONE)
    assert blocks(given)[0] == [use(), use("b", "Read", '{"y":2}')]


def test_text_between_the_pieces_of_a_call_waits_for_its_end():
    frames = [
        chunk(call(0, "a", "Bash", '{"x"')),
        chunk({"content": "then"}),
        chunk(call(0, None, None, ":1}")),
    ]
    assert said(*frames, CALLED) == [use(), text("then")]


def test_parallel_calls_in_one_delta():
    both = {"tool_calls": A["tool_calls"] + call(1, "b", "Read", "{}")["tool_calls"]}
    assert said(chunk(both), CALLED) == [use(), use("b", "Read", "{}")]


# --- row 3 to 5: closing, finish, failure --------------------------------------------------------


def test_a_new_kind_closes_the_open_block():
    frames = [chunk({"reasoning": "Hm."}), chunk({"content": "x"}), chunk(A), CALLED]
    assert said(*frames) == [thinking("Hm."), text("x"), use()]


def test_thinking_may_come_again():
    frames = [chunk({"reasoning": "a"}), chunk({"content": "x"}), chunk({"reasoning": "b"}), STOP]
    assert said(*frames) == [thinking("a"), text("x"), thinking("b")]


def test_the_last_block_is_closed_only_at_the_end():
    stream, given = stream_of(chunk(A), CALLED, end=False)
    assert stream.finished
    assert not any(event["type"] == "content_block_stop" for event in events(given))
    assert [event["type"] for event in events(stream.feed(DONE))] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_counts_that_come_alone_are_the_end():
    stream, _ = stream_of(chunk({"content": "x"}), STOP, end=False)
    assert events(stream.feed(counts(prompt_tokens=1, completion_tokens=2)))[-1] == {
        "type": "message_stop"
    }
    assert stream.feed(DONE) == b""


def test_the_end_of_the_body_is_the_end_after_a_finish_reason():
    stream, given = stream_of(chunk({"content": "x"}), STOP)
    assert stream.done
    assert blocks(given)[1]["delta"]["stop_reason"] == "end_turn"


def test_a_cut_is_an_error_behind_an_open_block():
    stream, given = stream_of(chunk({"content": "x"}))
    assert stream.failure.cause is Cause.TRUNCATED
    *_, delta, error = events(given)
    assert delta["type"] == "content_block_delta"
    assert error["type"] == "error"
    assert stream.fail(stream.failure) == b""


def test_a_cut_before_output_may_be_mended_by_another_attempt():
    stream, _ = stream_of(chunk({"role": "assistant"}))
    assert stream.failure.cause is Cause.UNREACHABLE


def test_an_empty_answer_is_sent_as_it_is():
    stream, given = stream_of(chunk({"role": "assistant", "content": ""}), STOP, DONE)
    assert [event["type"] for event in events(given)[2:]] == ["message_delta", "message_stop"]
    assert stream.done


@pytest.mark.parametrize(
    ("frames", "whole"),
    [
        ([chunk({"content": "x"})], True),
        ([chunk(A)], True),
        ([chunk({"content": "x"}), chunk(call(0, "a", "Bash", '{"x"'))], False),
        ([chunk({"reasoning": "x"})], False),
        ([], False),
    ],
    ids=["text", "call", "half a call", "thinking", "nothing"],
)
def test_done_without_a_finish_reason_is_complete_if_nothing_is_half_told(frames, whole):
    stream, _ = stream_of(*frames, DONE)
    assert (stream.failure is None) is whole


def test_an_error_chunk_is_a_failure_and_wins_over_done():
    error = frame({"error": {"message": "out of memory", "type": "server_error", "code": 500}})
    stream, given = stream_of(chunk({"content": "x"}), error + DONE)
    assert stream.failure.cause is Cause.SERVER_ERROR
    assert events(given)[-1]["error"] == {"type": "api_error", "message": "out of memory"}


def test_openrouters_error_beside_choices_is_a_failure():
    broken = json.loads(STOP[6:]) | {"error": {"code": 429, "message": "slow down"}}
    stream, given = stream_of(frame(broken))
    assert stream.failure.cause is Cause.RATE_LIMITED
    assert events(given)[-1]["error"]["type"] == "rate_limit_error"


def test_a_context_that_is_too_long_is_told_in_claude_codes_words():
    error = frame({"error": {"message": "maximum context length is 8192", "code": 400}})
    _, given = stream_of(error)
    told = events(given)[-1]["error"]
    assert told["type"] == "invalid_request_error"
    assert told["message"].startswith("prompt is too long")


def test_after_a_failure_nothing_is_told():
    stream = fresh()
    assert stream.feed(chunk({"content": "x"}) + frame({"error": "boom"}))
    failure = stream.failure
    assert failure
    assert stream.feed(chunk({"content": "y"}) + STOP + DONE) == b""
    assert stream.end(terminated=True) == b""
    assert stream.failure is failure


@pytest.mark.parametrize("data", [b"data: {nonsense\n\n", b"data: 1\n\n", b"data: [1]\n\n"])
def test_what_is_no_object_is_a_failure(data):
    stream, _ = stream_of(data)
    assert stream.failure.cause is Cause.PROTOCOL


def test_fail_tells_whatever_the_relay_found():
    stream, _ = stream_of(chunk({"content": "x"}), end=False)
    failure = Failure(cause=Cause.TIMEOUT, message="nothing for 60 s")
    (error,) = events(stream.fail(failure))
    assert error["error"]["type"] == "timeout_error"
    assert stream.feed(chunk({"content": "y"})) == b""


# --- heartbeats ----------------------------------------------------------------------------------


def test_heartbeats_are_valid_at_any_place():
    """They come from the dialect, which looks at what the client has got."""
    stream, client = fresh(), MESSAGES.open_stream()
    assert client.event_heartbeat("sdk/1") is None
    assert client.event_heartbeat("claude-cli/2")
    look_through(client, stream.opening)
    client.forwarded = True
    for one in (chunk({"content": "x"}), chunk(A)):
        look_through(client, stream.feed(one))
        (delta,) = events(client.event_heartbeat("sdk/1"))
        assert delta["delta"] == {"stop_reason": None, "stop_sequence": None}
    look_through(client, stream.feed(CALLED + DONE))
    assert client.event_heartbeat("claude-cli/2") is None


# --- what vendors do differently -----------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        [call(None, "a", "Bash", '{"x":1}'), call(None, "b", "Read", "{}")],
        [call(0, "a", "Bash", '{"x":1}'), call(0, "b", "Read", "{}")],
        [call(None, "a", "Bash"), call(None, None, None, '{"x":1}'), call(None, "b", "Read", "{}")],
        [
            call(0, "a", "Bash", '{"x"'),
            call(0, "a", "Bash", ":1}"),
            call(1, "b", "Read", "{"),
            call(1, "b", "Read", "}"),
        ],
        [call(0, "a", "Bash", {"x": 1}), call(1, "b", "Read", {})],
    ],
    ids=["no index", "always index 0", "neither", "repeated ids and names", "objects"],
)
def test_which_call_a_piece_belongs_to(frames):
    assert said(*map(chunk, frames), CALLED) == [use(), use("b", "Read", "{}")]


def test_later_ids_and_names_of_a_call_are_ignored():
    frames = [
        call(0, "a", "Bash", '{"x"'),
        call(0, "other", None, ":1"),
        call(0, "a", "Bash", ""),
        call(0, None, "Other", "}"),
    ]
    assert said(*map(chunk, frames), CALLED) == [use()]


def test_later_names_of_a_call_that_waits_are_ignored():
    frames = [
        call(0, "a", "Bash", '{"x"'),
        call(1, "b", "Read"),
        call(1, None, "Other", "{}"),
        call(0, None, None, ":1}"),
    ]
    assert said(*map(chunk, frames), CALLED) == [use(), use("b", "Read", "{}")]


def test_calls_without_ids_and_indices_are_told_apart_by_their_names():
    frames = [call(None, None, "Bash", '{"x":1}'), call(None, None, "Read", "{}")]
    one, other = said(*map(chunk, frames), CALLED)
    assert (one["name"], other["name"]) == ("Bash", "Read")
    assert one["id"] != other["id"]


def test_an_id_that_never_came_is_minted():
    (block,) = said(chunk(call(0, None, "Bash", "{}")), CALLED)
    assert block["id"] == f"call_{KEY}0"


def test_an_id_used_twice_is_told_apart():
    one, other = said(chunk(call(0, "a", "Bash", "{}")), chunk(call(1, "a", "Read", "{}")), CALLED)
    assert one["id"] == "a"
    assert other["id"] != "a"


def test_a_call_whose_name_never_came_is_told_to_the_model():
    (block,) = said(chunk(call(0, "a", None, "{}")), CALLED)
    assert block["name"] == "unknown_tool"


def test_a_call_of_which_nothing_came_is_none():
    stream, given = stream_of(chunk({"content": "x"}), chunk(call(0, "a")), CALLED, DONE)
    assert blocks(given)[0] == [text("x")]
    assert blocks(given)[1]["delta"]["stop_reason"] == "end_turn"
    assert stream.done


def test_the_old_function_call():
    frames = [
        chunk({"function_call": {"name": "Bash", "arguments": '{"x"'}}),
        chunk({"function_call": {"arguments": ":1}"}}),
        chunk(finish="function_call"),
    ]
    assert said(*frames) == [use(f"call_{KEY}0")]


def test_broken_arguments_reach_the_model():
    assert said(chunk(call(0, "a", "Bash", '{"x"')), CALLED) == [use(arguments='{"x"')]


def test_gemini_has_its_thought_signature_carried_in_a_block_before_the_call():
    extra = {"google": {"thought_signature": "sig"}}
    piece = call(None, "a", "Bash", '{"x":1}', extra_content=extra)
    carried = {"a": {"extra_content": extra}}
    assert said(chunk(piece), STOP) == [thinking("", extras=carried), use()]
    reasoned = said(chunk({"reasoning_content": "Hm."}), chunk(piece), STOP)
    assert reasoned == [thinking("Hm.", extras=carried), use()]


def test_gemini_has_late_marks_carried_behind_the_call():
    extra = {"google": {"thought_signature": "sig"}}
    late = chunk({"tool_calls": [{"extra_content": extra}]})
    carried = {"a": {"extra_content": extra}}
    assert said(chunk(A), late, STOP) == [use(), thinking("", extras=carried)]


def test_openrouter_has_its_reasoning_details_carried():
    def detail(**more):
        return {"type": "reasoning.text", "index": 0, "format": "x", **more}

    frames = [
        chunk({"reasoning": "a", "reasoning_details": [detail(text="a")]}),
        chunk({"reasoning": "b", "reasoning_details": [detail(text="b")]}),
        chunk({"reasoning_details": [detail(signature="s")]}),
        chunk({"content": "x"}),
        STOP,
    ]
    assert said(*frames) == [
        thinking("ab", details=[detail(text="ab", signature="s")]),
        text("x"),
    ]


def test_azure_has_chunks_without_choices_and_choices_without_delta():
    frames = [
        frame({"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]}),
        chunk({"content": "x"}),
        STOP,
        frame({"choices": [{"index": 0, "content_filter_offsets": {}, "finish_reason": None}]}),
    ]
    assert said(*frames) == [text("x")]


@pytest.mark.parametrize("think", ["<think>Hm.</think>\n\nSo.", "<think>\nHm.</think>So."])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_minimax_has_thinking_inside_its_text(think, size):
    pieces = [think[start : start + size] for start in range(0, len(think), size)]
    frames = [chunk({"content": piece}) for piece in pieces]
    back = way_back(inline_think=True)
    assert said(*frames, STOP, back=back) == [thinking("Hm."), text("So.")]
    assert said(*frames, STOP) == [text(think)]


def test_a_tag_that_never_became_one_is_text():
    back = way_back(inline_think=True)
    assert said(chunk({"content": "a <thi"}), STOP, back=back) == [text("a <thi")]
    assert said(chunk({"content": "a < b"}), STOP, back=back) == [text("a < b")]
    assert said(chunk({"content": "a <"}), chunk(A), CALLED, back=back) == [text("a <"), use()]


@pytest.mark.parametrize(
    "odd",
    [
        b": OPENROUTER PROCESSING\n\n",
        b":\n\n",
        b"\n\n",
        b"data:\n\n",
        b'event: ping\ndata: {"type":"ping"}\n\n',
        frame({"choices": []}),
        frame({"choices": None, "usage": None, "error": None}),
        frame({"choices": [None, 1, []], "usage": []}),
        chunk({"role": "assistant", "content": None, "tool_calls": None}),
        chunk({"content": 1, "reasoning": {}, "tool_calls": {}, "function_call": []}),
        chunk({"tool_calls": [None, 1, {}], "reasoning_details": [None, 1]}),
        frame({"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}]}),
    ],
    ids=range(12),
)
def test_what_tells_nothing_is_passed_over(odd):
    frames = [odd, chunk({"content": "a"}), odd, chunk({"content": "b"}), odd, STOP, odd]
    assert said(*frames) == [text("ab")]


def test_done_needs_no_space():
    stream, _ = stream_of(chunk({"content": "x"}), STOP, b"data:[DONE]\r\n\r\n", end=False)
    assert stream.done


def test_a_json_answer_to_a_streaming_request_is_told_as_a_stream():
    answer = {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "x", "reasoning": "Hm.", **A},
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    stream = fresh()
    given = stream.opening + stream.whole(json.dumps(answer).encode())
    content, stop = blocks(given)
    assert content == [thinking("Hm."), text("x"), use()]
    assert stop["usage"]["output_tokens"] == 4
    assert stream.done


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', b"<html>"])
def test_a_body_that_is_no_completion_is_a_failure(body):
    stream = fresh()
    assert stream.whole(body) == b""
    assert stream.failure.cause is Cause.PROTOCOL
