from __future__ import annotations

import json

import pytest
from dialect_frames import data, event, payloads

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.dialects import RESPONSES, Sight

CODEX = "codex_cli_rs/0.169.0 (linux) codex_cli_rs"
SDK = "openai/python 3.52.0"
RESPONSE = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
CREATED = event("response.created", sequence_number=0, response=RESPONSE)
ADDED = event("response.output_item.added", sequence_number=4, item={"type": "message"})
USAGE = {
    "input_tokens": 90,
    "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 3},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 102,
}
DIED = Failure(cause=Cause.TRUNCATED, message="it died")


def text(number):
    return event("response.output_text.delta", sequence_number=number, delta="x")


def looked(*frames, forwarded=True):
    stream = RESPONSES.open_stream()
    stream.forwarded = forwarded
    for frame in frames:
        stream.look(frame)
    return stream


@pytest.fixture
def stream():
    return RESPONSES.open_stream()


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
def test_completed_and_incomplete_end_the_stream_and_tell_the_usage(stream, kind):
    assert not stream.finished
    assert stream.look(event(kind, sequence_number=9, response={"usage": USAGE})) is Sight.END
    assert stream.finished
    assert stream.usage == Usage(
        input_tokens=90,
        output_tokens=12,
        cached_tokens=64,
        cache_write_tokens=3,
        reasoning_tokens=5,
    )


@pytest.mark.parametrize("response", [{}, {"usage": None}, None, [], "x", {"usage": 5}])
def test_an_end_without_usage_leaves_it_unknown(stream, response):
    assert stream.look(event("response.completed", response=response)) is Sight.END
    assert stream.usage is None


def test_an_end_without_a_response_is_an_end(stream):
    assert stream.look(event("response.completed")) is Sight.END


def test_only_a_terminator_finishes_the_stream():
    done = event("response.output_item.done", sequence_number=8, item={"type": "message"})
    assert not looked(CREATED, ADDED, text(5), done).finished


def test_failed_is_a_final_error(stream):
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 2.5s."}
    frame = event("response.failed", response={"error": error, "usage": USAGE})
    assert stream.look(frame) is Sight.ERROR
    assert not stream.awaits_failed
    assert stream.failure == Failure(
        cause=Cause.RATE_LIMITED, message="Please try again in 2.5s.", retry_after=2.5
    )
    assert stream.usage.input_tokens == 90
    assert not stream.finished


def test_an_error_awaits_the_failed_that_follows_it(stream):
    error = {"type": "server_error", "code": "server_error", "message": "x"}
    assert stream.look(event("error", error=error)) is Sight.ERROR
    assert stream.awaits_failed
    failed = event("response.failed", response={"error": {"code": "server_is_overloaded"}})
    assert stream.look(failed) is Sight.ERROR
    assert not stream.awaits_failed
    assert stream.failure.cause is Cause.OVERLOADED


def test_a_failed_that_says_nothing_leaves_the_error_before_it(stream):
    stream.look(event("error", error={"code": "invalid_prompt", "message": "no"}))
    stream.look(event("response.failed", response={"error": None}))
    assert stream.failure == Failure(cause=Cause.INVALID_REQUEST, message="no")


@pytest.mark.parametrize(
    "frame",
    [
        event("error", code="context_length_exceeded", message="m", param=None),
        data({"error": {"code": "context_length_exceeded", "message": "m"}}),
        data({"code": "context_length_exceeded", "message": "m"}, event="error"),
    ],
    ids=["flat, as documented", "as on Chat", "type in the event line only"],
)
def test_errors_of_other_shapes(stream, frame):
    assert stream.look(frame) is Sight.ERROR
    assert stream.awaits_failed
    assert stream.failure == Failure(cause=Cause.CONTEXT_EXCEEDED, message="m")


def test_an_event_named_error_that_is_no_json_is_an_error(stream):
    assert stream.look(data("boom", event="error")) is Sight.ERROR
    assert stream.failure == Failure(cause=Cause.SERVER_ERROR, message="boom")


def test_the_byte_heartbeat_is_a_comment(stream):
    assert stream.byte_heartbeat() == b": hb\n\n"


def test_the_byte_heartbeat_has_no_blank_line_once_an_id_came():
    assert looked(b"id: 1\n" + CREATED).byte_heartbeat() == b": hb\n"
    stream = looked(CREATED)
    stream.skim(text(5) + b"id: 1\n" + text(6))
    stream.look(text(7))
    assert stream.byte_heartbeat() == b": hb\n"


@pytest.mark.parametrize("frames", [[], [CREATED, ADDED]], ids=["nothing came", "all is held back"])
def test_before_anything_was_forwarded_only_codex_gets_a_keepalive(frames):
    stream = looked(*frames, forwarded=False)
    keepalive = b'event: keepalive\ndata: {"type":"keepalive","sequence_number":0}\n\n'
    assert stream.event_heartbeat(CODEX) == keepalive
    assert stream.event_heartbeat("openai/js codex-tui") == keepalive
    assert stream.event_heartbeat(SDK) is None
    assert stream.event_heartbeat("my-codex/1") is None


def test_after_comments_alone_the_stream_has_not_begun_for_the_client():
    assert looked(b": hb\n\n").event_heartbeat(SDK) is None


def test_before_the_first_item_the_whole_snapshot_is_repeated():
    in_progress = event("response.in_progress", sequence_number=1, response=RESPONSE)
    for agent in (CODEX, SDK):
        [told] = payloads(looked(CREATED, in_progress).event_heartbeat(agent))
        assert told == (
            "response.in_progress",
            {"type": "response.in_progress", "sequence_number": 1, "response": RESPONSE},
        )


def test_after_the_first_item_a_keepalive_repeats_the_last_sequence_number():
    stream = looked(CREATED, ADDED)
    keepalive = b'event: keepalive\ndata: {"type":"keepalive","sequence_number":%d}\n\n'
    assert stream.event_heartbeat(SDK) == keepalive % 4
    stream.look(text(5))
    assert stream.event_heartbeat(SDK) == keepalive % 5
    stream.skim(text(6) + text(7))
    assert stream.event_heartbeat(SDK) == keepalive % 7
    stream.look(text(8))
    assert stream.event_heartbeat(SDK) == keepalive % 8


def test_the_last_sequence_number_is_found_before_frames_that_have_none():
    stream = looked(CREATED, text(5))
    stream.skim(text(6) + data("rubbish") + b": hb\n\n")
    assert payloads(stream.event_heartbeat(SDK))[0][1]["sequence_number"] == 6


@pytest.mark.parametrize("between", [1, 15, 16, 17, 100])
@pytest.mark.parametrize(
    "mention",
    [
        event("response.x.delta", delta="sequence_number"),
        event("response.x.delta", sequence_number=None, delta="x"),
        event("response.x.delta", sequence_number="9", nested={"sequence_number": 9}, delta="x"),
        b"sequence_number\n\n",
        b"sequence_number\r\n\r\n",
        event("response.x.delta", delta="sequence_number" + "x" * 5_000),
    ],
    ids=["text", "null", "no-number", "no-event", "with-cr", "large"],
)
def test_frames_that_only_mention_a_sequence_number_do_not_hide_the_last_one(mention, between):
    stream = looked(CREATED, text(5))
    stream.skim(text(6))
    stream.skim(text(7) + mention)
    for _ in range(between):
        assert stream.skim(mention) == 1
    assert payloads(stream.event_heartbeat(SDK))[0][1]["sequence_number"] == 7
    stream.skim(mention)
    assert payloads(stream.event_heartbeat(SDK))[0][1]["sequence_number"] == 7


def test_the_last_sequence_number_is_found_however_many_frames_were_skimmed():
    stream = looked(CREATED)
    for number in range(1, 200):
        stream.skim(text(number))
    assert payloads(stream.event_heartbeat(SDK))[0][1]["sequence_number"] == 199


def test_without_any_sequence_number_the_heartbeat_still_has_one():
    stream = looked(event("response.created", response=RESPONSE), event("response.x.done"))
    assert payloads(stream.event_heartbeat(SDK))[0][1]["sequence_number"] == 0


def test_a_large_snapshot_is_reduced_to_what_is_small():
    large = {
        **RESPONSE,
        "created_at": 17,
        "model": "m",
        "temperature": 0.5,
        "store": False,
        "instructions": "i" * 70_000,
        "tools": [{"type": "function"}],
    }
    stream = looked(event("response.created", sequence_number=0, response=large))
    frame = stream.event_heartbeat(SDK)
    assert len(frame) < 1_000
    told = payloads(frame)[0][1]["response"]
    kept = {**RESPONSE, "created_at": 17, "model": "m", "temperature": 0.5, "store": False}
    assert kept.items() <= told.items()
    assert told["tools"] == []
    assert told["instructions"] is None


def test_once_there_was_output_the_answer_stays_the_one_it_began_as():
    """However the stream is cut: what comes after output may be skimmed, and is not looked at then."""
    second = event("response.created", sequence_number=6, response={**RESPONSE, "id": "resp_2"})
    skimmed, seen = looked(CREATED, ADDED, text(5)), looked(CREATED, ADDED, text(5))
    assert skimmed.skim(text(6) + second) == 2
    seen.look(text(6))
    seen.look(second)
    assert seen.answer_id == skimmed.answer_id == RESPONSE["id"]
    assert seen.error_frames(DIED) == skimmed.error_frames(DIED)


@pytest.mark.parametrize("kind", [["message"], {"message": 1}, 1, None])
def test_an_item_whose_type_is_no_word_is_output(kind):
    added = event("response.output_item.added", sequence_number=4, item={"type": kind})
    assert looked(CREATED).look(added) is Sight.OUTPUT


def test_a_snapshot_over_several_data_lines_is_written_on_one():
    frame = b'event: response.created\ndata: {"type":"response.created",\n'
    frame += b'data: "sequence_number":0,"response":{"id":"resp_1",\ndata: "output":[]}}\n\n'
    [(_, told)] = payloads(looked(frame).event_heartbeat(SDK))
    assert told["response"] == {"id": "resp_1", "output": []}


def test_the_error_frames_to_the_byte():
    frames = looked(CREATED, ADDED, text(5)).error_frames(DIED)
    assert frames == (
        b"event: error\n"
        b'data: {"type":"error","sequence_number":6,"error":{"type":"server_error",'
        b'"code":"server_error","message":"upstream_truncated: it died","param":null}}\n\n'
        b"event: response.failed\n"
        b'data: {"type":"response.failed","sequence_number":7,"response":{"id":"resp_1",'
        b'"object":"response","status":"failed","output":[],"error":{"code":"server_error",'
        b'"message":"upstream_truncated: it died"}}}\n\n'
    )


def test_the_error_frames_count_on_from_the_last_skimmed_frame():
    stream = looked(CREATED, text(5))
    stream.skim(text(6) + text(7))
    numbers = [told["sequence_number"] for _, told in payloads(stream.error_frames(DIED))]
    assert numbers == [8, 9]


@pytest.mark.parametrize("frames", [[], [CREATED, ADDED]], ids=["nothing came", "all is held back"])
def test_a_client_that_has_seen_nothing_is_told_of_a_response_of_ours(frames):
    (_, error), (_, failed) = payloads(looked(*frames, forwarded=False).error_frames(DIED))
    assert (error["sequence_number"], failed["sequence_number"]) == (0, 1)
    assert failed["response"]["id"] == "resp_proxy"
    assert failed["response"]["status"] == "failed"


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.INVALID_REQUEST, "invalid_prompt"),
        (Cause.AUTHENTICATION, "invalid_prompt"),
        (Cause.NO_CREDIT, "insufficient_quota"),
        (Cause.FORBIDDEN, "invalid_prompt"),
        (Cause.NOT_FOUND, "invalid_prompt"),
        (Cause.TOO_LARGE, "invalid_prompt"),
        (Cause.CONTEXT_EXCEEDED, "context_length_exceeded"),
        (Cause.RATE_LIMITED, "rate_limit_exceeded"),
        (Cause.OVERLOADED, "server_error"),
        (Cause.UNREACHABLE, "server_error"),
        (Cause.TIMEOUT, "server_error"),
        (Cause.SERVER_ERROR, "server_error"),
        (Cause.PROTOCOL, "server_error"),
        (Cause.TRUNCATED, "server_error"),
        (Cause.CANCELLED, "server_error"),
        (Cause.SHUTDOWN, "server_error"),
        (Cause.INTERNAL, "server_error"),
    ],
)
def test_the_code_codex_acts_on(stream, cause, code):
    (_, error), (_, failed) = payloads(stream.error_frames(Failure(cause=cause, message="m")))
    assert failed["response"]["error"]["code"] == code
    assert error["error"]["code"] == code


@pytest.mark.parametrize(
    ("message", "delay", "told"),
    [
        ("slow down", 20.0, "slow down. Please try again in 20s"),
        ("slow down.", 1.5, "slow down. Please try again in 1.5s"),
        ("Please try again in 3s.", 3.0, "Please try again in 3s."),
        ("slow down", None, "slow down"),
        ("slow down", float("inf"), "slow down"),
    ],
)
def test_the_delay_of_a_rate_limit_is_in_the_message(stream, message, delay, told):
    failure = Failure(cause=Cause.RATE_LIMITED, message=message, retry_after=delay)
    for _, frame in payloads(stream.error_frames(failure)):
        assert (frame.get("error") or frame["response"]["error"])["message"] == told


def test_the_error_body_is_that_of_chat():
    body = json.loads(RESPONSES.error_body(Failure(cause=Cause.TIMEOUT, message="m")))
    assert body["error"]["code"] == "upstream_timeout"
    assert body["error"]["message"] == "m"


def test_the_usage_of_a_whole_answer():
    body = json.dumps({"id": "resp_1", "output": [], "usage": USAGE}).encode()
    assert RESPONSES.answer_usage(body).cached_tokens == 64
    assert RESPONSES.answer_usage(b'{"usage":null}') is None
    assert RESPONSES.answer_usage(b"<html>") is None
