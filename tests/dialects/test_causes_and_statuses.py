"""How a failure is told before any header was sent, and how it is told in each dialect's words."""

from __future__ import annotations

import json

import pytest

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES, is_retryable

ROWS = {
    # cause: (chat and responses status, type, code), (messages status, type)
    Cause.INVALID_REQUEST: ((400, "invalid_request_error", None), (400, "invalid_request_error")),
    Cause.AUTHENTICATION: (
        (401, "authentication_error", "invalid_api_key"),
        (401, "authentication_error"),
    ),
    Cause.NO_CREDIT: ((402, "insufficient_quota", "insufficient_quota"), (402, "billing_error")),
    Cause.FORBIDDEN: ((403, "permission_error", None), (403, "permission_error")),
    Cause.NOT_FOUND: ((404, "invalid_request_error", "model_not_found"), (404, "not_found_error")),
    Cause.TOO_LARGE: ((413, "invalid_request_error", None), (413, "request_too_large")),
    Cause.CONTEXT_EXCEEDED: (
        (400, "invalid_request_error", "context_length_exceeded"),
        (400, "invalid_request_error"),
    ),
    Cause.RATE_LIMITED: (
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (429, "rate_limit_error"),
    ),
    Cause.OVERLOADED: ((503, "server_error", "overloaded"), (529, "overloaded_error")),
    Cause.UNREACHABLE: ((502, "server_error", "upstream_unreachable"), (502, "api_error")),
    Cause.TIMEOUT: ((504, "server_error", "upstream_timeout"), (504, "timeout_error")),
    Cause.SERVER_ERROR: ((500, "server_error", None), (500, "api_error")),
    Cause.PROTOCOL: ((502, "server_error", "upstream_protocol"), (502, "api_error")),
    Cause.TRUNCATED: ((502, "server_error", "upstream_truncated"), (502, "api_error")),
    Cause.CANCELLED: ((500, "server_error", "cancelled_by_operator"), (500, "api_error")),
    Cause.SHUTDOWN: ((503, "server_error", "proxy_shutting_down"), (503, "overloaded_error")),
    Cause.INTERNAL: ((500, "server_error", "proxy_internal_error"), (500, "api_error")),
}

RETRYABLE = {Cause.RATE_LIMITED, Cause.OVERLOADED, Cause.UNREACHABLE, Cause.SERVER_ERROR}


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("dialect", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_the_row_of_the_openai_dialects(dialect, cause):
    failure = Failure(cause=cause, message="m")
    (status, kind, code), _ = ROWS[cause]
    assert dialect.http_status(failure) == status
    error = json.loads(dialect.error_body(failure))["error"]
    assert error == {"message": "m", "type": kind, "param": None, "code": code}


@pytest.mark.parametrize("cause", Cause)
def test_the_row_of_messages(cause):
    failure = Failure(cause=cause, message="m")
    _, (status, kind) = ROWS[cause]
    assert MESSAGES.http_status(failure) == status
    body = json.loads(MESSAGES.error_body(failure))
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert "m" in body["error"]["message"]


@pytest.mark.parametrize("cause", Cause)
def test_what_another_attempt_may_mend(cause):
    assert is_retryable(cause) is (cause in RETRYABLE)


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, MESSAGES], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (Cause.SERVER_ERROR, 408),
        (Cause.SERVER_ERROR, 599),
        (Cause.OVERLOADED, 503),
        (Cause.OVERLOADED, 529),
        (Cause.NO_CREDIT, 429),
        (Cause.INVALID_REQUEST, 422),
        (Cause.CONTEXT_EXCEEDED, 413),
    ],
)
def test_the_status_the_upstream_gave_is_kept(dialect, cause, status):
    assert dialect.http_status(Failure(cause=cause, message="m", status=status)) == status


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, MESSAGES], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("cause", "status", "told"),
    [
        (Cause.PROTOCOL, 200, 502),
        (Cause.PROTOCOL, 404, 502),
        (Cause.TIMEOUT, 408, 504),
        (Cause.SERVER_ERROR, 200, 500),
        (Cause.SERVER_ERROR, 600, 500),
        (Cause.SERVER_ERROR, None, 500),
    ],
)
def test_a_status_that_does_not_tell_of_the_failure_is_not_kept(dialect, cause, status, told):
    assert dialect.http_status(Failure(cause=cause, message="m", status=status)) == told


def test_our_own_code_is_in_the_message_once_where_there_is_no_field_for_it():
    failure = Failure(cause=Cause.PROTOCOL, message="upstream_protocol: HTML came")
    assert b'"message":"upstream_protocol: HTML came"' in MESSAGES.error_body(failure)
    assert b"upstream_protocol" not in MESSAGES.error_body(
        Failure(cause=Cause.SERVER_ERROR, message="m")
    )


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, MESSAGES], ids=lambda d: d.name)
def test_messages_survive_readers_that_split_lines_at_every_separator(dialect):
    failure = Failure(cause=Cause.SERVER_ERROR, message="a\u2028b\u0085c\u2029d\x0be\x1cf\r\n上")
    frames = dialect.open_stream().error_frames(failure).decode()
    assert frames.splitlines() == frames.split("\n")[:-1]
    assert "上" in frames
    assert json.loads(dialect.error_body(failure))["error"]["message"] == failure.message


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, MESSAGES], ids=lambda d: d.name)
def test_a_message_with_half_a_surrogate_pair_can_be_told(dialect):
    failure = Failure(cause=Cause.SERVER_ERROR, message="\ud83d")
    assert json.loads(dialect.error_body(failure))["error"]["message"] == "\ud83d"
