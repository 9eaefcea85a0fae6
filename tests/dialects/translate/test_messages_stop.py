"""Finish reasons and token counts of Chat on Messages, one test for each row of the table."""

from __future__ import annotations

import json

import pytest
from messages_talk import DONE, KEY, blocks, call, chunk, counts, frame, stream_of, way_back

from trio_sse_proxy.core.failure import Cause, Refused
from trio_sse_proxy.dialects.translate.messages_answer import translate_answer

TEXT = {"content": "x"}
CALL = call(0, "a", "Bash", "{}")


def stop_of(reason, delta=TEXT, back=None, **more):
    """How the stream stops; a whole answer is checked to stop alike."""
    back = back or way_back()
    _, given = stream_of(chunk(delta), chunk(finish=reason, **more), DONE, back=back)
    stop = blocks(given)[1]["delta"]
    choice = {"index": 0, "message": delta, "finish_reason": reason, **more}
    whole = json.loads(translate_answer(json.dumps({"choices": [choice]}).encode(), back, KEY))
    assert {key: whole[key] for key in ("stop_reason", "stop_sequence")} == stop
    return stop["stop_reason"], stop["stop_sequence"]


def test_stop_is_end_turn():
    assert stop_of("stop") == ("end_turn", None)


def test_stop_after_a_call_is_tool_use():
    """Gemini says so."""
    assert stop_of("stop", CALL) == ("tool_use", None)


@pytest.mark.parametrize(
    ("delta", "reason"), [(TEXT, "end_turn"), (CALL, "tool_use")], ids=["text", "call"]
)
def test_done_without_a_reason_is_stop(delta, reason):
    _, given = stream_of(chunk(delta), DONE)
    assert blocks(given)[1]["delta"]["stop_reason"] == reason


@pytest.mark.parametrize("field", ["stop_reason", "matched_stop"])
def test_stop_names_the_string_that_matched(field):
    """vLLM and SGLang."""
    back = way_back(stop_sequences=frozenset({"END"}))
    assert stop_of("stop", back=back, **{field: "END"}) == ("stop_sequence", "END")
    assert stop_of("stop", back=back, **{field: 151645}) == ("end_turn", None)
    assert stop_of("stop", back=back, **{field: "<|im_end|>"}) == ("end_turn", None)
    assert stop_of("stop", CALL, back=back, **{field: "END"}) == ("tool_use", None)


@pytest.mark.parametrize("reason", ["tool_calls", "function_call"])
def test_tool_calls_is_tool_use(reason):
    assert stop_of(reason, CALL) == ("tool_use", None)


def test_tool_calls_without_any_is_end_turn():
    """Of a tool_use without calls a client has nothing to answer."""
    assert stop_of("tool_calls") == ("end_turn", None)


@pytest.mark.parametrize("reason", ["length", "model_length"])
def test_length_is_max_tokens(reason):
    assert stop_of(reason) == ("max_tokens", None)
    assert stop_of(reason, CALL) == ("max_tokens", None)


@pytest.mark.parametrize("reason", ["content_filter", "sensitive"])
def test_content_filter_is_refusal(reason):
    assert stop_of(reason) == ("refusal", None)


def test_model_context_window_exceeded_stays_what_it_is():
    reason = "model_context_window_exceeded"
    assert stop_of(reason) == (reason, None)


def test_an_unknown_reason_is_stop():
    assert stop_of("eos") == ("end_turn", None)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("abort", Cause.SERVER_ERROR),
        ("error", Cause.SERVER_ERROR),
        ("insufficient_system_resource", Cause.OVERLOADED),
        ("network_error", Cause.SERVER_ERROR),
    ],
)
def test_reasons_that_are_failures(reason, cause):
    stream, given = stream_of(chunk(TEXT), chunk(finish=reason), DONE)
    assert stream.failure.cause is cause
    assert blocks(given)[1] is None
    answer = {"choices": [{"index": 0, "message": TEXT, "finish_reason": reason}]}
    with pytest.raises(Refused) as caught:
        translate_answer(json.dumps(answer).encode(), way_back(), KEY)
    assert caught.value.failure.cause is cause


def test_a_failure_before_output_gives_nothing():
    stream, given = stream_of(chunk(finish="abort"), end=False)
    assert stream.failure
    assert [b"error" in given, given.count(b"event:")] == [True, 3]


def test_openrouters_reason_error_brings_the_error():
    error = {"code": 429, "message": "slow down"}
    stream, _ = stream_of(chunk(finish="error", error=error))
    assert stream.failure.cause is Cause.RATE_LIMITED


# --- usage ---------------------------------------------------------------------------------------


def usage_of(*frames):
    _, given = stream_of(chunk(TEXT), *frames, DONE)
    return blocks(given)[1]["usage"]


def test_usage_counts_the_cached_part_apart():
    told = counts(
        prompt_tokens=100, completion_tokens=7, prompt_tokens_details={"cached_tokens": 64}
    )
    assert usage_of(chunk(finish="stop"), told) == {
        "input_tokens": 36,
        "cache_read_input_tokens": 64,
        "cache_creation_input_tokens": 0,
        "output_tokens": 7,
    }


@pytest.mark.parametrize("name", ["prompt_cache_hit_tokens", "cached_tokens"])
def test_usage_has_the_cached_part_under_other_names(name):
    """DeepSeek, Moonshot."""
    told = usage_of(chunk(finish="stop"), counts(prompt_tokens=9, completion_tokens=1, **{name: 4}))
    assert (told["input_tokens"], told["cache_read_input_tokens"]) == (5, 4)


def test_usage_counts_what_was_written_to_a_cache_apart():
    details = {"cached_tokens": 4, "cache_write_tokens": 3}
    told = usage_of(
        chunk(finish="stop"),
        counts(prompt_tokens=9, completion_tokens=1, prompt_tokens_details=details),
    )
    assert told["cache_creation_input_tokens"] == 3
    assert told["input_tokens"] == 2


def test_usage_has_the_reasoning_when_known():
    details = {"reasoning_tokens": 5}
    told = usage_of(
        chunk(finish="stop"),
        counts(prompt_tokens=9, completion_tokens=8, completion_tokens_details=details),
    )
    assert told["output_tokens_details"] == {"thinking_tokens": 5}


def test_usage_that_tells_nothing_takes_nothing_back():
    odd = frame({"choices": [], "usage": {"cost": 1}})
    told = usage_of(counts(prompt_tokens=9, completion_tokens=8), odd, chunk(finish="stop"))
    assert told["output_tokens"] == 8


def test_usage_is_zero_where_nobody_told_it():
    assert set(usage_of(chunk(finish="stop")).values()) == {0}


@pytest.mark.parametrize(
    "frames",
    [
        [chunk(finish="stop"), counts(prompt_tokens=3, completion_tokens=2)],
        [chunk(finish="stop", usage={"prompt_tokens": 3, "completion_tokens": 2})],
        [
            frame(
                {
                    "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
                }
            )
        ],
        [
            frame({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}),
            frame({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            chunk(finish="stop"),
            frame({"choices": [], "usage": None}),
        ],
    ],
    ids=["alone", "in the choice", "with the finish", "on every chunk"],
)
def test_usage_may_stand_anywhere_and_the_last_counts(frames):
    told = usage_of(*frames)
    assert (told["input_tokens"], told["output_tokens"]) == (3, 2)
