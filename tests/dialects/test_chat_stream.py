from __future__ import annotations

import pytest
from dialect_frames import choice, chunk, data, payloads

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.dialects import CHAT, Sight

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 90, "completion_tokens": 12, "total_tokens": 102}
DIED = Failure(cause=Cause.TRUNCATED, message="it died")


@pytest.fixture
def stream():
    return CHAT.open_stream()


def looked(*frames):
    stream = CHAT.open_stream()
    for frame in frames:
        stream.look(frame)
    return stream


@pytest.mark.parametrize("frame", [DONE, b"data:[DONE]\n\n", b"data: [DONE] \r\n\r\n"])
def test_done_ends_the_stream_however_it_is_spaced(stream, frame):
    assert stream.look(frame) is Sight.END
    assert stream.finished


def test_a_fresh_stream_is_not_finished(stream):
    assert not stream.finished
    assert stream.usage is None
    assert stream.failure is None
    assert not stream.awaits_failed


def test_a_stream_is_finished_once_its_choice_has_a_finish_reason():
    assert not looked(chunk(choice({"content": "x"}))).finished
    assert looked(chunk(choice({"content": "x"})), chunk(choice(finish="stop"))).finished


def test_a_stream_of_two_choices_is_finished_only_once_both_are():
    both = chunk(choice({"content": "x"})), chunk(choice({"content": "y"}, index=1))
    assert not looked(*both, chunk(choice(finish="stop"))).finished
    assert looked(*both, chunk(choice(finish="stop"), choice(finish="length", index=1))).finished


def test_a_second_choice_that_came_among_skimmed_frames_is_not_forgotten():
    stream = looked(chunk(choice({"content": "x"})))
    assert not stream.skim(
        chunk(choice({"content": "a"})) + chunk(choice({"content": "b"}, index=1))
    )
    stream.look(chunk(choice({"content": "b"}, index=1)))
    stream.look(chunk(choice(finish="stop")))
    assert not stream.finished


def test_the_first_choice_counts_even_if_it_came_among_skimmed_frames_only():
    stream = looked(chunk(choice({"content": "x"}, index=1)))
    assert stream.skim(chunk(choice({"content": "a"}))) == 1
    stream.look(chunk(choice(finish="stop", index=1)))
    assert not stream.finished


def test_an_error_wins_over_the_choices_beside_it(stream):
    assert stream.look(chunk(choice(finish="error"), error={"message": "x"})) is Sight.ERROR
    assert stream.failure == Failure(cause=Cause.SERVER_ERROR, message="x")


def test_an_error_is_remembered_past_the_done_that_follows_it(stream):
    assert stream.look(data({"error": {"message": "CUDA", "code": 500}})) is Sight.ERROR
    stream.look(DONE)
    assert stream.failure == Failure(cause=Cause.SERVER_ERROR, message="CUDA", status=500)


def test_an_error_inside_a_finished_choice_is_an_error(stream):
    frame = chunk(choice(finish="error", error={"code": 429, "message": "slow down"}))
    assert stream.look(frame) is Sight.ERROR
    assert stream.failure.cause is Cause.RATE_LIMITED


@pytest.mark.parametrize("nothing", [None, {}, "", False])
def test_an_empty_error_is_none(stream, nothing):
    assert stream.look(chunk(choice({"content": "x"}), error=nothing)) is Sight.OUTPUT


def test_an_error_object_without_a_wrapper_is_an_error(stream):
    frame = data({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400})
    assert stream.look(frame) is Sight.ERROR
    assert stream.failure == Failure(cause=Cause.INVALID_REQUEST, message="bad", status=400)


def test_an_event_named_error_without_the_key_is_not_one_since_clients_do_not_raise_on_it(stream):
    assert stream.look(data({"message": "x"}, event="error")) is Sight.OUTPUT


def test_json_that_only_python_writes_is_understood(stream):
    frame = b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"},"logprobs":[NaN],'
    frame += b'"finish_reason":"stop"}]}\n\n'
    assert stream.look(frame) is Sight.OUTPUT
    assert stream.finished


def test_data_over_several_lines_is_one_event(stream):
    frame = b'data: {"choices":[{"index":0,\ndata: "delta":{},"finish_reason":\r\ndata:"stop"}]}\r\n\r\n'
    assert stream.look(frame) is Sight.OUTPUT
    assert stream.finished


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([chunk(usage=USAGE)], id="in a chunk without choices"),
        pytest.param([chunk(choice(finish="stop"), usage=USAGE)], id="on the finish chunk"),
        pytest.param([chunk(choice(finish="stop", usage=USAGE))], id="in the choice (Moonshot)"),
        pytest.param(
            [chunk(choice({"content": "x"}), usage={"prompt_tokens": 90}), chunk(usage=USAGE)],
            id="on every chunk: the last one",
        ),
        pytest.param([chunk(usage=USAGE), chunk(usage=None)], id="null afterwards"),
    ],
)
def test_usage_wherever_it_stands(frames):
    assert looked(*frames).usage == Usage(input_tokens=90, output_tokens=12)


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 64}}, Usage(cached_tokens=64)),
        ({"prompt_cache_hit_tokens": 64}, Usage(cached_tokens=64)),
        ({"cached_tokens": 64}, Usage(cached_tokens=64)),
        (
            {"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 5},
            Usage(cached_tokens=0),
        ),
        ({"prompt_tokens_details": {"cache_write_tokens": 7}}, Usage(cache_write_tokens=7)),
        ({"completion_tokens_details": {"reasoning_tokens": 5}}, Usage(reasoning_tokens=5)),
        ({"prompt_tokens": 3.0}, Usage(input_tokens=3)),
        ({"prompt_tokens": 0}, Usage(input_tokens=0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": "9", "prompt_tokens_details": None}, None),
        ({}, None),
        ("many", None),
    ],
)
def test_the_parts_of_usage(told, usage):
    assert looked(chunk(usage=told)).usage == usage


def test_the_usage_of_a_whole_answer():
    body = b'\n\n {"choices":[{"message":{}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    assert CHAT.answer_usage(body) == Usage(input_tokens=1, output_tokens=2)
    moonshot = b'{"choices":[{"message":{},"usage":{"prompt_tokens":1}}]}'
    assert CHAT.answer_usage(moonshot) == Usage(input_tokens=1)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"usage":null}', b'{"usage":{"pro']
)
def test_no_usage_is_unknown_usage(body):
    assert CHAT.answer_usage(body) is None


def test_the_error_chunk_to_the_byte():
    stream = looked(data({"id": "", "model": "", "choices": []}), chunk(choice({"content": "x"})))
    assert stream.error_frames(DIED) == (
        b'data: {"id":"c1","object":"chat.completion.chunk","created":0,"model":"m",'
        b'"error":{"message":"it died","type":"server_error","param":null,'
        b'"code":"upstream_truncated"}}\n\n'
    )


def test_the_error_chunk_has_no_choices_however_empty(stream):
    """The Vercel AI SDK 7 then reads it as a chunk, drops the error, and takes a call cut amid its
    arguments for one that has ended."""
    [(_, told)] = payloads(stream.error_frames(DIED))
    assert "choices" not in told
    assert set(told["error"]) == {"message", "type", "param", "code"}


def test_id_and_model_are_the_first_that_are_not_empty():
    named = data({"id": "c1", "model": "m", "choices": []})
    others = data({"id": "", "model": "", "choices": []}), data({"id": "c2", "choices": []})
    [(_, told)] = payloads(looked(others[0], named, *others).error_frames(DIED))
    assert (told["id"], told["model"]) == ("c1", "m")


def test_the_error_chunk_of_a_stream_that_never_began(stream):
    [(name, told)] = payloads(stream.error_frames(DIED))
    assert name is None
    assert told["id"] == "chatcmpl-proxy"
    assert told["model"] == ""


def test_the_error_body():
    assert CHAT.error_body(Failure(cause=Cause.AUTHENTICATION, message="who?")) == (
        b'{"error":{"message":"who?","type":"authentication_error","param":null,'
        b'"code":"invalid_api_key"}}'
    )


def test_the_heartbeat_is_a_comment_block(stream):
    assert stream.byte_heartbeat() == b": hb\n\n"


def test_the_heartbeat_has_no_blank_line_once_an_id_was_looked_at(stream):
    stream.look(b"id: 1\n" + chunk(choice({"content": "x"})))
    stream.skim(chunk(choice({"content": "y"})))
    assert stream.byte_heartbeat() == b": hb\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_heartbeat_has_no_blank_line_once_an_id_was_skimmed(stream, end):
    stream.skim(b"data: {}\n\ndata: {}" + end + b"id: 1" + end + end)
    assert stream.byte_heartbeat() == b": hb\n"


def test_an_id_inside_the_json_is_no_id_line(stream):
    stream.look(chunk(choice({"content": "\nid: 1"})))
    assert stream.byte_heartbeat() == b": hb\n\n"


def test_no_event_is_safe_as_a_heartbeat(stream):
    stream.forwarded = True
    assert stream.event_heartbeat("codex_cli_rs claude-cli/2") is None
