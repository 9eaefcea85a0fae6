"""One message, or none: whatever its framing says, nobody gets a second request out of it."""

from __future__ import annotations

import itertools

import pytest

from .wire import exchange

pytestmark = pytest.mark.slow

NUMBERS = itertools.count()
HIDDEN = b"POST /v1/smuggled HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"0\r\n\r\n" + HIDDEN
LENGTH = b"content-length: %d\r\n" % len(CHUNKED)

# name -> what stands between the Host and the end of the head, and what follows the head
FRAMINGS = {
    "length and chunks": (LENGTH + b"transfer-encoding: chunked\r\n", CHUNKED),
    "chunks and length": (b"transfer-encoding: chunked\r\n" + LENGTH, CHUNKED),
    "length 0 and chunks": (
        b"content-length: 0\r\ntransfer-encoding: chunked\r\n",
        b"5\r\nhello\r\n" + CHUNKED,
    ),
    "two lengths": (b"content-length: 0\r\n" + LENGTH, CHUNKED),
    "two lengths in one": (b"content-length: 0, %d\r\n" % len(CHUNKED), CHUNKED),
    "a length with a sign": (b"content-length: +5\r\n", CHUNKED),
    "a negative length": (b"content-length: -1\r\n", CHUNKED),
    "a length in hexadecimal": (b"content-length: 0x5\r\n", CHUNKED),
    "a length with an underscore": (b"content-length: 1_0\r\n", CHUNKED),
    "an empty length": (b"content-length: \r\n", HIDDEN),
    "a length of forty digits": (b"content-length: " + b"9" * 40 + b"\r\n", CHUNKED),
    "chunked, and something else": (b"transfer-encoding: chunked, identity\r\n", CHUNKED),
    "something else, and chunked": (b"transfer-encoding: gzip, chunked\r\n", CHUNKED),
    "chunked twice": (b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", CHUNKED),
    "chunked and identity": (
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        CHUNKED,
    ),
    "xchunked": (b"transfer-encoding: xchunked\r\n" + LENGTH, CHUNKED),
    "chunked in quotes": (b'transfer-encoding: "chunked"\r\n' + LENGTH, CHUNKED),
    "chunked behind a tab": (b"transfer-encoding:\tchunked\r\n" + LENGTH, CHUNKED),
    "chunked behind a vertical tab": (b"transfer-encoding: \x0bchunked\r\n" + LENGTH, CHUNKED),
    "chunked folded": (b"transfer-encoding:\r\n chunked\r\n" + LENGTH, CHUNKED),
    "chunked with a NUL": (b"transfer-encoding: chunked\x00\r\n" + LENGTH, CHUNKED),
    "space before the colon": (b"transfer-encoding : chunked\r\n" + LENGTH, CHUNKED),
    "space before the name": (b" transfer-encoding: chunked\r\n" + LENGTH, CHUNKED),
    "a name with a NUL": (b"transfer\x00-encoding: chunked\r\n" + LENGTH, CHUNKED),
    "a bare CR in a value": (b"x: a\rtransfer-encoding: chunked\r\n" + LENGTH, CHUNKED),
    "a bare CR ahead of a name": (b"x: a\r\n\rtransfer-encoding: chunked\r\n" + LENGTH, CHUNKED),
    "a field without a colon": (b"nonsense\r\n" + LENGTH, CHUNKED),
}
CHUNKS = {
    "a size with a sign": b"+5\r\nhello\r\n" + CHUNKED,
    "a negative size": b"-1\r\nhello\r\n" + CHUNKED,
    "a size with 0x": b"0x5\r\nhello\r\n" + CHUNKED,
    "a size with an underscore": b"0_5\r\nhello\r\n" + CHUNKED,
    "a size of forty digits": b"F" * 40 + b"\r\nhello\r\n" + CHUNKED,
    "no size": b"\r\nhello\r\n" + CHUNKED,
    "space ahead of a size": b" 5\r\nhello\r\n" + CHUNKED,
    "a bare LF behind a size": b"5\nhello\r\n" + CHUNKED,
    "a bare LF in an extension": b"5;x\nhello\r\n" + CHUNKED,
    "a chunk longer than its size": b"3\r\nhello\r\n" + CHUNKED,
    "a chunk shorter than its size": b"7\r\nhello\r\n" + CHUNKED,
    "a NUL for a size": b"\x00\r\n" + CHUNKED,
}


async def outcome(proxy, upstream, framing, follows):
    """Status of the first answer, how many there were, and what the upstream was asked."""
    path = f"/v1/case-{next(NUMBERS)}"
    before = len(upstream.log)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n".encode()
    got = await exchange(proxy.port, head + framing + b"\r\n" + follows)
    asked = [visit.target for visit in upstream.log[before:]]
    return int(got[9:12] or 0), got.count(b"HTTP/1.1 "), path, asked


@pytest.mark.parametrize("name", FRAMINGS)
async def test_nothing_comes_through_behind_a_head_whose_framing_is_doubtful(proxy, upstream, name):
    status, answers, _, asked = await outcome(proxy, upstream, *FRAMINGS[name])
    assert (status in {400, 403, 501}, answers, asked) == (True, 1, []), status


@pytest.mark.parametrize("name", CHUNKS)
async def test_nothing_comes_through_behind_a_chunk_that_is_none(proxy, upstream, name):
    framing = b"transfer-encoding: chunked\r\n"
    _, answers, path, asked = await outcome(proxy, upstream, framing, CHUNKS[name])
    assert answers <= 1
    assert asked in ([], [path])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://evil.example/v1/models", 400),
        (b"//evil.example/v1/models", 200),
        (b"/v1/../secret", 400),
        (b"/v1/%2e%2e/secret", 400),
        (b"/v1/x%00", 400),
        (b"/v1/\\x", 400),
        (b"/v1/x#fragment", 400),
        (b"*", 400),
        (b"evil.example:443", 400),
        (b"/v1/\xff", 400),
        (b"/v1/a b", 400),
        (b"/v1/x\x00", 400),
    ],
)
async def test_a_target_is_a_path_as_written_or_refused(port, target, status):
    head = b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    assert (await exchange(port, head))[9:12] == b"%d" % status


@pytest.mark.parametrize(
    "hosts",
    [b"", b"host: localhost\r\nhost: evil.example\r\n", b"host: evil.example\r\n", b"host: \r\n"],
)
async def test_a_request_names_this_host_once(port, hosts):
    got = await exchange(
        port, b"GET /v1/models HTTP/1.1\r\n" + hosts + b"connection: close\r\n\r\n"
    )
    assert got[9:12] in {b"400", b"403"}


async def test_a_request_of_http_1_0_has_no_chunks(port, upstream):
    before = len(upstream.log)
    head = b"POST /v1/old HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    await exchange(port, head + CHUNKED)
    assert b"smuggled" not in str([visit.target for visit in upstream.log[before:]]).encode()
