"""Writing request heads: framing is added, and what must not go out is refused."""

from __future__ import annotations

import pytest

from trio_sse_proxy.core.errors import BadRequest
from trio_sse_proxy.upstreams.head import RequestHead, frame

HOST = (b"Host", b"example.org")


def framed(*fields, method=b"POST", target=b"/v1?q=%20", body_length=0):
    head = RequestHead(method=method, target=target, headers=(HOST, *fields))
    return frame(head, body_length)


def test_names_and_order_go_out_as_they_are():
    data = framed((b"x-B", b"2"), (b"X-A", b"1"), method=b"GET").data
    assert data == b"GET /v1?q=%20 HTTP/1.1\r\nHost: example.org\r\nx-B: 2\r\nX-A: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "length", "added", "size"),
    [
        (b"POST", 5, b"Content-Length: 5\r\n", 5),
        (b"POST", 0, b"Content-Length: 0\r\n", 0),
        (b"GET", 0, b"", 0),
        (b"GET", 3, b"Content-Length: 3\r\n", 3),
        (b"POST", None, b"Transfer-Encoding: chunked\r\n", None),
    ],
)
def test_the_missing_framing_is_added(method, length, added, size):
    head = framed(method=method, body_length=length)
    assert head.data.split(b"Host: example.org\r\n")[1] == added + b"\r\n"
    assert head.length == size


def test_framing_that_is_there_is_kept():
    assert framed((b"content-length", b"5"), body_length=None).length == 5
    assert framed((b"transfer-encoding", b"chunked"), body_length=5).length is None
    assert b"Content-Length" not in framed((b"transfer-encoding", b"chunked"), body_length=5).data


@pytest.mark.parametrize(
    "fields",
    [
        [(b"X", b"a\r\nInjected: b")],
        [(b"X", b"a\nb")],
        [(b"X", b"a\0b")],
        [(b"X\r\nY", b"a")],
        [(b"X Y", b"a")],
        [(b"", b"a")],
        [(b"Content-Length", b"4")],
        [(b"Content-Length", b"x")],
        [(b"Content-Length", b"0"), (b"Content-Length", b"0")],
        [(b"Content-Length", b"0"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
    ],
)
def test_fields_that_lie_or_inject_are_refused(fields):
    with pytest.raises(BadRequest):
        framed(*fields)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"CONNECT", b"/"),
        (b"GE T", b"/"),
        (b"", b"/"),
        (b"GET", b"/a b"),
        (b"GET", b"/a\r\nX: y"),
        (b"GET", b""),
    ],
)
def test_request_lines_that_inject_are_refused(method, target):
    with pytest.raises(BadRequest):
        framed(method=method, target=target)
