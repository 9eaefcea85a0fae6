"""Reading responses: whatever the cuts, the same head, body and verdict."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_sse_proxy.core.errors import Garbled, UpstreamError
from trio_sse_proxy.upstreams.failures import EndedEarly
from trio_sse_proxy.upstreams.reply import MAX_FIELDS, MAX_HEAD, MAX_INTERIM, Reply

BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def read(pieces, *, to_head=False, eof=False):
    """Feed `pieces`; (reply, body, error type or None)."""
    reply = Reply(to_head=to_head)
    body = b""
    try:
        for piece in pieces:
            reply.feed(piece)
            body += reply.take()
        if eof and not reply.complete:
            reply.feed_eof()
        if not reply.complete:
            reply.check()
    except UpstreamError as error:
        return reply, body, type(error)
    return reply, body, None


def cut(data, marks):
    marks = sorted({mark % (len(data) + 1) for mark in marks} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks) if a < b]


def verdict(result):
    reply, body, error = result
    return reply.status, reply.reason, reply.headers, body, error, reply.complete, reply.reusable


def chunked(bodies, extension=b"", trailers=b""):
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(b), extension, b) for b in bodies)
    return chunks + b"0\r\n" + trailers + b"\r\n"


MESSAGES = st.one_of(
    BODIES.map(lambda b: b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\n" + length(b)),
    BODIES.map(
        lambda b: (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Very Fine\r\nX:  y \r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b, b";q=1", b"T: 1\r\n")
        )
    ),
    BODIES.map(lambda b: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"".join(b)),
    st.just(b"HTTP/1.1 204 No Content\r\n\r\n"),
    st.just(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
)


def length(bodies):
    body = b"".join(bodies)
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@given(MESSAGES, st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"junk"]), st.lists(st.integers(0)))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"junk", [39])
def test_however_the_bytes_are_cut_the_response_says_the_same(message, surplus, marks):
    data = message + surplus
    assert verdict(read(cut(data, marks), eof=True)) == verdict(read([data], eof=True))


@given(BODIES, st.binary(min_size=1, max_size=40), st.lists(st.integers(0)))
def test_a_fault_inside_the_body_loses_nothing_that_came_before_it(bodies, rubbish, marks):
    good = b"".join(b"%x\r\n%b\r\n" % (len(b), b) for b in bodies)
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + good + b"zz" + rubbish
    reply, body, error = read(cut(data, marks))
    assert body == b"".join(bodies)
    assert error is Garbled
    assert not reply.reusable


@given(st.binary(max_size=200), st.lists(st.integers(0)))
def test_rubbish_is_garbled_or_unfinished_at_worst(data, marks):
    _, _, error = read(cut(data, marks), eof=True)
    assert error in (None, Garbled, EndedEarly)


def test_one_piece_is_handed_over_without_a_copy_and_many_are_joined():
    reply = Reply(to_head=False)
    reply.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    reply.feed(b"3\r\nabc\r\n2\r\nde\r\n")
    assert reply.take() == b"abcde"
    piece = b"x" * 100
    reply.on_body(piece)
    assert reply.take() is piece


def test_names_order_and_duplicates_stay():
    reply, _, _ = read([b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX: 1\r\nset-cookie: b\r\n\r\n"])
    assert reply.headers == [(b"Set-Cookie", b"a"), (b"X", b"1"), (b"set-cookie", b"b")]


@pytest.mark.parametrize(
    ("head", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"hello",
        ),
    ],
)
def test_the_body_of_another_response_behind_it_in_the_same_read_is_not_its_own(head, whole):
    another = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    for behind in (another, another * 2, another[:-1]):
        reply, body, error = read([head + behind])
        assert (reply.complete, reply.reusable, body, error) == (True, False, whole, None)


@pytest.mark.parametrize("behind", [b"5", b"5;a", b"5\r\n", b"5\r\nhello", b"x"])
def test_the_answer_to_head_spoils_its_connection_with_whatever_follows(behind):
    """However it is cut: else what the parser had of a chunk would be missing from the next answer."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for at in range(len(head) + len(behind)):
        pieces = [piece for piece in (head[:at], head[at:] + behind) if piece]
        assert not read(pieces, to_head=True)[0].reusable
    for at in range(len(head)):
        pieces = [piece for piece in (head[:at], head[at:]) if piece]
        assert read(pieces, to_head=True)[0].reusable


def test_the_answer_to_head_ends_with_its_head():
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    reply, body, _ = read([data], to_head=True)
    assert (reply.complete, reply.reusable, body) == (True, True, b"")
    reply, body, _ = read([data + b"hello"], to_head=True)
    assert (reply.complete, reply.reusable, body) == (True, False, b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 What\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
)
@pytest.mark.parametrize("tail", [b"", b"body"])
def test_a_head_that_is_not_allowed_is_garbled_at_once(head, tail):
    with pytest.raises(Garbled):
        Reply(to_head=False).feed(head + tail)


def endless(start, piece, limit=10 * MAX_HEAD):
    """Feed `piece` again and again; the bytes it took until Garbled."""
    reply = Reply(to_head=False)
    fed = 0
    reply.feed(start)
    try:
        while fed < limit:
            fed += len(piece)
            reply.feed(piece)
            reply.take()
    except Garbled:
        return fed
    raise AssertionError("no limit")


OK = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(OK, b"X: " + b"y" * 1000 + b"\r\n", id="fields"),
        pytest.param(OK + b"X: ", b"y" * 1000, id="one field"),
        pytest.param(b"HTTP/1.1 200 ", b"y" * 1000, id="reason"),
        pytest.param(IN_CHUNKS + b"0\r\n", b"X: " + b"y" * 1000 + b"\r\n", id="trailers"),
        pytest.param(IN_CHUNKS + b"0\r\nX: ", b"y" * 1000, id="one trailer"),
        pytest.param(IN_CHUNKS + b"1;a=", b"y" * 1000, id="chunk extension"),
    ],
)
def test_whatever_goes_on_for_ever_is_stopped(start, piece):
    assert endless(start, piece) <= 3 * MAX_HEAD


def test_fields_and_interim_responses_are_counted():
    assert read([OK + b"A: b\r\n" * MAX_FIELDS + b"\r\n"])[2] is None
    assert read([OK + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n"])[2] is Garbled
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert read([interim * MAX_INTERIM + OK + b"\r\n"])[2] is None
    assert read([interim * (MAX_INTERIM + 1) + OK + b"\r\n"])[2] is Garbled


@pytest.mark.parametrize(
    ("data", "ends_early"),
    [
        (b"", True),
        (b"HTTP/1.1 200 OK\r\nX", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", True),
        (IN_CHUNKS + b"3\r\nabc\r\n", True),
        (IN_CHUNKS + b"3\r\nabc\r\n0\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", False),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", False),
    ],
)
def test_only_a_body_without_framing_may_end_with_the_connection(data, ends_early):
    reply, _, error = read([data] if data else [], eof=True)
    assert error is (EndedEarly if ends_early else None)
    assert not reply.reusable


@pytest.mark.parametrize(
    ("fields", "reusable"),
    [
        (b"Content-Length: 0\r\n", True),
        (b"Content-Length: 0\r\nConnection: close\r\n", False),
        (b"Content-Length: 0\r\nConnection: x, Close\r\n", False),
    ],
)
def test_a_connection_is_kept_unless_the_upstream_closes_it(fields, reusable):
    assert read([OK + fields + b"\r\n"])[0].reusable is reusable
    kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
    assert read([kept])[0].reusable
    assert not read([b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"])[0].reusable
