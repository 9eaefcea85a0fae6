"""Streams that run steadily: forwarded where they were read, with no task woken for it."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from patience import PATIENCE
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.core.errors import Broken, Garbled
from trio_sse_proxy.upstreams import readiness as module
from trio_sse_proxy.upstreams.tls import make_ssl_context
from trio_sse_proxy.upstreams.transport import TrioTransport

from .servers import CHUNKED, MemoryUpstream, Requests, reset, serving

pytestmark = [pytest.mark.slow, pytest.mark.steady]

END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Taker:
    """Takes everything but what holds `stop`; remembers which task called it."""

    def __init__(self, stop: bytes = b"stop") -> None:
        self.stop = stop
        self.taken = b""
        self.tasks = []
        self.came = trio.Event()

    def __call__(self, data: bytes) -> bytes:
        self.tasks.append(trio.lowlevel.current_task())
        self.came.set()
        self.came = trio.Event()
        if self.stop in data:
            return data
        self.taken += data
        return b""

    async def has(self, data: bytes) -> None:
        with trio.fail_after(PATIENCE):
            while data not in self.taken:
                await self.came.wait()


class Source:
    """A server that sends what it is told, one stream after another on one connection."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(0)
        self.requests = 0

    async def __call__(self, stream) -> None:
        requests = Requests(stream)
        while await requests.whole() is not None:
            self.requests += 1
            await stream.send_all(CHUNKED)
            while True:
                order = await self._receive.receive()
                if order == "reset":
                    reset(stream)
                    return
                if order == "end":
                    return
                await stream.send_all(order)
                if order.endswith(END):
                    break

    async def send(self, order) -> None:
        with trio.fail_after(PATIENCE):
            await self._send.send(order)


@asynccontextmanager
async def pumped(**tls):
    """(source, the stream of a response, its transport)."""
    source = Source()
    context = tls.get("server")
    async with serving(source, context) as port:
        transport = TrioTransport(ssl_context=tls.get("client"))
        scheme = "https" if context else "http"
        url = f"{scheme}://localhost:{port}/"
        try:
            response = await transport.handle_async_request(httpx.Request("GET", url))
            yield source, response.stream, transport
            await response.stream.aclose()
        finally:
            await transport.aclose()


async def soon(call, *args):
    with trio.fail_after(PATIENCE):
        return await call(*args)


async def test_the_tasks_of_a_steady_stream_sleep_while_its_pieces_are_taken():
    async with pumped() as (source, stream, _):
        taker = Taker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soon, stream.pump, taker)
            for number in range(5):
                await source.send(chunk(b"piece%d;" % number))
                await taker.has(b"piece%d;" % number)
            own = taker.tasks[0]
            assert all(task is not own for task in taker.tasks[1:])
            await source.send(END)
        assert taker.taken == b"piece0;piece1;piece2;piece3;piece4;"


async def test_what_is_left_wakes_the_task_and_the_next_pump_goes_on_behind_it():
    async with pumped() as (source, stream, transport):
        taker = Taker()
        await source.send(chunk(b"one"))
        async with trio.open_nursery() as nursery:
            left = []

            async def pump():
                left.append(await soon(stream.pump, taker))

            nursery.start_soon(pump)
            await taker.has(b"one")
            await source.send(chunk(b"stop here"))
        assert left == [b"stop here"]
        await source.send(chunk(b"two") + END)
        assert await soon(stream.pump, taker) == b""
        assert taker.taken == b"onetwo"
        assert transport.pool.idle_connections == 1


async def test_the_last_pieces_may_come_with_the_end_of_the_body():
    async with pumped() as (source, stream, transport):
        taker = Taker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soon, stream.pump, taker)
            await source.send(chunk(b"first;"))
            await taker.has(b"first;")
            await source.send(chunk(b"last;") + END)
        assert taker.taken == b"first;last;"
        assert await soon(stream.pump, taker) == b""
        assert transport.pool.idle_connections == 1


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ("end", Broken),
        ("reset", Broken),
        (b"this is no chunk\r\n", Garbled),
    ],
    ids=["end of stream", "reset", "garbled"],
)
async def test_a_stream_that_breaks_while_nobody_is_awake_is_told(order, error):
    async with pumped() as (source, stream, transport):
        taker = Taker()
        async with trio.open_nursery() as nursery:

            async def pump():
                with pytest.raises(error) as caught:
                    await soon(stream.pump, taker)
                assert caught.value.responded
                assert caught.value.sent

            nursery.start_soon(pump)
            await source.send(chunk(b"first;"))
            await taker.has(b"first;")
            await source.send(order)
        assert transport.pool.busy_connections == 0


@pytest.mark.parametrize("steady", [False, True], ids=["at first", "once it runs"])
async def test_a_fault_that_comes_with_whole_pieces_is_told_behind_them_at_once(steady):
    """Though the upstream says nothing more, and does not close."""
    async with pumped() as (source, stream, _):
        taker = Taker()
        async with trio.open_nursery() as nursery:

            async def pump():
                with pytest.raises(Garbled):
                    await soon(stream.pump, taker)

            nursery.start_soon(pump)
            if steady:
                await source.send(chunk(b"first;"))
                await taker.has(b"first;")
            await source.send(chunk(b"last;") + b"this is no chunk\r\n")
        assert taker.taken.endswith(b"last;")


async def test_a_farewell_over_tls_ends_the_body_though_the_socket_stays_open(server_tls, ca_file):
    client = make_ssl_context(ca_file)
    assert isinstance(client, ssl.SSLContext)
    gone = trio.Event()

    async def script(stream) -> None:
        await Requests(stream).whole()
        await stream.send_all(CHUNKED)
        stream._ssl_object.write(chunk(b"first;"))
        with pytest.raises(ssl.SSLWantReadError):
            stream._ssl_object.unwrap()
        await stream.transport_stream.send_all(stream._outgoing.read())  # all of it in one read
        await gone.wait()

    async with serving(script, server_tls) as port:
        transport = TrioTransport(ssl_context=client)
        url = f"https://localhost:{port}/"
        response = await transport.handle_async_request(httpx.Request("GET", url))
        with pytest.raises(Broken):
            await soon(response.stream.pump, Taker())
        gone.set()
        await transport.aclose()


async def test_a_release_from_another_task_wakes_the_one_that_sleeps():
    async with pumped() as (source, stream, transport):
        taker = Taker()
        async with trio.open_nursery() as nursery:

            async def pump():
                with pytest.raises(Broken):
                    await soon(stream.pump, taker)

            nursery.start_soon(pump)
            await source.send(chunk(b"first;"))
            await taker.has(b"first;")
            stream.release()
            stream.release()
        assert transport.pool.busy_connections == 0


async def test_a_release_by_the_taker_itself_wakes_its_task_once():
    async with pumped() as (source, stream, _):
        calls = []
        first = trio.Event()

        def take(data: bytes) -> bytes:
            calls.append(data)
            first.set()
            if len(calls) == 2:
                stream.release()
            return b""

        async with trio.open_nursery() as nursery:

            async def pump():
                with pytest.raises(Broken):
                    await soon(stream.pump, take)

            nursery.start_soon(pump)
            await source.send(chunk(b"first;"))
            await soon(first.wait)
            await source.send(chunk(b"second;"))
        assert calls == [b"first;", b"second;"]


async def test_a_pump_that_was_cancelled_takes_nothing_more():
    async with pumped() as (source, stream, _):
        taker = Taker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.pump, taker)
            await source.send(chunk(b"first;"))
            await taker.has(b"first;")
            nursery.cancel_scope.cancel()
        await source.send(chunk(b"second;"))
        await wait_all_tasks_blocked()
        assert taker.taken == b"first;"
        assert await soon(stream.receive) == b"second;"


async def test_what_the_taker_raises_comes_out_of_the_pump():
    async with pumped() as (source, stream, _):

        def take(data: bytes) -> bytes:
            if data == b"second;":
                raise LookupError("of the taker")
            first.set()
            return b""

        first = trio.Event()

        async with trio.open_nursery() as nursery:

            async def pump():
                with pytest.raises(LookupError):
                    await soon(stream.pump, take)

            nursery.start_soon(pump)
            await source.send(chunk(b"first;"))
            await soon(first.wait)
            await source.send(chunk(b"second;"))


async def test_many_streams_share_one_task_and_leave_nothing_registered():
    async with pumped() as (source, stream, _):
        taker = Taker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soon, stream.pump, taker)
            await source.send(chunk(b"first;"))
            await taker.has(b"first;")
            ready = module.readiness()
            assert ready is not None
            assert ready is module.readiness()
            assert len(ready._handlers) == 1
            await source.send(END)
        assert not ready._handlers


async def test_where_there_is_no_epoll_the_same_is_done_by_receiving(monkeypatch):
    monkeypatch.setattr("trio_sse_proxy.upstreams.lines.readiness", lambda: None)
    async with pumped() as (source, stream, _):
        taker = Taker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soon, stream.pump, taker)
            for number in range(3):
                await source.send(chunk(b"piece%d;" % number))
                await taker.has(b"piece%d;" % number)
            await source.send(END)
        assert taker.taken == b"piece0;piece1;piece2;"


async def test_the_same_over_memory_streams(nursery):
    source = Source()
    upstream = MemoryUpstream(nursery, source)
    transport = TrioTransport(connect=upstream.connect)
    response = await transport.handle_async_request(httpx.Request("GET", "http://a/"))
    taker = Taker()
    async with trio.open_nursery() as inner:
        inner.start_soon(soon, response.stream.pump, taker)
        await source.send(chunk(b"one;"))
        await source.send(chunk(b"two;") + END)
    assert taker.taken == b"one;two;"
    await transport.aclose()


async def test_over_tls_records_are_decrypted_where_they_were_read(server_tls, ca_file):
    client = make_ssl_context(ca_file)
    assert isinstance(client, ssl.SSLContext)
    async with pumped(server=server_tls, client=client) as (source, stream, transport):
        taker = Taker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soon, stream.pump, taker)
            for number in range(4):
                await source.send(chunk(b"piece%d;" % number))
                await taker.has(b"piece%d;" % number)
            own = taker.tasks[0]
            assert all(task is not own for task in taker.tasks[1:])
            await source.send(chunk(b"last;") + END)
        assert taker.taken == b"piece0;piece1;piece2;piece3;last;"
        assert transport.pool.idle_connections == 1
