"""Header fields, request targets and Retry-After; and that what goes out is read as it was meant."""

from __future__ import annotations

from math import isfinite
from urllib import parse as urls

import h11

from trio_sse_proxy.core import headers as fields
from trio_sse_proxy.core.door import Door
from trio_sse_proxy.core.errors import BadRequest
from trio_sse_proxy.core.retry import parse_retry_after
from trio_sse_proxy.core.target import below_root, check_path, join
from trio_sse_proxy.upstreams.head import RequestHead, chunk, frame
from trio_sse_proxy.upstreams.translated import chat_headers

from ..drawn import Drawn

METHODS = (b"POST", b"GET", b"HEAD", b"PUT", b"CONNECT", b"get", b"P\rOST", b"")
LENGTHS = (None, 0, 3)
BASES = (b"", b"/", b"/v1", b"/api/v4/", b"/v1beta")
ROOTS = ("", "/llm", "/a b/c", "/", "/\u00e9")
DOOR = Door(loopback=True, allowed_hosts=("a.b",), client_keys=("k",))
WORDS = [
    b"Connection: ",
    b"close",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 3",
    b"TE: trailers",
    b"\n",
]
WORDS += [
    b"Content-Type: text/event-stream; charset=x",
    b"Host: a",
    b"Expect: 100-continue",
    b"X: 1",
    b"\r\n",
]
WORDS += [
    b"/v1/",
    b"/../",
    b"/%2e%2e/x",
    b"%2e%2e",
    b"%2f",
    b"%5c",
    b"\\",
    b"//",
    b"%00",
    b"Authorization: Bearer k",
]
WORDS += [
    b"x-api-key: k",
    b"anthropic-beta: x",
    b"Host: [::1]:80",
    b"Origin: http://[::1",
    b"Upgrade: h2c",
]
WORDS += [
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"-0000",
    b"+9999",
    b"9999",
    b"1e5",
    b"nan",
    b"1_0",
    b"\xc2\xb2",
    b",, ",
]
SEEDS = [
    b"\x00\x00\x02\x00/v1/messages?x=1\nHost: localhost\nX-Api-Key: k\nConnection: x-a, close\nX-A: 1",
    b"\x00\x02\x01\x01/llm/v1/chat\nTransfer-Encoding: chunked\n"
    b"TE: trailers\nX: \xe9\nAnthropic-Beta: y",
    b"\x01\x01\x03\x02/a%20b/c/x\nContent-Length: 0\nOrigin: http://localhost:1\nExpect: 100-continue",
    b"\x00\x00\x00\x00Sun, 06 Nov 1994 08:49:37 GMT\n",
    b"\x00\x00\x00\x0012\n",
    b"\x00\x00\x00\x00/v1/%2E%2e/x",
    b"\x00\x02\x00\x00/x\nHost: a\nContent-Length: 3",
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    method, length = drawn.choice(METHODS), drawn.choice(LENGTHS)
    base, root = drawn.choice(BASES), drawn.choice(ROOTS)
    first, *lines = drawn.rest().split(b"\n")
    given = [line.partition(b":") for line in lines]
    headers = [(name.strip(), value.strip(b" \t")) for name, _, value in given]
    _passes(headers)
    _leads(first, base, root)
    _waits(first)
    _goes_out(method, first, headers, length)


def _passes(headers):
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    here = fields.HOP_BY_HOP | named
    lowered = [(name.lower(), value) for name, value in headers]
    onward = fields.to_upstream(headers, drop=frozenset({b"x"}), identity=True)
    assert onward[-1] == (b"accept-encoding", b"identity")
    dropped = here | {b"host", b"content-length", b"expect", b"x", b"accept-encoding"}
    assert list(onward[:-1]) == [field for field in lowered if field[0] not in dropped]
    back = fields.plain_answer(headers)
    assert list(back) == [field for field in lowered if field[0] not in here]
    for field in fields.event_stream(headers):
        assert field[0] not in here
        assert field[0] != b"content-length"
    assert isinstance(fields.is_event_stream(back), bool)
    told = chat_headers(onward)
    assert not any(name.startswith(b"anthropic-") or name == b"x-api-key" for name, _ in told)
    DOOR.refuses(tuple(lowered))


def _leads(path, base, root):
    path = path.partition(b"?")[0]
    try:
        check_path(path)
    except BadRequest:
        return
    for led in (join(base, path), join(base, below_root(path, root))):
        assert led.startswith(b"/")
        parts = urls.unquote_to_bytes(led).replace(b"\\", b"/").split(b"/")
        assert not {b".", b".."} & set(parts), "it leads out of where it was to stay"
        assert led.startswith(base.rstrip(b"/"))


def _waits(value):
    seconds = parse_retry_after(value, 1.7e9)
    assert seconds is None or (seconds >= 0 and isfinite(seconds))


def _goes_out(method, target, headers, length):
    """What leaves is one request: a second opinion reads the same method, target, fields and body."""
    head = RequestHead(method=method, target=target, headers=headers)
    try:
        framed = frame(head, length)
    except BadRequest:
        return
    body = b"x" * (length or 0)
    told = framed.data + (
        (chunk(body) if body else b"") + b"0\r\n\r\n" if framed.length is None else body
    )
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    server.receive_data(told)
    try:
        request = server.next_event()
    except h11.RemoteProtocolError:
        # h11 wants a Host, which the transport sees to, and refuses what else RFC 9110 lets pass.
        assert sum(name.lower() == b"host" for name, _ in headers) != 1 or not _usual(
            target, headers
        )
        return
    assert request.method == method
    assert request.target == target
    sent = [(name.lower(), value) for name, value in headers]
    got = list(request.headers)
    assert got[: len(sent)] == sent or any(
        not name or value != value.strip() for name, value in sent
    )
    if length is not None or framed.length is None:
        data = b""
        while isinstance(event := server.next_event(), h11.Data):
            data += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        assert data == body
        assert not server.trailing_data[0], (
            "bytes are left that the next reader takes for a request"
        )


def _usual(target, headers):
    return target.isascii() and all(
        value.decode("latin-1").isprintable() and value.isascii() for _, value in headers if value
    )
