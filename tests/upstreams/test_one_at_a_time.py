"""HTTP/2 upstreams and outbound proxies, each on real sockets."""

from __future__ import annotations

import gc
import ssl
import struct
import sys
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio
from patience import PATIENCE
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.core.errors import Broken, Garbled, Unreachable
from trio_sse_proxy.upstreams.one_at_a_time import OneAtATimeTransport
from trio_sse_proxy.upstreams.tls import make_ssl_context
from trio_sse_proxy.upstreams.transport import TrioTransport, open_transport

from .servers import CHUNKED, Requests, answer, closed_port, reset, serving

pytestmark = [pytest.mark.slow, pytest.mark.steady]


@asynccontextmanager
async def opened(ca_file, **options):
    transport = open_transport(ssl_context=make_ssl_context(ca_file), **options)
    try:
        yield transport
    finally:
        await transport.aclose()


@asynccontextmanager
async def sent(transport, url, method="GET", **options):
    response = await transport.handle_async_request(httpx.Request(method, url, **options))
    try:
        yield response
    finally:
        response.stream.release()
        await response.stream.aclose()


def counts(transport):
    return transport.pool.busy_connections, transport.pool.idle_connections


async def echo(stream):
    requests = Requests(stream)
    while (request := await requests.whole()) is not None:
        await stream.send_all(answer(request[0].split(b"\r\n")[0] + b"|" + request[1]))


async def pump(source, sink):
    try:
        async for data in source:
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await trio.aclose_forcefully(sink)


async def join(stream, port):
    other = await trio.open_tcp_stream("127.0.0.1", port)
    async with other, trio.open_nursery() as nursery:
        nursery.start_soon(pump, stream, other)
        nursery.start_soon(pump, other, stream)


class HttpProxy:
    """CONNECT, and plain requests in absolute form; `seen` holds the request lines."""

    def __init__(self, refusal=None):
        self.seen = []
        self.fields = []
        self.refusal = refusal

    async def __call__(self, stream):
        requests = Requests(stream)
        while (request := await requests.whole()) is not None:
            line, _, fields = request[0].partition(b"\r\n")
            self.seen.append(line)
            self.fields.append(fields)
            if self.refusal:
                await stream.send_all(answer(b"", status=self.refusal))
            elif line.startswith(b"CONNECT "):
                await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
                await join(stream, int(line.split()[1].rpartition(b":")[2]))
                return
            else:
                await stream.send_all(answer(line))


class Socks5Proxy:
    """No authentication, CONNECT by name or address."""

    def __init__(self):
        self.seen = []

    async def __call__(self, stream):
        requests = Requests(stream)
        _, methods = await requests.exactly(2)
        await requests.exactly(methods)
        await stream.send_all(b"\x05\x00")
        *_, kind = await requests.exactly(4)
        size = 4 if kind == 1 else (await requests.exactly(1))[0]
        self.seen.append(await requests.exactly(size))
        (port,) = struct.unpack("!H", await requests.exactly(2))
        await stream.send_all(b"\x05\x00\x00\x01" + bytes(6))
        await join(stream, port)


class Http2Server:
    """Answers every stream with `reply(connection, stream_id, body)`; notes who left."""

    def __init__(self, reply):
        self.reply = reply
        self.connections = 0
        self.gone = trio.Event()

    async def __call__(self, stream):
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        bodies = {}
        await stream.send_all(connection.data_to_send())
        try:
            while data := await stream.receive_some():
                for event in connection.receive_data(bytes(data)):
                    if isinstance(event, h2.events.DataReceived):
                        bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                        connection.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                    elif isinstance(event, h2.events.StreamEnded):
                        self.reply(connection, event.stream_id, bodies.pop(event.stream_id, b""))
                if out := connection.data_to_send():
                    await stream.send_all(out)
        finally:
            self.gone.set()


def http2_echo(connection, stream_id, body):
    connection.send_headers(stream_id, [(":status", "200"), ("x-name", "value")])
    connection.send_data(stream_id, b"got " + body, end_stream=True)


def http2_start(connection, stream_id, body):
    connection.send_headers(stream_id, [(":status", "200")])
    connection.send_data(stream_id, b"start")


@pytest.fixture
def http2_tls(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    return context


def test_the_factory_picks_the_transport_that_fits(ca_file):
    context = make_ssl_context(ca_file)
    assert isinstance(open_transport(), TrioTransport)
    assert isinstance(open_transport(http2=True, ssl_context=context), OneAtATimeTransport)
    assert isinstance(open_transport(proxy="http://p", ssl_context=context), OneAtATimeTransport)
    with pytest.raises(ValueError, match="ftp"):
        open_transport(proxy="ftp://p", ssl_context=context)


# HTTP/2


async def test_http2_is_spoken_and_connections_are_kept(http2_tls, ca_file):
    server = Http2Server(http2_echo)
    async with serving(server, http2_tls) as port, opened(ca_file, http2=True) as transport:
        for reused in (False, True):
            async with sent(
                transport, f"https://localhost:{port}/", "POST", content=b"x"
            ) as response:
                assert response.extensions["http_version"] == b"HTTP/2"
                assert response.extensions["reused"] is reused
                assert await response.stream.receive() == b"got x"
                assert await response.stream.receive() == b""
                assert counts(transport) == (0, 1)
    assert server.connections == 1


async def test_requests_at_the_same_time_have_a_connection_each(http2_tls, ca_file):
    server = Http2Server(http2_start)
    async with serving(server, http2_tls) as port, opened(ca_file, http2=True) as transport:
        url = f"https://localhost:{port}/"
        async with sent(transport, url) as one, sent(transport, url) as other:
            assert await one.stream.receive() == await other.stream.receive() == b"start"
            assert counts(transport) == (2, 0)
        assert counts(transport) == (0, 0)
    assert server.connections == 2


async def test_leaving_an_http2_stream_early_is_noticed_upstream(http2_tls, ca_file):
    server = Http2Server(http2_start)
    async with serving(server, http2_tls) as port, opened(ca_file, http2=True) as transport:
        async with sent(transport, f"https://localhost:{port}/") as response:
            assert await response.stream.receive() == b"start"
        with trio.fail_after(PATIENCE):
            await server.gone.wait()


async def test_a_cancelled_http2_request_is_noticed_upstream(http2_tls, ca_file):
    asked = trio.Event()
    server = Http2Server(lambda *_: asked.set())
    async with serving(server, http2_tls) as port, opened(ca_file, http2=True) as transport:
        async with trio.open_nursery() as nursery:
            request = httpx.Request("GET", f"https://localhost:{port}/")
            nursery.start_soon(transport.handle_async_request, request)
            await asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(PATIENCE):
            await server.gone.wait()
        assert counts(transport) == (0, 0)


async def test_release_wakes_a_reader_of_an_http2_stream(http2_tls, ca_file):
    server = Http2Server(http2_start)
    async with serving(server, http2_tls) as port, opened(ca_file, http2=True) as transport:
        async with sent(transport, f"https://localhost:{port}/") as response:
            assert await response.stream.receive() == b"start"
            async with trio.open_nursery() as nursery:

                async def read():
                    with pytest.raises(Broken):
                        await response.stream.receive()

                nursery.start_soon(read)
                await wait_all_tasks_blocked(0.02)
                response.stream.release()
                assert counts(transport) == (0, 0)
            with pytest.raises(Broken):
                await response.stream.receive()
        with trio.fail_after(PATIENCE):
            await server.gone.wait()


# Outbound proxies


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
@pytest.mark.parametrize("secure", [True, False])
async def test_requests_go_through_the_proxy(server_tls, ca_file, kind, secure):
    proxy = Socks5Proxy() if kind == "socks5" else HttpProxy()
    proxy_tls = server_tls if kind == "https" else None
    upstream_tls = server_tls if secure else None
    async with serving(echo, upstream_tls) as port, serving(proxy, proxy_tls) as proxy_port:
        host = "localhost" if secure else "127.0.0.1"
        url = f"{'https' if secure else 'http'}://{host}:{port}/a"
        async with opened(ca_file, proxy=f"{kind}://localhost:{proxy_port}") as transport:
            for reused in (False, True):
                async with sent(transport, url, "POST", content=b"x") as response:
                    assert response.extensions["reused"] is reused
                    body = await response.aread()
                    absolute = url if kind != "socks5" and not secure else None
                    assert body.startswith(f"POST {absolute or '/a'} HTTP/1.1".encode())
                    assert counts(transport) == (0, 1)
    assert len(proxy.seen) == (2 if kind != "socks5" and not secure else 1)


async def test_the_proxy_is_told_who_asks(ca_file):
    proxy = HttpProxy()
    async with (
        serving(proxy) as port,
        opened(ca_file, proxy=f"http://me:secret@localhost:{port}") as transport,
        sent(transport, "http://upstream.test/") as response,
    ):
        assert await response.aread() == b"GET http://upstream.test/ HTTP/1.1"
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in proxy.fields[0]


async def test_a_proxy_that_refuses_or_is_away_is_unreachable(ca_file):
    async with serving(HttpProxy(b"407 Proxy Authentication Required")) as port:
        for proxy_port in (port, closed_port()):
            async with opened(ca_file, proxy=f"http://localhost:{proxy_port}") as transport:
                with pytest.raises(httpx.ConnectError) as caught:
                    async with sent(transport, "https://upstream.test/"):
                        pass
                cause = caught.value.__cause__
                assert isinstance(cause, Unreachable)
                assert not cause.sent
                assert counts(transport) == (0, 0)


@pytest.mark.parametrize(
    ("said", "end", "theirs", "ours", "responded"),
    [
        (b"", reset, httpx.ReadError, Broken, False),
        (b"", None, httpx.RemoteProtocolError, Broken, False),
        (b"nonsense\r\n\r\n", None, httpx.RemoteProtocolError, Garbled, False),
        (CHUNKED + b"3\r\nabc\r\n", None, httpx.RemoteProtocolError, Broken, True),
        (CHUNKED + b"zz\r\n\r\n", None, httpx.RemoteProtocolError, Garbled, True),
    ],
)
async def test_failures_through_a_proxy_have_our_causes(
    ca_file, said, end, theirs, ours, responded
):
    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(said)
        if end is not None:
            end(stream)

    async with (
        serving(script) as port,
        opened(ca_file, proxy=f"http://localhost:{port}") as transport,
    ):
        with pytest.raises(theirs) as caught:
            async with sent(transport, "http://upstream.test/") as response:
                await response.aread()
        cause = caught.value.__cause__
        assert isinstance(cause, ours)
        assert (cause.reused, cause.sent, cause.responded) == (False, True, responded)
        assert counts(transport) == (0, 0)


async def test_leaving_a_proxied_stream_early_closes_it_without_a_warning(ca_file):
    gone = trio.Event()

    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n")
        assert await stream.receive_some(1) == b""
        gone.set()

    async with (
        serving(script) as port,
        opened(ca_file, proxy=f"http://localhost:{port}") as transport,
    ):
        async with sent(transport, "http://upstream.test/") as response:
            assert await response.stream.receive() == b"abc"
        with trio.fail_after(PATIENCE):
            await gone.wait()
        assert counts(transport) == (0, 0)


async def test_what_cannot_be_sent_is_our_fault(ca_file):
    async with (
        serving(echo) as port,
        opened(ca_file, proxy=f"http://localhost:{port}") as transport,
    ):
        with pytest.raises(httpx.LocalProtocolError):
            async with sent(transport, "http://upstream.test/", headers=[(b"X", b"a\r\nb")]):
                pass
        assert counts(transport) == (0, 0)


@pytest.mark.parametrize("http2", [True, False])
async def test_nothing_keeps_the_request_body_once_it_was_sent(
    http2_tls, server_tls, ca_file, http2
):
    async def start(stream):
        await Requests(stream).whole()
        await stream.send_all(CHUNKED)
        await trio.sleep_forever()

    server = Http2Server(http2_start) if http2 else start
    async with (
        serving(server, http2_tls if http2 else server_tls) as port,
        serving(HttpProxy()) as between,
        opened(ca_file, http2=http2, proxy=None if http2 else f"http://127.0.0.1:{between}") as (
            transport
        ),
    ):
        body = bytes(30_000)
        unshared = sys.getrefcount(body)
        request = httpx.Request("POST", f"https://localhost:{port}/", content=body)
        response = await transport.handle_async_request(request)
        del request
        gc.collect()  # httpcore leaves cycles behind
        assert sys.getrefcount(body) == unshared
        response.stream.release()
        await response.stream.aclose()
