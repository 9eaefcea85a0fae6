"""An upstream that speaks HTTP: what goes out, what an answer is, and what is held meanwhile."""

from __future__ import annotations

import gc
import weakref

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.core.call import Call
from trio_sse_proxy.core.errors import Broken, Garbled, Unreachable
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport

from .servers import CHUNKED, MemoryUpstream, Requests, answer

CALL = Call(id="1-1", stream_id="1")

IDENTITY = ((b"accept-encoding", b"identity"),)


def request(method="POST", body=b"{}", headers=IDENTITY):
    return UpstreamRequest(method=method, target=b"/v1/x?y=1", headers=headers, body=body)


def upstream_over(transport):
    return HttpUpstream(
        name="test", base_url="http://upstream/base", transport=transport, connect_timeout=10
    )


def opened(nursery, script):
    """An upstream over memory streams, and the transport below it."""
    transport = TrioTransport(connect=MemoryUpstream(nursery, script).connect)
    return upstream_over(transport), transport


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("POST", b"{}", b"2"),
        ("POST", b"", b"0"),
        ("PUT", b"", b"0"),
        ("GET", b"", None),
        ("DELETE", b"", None),
        ("DELETE", b"abc", b"3"),
    ],
)
async def test_a_length_goes_out_once_where_there_may_be_a_body(nursery, method, body, length):
    sent = []

    async def script(stream):
        sent.append(bytes(await stream.receive_some(65_536)))
        await stream.send_all(answer(b"ok"))

    upstream, _ = opened(nursery, script)
    async with upstream.open(request(method, body), CALL) as got:
        assert await got.receive() == b"ok"
    head, _, rest = sent[0].partition(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")
    assert fields[:2] == [
        b"%b /base/v1/x?y=1 http/1.1" % method.lower().encode(),
        b"host: upstream",
    ]
    lengths = [field for field in fields if field.startswith(b"content-length:")]
    assert lengths == ([] if length is None else [b"content-length: " + length])
    assert rest == body


class Watching(httpx.AsyncBaseTransport):
    """Hands requests on, and knows which of them are still there."""

    def __init__(self, transport):
        self._transport = transport
        self.alive = weakref.WeakSet()

    def handle_async_request(self, outgoing):
        self.alive.add(outgoing)
        return self._transport.handle_async_request(outgoing)


@pytest.mark.parametrize("size", [2_000, 300_000])
async def test_nothing_but_the_kept_body_stays_while_the_answer_is_awaited(nursery, size):
    async def script(stream):
        await Requests(stream).whole()
        await trio.sleep_forever()

    transport = Watching(TrioTransport(connect=MemoryUpstream(nursery, script).connect))
    upstream = upstream_over(transport)

    async def ask():
        async with upstream.open(request(body=bytes(size)), CALL):
            pytest.fail("there is no answer")

    gc.disable()  # what is let go of is gone at once
    try:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert len(transport.alive) == 0
    finally:
        gc.enable()
    nursery.cancel_scope.cancel()


async def test_leaving_the_context_early_closes_the_connection(nursery):
    upstream, transport = opened(nursery, lambda stream: stream.send_all(CHUNKED + b"1\r\na\r\n"))
    async with upstream.open(request(), CALL) as got:
        assert await got.receive() == b"a"
        assert transport.pool.busy_connections == 1
    assert (transport.pool.idle_connections, transport.pool.busy_connections) == (0, 0)
    with pytest.raises(Broken, match="released"):
        await got.receive()


async def test_a_cancellation_before_the_answer_closes_the_connection(nursery, autojump_clock):
    async def script(stream):
        await Requests(stream).whole()
        await trio.sleep_forever()

    upstream, transport = opened(nursery, script)
    with trio.move_on_after(1) as scope:
        async with upstream.open(request(), CALL):
            pytest.fail("there is no answer")
    assert scope.cancelled_caught
    assert (transport.pool.idle_connections, transport.pool.busy_connections) == (0, 0)


async def test_a_stream_in_a_coding_nobody_asked_for_is_garbled_and_let_go(nursery):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: weird\r\n"
    upstream, transport = opened(
        nursery, lambda stream: stream.send_all(head + b"Transfer-Encoding: chunked\r\n\r\n")
    )
    with pytest.raises(Garbled, match="weird"):
        async with upstream.open(request(), CALL):
            pytest.fail("it cannot be understood")
    assert transport.pool.busy_connections == 0


async def test_what_kept_the_request_from_going_out_is_told_as_it_is():
    async def connect(origin, within):
        raise OSError("nobody is there")

    upstream = upstream_over(TrioTransport(connect=connect))
    with pytest.raises(Unreachable, match="nobody is there"):
        async with upstream.open(request(), CALL):
            pytest.fail("nobody is there")
