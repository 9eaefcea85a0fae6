"""HTTP/2 through the listening side: prior knowledge over TCP, and ALPN over TLS."""

from __future__ import annotations

import ssl

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import pytest
import structlog.testing
import trio
import trio.lowlevel
import trio.testing
import trustme
from patience import NEVER, PATIENCE, until
from serving import body, read_all, serving, start

from trio_sse_proxy.wire import CONNECTION

pytestmark = [pytest.mark.slow, pytest.mark.steady]

REQUEST = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
POST = [(":method", "POST"), *REQUEST[1:]]


class Client:
    """The `h2` library over a stream; it keeps what came, by stream."""

    def __init__(self, stream, *, window=None):
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        if window is not None:
            self.h2.local_settings = h2.settings.Settings(
                client=True,
                initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window},
            )
        self.h2.initiate_connection()
        self.events = []

    async def flush(self):
        await self.stream.send_all(self.h2.data_to_send())

    async def ask(self, headers=REQUEST, *, end=True):
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, headers, end_stream=end)
        await self.flush()
        return stream_id

    async def until(self, kind, stream_id=None):
        """Read until there is an event of this kind (on this stream); return it."""
        with trio.fail_after(PATIENCE):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and (
                        stream_id is None or event.stream_id == stream_id
                    ):
                        return event
                await self.read()

    async def read(self):
        data = await self.stream.receive_some()
        assert data, f"the connection ended; seen: {self.events}"
        self.events += self.h2.receive_data(data)
        await self.flush()

    async def round_trip(self):
        """Wait until the server has handled what was sent; what it said to that has come."""
        kind = h2.events.PingAckReceived
        self.events = [event for event in self.events if not isinstance(event, kind)]
        self.h2.ping(bytes(8))
        await self.flush()
        await self.until(kind)

    def body_of(self, stream_id):
        data = [e for e in self.events if isinstance(e, h2.events.DataReceived)]
        return b"".join(e.data for e in data if e.stream_id == stream_id)

    def headers_of(self, stream_id):
        got = [e for e in self.events if isinstance(e, h2.events.ResponseReceived)]
        return dict(next(e.headers for e in got if e.stream_id == stream_id))


async def hello(scope, receive, send):
    await send(start())
    await send(body(b"hello"))


async def assert_usable(client):
    stream_id = await client.ask()
    await client.until(h2.events.StreamEnded, stream_id)
    assert client.body_of(stream_id) == b"hello"


def paths(**apps):
    """An application by path; all other paths say hello."""

    async def app(scope, receive, send):
        await apps.get(scope["path"][1:], hello)(scope, receive, send)

    return app


def at(path, headers=REQUEST):
    return [headers[0], (":path", path), *headers[2:]]


async def test_data_that_comes_after_an_early_answer_is_dropped_and_its_window_given_back():
    async def refuse(scope, receive, send):
        await send(start(413))
        await send(body(b"too large"))

    async with serving(paths(refuse=refuse)) as running, await running.connect() as stream:
        client = Client(stream)
        with structlog.testing.capture_logs() as logs:
            refused = await client.ask(at("/refuse", POST), end=False)
            await client.until(h2.events.StreamEnded, refused)
            for _ in range(20):  # five times the connection's window
                while client.h2.local_flow_control_window(refused) < 16_000:
                    client.events.clear()
                    await client.until(h2.events.WindowUpdated)
                client.h2.send_data(refused, bytes(16_000))
                await client.flush()
            await assert_usable(client)
        assert not logs


async def test_a_cut_resets_its_stream_alone_after_what_was_written():
    async def cut(scope, receive, send):
        await send(start())
        await send(body(b"half", more=True))

    async with serving(paths(cut=cut)) as running, await running.connect() as stream:
        client = Client(stream)
        stream_id = await client.ask(at("/cut"))
        reset = await client.until(h2.events.StreamReset, stream_id)
        assert reset.error_code == h2.errors.ErrorCodes.INTERNAL_ERROR
        assert client.body_of(stream_id) == b"half"
        await assert_usable(client)


async def test_a_failing_application_ends_its_stream_alone():
    async def early(scope, receive, send):
        raise ValueError

    async def late(scope, receive, send):
        await send(start())
        raise ValueError

    app = paths(early=early, late=late)
    async with serving(app) as running, await running.connect() as stream:
        client = Client(stream)
        with structlog.testing.capture_logs() as logs:
            stream_id = await client.ask(at("/early"))
            await client.until(h2.events.StreamEnded, stream_id)
            assert client.headers_of(stream_id)[":status"] == "500"
            await client.until(h2.events.StreamReset, await client.ask(at("/late")))
        await assert_usable(client)
    assert [entry["event"] for entry in logs] == ["application failed"] * 2


async def test_a_reset_by_the_client_is_a_disconnect_of_that_request_alone():
    async def wait(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        heard.set()

    heard = trio.Event()
    async with serving(paths(wait=wait)) as running, await running.connect() as stream:
        client = Client(stream)
        stream_id = await client.ask(at("/wait"))
        client.h2.reset_stream(stream_id)
        await client.flush()
        with trio.fail_after(PATIENCE):
            await heard.wait()
        await assert_usable(client)


@pytest.mark.parametrize("more", [True, False])
async def test_nothing_is_kept_of_a_stream_that_is_reset_behind_a_shut_window(more):
    """Each would keep up to 64 KB until a window update of the whole connection comes, if one does."""

    async def pour(scope, receive, send):
        await send(start())
        await send(body(bytes(20_000), more=more))
        await receive()

    async with serving(paths(pour=pour)) as running, await running.connect() as stream:
        client = Client(stream, window=100)
        for _ in range(3):
            stream_id = await client.ask(at("/pour"))
            await client.until(h2.events.DataReceived, stream_id)
            client.h2.reset_stream(stream_id)
            await client.flush()
        [connection] = running.server.connections
        await until(lambda: connection.protocol.stream_buffers == {})
        await assert_usable(client)


async def test_a_client_without_window_holds_back_the_writer_and_no_one_else():
    async def pour(scope, receive, send):
        await send(start())
        with trio.CancelScope() as scope_:
            scopes.append(scope_)
            while True:
                await send(body(bytes(1000), more=True))
                poured.append(1000)
        scope["state"][CONNECTION].abort()  # of no effect: TCP is not what is stuck

    scopes, poured = [], []
    async with serving(paths(pour=pour)) as running, await running.connect() as stream:
        client = Client(stream, window=100)
        stream_id = await client.ask(at("/pour"))
        await client.until(h2.events.DataReceived, stream_id)
        await until(lambda: sum(poured) > 20_000)
        await client.round_trip()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert sum(poured) < 40_000
        await assert_usable(client)
        scopes[0].cancel()
        await client.until(h2.events.StreamReset, stream_id)
        await assert_usable(client)


def ending(finished):
    """An application that is cancelled while the end of its answer is being sent."""

    async def end(scope, receive, send):
        await send(start())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel, nursery.cancel_scope)
            await send(body(b"the end"))
            finished.append(True)
            nursery.cancel_scope.cancel()

    async def cancel(scope):
        scope.cancel()

    return paths(end=end)


async def test_whoever_is_cancelled_as_its_end_goes_out_learns_that_it_has_gone_out(monkeypatch):
    """The client takes it for the whole answer; so must the record."""
    monkeypatch.setattr("trio_sse_proxy.http2.CUT_GRACE", NEVER)
    finished = []
    async with serving(ending(finished)) as running, await running.connect() as stream:
        client = Client(stream)
        for _ in range(20):  # in both orders of the tasks that run then
            stream_id = await client.ask(at("/end"))
            await client.until(h2.events.StreamEnded, stream_id)
        await assert_usable(client)
    assert finished == [True] * 20


async def test_an_end_that_does_not_go_out_is_cut_when_its_sender_is_cancelled(monkeypatch):
    monkeypatch.setattr("trio_sse_proxy.http2.CUT_GRACE", 0.1)
    finished = []
    async with serving(ending(finished)) as running, await running.connect() as stream:
        client = Client(stream, window=len("hello"))
        stream_id = await client.ask(at("/end"))
        await client.until(h2.events.StreamReset, stream_id)
        await assert_usable(client)
    assert finished == []


async def test_an_end_waits_for_the_window_if_nobody_is_cancelled(monkeypatch):
    monkeypatch.setattr("trio_sse_proxy.http2.CUT_GRACE", 0.01)

    async def end(scope, receive, send):
        await send(start())
        await send(body(b"the end"))
        finished.append(True)

    finished = []
    async with serving(paths(end=end)) as running, await running.connect() as stream:
        client = Client(stream, window=len("hello"))
        stream_id = await client.ask(at("/end"))
        await client.until(h2.events.DataReceived, stream_id)
        await trio.sleep(0.05)
        client.h2.increment_flow_control_window(9, stream_id)
        await client.flush()
        await client.until(h2.events.StreamEnded, stream_id)
        assert client.body_of(stream_id) == b"the end"
        await assert_usable(client)
    assert finished == [True]


async def test_abort_closes_a_connection_whose_socket_is_stuck(monkeypatch):
    monkeypatch.setattr("trio_sse_proxy.http2.STUCK", 0.05)
    monkeypatch.setattr("trio_sse_proxy.wire.LOOK_EVERY", 0.01)

    async def pour(scope, receive, send):
        await send(start())
        connections.append(scope["state"][CONNECTION])
        while not over.is_set():
            await send(body(bytes(10_000), more=True))
        returned.set()

    connections, over, returned = [], trio.Event(), trio.Event()
    async with serving(paths(pour=pour)) as running:
        client = Client(await running.connect(receive_buffer=4096), window=2**31 - 1)
        client.h2.increment_flow_control_window(2**30)
        await client.ask(at("/pour"))
        await running.stuck()
        (connection,) = running.server.connections
        await until(lambda: connection.protocol.may_be_reset)
        connections[0].abort()
        over.set()
        with trio.fail_after(PATIENCE):
            await returned.wait()


async def test_a_little_behind_a_shut_window_holds_the_writer_up_as_well(monkeypatch):
    """Heartbeats would pile up, and the deadline for a write that gets nowhere never begin."""
    monkeypatch.setattr("trio_sse_proxy.http2.STUCK", 0.05)

    async def beat(scope, receive, send):
        client = scope["state"][CONNECTION]
        await send(start())
        began = trio.current_time()
        await send(body(b": beat\n\n", more=True))
        written = trio.current_time()
        await trio.sleep(0.1)
        with trio.move_on_after(0.2) as waited:
            await send(body(b": beat\n\n", more=True))
        stuck.append(waited.cancelled_caught)
        assert began <= client.progressed_at() <= written  # whatever other streams do
        may_go.set()
        await send(body(b"end"))

    stuck, may_go = [], trio.Event()
    async with serving(paths(beat=beat)) as running, await running.connect() as stream:
        client = Client(stream, window=0)
        stream_id = await client.ask(at("/beat"))
        with trio.fail_after(PATIENCE):
            await may_go.wait()
        assert stuck == [True]
        client.h2.increment_flow_control_window(1000, stream_id)
        await client.flush()
        await client.until(h2.events.StreamEnded, stream_id)
        assert client.body_of(stream_id) == b": beat\n\n" * 2 + b"end"


async def send_what_may_be_sent(client, stream_id, data):
    """Send of `data` what the windows take now; how much that is."""
    sent = 0
    while size := min(client.h2.local_flow_control_window(stream_id), 16_384, len(data) - sent):
        client.h2.send_data(stream_id, data[sent : sent + size])
        await client.flush()
        sent += size
    return sent


async def send_until_shut(client, stream_id, data):
    """Send `data` up to where the window stays shut; how much of it that is."""
    sent = 0
    while size := await send_what_may_be_sent(client, stream_id, data[sent:]):
        sent += size
        await client.round_trip()
    return sent


async def send_all(client, stream_id, data):
    with trio.fail_after(PATIENCE):
        while data := data[await send_what_may_be_sent(client, stream_id, data) :]:
            await client.read()


async def test_an_upload_nobody_reads_holds_up_neither_other_streams_nor_their_bodies():
    async def wait(scope, receive, send):
        await proceed.wait()
        await count(scope, receive, send)

    async def count(scope, receive, send):
        got, more = 0, True
        while more:
            message = await receive()
            got += len(message["body"])
            more = message["more_body"]
        await send(start())
        await send(body(b"%d" % got))

    proceed, size = trio.Event(), 300_000
    async with serving(paths(wait=wait, count=count)) as running:
        client = Client(await running.connect())
        waits = [await client.ask(at("/wait", POST), end=False) for _ in range(3)]
        for stream_id in waits:
            assert 0 < await send_until_shut(client, stream_id, bytes(size)) <= 65_535
        other = await client.ask(at("/count", POST), end=False)
        await send_all(client, other, bytes(size))
        client.h2.end_stream(other)
        await client.flush()
        await client.until(h2.events.StreamEnded, other)
        assert client.body_of(other) == b"%d" % size
        proceed.set()
        await send_all(client, waits[0], bytes(size - 65_535))
        client.h2.end_stream(waits[0])
        await client.flush()
        await client.until(h2.events.StreamEnded, waits[0])
        assert client.body_of(waits[0]) == b"%d" % size


@pytest.mark.parametrize("end", ["reset", "answered", "failed"])
async def test_the_window_of_a_body_that_was_dropped_is_given_back(end):
    """Or the connection's would be shut for good after a few of them."""

    async def drop(scope, receive, send):
        await proceed.acquire()
        if end == "failed":
            raise ValueError
        if end == "answered":
            await hello(scope, receive, send)
        else:
            while (await receive())["type"] != "http.disconnect":
                raise AssertionError("what is there of an unfinished body is void")

    proceed = trio.Semaphore(0)
    async with serving(paths(drop=drop)) as running, await running.connect() as stream:
        client = Client(stream)
        await assert_usable(client)
        with structlog.testing.capture_logs():
            for _ in range(80):  # more than UPLOADS holds
                stream_id = await client.ask(at("/drop", POST), end=False)
                while client.h2.local_flow_control_window(stream_id) < 60_000:
                    client.events.clear()
                    await client.until(h2.events.WindowUpdated)
                for _ in range(4):
                    client.h2.send_data(stream_id, bytes(15_000))
                await client.flush()
                await client.round_trip()
                if end == "reset":
                    client.h2.reset_stream(stream_id)
                    await client.round_trip()
                proceed.release()
                if end != "reset":
                    await client.until(h2.events.StreamEnded, stream_id)
        await assert_usable(client)


async def test_a_large_answer_arrives_whole():
    async def large(scope, receive, send):
        await send(start())
        for n in range(50):
            await send(body(bytes([n]) * 10_000, more=True))
        await send(body(b"end"))

    async with serving(paths(large=large)) as running, await running.connect() as stream:
        client = Client(stream)
        client.h2.increment_flow_control_window(10_000_000)
        stream_id = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream_id, at("/large"), end_stream=True)
        client.h2.increment_flow_control_window(1_000_000, stream_id)
        await client.flush()
        await client.until(h2.events.StreamEnded, stream_id)
        got = client.body_of(stream_id)
    assert got == b"".join(bytes([n]) * 10_000 for n in range(50)) + b"end"


async def test_connection_close_does_not_reach_the_client():
    """A connection-specific field makes an HTTP/2 message malformed (RFC 9113 section 8.2.2)."""

    async def closing(scope, receive, send):
        await send(start(503, [(b"connection", b"close"), (b"retry-after", b"1")]))
        await send(body(b""))

    async with serving(paths(closing=closing)) as running, await running.connect() as stream:
        client = Client(stream)
        stream_id = await client.ask(at("/closing"))
        await client.until(h2.events.StreamEnded, stream_id)
        assert client.headers_of(stream_id) == {":status": "503", "retry-after": "1"}
        await assert_usable(client)


async def test_websockets_are_not_offered():
    connect = [(":method", "CONNECT"), (":protocol", "websocket"), *REQUEST[1:]]
    async with serving(hello) as running, await running.connect() as stream:
        client = Client(stream)
        await assert_usable(client)
        codes = h2.settings.SettingCodes
        assert client.h2.remote_settings.get(codes.ENABLE_CONNECT_PROTOCOL, 0) == 0
        stream_id = await client.ask(connect)
        await client.until(h2.events.StreamEnded, stream_id)
        assert client.headers_of(stream_id)[":status"] == "501"
        await assert_usable(client)


async def test_a_path_that_is_not_ascii_is_refused_on_its_stream_alone():
    async with serving(hello) as running, await running.connect() as stream:
        client = Client(stream)
        stream_id = await client.ask(at("/ü"))
        await client.until(h2.events.StreamEnded, stream_id)
        assert client.headers_of(stream_id)[":status"] == "400"
        await assert_usable(client)


async def test_many_streams_at_once_end_whole():
    async def slow(scope, receive, send):
        await send(start())
        for _ in range(3):
            await send(body(b"x" * 100, more=True))
            await trio.lowlevel.checkpoint()
        await send(body())

    async with serving(paths(slow=slow)) as running, await running.connect() as stream:
        client = Client(stream)
        ids = [await client.ask(at("/slow")) for _ in range(100)]
        for stream_id in ids:
            await client.until(h2.events.StreamEnded, stream_id)
        assert all(client.body_of(stream_id) == b"x" * 300 for stream_id in ids)


async def test_garbage_ends_its_connection_alone():
    async with serving(hello) as running:
        got = await running.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\0\0\0\0\0\0")
        assert got
        async with await running.connect() as stream:
            await assert_usable(Client(stream))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    ca = trustme.CA()
    folder = tmp_path_factory.mktemp("tls")
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    files = {"certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem")}
    return files, context


@pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
async def test_tls_speaks_what_alpn_agrees_on(certificate, http2, version):
    async def large(scope, receive, send):
        assert scope["scheme"] == "https"
        await send(start())
        for _ in range(30):
            await send(body(bytes(50_000), more=True))
        await send(body())

    files, context = certificate
    async with serving(large, **files) as running:
        async with httpx.AsyncClient(verify=context, http2=http2, timeout=PATIENCE) as client:
            got = await client.get(f"https://127.0.0.1:{running.port}/")
        assert got.http_version == version
        assert got.content == bytes(1_500_000)


async def test_a_client_that_never_finishes_its_handshake_is_let_go(certificate, monkeypatch):
    monkeypatch.setattr("trio_sse_proxy.connection.HANDSHAKE_TIMEOUT", 0.1)
    async with serving(hello, **certificate[0]) as running, await running.connect() as stream:
        await stream.send_all(b"\x16\x03\x01")
        assert await read_all(stream) == b""


async def test_an_early_refusal_over_tls_reaches_a_client_that_still_uploads(
    certificate, monkeypatch
):
    monkeypatch.setattr("trio_sse_proxy.connection.LINGER", NEVER)

    async def app(scope, receive, send):
        await send(start(413, [(b"content-length", b"4")]))
        await send(body(b"big!"))

    files, context = certificate
    async with serving(app, **files) as running, await running.connect() as stream:
        tls = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
        await tls.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n")
        await tls.send_all(bytes(3_000_000))
        got = b""
        while b"big!" not in got:
            got += await tls.receive_some()


async def test_trailers_come_behind_the_body_and_end_the_stream():
    async def app(scope, receive, send):
        await send({**start(), "trailers": True})
        await send(body(b"hello"))
        trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
        await send({**trailers, "more_trailers": False})

    async with serving(paths(t=app)) as running, await running.connect() as stream:
        client = Client(stream)
        number = await client.ask([*at("/t"), ("te", "trailers")])
        await client.until(h2.events.StreamEnded, number)
    assert any(isinstance(event, h2.events.TrailersReceived) for event in client.events)
