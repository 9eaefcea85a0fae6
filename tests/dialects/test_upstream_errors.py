"""What everybody's error bodies and error objects mean."""

from __future__ import annotations

import json

import pytest

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.dialects import failure_of_error, failure_of_status


def body(**error):
    return json.dumps({"error": {"message": "m", **error}}).encode()


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (400, Cause.INVALID_REQUEST),
        (401, Cause.AUTHENTICATION),
        (402, Cause.NO_CREDIT),
        (403, Cause.FORBIDDEN),
        (404, Cause.NOT_FOUND),
        (405, Cause.INVALID_REQUEST),
        (408, Cause.SERVER_ERROR),
        (409, Cause.INVALID_REQUEST),
        (413, Cause.TOO_LARGE),
        (422, Cause.INVALID_REQUEST),
        (429, Cause.RATE_LIMITED),
        (500, Cause.SERVER_ERROR),
        (501, Cause.INVALID_REQUEST),
        (502, Cause.SERVER_ERROR),
        (503, Cause.OVERLOADED),
        (504, Cause.SERVER_ERROR),
        (529, Cause.OVERLOADED),
        (599, Cause.SERVER_ERROR),
    ],
)
def test_a_status_alone(status, cause):
    failure = failure_of_status(status, b"", None)
    assert failure.cause is cause
    assert failure.status == status
    assert failure.message.startswith(f"the upstream answered {status}")


@pytest.mark.parametrize(
    ("status", "error", "cause"),
    [
        (429, {"code": "insufficient_quota"}, Cause.NO_CREDIT),
        (429, {"type": "insufficient_quota", "code": None}, Cause.NO_CREDIT),
        (429, {"type": "tokens", "code": "rate_limit_exceeded"}, Cause.RATE_LIMITED),
        (429, {"type": "engine_overloaded_error"}, Cause.OVERLOADED),
        (429, {"message": "Quota exceeded for requests per minute"}, Cause.RATE_LIMITED),
        (429, {"message": "You exceeded your current quota, check your plan"}, Cause.NO_CREDIT),
        (
            429,
            {"message": "You exceeded your current quota. Please retry in 38.5s.", "code": 429},
            Cause.RATE_LIMITED,
        ),
        (400, {"message": "Your credit balance is too low to access the API"}, Cause.NO_CREDIT),
        (400, {"code": "invalid_api_key"}, Cause.AUTHENTICATION),
        (400, {"code": "model_not_found"}, Cause.NOT_FOUND),
        (400, {"code": "rate_limit_exceeded"}, Cause.INVALID_REQUEST),
        (400, {"type": "server_error"}, Cause.INVALID_REQUEST),
        (403, {"type": "billing_error"}, Cause.NO_CREDIT),
        (404, {"type": "invalid_request_error"}, Cause.NOT_FOUND),
        (500, {"type": "overloaded_error"}, Cause.OVERLOADED),
        (500, {"type": "invalid_request_error"}, Cause.SERVER_ERROR),
        (503, {"code": "rate_limit_exceeded"}, Cause.RATE_LIMITED),
        (400, {"code": "context_length_exceeded"}, Cause.CONTEXT_EXCEEDED),
        (400, {"type": "exceed_context_size_error", "code": 400}, Cause.CONTEXT_EXCEEDED),
        (500, {"message": "prompt is too long"}, Cause.SERVER_ERROR),
        (401, {"message": "prompt is too long"}, Cause.AUTHENTICATION),
    ],
)
def test_words_refine_a_status(status, error, cause):
    failure = failure_of_status(status, body(**error), None)
    assert failure.cause is cause
    assert failure.status == status


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens.",
        "Your input exceeds the context window of this model.",
        "The context window has been exceeded",
        "the context length of your prompt is too long",
        "Context Length (9000) too large",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "Prompt is too long",
        "Input length 9000 exceeds the limit of 8192",
        "输入长度超过限制",
        "上下文过长",
    ],
)
def test_an_exceeded_context_is_recognised_by_its_message(status, message):
    assert failure_of_status(status, body(message=message), None).cause is Cause.CONTEXT_EXCEEDED
    assert failure_of_error({"message": message}).cause is Cause.CONTEXT_EXCEEDED


@pytest.mark.parametrize(
    "message",
    ["context is fine", "the name is too long", "max_tokens exceeds the limit", "输入有误"],
)
def test_other_messages_are_not_about_the_context(message):
    assert failure_of_status(400, body(message=message), None).cause is Cause.INVALID_REQUEST


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"error":{"message":"told"}}', "told"),
        (b'{"type":"error","error":{"type":"api_error","message":"told"}}', "told"),
        (b'{"error":"told"}', "told"),
        (b'{"message":"told","code":500}', "told"),
        (b'{"detail":"told"}', "told"),
        (b'{"detail":[{"msg":"told"},{"msg":"twice"}]}', "told; twice"),
        (b'[{"error":{"message":"told","status":"INTERNAL"}}]', "told"),
        (b"told\n", "told"),
        (b"<html>no</html>", "the upstream answered 500 Internal Server Error"),
        (b'{"error":', "the upstream answered 500 Internal Server Error"),
        (b"x" * 5_000, "the upstream answered 500 Internal Server Error"),
        (b"\xff\x00", "\ufffd\x00"),
        (b'{"error":{"message":"\\ud83d"}}', "?"),
    ],
)
def test_the_message_is_the_upstreams_own_where_it_has_one(raw, message):
    assert failure_of_status(500, raw, None).message == message


def test_a_message_has_an_end():
    message = failure_of_status(500, body(message="long " * 100_000), None).message
    assert len(message) == 4_000


def test_the_header_says_when_to_come_back_and_the_message_if_there_is_none():
    told = body(message="Limit reached. Please try again in 1m2.5s.")
    assert failure_of_status(429, told, 7.0).retry_after == 7.0
    assert failure_of_status(429, told, 0.0).retry_after == 0.0
    assert failure_of_status(429, told, None).retry_after == 62.5


@pytest.mark.parametrize(
    ("message", "delay"),
    [
        ("Please try again in 20ms", 0.02),
        ("Please retry after 3 seconds", 3.0),
        ("try again in 5 minutes.", 300.0),
        ("Please try again in 1h0m5s", 3605.0),
        ("try again later", None),
        ("try again in a while", None),
    ],
)
def test_delays_in_messages(message, delay):
    found = failure_of_error({"code": "rate_limit_exceeded", "message": message}).retry_after
    assert found == (None if delay is None else pytest.approx(delay))


def test_an_answer_that_is_no_error_and_no_stream_is_one_nobody_asked_for():
    failure = failure_of_status(302, b"", None)
    assert failure.cause is Cause.PROTOCOL
    assert "302 Found" in failure.message
    assert failure_of_status(200, b'{"choices":[]}', None).cause is Cause.PROTOCOL


def test_an_error_with_status_200_is_what_its_body_says():
    failure = failure_of_status(200, body(code=429), None)
    assert failure == Failure(cause=Cause.RATE_LIMITED, message="m", status=429)


@pytest.mark.parametrize(
    ("error", "cause", "status"),
    [
        # OpenAI, Responses
        ({"message": "m", "type": "server_error", "code": None}, Cause.SERVER_ERROR, None),
        ({"code": "rate_limit_exceeded", "message": "m"}, Cause.RATE_LIMITED, None),
        ({"code": "insufficient_quota", "message": "m"}, Cause.NO_CREDIT, None),
        ({"code": "invalid_prompt", "message": "m"}, Cause.INVALID_REQUEST, None),
        ({"code": "invalid_image_format", "message": "m"}, Cause.INVALID_REQUEST, None),
        ({"code": "cyber_policy", "message": "m"}, Cause.INVALID_REQUEST, None),
        ({"code": "server_is_overloaded", "message": "m"}, Cause.OVERLOADED, None),
        ({"code": "slow_down", "message": "m"}, Cause.OVERLOADED, None),
        ({"type": "server_error", "code": "overloaded", "message": "m"}, Cause.OVERLOADED, None),
        # OpenRouter
        ({"code": 502, "message": "m"}, Cause.SERVER_ERROR, 502),
        ({"code": 429, "message": "m"}, Cause.RATE_LIMITED, 429),
        ({"code": 402, "message": "m"}, Cause.NO_CREDIT, 402),
        ({"code": "503", "message": "m"}, Cause.OVERLOADED, 503),
        (
            {"code": 400, "message": "m", "metadata": {"raw": "maximum context length is 5"}},
            Cause.CONTEXT_EXCEEDED,
            400,
        ),
        # Anthropic
        ({"type": "invalid_request_error", "message": "m"}, Cause.INVALID_REQUEST, None),
        ({"type": "authentication_error", "message": "m"}, Cause.AUTHENTICATION, None),
        ({"type": "billing_error", "message": "m"}, Cause.NO_CREDIT, None),
        ({"type": "permission_error", "message": "m"}, Cause.FORBIDDEN, None),
        ({"type": "not_found_error", "message": "m"}, Cause.NOT_FOUND, None),
        ({"type": "request_too_large", "message": "m"}, Cause.TOO_LARGE, None),
        ({"type": "rate_limit_error", "message": "m"}, Cause.RATE_LIMITED, None),
        ({"type": "api_error", "message": "m"}, Cause.SERVER_ERROR, None),
        ({"type": "overloaded_error", "message": "m"}, Cause.OVERLOADED, None),
        ({"type": "timeout_error", "message": "m"}, Cause.TIMEOUT, None),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
            Cause.OVERLOADED,
            None,
        ),
        # vLLM, llama.cpp, TGI, Google
        (
            {"object": "error", "message": "m", "type": "BadRequestError", "code": 400},
            Cause.INVALID_REQUEST,
            400,
        ),
        ({"message": "m", "type": "unavailable_error", "code": 503}, Cause.OVERLOADED, 503),
        ({"error": "m", "error_type": "overloaded"}, Cause.OVERLOADED, None),
        ({"message": "m", "status": "RESOURCE_EXHAUSTED"}, Cause.RATE_LIMITED, None),
        # one of our kind further up
        (
            {"message": "m", "type": "server_error", "code": "upstream_unreachable"},
            Cause.UNREACHABLE,
            None,
        ),
        ({"message": "m", "type": "server_error", "code": "upstream_timeout"}, Cause.TIMEOUT, None),
        ({"message": "m", "type": "server_error", "code": "upstream_idle"}, Cause.TIMEOUT, None),
        (
            {"message": "m", "type": "server_error", "code": "upstream_protocol"},
            Cause.PROTOCOL,
            None,
        ),
        (
            {"message": "m", "type": "server_error", "code": "upstream_truncated"},
            Cause.TRUNCATED,
            None,
        ),
        (
            {"message": "m", "type": "server_error", "code": "proxy_shutting_down"},
            Cause.OVERLOADED,
            None,
        ),
        # hardly anything
        ("m", Cause.SERVER_ERROR, None),
        ({"message": "m", "code": 7, "type": 5}, Cause.SERVER_ERROR, None),
        ({"message": "m", "code": "never_heard_of"}, Cause.SERVER_ERROR, None),
    ],
)
def test_error_objects_on_a_stream(error, cause, status):
    assert failure_of_error(error) == Failure(cause=cause, message="m", status=status)


@pytest.mark.parametrize("error", [None, {}, [], 5, True, "", {"error": {}}, {"message": 5}])
def test_an_error_that_says_nothing_is_the_servers(error):
    expected = Failure(cause=Cause.SERVER_ERROR, message="the upstream reported an error")
    assert failure_of_error(error) == expected


def test_an_error_without_a_message_is_told_by_its_code():
    failure = failure_of_error({"code": "server_is_overloaded"})
    assert failure.message == "the upstream reported an error (server_is_overloaded)"


def test_a_single_word_is_code_and_message():
    expected = Failure(cause=Cause.OVERLOADED, message="overloaded_error")
    assert failure_of_error("overloaded_error") == expected
    assert failure_of_error({"error": "overloaded_error"}) == expected
