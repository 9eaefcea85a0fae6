"""Plain requests are read as h11 reads them, and all others by h11."""

from __future__ import annotations

import re
import time

import h11
import h11._abnf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_sse_proxy.plain_http1 import Http1, h11_readers

LIMIT = 64 * 1024
LENGTHS = [b"0", b"2", b"5", b" 5", b"+5", b"5, 5", b"05", b"9" * 30, b"-1", b"", b"5\x0b", b"\xb2"]
LINES = [
    b"Host: a",
    b"host:a",
    b"HOST : a",
    b"Content-Type: application/json",
    b"X-Obs: caf\xe9\t x ",
    b"X-Empty:",
    b"X-Folded: a\r\n b",
    b"X-Nul: a\x00b",
    b"X-Control: a\x01b",
    b"X-Delete: a\x7fb",
    b"X-Bare: a\nY: b",
    b"X-Return: a\rb",
    b": nameless",
    b"no colon",
    b"X(Y): z",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Connection: close",
    b"Connection: Keep-Alive",
    b"Connection: keep-alive, close",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    *(b"Content-Length: " + length for length in LENGTHS),
]
STARTS = [
    b"POST /v1/x HTTP/1.1",
    b"GET / HTTP/1.1",
    b"POST http://a/b?c=d HTTP/1.1",
    b"POST /caf\xe9 HTTP/1.1",
    b"POST  / HTTP/1.1",
    b"POST / HTTP/1.0",
    b"POST / HTTP/2.0",
    b"post / HTTP/1.1",
    b"HEAD / HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"POST / HTTP/1.1 ",
    b"\r\nPOST / HTTP/1.1",
    b" POST / HTTP/1.1",
]
ENDS = [b"\r\n\r\n", b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\r\n \r\n", b"\r\n"]

heads = st.builds(
    lambda start, lines, end: b"\r\n".join([start, *lines]) + end,
    st.sampled_from(STARTS) | st.just(STARTS[0]),
    st.lists(st.sampled_from(LINES) | st.just(LINES[0]), max_size=5),
    st.sampled_from(ENDS),
)
streams = st.builds(
    lambda parts: b"".join(parts),
    st.lists(
        st.tuples(heads, st.sampled_from([b"", b"ab", b"abcde", b"5\r\nhello\r\n0\r\n\r\n"])).map(
            b"".join
        ),
        min_size=1,
        max_size=3,
    ),
)


def told(connection, pieces):
    """What an h11-like connection makes of these pieces, with each request answered when it pauses.

    What follows the last request is no request; h11 takes it ill, ours drops it.
    """
    events = []
    try:
        for piece in pieces:
            connection.receive_data(piece)
            while (
                connection.their_state is not h11.MUST_CLOSE
                and (event := connection.next_event()) is not h11.NEED_DATA
            ):
                if event is h11.PAUSED:
                    connection.send(
                        h11.Response(status_code=200, headers=[("content-length", "0")])
                    )
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is h11.MUST_CLOSE:
                        return events
                    connection.start_next_cycle()
                elif isinstance(event, h11.Request):
                    events.append((event.method, event.target, list(event.headers), b""))
                elif isinstance(event, h11.Data):
                    *rest, body = events.pop()
                    events.append((*rest, body + bytes(event.data)))
                elif isinstance(event, h11.EndOfMessage):
                    events.append("end")
                else:
                    return [*events, type(event)]
    except h11.RemoteProtocolError as error:
        events.append(("refused", error.error_status_hint))
    return events


@given(streams, st.integers(1, 400))
@example(
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcdePOST / HTTP/1.1\r\nhost:a\r\n\r\n",
    400,
)
@example(
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nab", 400
)
def test_whatever_is_sent_is_read_as_h11_reads_it(data, size):
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    theirs = told(h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT), pieces)
    ours = told(Http1(LIMIT), pieces)
    assert ours == theirs


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("asked", [[], [b"Connection: close"]], ids=["stays", "closes"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-length", b"0")],
        [(b"content-length", b"2")],
        [(b"connection", b"close")],
        [(b"content-length", b"2"), (b"content-length", b"2")],
        [(b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"content-length", b"2")],
    ],
)
def test_an_answer_is_framed_as_h11_frames_it(method, status, headers, asked):
    request = b"\r\n".join([method + b" / HTTP/1.1", b"Host: a", *asked, b"", b""])
    said = []
    for connection in (h11.Connection(h11.SERVER), Http1(LIMIT)):
        connection.receive_data(request)
        while connection.next_event() is not h11.NEED_DATA:
            pass
        head = connection.send(h11.Response(status_code=status, headers=headers))
        try:
            body = connection.send(h11.Data(data=b"ab")) if status == 200 else b""
            body += connection.send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            body = "refused"
        lines = sorted(line.lower() for line in head.split(b"\r\n"))
        said.append((lines, body, connection.our_state, connection.their_state))
    if status in {204, 304}:  # h11 passes on a coding for a body that there is not
        said[0][0][:] = [line for line in said[0][0] if line != b"transfer-encoding: chunked"]
        said[1][0][:] = [line for line in said[1][0] if line != b"content-length: 2"]
        said[0][0][:] = [line for line in said[0][0] if line != b"content-length: 2"]
    assert said[0] == said[1]


def plain(request):
    connection = Http1(LIMIT)
    connection.receive_data(request)
    return connection


REQUEST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def test_a_whole_request_is_taken_at_once():
    connection = plain(REQUEST + b"GET")
    request, body = connection.take_whole()
    assert (request.method, request.target, body) == (b"POST", b"/x", b"hello")
    assert connection.trailing_data == (b"GET", False)
    assert connection.next_event() is h11.PAUSED


def test_one_whose_body_is_still_to_come_is_not_and_nothing_of_it_is_lost():
    connection = plain(REQUEST[:-1])
    assert connection.take_whole() is None
    assert isinstance(connection.next_event(), h11.Request)
    assert connection.next_event() == h11.Data(data=b"hell")
    connection.receive_data(b"o")
    assert connection.next_event() == h11.Data(data=b"o")
    assert isinstance(connection.next_event(), h11.EndOfMessage)


def test_after_a_request_that_was_left_to_h11_plain_ones_are_read_here_again():
    connection = plain(REQUEST.replace(b"POST", b"PUT") + REQUEST)
    assert connection.take_whole() is None
    for _ in range(3):
        connection.next_event()
    connection.send(h11.Response(status_code=200, headers=[]))
    connection.send(h11.EndOfMessage())
    connection.start_next_cycle()
    assert connection.take_whole()[1] == b"hello"


@pytest.mark.parametrize("body", [b"a", b"abc"])
def test_a_body_of_another_length_than_was_declared_is_refused(body):
    connection = plain(REQUEST)
    connection.take_whole()
    connection.send(h11.Response(status_code=200, headers=[("content-length", "2")]))
    events = (h11.Data(data=body), h11.EndOfMessage())
    with pytest.raises(h11.LocalProtocolError, match="declared Content-Length"):
        _ = [connection.send(event) for event in events]
    assert connection.our_state is h11.ERROR


BLANKS = b" \t" * 16 * 1024
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"a:" + BLANKS + b"\x00\r\n\r\n",
        HEAD + b"a:" + BLANKS + b"b" + BLANKS[:99] + b"\x00\r\n\r\n",
        HEAD + b"a:" + b"\r\n " * 16 * 1024 + b"\x00\r\n\r\n",
        HEAD + b"a:" + b"b " * 16 * 1024 + b"\x00\r\n\r\n",
        HEAD + b"a:\r\n" * 8000 + b"\x00\r\n\r\n",
        CHUNKED + b"1;" + BLANKS + b"\n\r\n",
        CHUNKED + b"1" + BLANKS + b"\n\r\n",
        CHUNKED + b"0\r\na:" + BLANKS + b"\x00\r\n\r\n",
    ],
)
def test_no_rubbish_takes_long_to_be_told_as_such(sent):
    began = time.process_time()
    assert told(Http1(LIMIT), [sent])[-1] == ("refused", 400)
    assert time.process_time() - began < 0.5


LETTERS = [
    b"a",
    b"x-b",
    b":",
    b" ",
    b"  ",
    b"\t",
    b"\x00",
    b"\r",
    b"\n",
    b"\r\n",
    b"\xe9",
    b"\x0b",
    b";",
    b"0",
    b"F",
]


@given(st.lists(st.sampled_from(LETTERS), max_size=12).map(b"".join))
@example(b"x-b:\t a  F\t")
@example(b"0F ;a \t\r\n")
@example(b"0F \t\r\n")
def test_a_line_is_matched_as_by_the_expressions_of_h11(line):
    theirs = re.compile(h11._abnf.header_field.encode()).fullmatch(line)
    ours = h11_readers.header_field_re.fullmatch(line)
    assert (ours and ours.groupdict()) == (theirs and theirs.groupdict())
    theirs = re.compile(h11._abnf.chunk_header.encode()).fullmatch(line)
    ours = h11_readers.chunk_header_re.fullmatch(line)
    assert (ours and ours["chunk_size"]) == (theirs and theirs["chunk_size"])


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (100, []),
        (101, []),
        (199, []),
        (1000, []),
        (200, [(b"content-length", b"+2")]),
        (200, [(b"content-length", b"")]),
        (200, [(b"content-length", b"1_0")]),
        (200, [(b"content-length", b"2"), (b"content-length", b"3")]),
    ],
)
def test_what_h11_would_not_send_is_not_sent_here(status, headers):
    for connection in (h11.Connection(h11.SERVER), Http1(LIMIT)):
        connection.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.next_event()
        with pytest.raises(h11.LocalProtocolError):
            connection.send(h11.Response(status_code=status, headers=headers))
    with pytest.raises(h11.LocalProtocolError):
        connection.head(status, headers)


def test_a_connection_told_to_close_twice_over_closes():
    connection = plain(REQUEST)
    connection.take_whole()
    connection.head(200, [(b"connection", b"close"), (b"connection", b"keep-alive")])
    connection.send(h11.EndOfMessage())
    assert connection.our_state is h11.MUST_CLOSE
    connection.receive_data(REQUEST)
    assert connection.next_event() is h11.NEED_DATA
