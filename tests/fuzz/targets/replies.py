"""Responses of upstreams: whatever the cuts the same verdict, bounded, and h11 as a second opinion."""

from __future__ import annotations

import h11

from trio_sse_proxy.core.errors import Garbled
from trio_sse_proxy.upstreams.failures import EndedEarly
from trio_sse_proxy.upstreams.reply import MAX_FIELDS, MAX_HEAD, Reply

from ..drawn import Drawn, ways

WORDS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Up\r\n\r\n",
]
WORDS += [
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"\r\n\r\n",
    b"\r\n",
]
WORDS += [
    b"Connection: keep-alive\r\n",
    b"Upgrade: h2c\r\n",
    b"0\r\n\r\n",
    b"5;ext=1\r\n",
    b"3\r\nabc\r\n",
    b"\n",
]
WORDS += [
    b"Content-Length: +5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"\t",
    b" ",
]
WORDS += [
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 N\r\n",
    b"X: y\r\n",
    b"T: 1\r\n",
    b"\x00",
    b"ffffffffffffffff",
]
SEEDS = [
    b"\x00\x00HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n3;e=1\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    b"\x00\x01HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"\x01\x01HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"\x00\x02HTTP/1.0 200 OK\r\nX:  a \r\nx: b\r\n\r\nuntil the end",
    b"\x00\x02HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
    b"\x00\x02HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"\x00\x00HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    to_head, seed, said = drawn.number() % 2 == 1, drawn.number(), drawn.rest()
    results = [_read(chunks, to_head) for chunks in ways(said, seed)]
    if said.endswith(
        (b"\r", b"\n")
    ):  # empty lines behind a response are eaten if they come with it
        results = [result[:-1] for result in results]
    assert all(result == results[0] for result in results), "the cuts show"
    status, _, headers, body, error, complete = results[0][:6]
    if error is None and complete:
        _second_opinion(said, to_head, status, headers, body)


def _read(chunks, to_head):
    """What a caller sees that takes the body as it comes and stops at the first error."""
    reply = Reply(to_head=to_head)
    body, error = b"", None
    try:
        for chunk in chunks:
            reply.feed(chunk)
            assert len(reply.headers) <= MAX_FIELDS + 1
            assert (
                sum(len(name) + len(value) for name, value in reply.headers)
                <= MAX_HEAD + 2 * 65_536
            )
            if reply.has_body:
                assert reply.started, "a body before the head"
                body += reply.take()
        if not reply.complete:
            reply.check()
            reply.feed_eof()
    except (Garbled, EndedEarly) as raised:
        error = type(raised)
    assert not (reply.reusable and error)
    if not reply.started:
        assert not body
        return 0, b"", [], body, error, reply.complete, False
    if to_head or reply.status in (204, 304):
        assert not body
    return reply.status, reply.reason, reply.headers, body, error, reply.complete, reply.reusable


def _second_opinion(said, to_head, status, headers, body):
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    request = h11.Request(method="HEAD" if to_head else "GET", target="/", headers=[("host", "a")])
    client.send(request)
    client.send(h11.EndOfMessage())
    client.receive_data(said)
    client.receive_data(b"")
    read, refused = b"", ""
    try:
        while not isinstance(event := client.next_event(), h11.Response):
            assert isinstance(event, h11.InformationalResponse)
        while isinstance(data := client.next_event(), h11.Data):
            read += bytes(data.data)
    except h11.RemoteProtocolError as raised:
        refused = str(raised)
    if refused:
        # It refuses more than we do, such as bytes above ASCII; but a cut is a cut.
        assert "complete message body" not in refused, "a body that is cut passed for complete"
        return
    assert isinstance(data, h11.EndOfMessage)
    assert event.status_code == status
    assert [_as_h11_has_it(*field) for field in headers] == list(event.headers)
    assert read == body, "two readers of one response see two bodies"


def _as_h11_has_it(name, value):
    name, value = name.lower(), value.strip(b" \t")
    return name, value.lower() if name == b"transfer-encoding" else value
