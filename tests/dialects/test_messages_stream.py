from __future__ import annotations

import pytest
from dialect_frames import data, event, payloads

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.dialects import MESSAGES, Sight

CLAUDE = "claude-cli/2.1.197 (external, cli)"
SDK = "anthropic/python 2.11.0"
START = event(
    "message_start",
    message={
        "id": "msg_1",
        "content": [],
        "usage": {
            "input_tokens": 20,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 7,
            "output_tokens": 1,
        },
    },
)
TEXT = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"})
STOPPING = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 20})
HEARTBEAT = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":null,'
    b'"stop_sequence":null},"usage":{"output_tokens":0}}\n\n'
)


def looked(*frames, forwarded=True):
    stream = MESSAGES.open_stream()
    stream.forwarded = forwarded
    for frame in frames:
        stream.look(frame)
    return stream


@pytest.fixture
def stream():
    return MESSAGES.open_stream()


def test_only_message_stop_ends_the_stream():
    stream = looked(START, TEXT, event("content_block_stop", index=0), STOPPING)
    assert not stream.finished
    assert stream.look(event("message_stop")) is Sight.END
    assert stream.finished


def test_the_type_in_the_event_line_is_enough(stream):
    assert stream.look(data({}, event="message_stop")) is Sight.END


def test_an_error_is_final(stream):
    frame = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    assert stream.look(frame) is Sight.ERROR
    assert not stream.awaits_failed
    assert stream.failure == Failure(cause=Cause.OVERLOADED, message="Overloaded")


@pytest.mark.parametrize(
    "frame",
    [
        data({"error": {"message": "m", "type": "api_error"}}),
        data({"message": "m"}, event="error"),
        data("m", event="error"),
    ],
    ids=["as on Chat", "flat", "no JSON"],
)
def test_errors_of_other_shapes(stream, frame):
    assert stream.look(frame) is Sight.ERROR
    assert stream.failure == Failure(cause=Cause.SERVER_ERROR, message="m")


def test_usage_counts_the_cached_parts_of_the_prompt():
    assert looked(START).usage == Usage(
        input_tokens=127, output_tokens=1, cached_tokens=100, cache_write_tokens=7
    )


def test_what_message_delta_does_not_say_keeps_its_value():
    assert looked(START, STOPPING).usage == Usage(
        input_tokens=127, output_tokens=20, cached_tokens=100, cache_write_tokens=7
    )


def test_what_message_delta_says_overrides_message_start():
    told = {
        "input_tokens": 30,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": None,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 11},
    }
    stream = looked(START, event("message_delta", delta={"stop_reason": "end_turn"}, usage=told))
    assert stream.usage == Usage(
        input_tokens=37,
        output_tokens=20,
        cached_tokens=0,
        cache_write_tokens=7,
        reasoning_tokens=11,
    )


def test_usage_is_unknown_until_told(stream):
    assert stream.usage is None
    stream.look(event("message_start", message={}))
    stream.look(event("message_start", message=None))
    assert stream.usage is None


def test_cached_tokens_alone_do_not_make_a_prompt(stream):
    stream.look(event("message_delta", usage={"cache_read_input_tokens": 5}))
    assert stream.usage == Usage(cached_tokens=5)


def test_the_usage_of_a_whole_answer():
    body = (
        b'{"content":[],"usage":{"input_tokens":2,"cache_read_input_tokens":3,"output_tokens":4}}'
    )
    assert MESSAGES.answer_usage(body) == Usage(input_tokens=5, output_tokens=4, cached_tokens=3)
    assert MESSAGES.answer_usage(b"{}") is None
    assert MESSAGES.answer_usage(b"no") is None


def test_the_byte_heartbeat_is_a_ping(stream):
    assert stream.byte_heartbeat() == b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.parametrize("frames", [[], [START]], ids=["nothing came", "all is held back"])
def test_before_message_start_was_forwarded_only_claude_code_gets_an_event(frames):
    stream = looked(*frames, forwarded=False)
    assert stream.event_heartbeat(CLAUDE) == HEARTBEAT
    assert stream.event_heartbeat(SDK) is None
    assert stream.event_heartbeat("not-claude-cli/1") is None


def test_after_message_start_every_agent_gets_an_event():
    assert looked(START).event_heartbeat(SDK) == HEARTBEAT
    assert looked(START, TEXT).event_heartbeat(CLAUDE) == HEARTBEAT


def test_after_the_stop_reason_no_event_takes_it_back():
    assert looked(START, TEXT, STOPPING).event_heartbeat(CLAUDE) is None


def test_the_error_frame_to_the_byte(stream):
    assert stream.error_frames(Failure(cause=Cause.TIMEOUT, message="silent for 300 s")) == (
        b'event: error\ndata: {"type":"error","error":{"type":"timeout_error",'
        b'"message":"upstream_timeout: silent for 300 s"}}\n\n'
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("prompt is too long: 5 > 4", "prompt is too long: 5 > 4"),
        ("Prompt is too long", "prompt is too long"),
        (
            "maximum context length is 4",
            "prompt is too long: maximum context length is 4",
        ),
    ],
)
def test_an_exceeded_context_is_told_in_the_words_that_trigger_compaction(stream, message, told):
    failure = Failure(cause=Cause.CONTEXT_EXCEEDED, message=message, status=400)
    [(_, frame)] = payloads(stream.error_frames(failure))
    assert frame["error"] == {"type": "invalid_request_error", "message": told}


def test_the_error_body():
    failure = Failure(cause=Cause.OVERLOADED, message="m")
    assert MESSAGES.error_body(failure) == (
        b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}'
    )
