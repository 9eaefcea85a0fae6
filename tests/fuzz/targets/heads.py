"""Requests of clients: read as h11 reads them, however cut, and nothing is taken that it refuses."""

from __future__ import annotations

import re

import h11
import h11._abnf

from trio_sse_proxy.plain_http1 import Http1, h11_readers

from ..drawn import Drawn, ways

LIMITS = (64 * 1024, 64 * 1024, 64 * 1024, 100)  # bytes of a head
LONGEST_LINE = 300  # h11's own expressions take the square of it
LINES = (
    (re.compile(h11._abnf.header_field.encode()), "header_field_re"),
    (re.compile(h11._abnf.chunk_header.encode()), "chunk_header_re"),
)
WORDS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/x?y=%20 HTTP/1.1\r\n",
    b"HEAD / HTTP/1.1\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"HTTP/1.0\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
WORDS += [
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"content-length:+5\r\n",
    b"Content-Length: 00000000000000000005\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: gzip, chunked\r\n",
]
WORDS += [
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: close, keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Folded: a\r\n b\r\n",
]
WORDS += [b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n", b"5;e=1\r\n", b"hello"]
WORDS += [b"\r\n\r\n", b"\r\n", b"\n\n", b"\n", b"\r", b"\t", b" ", b" :", b": ", b"\x00", b"\x0b"]
WORDS += [b"\xb2", b"\xe9", b"\x7f", b"\x1f", b"\xa0"]

_LENGTH = (
    b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello"
)
_CHUNKED = (
    b"POST / HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;e=1\r\nhello\r\n0\r\nT: 1\r\n\r\n"
)
_CLOSES = b"GET /%C3%A9 HTTP/1.1\r\nHOST: \ta \r\nConnection: close\r\nX: caf\xe9\r\n\r\n"
_WAITS = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
_SMUGGLES = _LENGTH.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost") + b"0\r\n\r\n"
SEEDS = [
    b"\x00\x00" + _LENGTH * 2 + _CLOSES + _LENGTH,
    b"\x04\x01" + _LENGTH + _CHUNKED + _LENGTH,
    b"\x0c\x02" + _WAITS + _CHUNKED,
    b"\x08\x03" + _LENGTH[:-1],
    b"\x04\x04" + _SMUGGLES,
    b"\x04\x05" + _LENGTH.replace(b" 5\r", b" 5\r\nContent-Length: 7\r") + b"xy",
    b"\x04\x05" + _LENGTH.replace(b" 5\r", b" " + b"0" * 24 + b"5\r"),
    b"\x00\x06" + _CLOSES.replace(b"1.1", b"1.0"),
    b"\x03\x06" + _LENGTH + _CLOSES.replace(b"X:", b"X:" + b"x" * 99),
    b"\x00\x07" + _LENGTH.replace(b"\r\n", b"\n"),
    b"\x00\x08" + _LENGTH.replace(b"Content-Type:", b"Content-Type :"),
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    how, seed, said = drawn.number(), drawn.number(), drawn.rest()
    limit, whole, early = LIMITS[how % 4], bool(how & 4), bool(how & 8)
    cuts = ways(said, seed)
    told = [_told(Http1(limit), pieces, whole=whole, early=early) for pieces in cuts]
    for ours, pieces in zip(told, cuts, strict=True):
        theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=limit)
        assert ours == _told(theirs, pieces, whole=False, early=early), "h11 reads it otherwise"
    if limit > len(said):  # else a head in pieces may be too large where a whole one is not
        assert all(one == told[0] for one in told), "the cuts show"
    _lines_as_by_h11(said)


def _told(connection, pieces, *, whole, early):
    """The requests and their bodies, as a server sees them that answers each one, or its refusal.

    With `whole` it takes those at once that it can; with `early` it answers before the body is read.
    """
    seen = []
    try:
        for piece in pieces:
            connection.receive_data(piece)
            while _goes_on(connection, seen, whole=whole, early=early):
                pass
            if connection.their_state is h11.MUST_CLOSE or _is_over(connection):
                break  # what follows is no request: h11 takes it ill, ours drops it
    except h11.RemoteProtocolError as error:
        seen.append(("refused", error.error_status_hint))
    return seen


def _goes_on(connection, seen, *, whole, early):
    """One step; False if more has to be read, or there will be none."""
    if connection.their_state is h11.MUST_CLOSE or _is_over(connection):
        return False
    if whole and (taken := connection.take_whole()):
        request, body = taken
        seen += [_fields(request), False, [body], "end"]
        return True
    event = connection.next_event()
    if event is h11.PAUSED:
        if going_on := _answer(connection):
            connection.start_next_cycle()
        return going_on
    if isinstance(event, h11.Request):
        waits = connection.they_are_waiting_for_100_continue
        seen += [_fields(event), waits, [b""]]
        if early and event.method != b"CONNECT":
            _answer(connection)
        elif waits:
            connection.send(h11.InformationalResponse(status_code=100, headers=[]))
    elif isinstance(event, h11.Data):
        seen[-1][0] += bytes(event.data)
    elif isinstance(event, h11.EndOfMessage):
        seen += [_lower(event.headers)] if event.headers else []
        seen.append("end")
    return event is not h11.NEED_DATA


def _fields(request):
    return request.method, request.target, request.http_version, _lower(request.headers)


def _lower(headers):
    return [(bytes(name), bytes(value)) for name, value in headers]


def _answer(connection):
    """True if the connection was waiting for this and may go on."""
    if connection.our_state is h11.SEND_RESPONSE:
        connection.send(h11.Response(status_code=403, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
    return connection.our_state is h11.DONE


def _is_over(connection):
    """Both sides have said all that will be said."""
    return connection.our_state is h11.MUST_CLOSE and connection.their_state is not h11.SEND_BODY


def _lines_as_by_h11(said):
    """h11's expressions that were replaced match what they matched."""
    for line in said[:2000].split(b"\r\n"):
        for theirs, name in LINES:
            for one in (line[:LONGEST_LINE], line[:LONGEST_LINE] + b"\r\n"):
                known, ours = theirs.fullmatch(one), getattr(h11_readers, name).fullmatch(one)
                assert bool(ours) == bool(known), (name, one)
                if ours and known and name == "header_field_re":
                    assert ours.groupdict() == known.groupdict()
                elif ours and known:
                    assert ours["chunk_size"] == known["chunk_size"]
