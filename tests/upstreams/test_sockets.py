"""What only real sockets can show: resets, TLS, idle connections that died, waking by closing."""

from __future__ import annotations

import hashlib
import resource
import select
import socket
import ssl
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest
import trio
from patience import PATIENCE
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.core.errors import Broken, Unreachable
from trio_sse_proxy.upstreams.lines import is_readable
from trio_sse_proxy.upstreams.tls import make_ssl_context
from trio_sse_proxy.upstreams.transport import TrioTransport

from .servers import CHUNKED, Requests, answer, closed_port, reset, serving

pytestmark = [pytest.mark.slow, pytest.mark.steady]


@asynccontextmanager
async def sent(transport, url, **options):
    """The response to a GET, straight from the transport; released in the end."""
    response = await transport.handle_async_request(httpx.Request("GET", url, **options))
    try:
        yield response
    finally:
        await response.stream.aclose()


@asynccontextmanager
async def opened(**options):
    transport = TrioTransport(**options)
    try:
        yield transport
    finally:
        await transport.aclose()


async def echo_requests(stream):
    requests = Requests(stream)
    while (request := await requests.whole()) is not None:
        await stream.send_all(answer(b"%d" % len(request[1])))


async def closed_by_peer(transport):
    """Wait until the one idle connection has become readable."""
    (wire,) = transport.pool._idle
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(wire.line.socket)


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED + b"3\r\nabc\r\n"])
async def test_a_reset_is_broken_wherever_it_comes(after):
    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(after)
        await go.wait()
        reset(stream)

    go = trio.Event()
    async with (
        serving(script) as port,
        opened() as transport,
        httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client,
        trio.open_nursery() as nursery,
    ):

        async def soon():
            await trio.sleep(0.05)
            go.set()

        nursery.start_soon(soon)
        with pytest.raises(httpx.ReadError) as caught:
            await client.get(f"http://127.0.0.1:{port}/")
    cause = caught.value.__cause__
    assert isinstance(cause, Broken)
    assert (cause.sent, cause.responded) == (True, bool(after))


@pytest.mark.parametrize("end", [reset, lambda stream: stream.socket.close()])
async def test_an_idle_connection_that_died_is_not_used_again(end):
    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(answer())
        await go.wait()
        end(stream)

    go = trio.Event()
    async with serving(script) as port, opened() as transport:
        for _ in range(2):
            async with sent(transport, f"http://127.0.0.1:{port}/") as response:
                assert not response.extensions["reused"]
                assert await response.aread() == b"hello"
            go.set()
            await closed_by_peer(transport)


async def test_an_idle_upstream_that_speaks_is_not_asked_again():
    async def script(stream):
        requests = Requests(stream)
        while await requests.whole() is not None:
            await stream.send_all(answer())
            await read.acquire()
            await stream.send_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")

    read = trio.Semaphore(0)
    async with serving(script) as port, opened() as transport:
        for _ in range(2):
            async with sent(transport, f"http://127.0.0.1:{port}/") as response:
                assert not response.extensions["reused"]
                assert await response.aread() == b"hello"
            read.release()
            await closed_by_peer(transport)


async def test_release_wakes_a_reader_and_closes_the_socket():
    gone = trio.Event()

    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(CHUNKED)
        assert await stream.receive_some(1) == b""
        gone.set()

    async with serving(script) as port, opened() as transport:
        async with sent(transport, f"http://127.0.0.1:{port}/") as response:
            async with trio.open_nursery() as nursery:

                async def read():
                    with pytest.raises(Broken):
                        await response.stream.receive()

                nursery.start_soon(read)
                await wait_all_tasks_blocked(0.02)
                response.stream.release()
            with trio.fail_after(PATIENCE):
                await gone.wait()
        assert transport.pool.busy_connections == 0


async def test_a_large_body_goes_up_and_comes_down():
    big = bytes(range(256)) * 12_000

    async def script(stream):
        requests = Requests(stream)
        _, body = await requests.whole()
        await stream.send_all(answer(body))

    async with serving(script) as port, opened() as transport:
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client:
            response = await client.post(f"http://127.0.0.1:{port}/", content=big)
        assert response.content == big


async def test_an_upstream_that_refuses_and_closes_without_reading_is_heard():
    async def script(stream):
        await Requests(stream).head()
        await stream.send_all(answer(b"no", status=b"413 Content Too Large"))

    async with (
        serving(script) as port,
        opened() as transport,
        httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client,
    ):
        response = await client.post(f"http://127.0.0.1:{port}/", content=b"x" * 20_000_000)
    assert response.status_code == 413


@pytest.mark.parametrize("secure", [False, True])
async def test_a_large_body_is_echoed_while_it_is_sent(server_tls, ca_file, secure):
    """More than the sockets hold: it goes through only if both directions move at once."""
    size = 30_000_000
    block = bytes(range(256)) * 4_000

    async def script(stream):
        requests = Requests(stream)
        while await requests.head() is not None:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // 50_000):
                await stream.send_all(await requests.exactly(50_000))

    async def generated():
        for start in range(0, size, len(block)):
            yield block[: size - start]

    expected = hashlib.sha256((block * (size // len(block) + 1))[:size]).digest()
    context = make_ssl_context(ca_file)
    async with (
        serving(script, server_tls if secure else None) as port,
        opened(ssl_context=context) as transport,
        httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client,
    ):
        url = f"{'https' if secure else 'http'}://localhost:{port}/"
        for body in (generated(), (block * (size // len(block) + 1))[:size]):
            headers = {"Content-Length": str(size)}
            seen = hashlib.sha256()
            with trio.fail_after(PATIENCE):
                async with client.stream("POST", url, content=body, headers=headers) as response:
                    async for piece in response.aiter_raw():
                        seen.update(piece)
            assert seen.digest() == expected
            assert transport.pool.idle_connections == 1


async def test_an_upstream_that_refuses_and_reads_no_further_is_heard_at_once():
    async def script(stream):
        await Requests(stream).head()
        await stream.send_all(answer(b"no", status=b"413 Content Too Large"))
        await trio.sleep_forever()

    async with serving(script) as port, opened() as transport:
        request = httpx.Request("POST", f"http://127.0.0.1:{port}/", content=b"x" * 20_000_000)
        with trio.fail_after(PATIENCE):
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"no"
        assert response.status_code == 413
        assert transport.pool.busy_connections == transport.pool.idle_connections == 0


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("answered", [False, True])
async def test_leaving_in_the_middle_of_the_request_is_a_reset(
    server_tls, ca_file, secure, answered
):
    """An upstream that reads slowly would see a plain close only behind megabytes of body."""
    begun, left = trio.Event(), trio.Event()
    noticed = []

    async def script(stream):
        await Requests(stream).head()
        if answered:
            await stream.send_all(CHUNKED)
        begun.set()
        await left.wait()
        poll = select.poll()
        poll.register(getattr(stream, "transport_stream", stream).socket, 0)  # errors, always told
        noticed.append(bool(await trio.to_thread.run_sync(poll.poll, PATIENCE * 1000)))

    context = make_ssl_context(ca_file)
    async with (
        serving(script, server_tls if secure else None) as port,
        opened(ssl_context=context) as transport,
        trio.open_nursery() as nursery,
    ):
        url = f"{'https' if secure else 'http'}://localhost:{port}/"

        async def ask():
            request = httpx.Request("POST", url, content=bytes(20_000_000))
            response = await transport.handle_async_request(request)
            async with aclosing(response.stream):
                await response.stream.receive()

        nursery.start_soon(ask)
        await begun.wait()
        await wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            assert transport.pool.busy_connections == 0
            left.set()
            await wait_all_tasks_blocked(0.02)
    assert noticed == [True]


async def test_a_refused_connection_is_unreachable_and_says_why():
    async with opened() as transport:
        with pytest.raises(httpx.ConnectError, match="refused") as caught:
            await transport.handle_async_request(
                httpx.Request("GET", f"http://127.0.0.1:{closed_port()}/")
            )
        assert isinstance(caught.value.__cause__, Unreachable)
        assert transport.pool._shelves == {}


async def test_the_connect_timeout_covers_the_tls_handshake():
    async def script(stream):
        await trio.sleep_forever()

    async with serving(script) as port, opened() as transport:
        with pytest.raises(httpx.ConnectTimeout):
            async with sent(
                transport,
                f"https://127.0.0.1:{port}/",
                extensions={"timeout": {"connect": 0.1}},
            ):
                pass
        assert transport.pool._shelves == {}


async def test_network_details_are_told_as_httpx_tells_them():
    async with (
        serving(echo_requests) as port,
        opened() as transport,
        sent(transport, f"http://127.0.0.1:{port}/") as response,
    ):
        network = response.extensions["network_stream"]
        sock = network.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert network.get_extra_info("server_addr") == ("127.0.0.1", port)
        assert network.get_extra_info("client_addr") == sock.getsockname()
        assert network.get_extra_info("ssl_object") is None
        assert network.get_extra_info("is_readable") is False
        assert network.get_extra_info("colour") is None


def test_readiness_is_told_for_descriptors_beyond_1023():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 1200) if hard != resource.RLIM_INFINITY else 1200
    if wanted < 1100:
        pytest.skip("the system allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    held = []
    try:
        while not held or held[-1].fileno() < 1030:
            held.extend(socket.socketpair())
        ours, theirs = held[-2:]
        assert not is_readable(ours.fileno())
        theirs.send(b"x")
        assert is_readable(ours.fileno())
        assert is_readable(-1)
    finally:
        for each in held:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# TLS


async def test_tls_is_verified_kept_and_told(server_tls, ca_file):
    names = []
    server_tls.sni_callback = lambda ssl_object, name, context: names.append(name)
    context = make_ssl_context(ca_file)
    async with (
        serving(echo_requests, server_tls) as port,
        opened(ssl_context=context) as transport,
        httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client,
    ):
        for reused in (False, True):
            response = await client.post(f"https://localhost:{port}/", content=b"x" * 300_000)
            assert response.text == "300000"
            assert response.extensions["reused"] is reused
        network = response.extensions["network_stream"]
        assert network.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert network.get_extra_info("server_addr")[1] == port
    assert names == ["localhost"]


@pytest.mark.parametrize("known", [True, False])
async def test_a_certificate_that_does_not_fit_is_unreachable(server_tls, ca_file, known):
    context = make_ssl_context(ca_file if known else None)
    extensions = {"sni_hostname": "elsewhere.test"} if known else {}
    async with serving(echo_requests, server_tls) as port, opened(ssl_context=context) as transport:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            async with sent(transport, f"https://localhost:{port}/", extensions=extensions):
                pass
        assert transport.pool._shelves == {}


async def test_many_tls_records_of_one_read_come_in_one_piece(server_tls, ca_file):
    """One record a frame, all in the socket before we read (fewer than the initial window)."""
    received = trio.Event()

    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(CHUNKED)
        await received.wait()
        for number in range(6):
            await stream.send_all(b"4\r\n%04d\r\n" % number)
        written.set()
        await trio.sleep_forever()

    written = trio.Event()
    context = make_ssl_context(ca_file)
    async with (
        serving(script, server_tls) as port,
        opened(ssl_context=context) as transport,
        sent(transport, f"https://localhost:{port}/") as response,
    ):
        received.set()
        await written.wait()
        assert await response.stream.receive() == b"".join(b"%04d" % n for n in range(6))


async def test_release_wakes_a_reader_over_tls_and_early_ends_are_broken(server_tls, ca_file):
    async def script(stream):
        await Requests(stream).whole()
        await stream.send_all(CHUNKED + b"3\r\nabc\r\n")
        if close_early:
            return
        await trio.sleep_forever()

    context = make_ssl_context(ca_file)
    async with serving(script, server_tls) as port, opened(ssl_context=context) as transport:
        close_early = True
        async with sent(transport, f"https://localhost:{port}/") as response:
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()
        close_early = False
        async with sent(transport, f"https://localhost:{port}/") as response:
            assert await response.stream.receive() == b"abc"
            async with trio.open_nursery() as nursery:

                async def read():
                    with pytest.raises(Broken):
                        await response.stream.receive()

                nursery.start_soon(read)
                await wait_all_tasks_blocked(0.02)
                response.stream.release()


def test_contexts_trust_what_they_are_told_to(ca_file):
    only_ours = make_ssl_context(ca_file)
    both = make_ssl_context(ca_file, system_store=True)
    assert len(only_ours.get_ca_certs()) == 1
    assert len(make_ssl_context().get_ca_certs()) > 50
    ours = only_ours.get_ca_certs()[0]["serialNumber"]
    assert ours in [each["serialNumber"] for each in both.get_ca_certs()]
    for context in (only_ours, both):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
    with pytest.raises(OSError, match=r"No such file|not found"):
        make_ssl_context("/nowhere.pem")
