"""What an upstream may say without end is not kept without end, and numbers nobody has are none."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES, failure_of_error
from trio_sse_proxy.dialects.chat import MAX_CHOICES
from trio_sse_proxy.dialects.wire import MOST, count


def chat(number):
    choice = {"index": number, "delta": {"content": "x"}, "finish_reason": None}
    return b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode()


def messages(number):
    told = {"type": "message_delta", "usage": {f"tokens_{number}": number, "output_tokens": number}}
    return b"event: message_delta\ndata: %b\n\n" % json.dumps(told).encode()


def responses(number):
    told = {"type": f"response.item_{number}", "sequence_number": number}
    return b"data: %b\n\n" % json.dumps(told).encode()


def numberless(number):
    return b'data: {"type":"response.item_%d","sequence_number":null}\n\n' % number


@pytest.mark.parametrize(
    ("dialect", "frame"),
    [(CHAT, chat), (RESPONSES, responses), (RESPONSES, numberless), (MESSAGES, messages)],
    ids=["chat", "responses", "responses-without-numbers", "messages"],
)
def test_a_stream_that_always_says_something_new_is_not_remembered_for_ever(dialect, frame):
    stream = dialect.open_stream()
    for number in range(300):
        stream.look(frame(number))
    tracemalloc.start()
    try:
        for number in range(300, 2_000):
            if not stream.skim(frame(number)):
                stream.look(frame(number))
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()


def test_choices_beyond_those_there_can_be_never_finish_but_by_the_terminator():
    stream = CHAT.open_stream()
    for index, finished in ((0, True), (MAX_CHOICES - 1, True), (MAX_CHOICES, False)):
        told = {"index": index, "delta": {}, "finish_reason": "stop"}
        stream.look(b"data: %b\n\n" % json.dumps({"choices": [told]}).encode())
        assert stream.finished is finished
    stream.look(b"data: [DONE]\n\n")
    assert stream.finished


@pytest.mark.parametrize("told", [10**400, MOST + 1, 1e308, -1, True, False, "1", None, 1.5])
def test_a_number_that_nothing_can_have_is_unknown(told):
    """Metrics add counts up as floats, and one of 400 digits is none."""
    assert count(told) is None


@pytest.mark.parametrize(("told", "counted"), [(0, 0), (MOST, MOST), (5.0, 5)])
def test_other_whole_numbers_are_counts(told, counted):
    assert count(told) == counted


def test_counts_too_large_for_a_metric_are_not_reported():
    body = b'{"usage":{"prompt_tokens":1%b,"completion_tokens":2}}' % (b"0" * 400)
    assert CHAT.answer_usage(body) == Usage(output_tokens=2)


def test_a_delay_in_letters_that_only_look_like_units_is_none():
    """Python takes a long s for an s where case is ignored."""
    failure = failure_of_error({"message": "Please try again in 5\u017f"})
    assert failure.retry_after is None
