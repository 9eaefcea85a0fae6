"""HTTP/1.1 through the listening side, on real sockets, with toy applications."""

from __future__ import annotations

import socket

import pytest
import structlog.testing
import trio
import trio.testing
from patience import NEVER, PATIENCE, until
from serving import body, read_all, read_until, serving, start

from trio_sse_proxy.calls import HELD
from trio_sse_proxy.http1 import PIPELINED
from trio_sse_proxy.wire import CONNECTION, READ, YIELD_EVERY, Wire

pytestmark = [pytest.mark.slow, pytest.mark.steady]

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def hello(scope, receive, send):
    await send(start())
    await send(body(b"hello"))


async def test_an_answer_of_unknown_length_is_chunked_and_the_connection_lives_on():
    async def app(scope, receive, send):
        await send(start())
        await send(body(b"data: 1\n\n", more=True))
        await send(body(b"", more=True))
        await send(body(bytearray(b"data: 2\n\n"), more=True))
        await send(body())

    async with serving(app) as running, await running.connect() as client:
        for _ in range(2):
            await client.send_all(GET)
            got = await read_until(client, b"0\r\n\r\n")
            head, _, chunks = got.partition(b"\r\n\r\n")
            assert head == b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked"
            assert chunks == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("request_line", "status", "headers", "expected"),
    [
        (b"GET / HTTP/1.1", 200, [(b"content-length", b"4")], b"abcd"),
        (b"HEAD / HTTP/1.1", 200, [], b""),
        (b"GET / HTTP/1.1", 204, [], b""),
        (b"GET / HTTP/1.1", 304, [], b""),
        (b"GET / HTTP/1.1", 404, [], b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"),
        (
            b"GET / HTTP/1.1",
            200,
            [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")],
            b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n",
        ),
        (b"GET / HTTP/1.0", 200, [], b"abcd"),
    ],
)
async def test_the_body_is_framed_as_h11_would_frame_it(request_line, status, headers, expected):
    async def app(scope, receive, send):
        await send(start(status, headers))
        await send(body(b"ab", more=True))
        await send(body(b"cd", more=True))
        await send(body())

    async with serving(app) as running:
        got = await running.exchange(request_line + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert got.partition(b"\r\n\r\n")[2] == expected


async def test_a_body_much_larger_than_the_socket_takes_arrives_whole():
    piece = bytes(range(256)) * 1024

    async def app(scope, receive, send):
        await send(start())
        for _ in range(20):
            await send(body(piece, more=True))
        await send(body())

    async with serving(app) as running:
        got = await running.exchange(CLOSE)
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    assert got.partition(b"\r\n\r\n")[2] == chunk * 20 + b"0\r\n\r\n"


async def test_a_writer_that_never_waits_lets_others_have_their_turn():
    async def run_hot():
        for _ in range(200):
            await wire.send(b"x")
        assert len(turns) >= 200 // YIELD_EVERY - 1  # the last turn may still be to come

    async def take_turns():
        while True:
            turns.append(None)
            await trio.lowlevel.checkpoint()

    turns = []
    ours, theirs = socket.socketpair()
    wire = Wire(ours, None, NEVER)
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            await run_hot()
            nursery.cancel_scope.cancel()
        wire.close()


async def test_returning_in_the_middle_of_a_body_leaves_out_the_final_chunk():
    async def app(scope, receive, send):
        await send(start())
        await send(body(b"half", more=True))

    async with serving(app) as running:
        got = await running.exchange(GET)
    assert got.endswith(b"\r\n\r\n4\r\nhalf\r\n")


async def test_returning_in_the_middle_of_a_body_resets_an_http_1_0_connection():
    async def app(scope, receive, send):
        await send(start())
        await send(body(b"half", more=True))
        await proceed.wait()

    proceed = trio.Event()
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
        await read_until(client, b"half")
        proceed.set()
        with pytest.raises(trio.BrokenResourceError) as caught, trio.fail_after(PATIENCE):
            await client.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_whole_http_1_0_answer_ends_without_a_reset():
    async with serving(hello) as running:
        got = await running.exchange(b"GET / HTTP/1.0\r\n\r\n")
    assert got.endswith(b"\r\n\r\nhello")


async def test_a_failing_application_gets_500_and_hurts_nobody_else():
    async def app(scope, receive, send):
        if scope["path"] == "/bad":
            raise ExceptionGroup("group", [ValueError("boom"), KeyError("boom")])
        await hello(scope, receive, send)

    async with serving(app) as running, await running.connect() as other:
        await other.send_all(GET)
        await read_until(other, b"hello")
        with structlog.testing.capture_logs() as logs:
            got = await running.exchange(CLOSE.replace(b"/", b"/bad", 1))
        assert got.startswith(b"HTTP/1.1 500")
        await other.send_all(GET)
        await read_until(other, b"hello")
    assert [entry["event"] for entry in logs] == ["application failed"]


async def test_a_failing_connection_is_logged_and_hurts_nobody_else(monkeypatch):
    async def app(scope, receive, send):
        if scope["path"] == "/bad":
            scope["state"][CONNECTION].calls.spawn(fail)
            await trio.sleep_forever()
        await hello(scope, receive, send)

    async def fail():
        raise RuntimeError("a bug below the application")

    async with serving(app) as running, await running.connect() as other:
        await other.send_all(GET)
        await read_until(other, b"hello")
        with structlog.testing.capture_logs() as logs:
            assert await running.exchange(CLOSE.replace(b"/", b"/bad", 1)) == b""
        await other.send_all(GET)
        await read_until(other, b"hello")
    assert [entry["event"] for entry in logs] == ["connection failed"]


@pytest.mark.parametrize("leave", ["fin", "half-close", "reset"])
@pytest.mark.parametrize("extra", [b"", b"upgrade", b"pipelined"])
async def test_a_leaving_client_is_heard_of_at_once(leave, extra):
    """Also if it offered an upgrade, or sent a next request already."""

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        assert (await receive())["type"] == "http.disconnect"  # and so on
        heard.set()

    heard = trio.Event()
    request = GET
    if extra == b"upgrade":
        request = GET[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: \r\n\r\n"
    async with serving(app) as running:
        client = await running.connect()
        await client.send_all(request + (GET if extra == b"pipelined" else b""))
        await trio.testing.wait_all_tasks_blocked(0.02)
        if leave == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await (client.send_eof() if leave == "half-close" else client.aclose())
        with trio.fail_after(PATIENCE):
            await heard.wait()
        await client.aclose()


async def test_pipelined_requests_are_answered_in_order():
    async def app(scope, receive, send):
        got, more = b"", True
        while more:
            message = await receive()
            got += message["body"]
            more = message["more_body"]
        await send(start())
        await send(body(scope["path"].encode() + b" " + got + b"|"))

    posts = [
        b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nab%d" % (n, n) for n in (1, 2)
    ]
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(b"".join(posts))
        await trio.testing.wait_all_tasks_blocked(0.02)
        await client.send_all(CLOSE.replace(b"/", b"/3", 1))
        got = await read_all(client)
    bodies = [part.rpartition(b"\r\n")[2] for part in got.split(b"|")[:-1]]
    assert bodies == [b"/1 ab1", b"/2 ab2", b"/3 "]


async def test_a_request_behind_the_last_one_does_not_cut_its_answer_short():
    async def app(scope, receive, send):
        await send(start(headers=[(b"connection", b"close")]))
        await send(body(b"begun ", more=True))
        await may_go_on.wait()
        await send(body(b"whole"))

    may_go_on = trio.Event()
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(GET)
        got = await read_until(client, b"begun")
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked(0.02)
        may_go_on.set()
        assert b"whole" in got + await read_all(client)


async def test_more_pipelined_requests_than_are_read_ahead_are_all_answered():
    async def app(scope, receive, send):
        await may_answer.wait()
        await send(start(headers=[(b"content-length", b"1")]))
        await send(body(b"|"))

    may_answer = trio.Event()
    padded = GET.replace(b"host", b"padding: " + b"x" * 1000 + b"\r\nhost")
    count = 3 * PIPELINED // len(padded)
    async with serving(app) as running, await running.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, padded * count)
            await trio.testing.wait_all_tasks_blocked(0.02)
            may_answer.set()
        got = b""
        while got.count(b"|") < count:
            got += await read_until(client, b"|")
        assert got.count(b"HTTP/1.1 200") == count


async def test_abort_wakes_a_write_that_is_stuck():
    async def app(scope, receive, send):
        await send(start())
        connection = scope["state"][CONNECTION]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(abort_soon, connection)
            while not connection.wire.stuck_for() and not woken.is_set():
                await send(body(bytes(100_000), more=True))
                if aborted.is_set():
                    woken.set()

    async def abort_soon(connection):
        await until(connection.wire.stuck_for)
        aborted.set()
        connection.abort()
        connection.abort()

    aborted, woken = trio.Event(), trio.Event()
    async with serving(app) as running, await running.connect(receive_buffer=4096) as client:
        await client.send_all(GET)
        with trio.fail_after(PATIENCE):
            await woken.wait()


@pytest.fixture
def without_kernel(monkeypatch):
    """The kernel's own deadline, which knows no steady time, is far behind ours."""
    monkeypatch.setattr("trio_sse_proxy.listening.BACKSTOP", NEVER)


@pytest.mark.usefixtures("without_kernel")
async def test_a_write_that_gets_nowhere_ends_at_the_stall_deadline():
    async def app(scope, receive, send):
        await send(start())
        for _ in range(100):
            await send(body(bytes(100_000), more=True))
        stalled.append(trio.current_time() - began)
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        over.set()

    stalled, over, began = [], trio.Event(), trio.current_time()
    async with (
        serving(app, write_stall_timeout=0.3) as running,
        await running.connect(receive_buffer=4096) as client,
    ):
        await client.send_all(GET)
        with trio.fail_after(PATIENCE):
            await over.wait()
    assert stalled[0] >= 0.3


async def test_the_stall_deadline_does_not_need_the_kernels_help():
    """Socket pairs, and other systems than Linux, have no TCP_USER_TIMEOUT."""
    ours, theirs = socket.socketpair()
    wire = Wire(ours, None, 0.1)
    with theirs, trio.fail_after(PATIENCE):
        assert not await wire.send(bytes(10_000_000))
        assert not await wire.send(b"more")
        assert await wire.receive() == b""


@pytest.mark.usefixtures("without_kernel")
async def test_a_slow_client_is_not_a_stalled_one():
    """What counts is that bytes leave, not how long the whole write takes."""
    size = 5_000_000

    async def app(scope, receive, send):
        await send(start(headers=[(b"content-length", b"%d" % size)]))
        await send(body(bytes(size)))

    async with (
        serving(app, write_stall_timeout=1.0) as running,
        await running.connect(receive_buffer=65536) as client,
    ):
        await client.send_all(CLOSE)
        got, began = 0, trio.current_time()
        while data := await client.receive_some(60_000):
            got += len(data)
            await trio.sleep(0.015)
    assert trio.current_time() - began > 1.0
    assert got > size


@pytest.mark.parametrize("http", [b"1.1", b"1.0"])
async def test_an_early_refusal_reaches_a_client_that_still_uploads(http, monkeypatch):
    """Closing on unread bytes sends a reset, which would overtake the answer."""
    monkeypatch.setattr("trio_sse_proxy.connection.LINGER", NEVER)

    async def app(scope, receive, send):
        await send(start(413, [(b"connection", b"close"), (b"content-length", b"4")]))
        await send(body(b"big!"))

    size = 8_000_000
    head = b"POST / HTTP/%b\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (http, size)
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(head)
        await read_until(client, b"big!")
        for _ in range(size // 100_000):
            await client.send_all(bytes(100_000))
        assert await read_all(client) == b""


async def test_an_application_that_returns_without_reading_the_body_does_not_hold_the_reader():
    async def app(scope, receive, send):
        await queue_is_full.wait()
        await hello(scope, receive, send)

    queue_is_full = trio.Event()
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(30):
            await client.send_all(b"1\r\nx\r\n")
        await trio.testing.wait_all_tasks_blocked(0.02)
        queue_is_full.set()
        assert b"hello" in await read_all(client)
        await client.aclose()
        await until(lambda: not running.server.connections)


async def test_a_cancelled_call_sends_the_message_wholly_or_not_at_all():
    async def app(scope, receive, send):
        with trio.CancelScope() as scope_:
            scope_.cancel()
            await send(start(201))
        assert scope_.cancelled_caught
        await send(start(202))
        await send(body(b"ok"))

    async with serving(app) as running:
        got = await running.exchange(CLOSE)
    assert got.startswith(b"HTTP/1.1 202")


async def test_connection_close_of_the_application_closes():
    async def app(scope, receive, send):
        await send(start(503, [(b"connection", b"close"), (b"content-length", b"0")]))
        await send(body())

    async with serving(app) as running:
        assert b"connection: close" in await running.exchange(GET)


async def test_a_websocket_upgrade_gets_426_at_once_and_no_call():
    async def app(scope, receive, send):
        raise AssertionError("called")

    upgrade = (
        b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAA\r\n\r\n"
    )
    async with serving(app) as running:
        with structlog.testing.capture_logs() as logs:
            got = await running.exchange(upgrade)
    head, _, text = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"connection: upgrade, close" in head
    assert text.endswith(b".\n")
    assert not logs


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no host
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 70_000, b"431"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", b"501"),
    ],
)
async def test_malformed_requests_get_a_short_answer_and_a_closed_connection(sent, status):
    async with serving(hello) as running:
        got = await running.exchange(sent)
    assert got == b"HTTP/1.1 %b \r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status


async def test_the_scope_shows_the_request_as_it_came():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await hello(scope, receive, send)

    async with serving(app) as running:
        await running.exchange(
            b"POST http://other/a%2Fb?q=%20 HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\n"
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
        )
        assert scopes[0]["server"] == ("127.0.0.1", running.port)
    scope = scopes[0]
    assert scope["raw_path"] == b"http://other/a%2Fb"
    assert scope["query_string"] == b"q=%20"
    assert scope["headers"] == [
        (b"host", b"x"),
        (b"a", b"1"),
        (b"a", b"2"),
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
    ]


async def test_an_idle_connection_is_closed_when_its_time_is_up():
    async def app(scope, receive, send):
        await trio.sleep(0.25)  # longer than that, but not idle
        await hello(scope, receive, send)

    async with serving(app, keep_alive=0.1) as running, await running.connect() as client:
        began = trio.current_time()
        await client.send_all(GET)
        got = await read_until(client, b"hello")
        assert b"hello" in got + await read_all(client)
    assert trio.current_time() - began >= 0.25 + 0.1


async def trickle(client, *, rate, piece=1000):
    """Read up to the end, so many bytes a second; how many came."""
    got = 0
    while data := await client.receive_some(piece):
        got += len(data)
        await trio.sleep(len(data) / rate)
    return got


async def test_a_reader_of_ten_kilobytes_a_second_outlives_many_stall_timeouts():
    """It frees room by less than the kernel wakes a writer for, or takes for an open window."""
    size = 800_000

    async def app(scope, receive, send):
        await send(start(headers=[(b"content-length", b"%d" % size)]))
        with trio.move_on_after(3.5):
            await send(body(bytes(size)))
        returned.append(trio.current_time() - began)

    returned, began = [], trio.current_time()
    async with serving(app, write_stall_timeout=0.75) as running:
        client = await running.connect(receive_buffer=2048)
        await client.send_all(CLOSE)
        with trio.move_on_after(3.2):  # the kernel's deadline is at 3.0
            await trickle(client, rate=10_000, piece=500)
        (connection,) = running.server.connections
        assert not returned
        assert connection.wire.stuck_for() < 0.75
        assert trio.current_time() - connection.progressed_at() < 0.75
        assert not connection.is_gone()
        await until(lambda: not running.server.connections)
    assert len(returned) == 1


async def test_a_connection_on_which_nothing_waits_has_progressed_now():
    async def app(scope, receive, send):
        connection, before = scope["state"][CONNECTION], trio.current_time()
        assert before <= connection.progressed_at() <= trio.current_time()
        assert not connection.is_gone()
        await hello(scope, receive, send)

    async with serving(app) as running:
        assert b"hello" in await running.exchange(CLOSE)


@pytest.mark.parametrize("leave", ["fin", "reset"])
async def test_a_client_that_leaves_while_its_upload_waits_is_heard_of(leave, monkeypatch):
    """Ahead of what it sent: there will be no more of it."""
    monkeypatch.setattr("trio_sse_proxy.calls.LOOK_EVERY", 0.1)

    async def app(scope, receive, send):
        await left.wait()
        await until(scope["state"][CONNECTION].is_gone)
        await trio.sleep(0.2)  # for the server to look
        heard.append((await receive())["type"])
        over.set()

    left, over, heard = trio.Event(), trio.Event(), []
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")
        await client.send_all(bytes(HELD))
        await trio.testing.wait_all_tasks_blocked(0.02)
        await client.send_all(b"and more that nobody reads")
        (connection,) = running.server.connections
        assert not connection.is_gone()
        if leave == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()
        left.set()
        with trio.fail_after(PATIENCE):
            await over.wait()
    assert heard == ["http.disconnect"]


async def test_an_upload_larger_than_what_may_wait_arrives_whole():
    async def app(scope, receive, send):
        got, more = 0, True
        while more:
            message = await receive()
            assert len(message["body"]) < HELD + READ
            got += len(message["body"])
            more = message["more_body"]
            await trio.lowlevel.checkpoint()
        await send(start())
        await send(body(b"%d" % got))

    size = 3_000_000
    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(head + bytes(size))
        assert b"%d" % size in await read_all(client)


@pytest.fixture
def written(monkeypatch):
    """What is written to the client, one by one."""
    written, write = [], Wire.send

    async def recorded(wire, data):
        written.append(bytes(data))
        return await write(wire, data)

    monkeypatch.setattr(Wire, "send", recorded)
    return written


async def test_the_head_and_the_first_chunk_are_one_write_and_so_are_the_last_and_the_end(written):
    async def app(scope, receive, send):
        await send(start())
        await send(body(b"first", more=True))
        await send(body(b"last"))

    async with serving(app) as running, await running.connect() as client:
        for _ in range(2):  # h11 knows that the first one is over
            await client.send_all(GET)
            got = await read_until(client, b"0\r\n\r\n")
            assert got.endswith(b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n")
    head = b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n"
    assert written == 2 * [head + b"5\r\nfirst\r\n", b"4\r\nlast\r\n0\r\n\r\n"]


@pytest.mark.parametrize(
    "sent", [GET, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"]
)
async def test_a_head_that_no_body_follows_is_sent_at_once(sent):
    """Also while the request still comes in; and what comes later is not lost by it."""
    go_on = trio.Event()

    async def app(scope, receive, send):
        await send(start(headers=[(b"x-a", b"b")]))
        await go_on.wait()
        got = b""
        more = True
        while more:
            message = await receive()
            got, more = got + message["body"], message["more_body"]
        await send(body(got + b"."))

    async with serving(app) as running, await running.connect() as client:
        for _ in range(2):
            go_on = trio.Event()
            await client.send_all(sent)
            got = await read_until(client, b"\r\n\r\n")
            assert got == b"HTTP/1.1 200 \r\nx-a: b\r\nTransfer-Encoding: chunked\r\n\r\n"
            go_on.set()
            if sent is not GET:
                await client.send_all(b" half")
            expected = b"." if sent is GET else b"half half."
            assert expected in await read_until(client, b"0\r\n\r\n")


async def test_a_head_without_a_body_arrives_while_an_upload_waits_for_the_application():
    async def app(scope, receive, send):
        await trio.testing.wait_all_tasks_blocked(0.02)  # the reader waits for room by now
        await send(start())
        await trio.sleep_forever()

    sent = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (4 * HELD)
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(sent + bytes(2 * HELD))
        assert (await read_until(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_head_that_waits_goes_out_before_the_connection_closes():
    async def app(scope, receive, send):
        await send(start(headers=[(b"x-a", b"b")]))

    async with serving(app) as running:
        got = await running.exchange(GET)
    assert got == b"HTTP/1.1 200 \r\nx-a: b\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "bad",
    [
        (b"x-a", b"b\r\nx-evil: 1"),
        (b"x-a", b"b\nx-evil: 1"),
        (b"x-a", b"b\rx-evil: 1"),
        (b"x-a", b"b\0"),
        (b"x-a: b\r\nx-evil", b"1"),
        (b"x-evil: 1, x-a", b"b"),
        (b"x evil", b"1"),
    ],
)
@pytest.mark.parametrize("others", [[], [(b"content-length", b"2"), (b"x-b", b"c")]])
async def test_no_header_of_the_application_ends_its_line_early(bad, others):
    async def app(scope, receive, send):
        await send(start(headers=[*others, bad]))
        await send(body(b"ok"))

    async with serving(app) as running:
        with structlog.testing.capture_logs() as logs:
            got = await running.exchange(CLOSE)
    assert [entry["event"] for entry in logs] == ["application failed"]
    assert b"evil" not in got
    assert b"x-a" not in got
    assert not got.startswith(b"HTTP/1.1 200")


async def test_headers_pass_in_their_order_and_the_framing_follows():
    async def app(scope, receive, send):
        headers = [
            (b"X-A", b" 1 "),
            (b"content-length", b"2"),
            (b"set-cookie", b"a"),
            (b"x-e", b""),
        ]
        await send(start(headers=[*headers, (b"set-cookie", b"b\xe9\t c")]))
        await send(body(b"ok"))

    async with serving(app) as running:
        got = await running.exchange(CLOSE)
    lines = [b"X-A: 1", b"set-cookie: a", b"x-e: ", b"set-cookie: b\xe9\t c", b"content-length: 2"]
    lines = [b"HTTP/1.1 200 ", *lines, b"Connection: close", b"", b"ok"]
    assert got == b"\r\n".join(lines)


async def test_a_large_request_that_was_read_ahead_is_served_once_it_is_its_turn():
    released = trio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/first":
            await released.wait()
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send(start())
        await send(body(b"%d bytes" % size))

    first = b"GET /first HTTP/1.1\r\nhost: x\r\n\r\n"
    size = 4 * HELD
    second = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)
    async with (
        serving(app) as running,
        await running.connect() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send_all, first + second)
        await trio.sleep(0.1)
        released.set()
        await read_until(client, b"%d bytes" % size)


@pytest.mark.parametrize("followed", [True, False])
async def test_a_head_that_was_begun_without_waiting_goes_out(followed, written):
    async def app(scope, receive, send):
        assert scope["state"][CONNECTION].begin_now(201, ((b"x-a", b"b"),), followed=followed)
        assert not scope["state"][CONNECTION].begin_now(200, (), followed=followed)
        if not followed:
            await until(lambda: written)
        await send(body(b"first", more=True))
        await send(body(b"last"))

    head = b"HTTP/1.1 201 \r\nx-a: b\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(app) as running, await running.connect() as client:
        await client.send_all(GET)
        await read_until(client, b"0\r\n\r\n")
    first = [head + b"5\r\nfirst\r\n"] if followed else [head, b"5\r\nfirst\r\n"]
    assert written == [*first, b"4\r\nlast\r\n0\r\n\r\n"]


async def test_what_is_read_at_once_is_a_whole_request_or_waits_for_the_rest():
    async def app(scope, receive, send):
        message = await receive()
        while message["more_body"]:
            await receive()
            message = {"more_body": False}
        await send(start())
        await send(body(b"ok"))

    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
    async with serving(app) as running, await running.connect() as client:
        for cut in (1, len(request) - 1, len(request)):
            await client.send_all(request[:cut])
            await trio.sleep(0.02)
            await client.send_all(request[cut:])
            await read_until(client, b"0\r\n\r\n")
