"""What upstreams say of their failures, what a request asks for, and how we tell of both."""

from __future__ import annotations

from math import isfinite

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.sse import parse, split_frames
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES, Sight, failure_of_error
from trio_sse_proxy.dialects.errors import MAX_MESSAGE, failure_of_status, is_retryable
from trio_sse_proxy.dialects.forms import FORMS, Heading, Stop
from trio_sse_proxy.dialects.recognise import peek, recognise
from trio_sse_proxy.dialects.wire import loads

from ..drawn import Drawn, strict_json

DIALECTS = (CHAT, RESPONSES, MESSAGES)
CAUSES = tuple(Cause)
STATUSES = (
    200,
    204,
    302,
    400,
    401,
    402,
    403,
    404,
    408,
    413,
    422,
    429,
    500,
    501,
    502,
    503,
    504,
    529,
    999,
)
WORDS = [
    b'"error"',
    b'"message"',
    b'"code"',
    b'"type"',
    b'"status"',
    b'"metadata"',
    b'"raw"',
    b'"detail"',
]
WORDS += [
    b"try again in ",
    b"1.5s",
    b"20 ms",
    b"1h 5m",
    b"insufficient_quota",
    b"429",
    b'"msg"',
    b"exceed",
]
WORDS += [
    b"context length",
    b"prompt is too long",
    b"upstream_timeout: ",
    b"overloaded_error",
    b"<html>",
]
WORDS += [
    b'"stream":true',
    b'"model"',
    b'"background"',
    b"/v1/messages",
    b"/threads/x/messages",
    b"\\u017f",
]
SEEDS = [
    b"\x07\x00" + b'{"error":{"message":"maximum context length exceeded","type":"x","code":"y"}}',
    b"\x0b\x01"
    + b'[{"error":{"code":429,"message":"Please try again in 1m 5.5s","status":"SLOW"}}]',
    b"\x0c\x02"
    + b'{"error":{"message":"Provider returned error","metadata":{"raw":"overloaded"}}}',
    b"\x02\x03" + b"upstream_timeout: plain text",
    b"\x09\x04" + b'{"detail":[{"msg":"a"},{"msg":"b"}],"error_type":"invalid_request_error"}',
    b"\x0c\x06" + b'{"error":{"message":"%b"}}' % (b"long " * 1000),
    b"\x00\x05" + b'{"model":"m","stream":true,"background":false}',
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    status, number, body = drawn.choice(STATUSES), drawn.number(), drawn.rest()
    failures = [
        failure_of_status(status, body, None),
        failure_of_status(status, body, number / 2),
        failure_of_error(loads(body)),
        failure_of_error(body.decode("utf-8", "replace")),
    ]
    for failure in failures:
        _is_sound(failure)
        assert is_retryable(failure.cause) in (True, False)
    said = (
        body.decode("utf-8", "surrogatepass" if number % 2 else "replace") if _utf8(body) else "x"
    )
    failures.append(Failure(cause=CAUSES[number % len(CAUSES)], message=said, status=status))
    for failure in failures:
        for dialect in DIALECTS:
            _is_told(dialect, failure)
    _asks(body)
    _is_written(said, number)


def _utf8(body):
    try:
        body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _is_sound(failure):
    assert failure.message
    assert len(failure.message) <= MAX_MESSAGE
    failure.message.encode()
    assert failure.status is None or 100 <= failure.status <= 999
    assert failure.retry_after is None or (
        failure.retry_after >= 0 and isfinite(failure.retry_after)
    )


def _is_told(dialect, failure):
    assert 400 <= dialect.http_status(failure) <= 599
    assert strict_json(dialect.error_body(failure))["error"]["type"]
    reader = dialect.open_stream()
    for frame in split_frames(dialect.open_stream().error_frames(failure)):
        strict_json(parse(frame).data)
        assert reader.look(frame) is Sight.ERROR
    assert not reader.awaits_failed


def _asks(body):
    wish = peek(body)
    assert isinstance(wish.stream, bool)
    assert wish.model is None or isinstance(wish.model, str)
    path = body.decode("latin-1")
    assert recognise("GET", path) is None
    assert recognise("POST", path) in (None, *DIALECTS)


def _is_written(text, number):
    """Our own answers: whatever the text, their dialect reads them as complete."""
    usage = Usage(input_tokens=number, output_tokens=1) if number % 3 else Usage()
    for dialect in DIALECTS:
        heading = Heading(key="k", model=text[:9] or "m", created=0, include_usage=bool(number % 2))
        form = FORMS[dialect.name](heading)
        told = form.opening() + (form.reasoning(text) if text and number % 5 else b"")
        told += (form.text(text) if text else b"") + form.closing(usage, Stop.END)
        reader = dialect.open_stream()
        sights = [reader.look(frame) for frame in split_frames(told)]
        assert sights.count(Sight.END) == 1
        assert sights[-1] is Sight.END
        assert not reader.failure
        for event in map(parse, split_frames(told)):
            assert event.data == b"[DONE]" or strict_json(event.data)
