"""The whole transport over memory streams: what callers see, and what is left afterwards."""

from __future__ import annotations

import sys
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.core.errors import Broken, Garbled, Unreachable
from trio_sse_proxy.upstreams.transport import TrioTransport

from .servers import CHUNKED, MemoryUpstream, Requests, answer

URL = "http://upstream.test/v1"


def opened(nursery, script, **options):
    """(client, transport, upstream) with no timeouts but those a test sets."""
    upstream = MemoryUpstream(nursery, script)
    transport = TrioTransport(connect=upstream.connect, **options)
    return httpx.AsyncClient(transport=transport, timeout=None), transport, upstream


@asynccontextmanager
async def streaming(transport, method="GET", url=URL):
    """The response as the relay gets it: straight from the transport, nothing read."""
    response = await transport.handle_async_request(httpx.Request(method, url))
    try:
        yield response
    finally:
        await response.stream.aclose()


def counts(transport):
    return transport.pool.busy_connections, transport.pool.idle_connections


def saying(*pieces, then_close=False):
    """A script: after each request send `pieces`, one write each."""

    async def script(stream):
        requests = Requests(stream)
        while await requests.whole() is not None:
            for piece in pieces:
                await stream.send_all(piece)
            if then_close:
                return

    return script


async def test_connections_are_kept_and_responses_say_whether_they_were(nursery):
    client, transport, upstream = opened(nursery, saying(answer()))
    first = await client.get(URL)
    second = await client.post(URL, content=b"x")
    assert [first.text, second.text] == ["hello", "hello"]
    assert [r.extensions["reused"] for r in (first, second)] == [False, True]
    assert first.extensions["http_version"] == b"HTTP/1.1"
    assert first.reason_phrase == "OK"
    assert upstream.connections == 1
    assert counts(transport) == (0, 1)


async def test_the_request_goes_out_as_httpx_made_it(nursery):
    seen = []

    async def script(stream):
        requests = Requests(stream)
        while (request := await requests.whole()) is not None:
            seen.append(request)
            await stream.send_all(answer())

    client, _, _ = opened(nursery, script)
    await client.post(URL + "?a=%20b", content=b"12345", headers=[("X-A", "1"), ("x-a", "2")])
    await client.get(URL, extensions={"target": b"/%7Eraw//../x"})
    (head, body), (raw, _) = seen
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1?a=%20b HTTP/1.1"
    assert lines[1] == b"Host: upstream.test"
    assert [line for line in lines if line.lower().startswith(b"x-a")] == [b"X-A: 1", b"x-a: 2"]
    assert body == b"12345"
    assert raw.startswith(b"GET /%7Eraw//../x HTTP/1.1\r\n")


async def test_all_that_one_read_brought_comes_in_one_piece(nursery):
    frames = [b"data: %d\n\n" % number for number in range(200)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in frames)
    _, transport, _ = opened(nursery, saying(CHUNKED, wire + b"0\r\n\r\n"))
    async with streaming(transport) as response:
        assert await response.stream.receive() == b"".join(frames)
        # The last chunk came with it, so the connection is back before the body's end is asked for.
        assert counts(transport) == (0, 1)
        assert await response.stream.receive() == b""
        assert await response.stream.receive() == b""
    assert counts(transport) == (0, 1)


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_a_response_without_a_body_frees_its_connection_with_the_head(nursery, method, data):
    client, transport, _ = opened(nursery, saying(data))
    async with client.stream(method, URL) as response:
        assert counts(transport) == (0, 1)
        assert await response.aread() == b""


@pytest.mark.parametrize(
    "data",
    [
        answer() + b"HTTP/1.1 200 OK\r\n",
        answer(fields=b"Connection: close\r\n"),
    ],
)
async def test_a_connection_that_said_too_much_or_goodbye_is_not_kept(nursery, data):
    client, transport, upstream = opened(nursery, saying(data))
    for _ in range(2):
        assert (await client.get(URL)).text == "hello"
        assert counts(transport) == (0, 0)
    assert upstream.connections == 2


async def test_a_body_until_close_ends_with_the_connection(nursery):
    script = saying(b"HTTP/1.0 200 OK\r\n\r\n", b"abc", b"def", then_close=True)
    client, transport, _ = opened(nursery, script)
    assert (await client.get(URL)).content == b"abcdef"
    assert counts(transport) == (0, 0)


async def test_interim_responses_are_skipped(nursery):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    client, _, _ = opened(nursery, saying(hints, hints + answer()))
    response = await client.get(URL)
    assert (response.status_code, response.text) == (200, "hello")
    assert "link" not in response.headers


@pytest.mark.parametrize(
    ("pieces", "theirs", "ours", "responded"),
    [
        ([], httpx.RemoteProtocolError, Broken, False),
        ([b"HTTP/1.1 2"], httpx.RemoteProtocolError, Broken, True),
        ([b"nonsense\r\n\r\n"], httpx.RemoteProtocolError, Garbled, True),
        ([b"HTTP/1.1 101 Yes\r\n\r\n"], httpx.RemoteProtocolError, Garbled, True),
        ([answer()[:-1]], httpx.RemoteProtocolError, Broken, True),
        ([CHUNKED, b"3\r\nabc\r\n"], httpx.RemoteProtocolError, Broken, True),
        ([CHUNKED, b"3\r\nabcdef"], httpx.RemoteProtocolError, Garbled, True),
    ],
)
async def test_failures_have_httpx_types_and_our_causes(nursery, pieces, theirs, ours, responded):
    client, transport, _ = opened(nursery, saying(*pieces, then_close=True))
    with pytest.raises(theirs) as caught:
        await client.get(URL)
    cause = caught.value.__cause__
    assert isinstance(cause, ours)
    assert (cause.reused, cause.sent, cause.responded) == (False, True, responded)
    assert counts(transport) == (0, 0)


async def test_a_kept_connection_that_died_is_told_apart_and_never_asked_twice(nursery):
    seen = []

    async def script(stream):
        requests = Requests(stream)
        seen.append(await requests.whole())
        await stream.send_all(answer())
        seen.append(await requests.whole())

    client, transport, upstream = opened(nursery, script)
    await client.get(URL)
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await client.post(URL, content=b"x")
    cause = caught.value.__cause__
    assert (cause.reused, cause.sent, cause.responded) == (True, True, False)
    assert len(seen) == 2
    assert upstream.connections == 1
    assert counts(transport) == (0, 0)


async def test_a_kept_connection_closed_before_the_request_left_says_nothing_was_sent(nursery):
    client, _, _ = opened(nursery, saying(answer(), then_close=True))
    await client.get(URL)
    await wait_all_tasks_blocked()
    with pytest.raises(httpx.TransportError) as caught:
        await client.post(URL, content=b"x")
    cause = caught.value.__cause__
    assert (cause.reused, cause.sent, cause.responded) == (True, False, False)


async def test_what_cannot_be_connected_is_unreachable():
    async def connect(origin, within):
        await trio.lowlevel.checkpoint()
        raise OSError("no such thing")

    transport = TrioTransport(connect=connect)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx.ConnectError, match="no such thing") as caught:
            await client.get(URL)
    assert isinstance(caught.value.__cause__, Unreachable)


@pytest.mark.parametrize("url", ["ftp://upstream.test/", "ws://upstream.test/", "/path"])
async def test_other_protocols_are_refused(url):
    async with httpx.AsyncClient(transport=TrioTransport()) as client:
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get(url)


async def test_a_request_that_must_not_go_out_costs_no_connection(nursery):
    client, transport, upstream = opened(nursery, saying(answer()))
    await client.get(URL)
    with pytest.raises(httpx.LocalProtocolError):
        await client.get(URL, headers=[(b"X", b"a\r\nInjected: b")])
    assert (await client.get(URL)).extensions["reused"]
    assert upstream.connections == 1
    assert counts(transport) == (0, 1)


# Leaving


async def test_release_from_another_task_wakes_the_reader_and_frees_the_slot(nursery):
    client, transport, upstream = opened(nursery, saying(CHUNKED), max_connections=1)
    async with streaming(transport) as response:
        outcome = []

        async def read():
            with pytest.raises(Broken):
                await response.stream.receive()
            outcome.append("woken")

        async with trio.open_nursery() as inner:
            inner.start_soon(read)
            await wait_all_tasks_blocked()
            response.stream.release()
            assert counts(transport) == (0, 0)
            response.stream.release()
        assert outcome == ["woken"]
        with pytest.raises(Broken):
            await response.stream.receive()
        upstream.script = saying(answer())
        assert (await client.get(URL)).text == "hello"


async def test_release_after_the_end_leaves_the_kept_connection_alone(nursery):
    client, transport, _ = opened(nursery, saying(answer()))
    async with streaming(transport) as response:
        assert await response.aread() == b"hello"
        response.stream.release()
    assert counts(transport) == (0, 1)
    assert (await client.get(URL)).extensions["reused"]


async def test_leaving_early_closes_the_connection(nursery, autojump_clock):
    left = trio.Event()

    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(CHUNKED + b"3\r\nabc\r\n")
        assert await stream.receive_some(1) == b""
        left.set()

    _, transport, _ = opened(nursery, script)
    async with streaming(transport) as response:
        assert await response.stream.receive() == b"abc"
    with trio.fail_after(1):
        await left.wait()
    assert counts(transport) == (0, 0)


@pytest.mark.parametrize("phase", ["connecting", "queued", "waiting for the head", "uploading"])
async def test_a_cancelled_request_leaves_nothing_behind(nursery, autojump_clock, phase):
    client, transport, _ = opened(nursery, saying(), max_connections=1)
    if phase == "connecting":

        async def never(origin, within):
            await trio.sleep_forever()

        transport._connect = never

    async def endless():
        while True:
            await trio.sleep(0.1)
            yield b"x"

    async with trio.open_nursery() as inner:
        if phase == "queued":
            inner.start_soon(client.get, URL)
            await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await client.post(URL, content=endless() if phase == "uploading" else b"")
        assert scope.cancelled_caught
        inner.cancel_scope.cancel()
    assert counts(transport) == (0, 0)
    assert transport.pool._shelves == {}


async def test_a_waiter_gets_the_connection_the_moment_it_is_free(nursery):
    client, _, upstream = opened(nursery, saying(answer()), max_connections=1)
    responses = []

    async def ask():
        responses.append(await client.get(URL))

    async with trio.open_nursery() as inner:
        for _ in range(20):
            inner.start_soon(ask)
    assert len(responses) == 20
    assert upstream.connections == 1


async def test_closing_the_client_closes_running_streams_too(nursery):
    client, transport, _ = opened(nursery, saying(CHUNKED))
    response = await client.send(client.build_request("GET", URL), stream=True)
    await client.aclose()
    with pytest.raises(httpx.ReadError):
        await response.aread()
    assert counts(transport) == (0, 0)


# Timeouts


@pytest.mark.parametrize(
    ("timeout", "expected", "after"),
    [
        (httpx.Timeout(None, read=3), httpx.ReadTimeout, 3),
        (httpx.Timeout(None, write=4), httpx.WriteTimeout, 4),
    ],
)
async def test_read_and_write_timeouts_are_honoured(
    nursery, autojump_clock, timeout, expected, after
):
    async def script(stream):
        if expected is httpx.ReadTimeout:
            await Requests(stream).whole()
        await trio.sleep_forever()

    client, transport, upstream = opened(nursery, script)
    if expected is httpx.WriteTimeout:

        async def stuck(origin, within):
            stream = await upstream.connect(origin, within)
            stream.send_stream.send_all_hook = trio.sleep_forever
            return stream

        transport._connect = stuck
    start = trio.current_time()
    with pytest.raises(expected) as caught:
        await client.post(URL, content=b"x", timeout=timeout)
    assert trio.current_time() - start == pytest.approx(after)
    assert isinstance(caught.value.__cause__, Broken)
    assert counts(transport) == (0, 0)


async def test_the_read_timeout_counts_from_read_to_read(nursery, autojump_clock):
    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(CHUNKED)
        for _ in range(5):
            await trio.sleep(2)
            await stream.send_all(b"1\r\nx\r\n")
        await trio.sleep_forever()

    client, _, _ = opened(nursery, script)
    start = trio.current_time()
    async with client.stream("GET", URL, timeout=httpx.Timeout(None, read=3)) as response:
        with pytest.raises(httpx.ReadTimeout):
            await response.aread()
    assert trio.current_time() - start == pytest.approx(13)


async def test_the_pool_timeout_is_honoured(nursery, autojump_clock):
    client, _, _ = opened(nursery, saying(), max_connections=1)
    async with trio.open_nursery() as inner:
        inner.start_soon(client.get, URL)
        await wait_all_tasks_blocked()
        with pytest.raises(httpx.PoolTimeout):
            await client.get(URL, timeout=httpx.Timeout(None, pool=2))
        inner.cancel_scope.cancel()


# Request bodies


async def pieces(*parts):
    for part in parts:
        await trio.lowlevel.checkpoint()
        yield part


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_in_pieces_is_sent_with_or_without_a_length(nursery, declared):
    seen = []

    async def script(stream):
        requests = Requests(stream)
        while (request := await requests.whole()) is not None:
            seen.append(request)
            await stream.send_all(answer())

    client, transport, _ = opened(nursery, script)
    headers = {"Content-Length": "6"} if declared else {}
    await client.post(URL, content=pieces(b"abc", b"", b"def"), headers=headers)
    head, body = seen[0]
    assert body == b"abcdef"
    assert (b"chunked" in head) is not declared
    assert counts(transport) == (0, 1)


@pytest.mark.parametrize("length", ["5", "7"])
async def test_a_body_that_is_not_as_long_as_declared_is_our_fault(nursery, length):
    client, transport, _ = opened(nursery, saying(answer()))
    async with aclosing(pieces(b"abc", b"def")) as body:  # httpx hides it from us
        with pytest.raises(httpx.LocalProtocolError):
            await client.post(URL, content=body, headers={"Content-Length": length})
    assert counts(transport) == (0, 0)


async def test_what_reading_the_body_raises_comes_out_as_it_is(nursery):
    async def failing():
        yield b"abc"
        raise LookupError("the client left")

    client, transport, _ = opened(nursery, saying(answer()))
    with pytest.raises(LookupError, match="the client left"):
        await client.post(URL, content=failing())
    assert counts(transport) == (0, 0)


async def test_an_early_refusal_stops_the_upload(nursery, autojump_clock):
    async def script(stream):
        await Requests(stream).head()
        await stream.send_all(answer(b"too large", status=b"413 Content Too Large"))
        await trio.sleep_forever()

    async def endless():
        while True:
            await trio.sleep(1)
            yield b"x" * 1000

    client, transport, _ = opened(nursery, script)
    response = await client.post(URL, content=endless())
    assert (response.status_code, response.text) == (413, "too large")
    assert counts(transport) == (0, 0)


async def test_an_early_answer_that_is_no_refusal_lets_the_upload_finish(nursery):
    received = []

    async def script(stream):
        requests = Requests(stream)
        await requests.head()
        await stream.send_all(CHUNKED)
        received.append(await requests.chunked())
        await stream.send_all(b"2\r\nok\r\n0\r\n\r\n")
        await trio.sleep_forever()

    client, transport, _ = opened(nursery, script)
    response = await client.post(URL, content=pieces(*[b"x" * 100] * 50))
    assert response.text == "ok"
    assert len(received[0]) == 5000
    assert counts(transport) == (0, 1)


async def test_an_answer_that_ends_before_the_upload_ends_with_it(nursery):
    received = []

    async def script(stream):
        requests = Requests(stream)
        await requests.head()
        await stream.send_all(answer(b"ok"))
        received.append(await requests.chunked())
        await trio.sleep_forever()

    client, transport, _ = opened(nursery, script)
    async with client.stream("POST", URL, content=pieces(*[b"x" * 100] * 50)) as response:
        assert counts(transport) == (1, 0)
        assert await response.aread() == b"ok"
        assert counts(transport) == (0, 1)
    await wait_all_tasks_blocked()
    assert len(received[0]) == 5000


class Fed(httpx.AsyncByteStream):
    """A body like the relay's: a cancelled step loses nothing, and closing is noticed."""

    resumable = True

    def __init__(self):
        self.feeder, self.pieces = trio.open_memory_channel(0)
        self.closed = 0

    def __aiter__(self):
        return self.pieces

    async def aclose(self):
        self.closed += 1
        self.pieces.close()


async def test_an_answer_is_handed_out_while_the_upload_waits_for_more(nursery):
    """Both ways in turn: each piece of the answer is one of the request, and its cause."""

    async def script(stream):
        requests = Requests(stream)
        await requests.head()
        await stream.send_all(CHUNKED)
        while True:
            size = int(await requests.exactly(1), 16)
            piece = await requests.exactly(size + 4)
            await stream.send_all(b"%x\r\n%b\r\n" % (size, piece[2:-2]) if size else b"0\r\n\r\n")

    _, transport, _ = opened(nursery, script)
    body = Fed()
    request = httpx.Request("POST", URL, stream=body)
    response = await transport.handle_async_request(request)
    for each in (b"one", b"two", b"three"):
        nursery.start_soon(body.feeder.send, each)
        assert await response.stream.receive() == each
    body.feeder.close()
    assert await response.stream.receive() == b""
    assert body.closed == 1
    assert counts(transport) == (0, 1)


@pytest.mark.parametrize("refused", [True, False])
async def test_the_body_is_told_when_nobody_reads_on(nursery, refused):
    async def script(stream):
        requests = Requests(stream)
        await requests.head()
        if refused:
            await stream.send_all(answer(b"no", status=b"413 Content Too Large"))
        else:
            await stream.send_all(CHUNKED)
        await trio.sleep_forever()

    _, transport, _ = opened(nursery, script)
    body = Fed()
    response = await transport.handle_async_request(httpx.Request("POST", URL, stream=body))
    assert body.closed == refused
    await response.stream.aclose()
    assert body.closed == 1
    with pytest.raises(trio.BrokenResourceError):
        await body.feeder.send(b"late")
    assert counts(transport) == (0, 0)


async def test_a_body_nobody_began_to_read_can_be_sent_again(nursery):
    client, transport, _ = opened(nursery, saying(answer(), then_close=True))
    await client.get(URL)
    await wait_all_tasks_blocked()
    body = Fed()
    with pytest.raises(httpx.TransportError) as caught:
        await transport.handle_async_request(httpx.Request("POST", URL, stream=body))
    assert not caught.value.__cause__.sent
    assert body.closed == 0


async def test_nothing_keeps_the_request_body_once_it_was_sent(nursery):
    _, transport, _ = opened(nursery, saying(CHUNKED + b"3\r\nabc\r\n"))
    for size in (1_000, 300_000):
        body = bytes(size)
        unshared = sys.getrefcount(body)
        request = httpx.Request("POST", URL, content=body)
        response = await transport.handle_async_request(request)
        assert await response.stream.receive() == b"abc"
        assert sys.getrefcount(body) > unshared
        del request
        assert sys.getrefcount(body) == unshared
        await response.stream.aclose()


async def test_the_read_timeout_begins_when_the_request_is_out(nursery, autojump_clock):
    async def script(stream):
        await Requests(stream).whole()
        await trio.sleep_forever()

    async def slow():
        for _ in range(5):
            await trio.sleep(2)
            yield b"x"

    client, transport, _ = opened(nursery, script)
    start = trio.current_time()
    with pytest.raises(httpx.ReadTimeout):
        await client.post(URL, content=slow(), timeout=httpx.Timeout(None, read=3))
    assert trio.current_time() - start == pytest.approx(13)
    assert counts(transport) == (0, 0)


async def test_what_reading_the_rest_of_the_body_raises_comes_out_of_the_answer(nursery):
    async def failing():
        yield b"abc"
        await answered.wait()
        yield b"def"
        raise LookupError("the client left")

    async def script(stream):
        await Requests(stream).head()
        await stream.send_all(CHUNKED)
        answered.set()
        await trio.sleep_forever()

    answered = trio.Event()
    client, transport, _ = opened(nursery, script)
    with pytest.raises(LookupError, match="the client left"):
        await client.post(URL, content=failing())
    assert counts(transport) == (0, 0)


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_upstream_that_answers_and_closes_early_is_still_heard(nursery, streamed):
    async def script(stream):
        await Requests(stream).head()
        await stream.send_all(answer(b"no", status=b"401 Unauthorized"))
        stream.send_stream.close()
        stream.receive_stream.close()

    client, transport, upstream = opened(nursery, script)

    async def connect(origin, within):
        # The head goes through and is answered; what follows finds the upstream gone.
        stream = await upstream.connect(origin, within)
        deliver = stream.send_stream.send_all_hook

        async def deliver_and_wait():
            await deliver()
            await wait_all_tasks_blocked()

        stream.send_stream.send_all_hook = deliver_and_wait
        return stream

    transport._connect = connect
    big = b"x" * 200_000
    response = await client.post(URL, content=pieces(big, big) if streamed else big)
    assert (response.status_code, response.text) == (401, "no")
    assert counts(transport) == (0, 0)
