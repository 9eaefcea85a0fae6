"""The end of a server: streams finish or are told, and no client can hold it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h2.events
import pytest
import trio
import trio.testing
import trustme
from patience import NEVER, PATIENCE
from serving import body, read_all, read_until, serving, start
from test_server_http2 import Client

pytestmark = [pytest.mark.slow, pytest.mark.steady]

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Streams:
    """An application that streams until it is ended, and its drainer."""

    def __init__(self, *, stubborn=False):
        self.draining = False
        self.scopes = set()
        self.stubborn = stubborn
        self.none_left = trio.Event()
        self.finish = trio.Event()
        self.calls = 0

    def begin_drain(self):
        self.draining = True
        if not self.scopes:
            self.none_left.set()

    async def drained(self):
        await self.none_left.wait()

    def end_streams(self):
        if not self.stubborn:
            for scope in self.scopes:
                scope.cancel()

    async def __call__(self, scope, receive, send):
        self.calls += 1
        if self.draining:
            await send(start(503, [(b"connection", b"close"), (b"content-length", b"0")]))
            await send(body())
            return
        with trio.CancelScope() as stream:
            self.scopes.add(stream)
            try:
                await self.stream(scope["path"], send)
            finally:
                if stream.cancel_called:
                    with trio.move_on_after(1, shield=True):
                        await send(body(b"data: told\n\n"))
                self.scopes.remove(stream)
                if self.draining and not self.scopes:
                    self.none_left.set()

    async def stream(self, path, send):
        await send(start())
        await send(body(b"data: first\n\n", more=True))
        while path == "/pour":
            await send(body(bytes(100_000), more=True))
        await self.finish.wait()
        await send(body(b"data: last\n\n"))


@pytest.fixture(autouse=True)
def short_farewell(monkeypatch):
    monkeypatch.setattr("trio_sse_proxy.server.FAREWELL", 0.3)


async def ended(running):
    """Ask it to stop; it does so soon enough, whatever its clients do."""
    running.stop.ask()
    with trio.fail_after(PATIENCE):
        await running.ended.wait()


async def test_with_nothing_running_it_ends_at_once():
    app = Streams()
    async with serving(app, drainer=app, drain_timeout=NEVER) as running:
        idle = await running.connect()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await ended(running)
        assert await read_all(idle) == b""


async def test_streams_that_finish_in_time_finish_and_what_is_new_is_refused():
    app = Streams()
    async with serving(app, drainer=app, drain_timeout=NEVER) as running:
        client = await running.connect()
        await client.send_all(GET)
        await read_until(client, b"first\n\n\r\n")
        running.stop.ask()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await running.exchange(GET)).startswith(b"HTTP/1.1 503")
        app.finish.set()
        assert (await read_all(client)).endswith(b"data: last\n\n\r\n0\r\n\r\n")
        with trio.fail_after(PATIENCE):
            await running.ended.wait()


async def test_streams_that_do_not_finish_are_told_and_end_whole():
    app = Streams()
    async with serving(app, drainer=app, drain_timeout=0.1) as running:
        first, second = await running.connect(), Client(await running.connect())
        await first.send_all(GET)
        await read_until(first, b"first\n\n\r\n")
        stream_id = await second.ask()
        await second.until(h2.events.DataReceived, stream_id)
        await ended(running)
        assert (await read_all(first)).endswith(b"data: told\n\n\r\n0\r\n\r\n")
        await second.until(h2.events.StreamEnded, stream_id)
        assert second.body_of(stream_id).endswith(b"data: told\n\n")


async def test_clients_of_http2_hear_at_the_end_what_was_taken_on():
    app = Streams()
    async with serving(app, drainer=app, drain_timeout=0.1) as running:
        client = Client(await running.connect())
        stuck = Client(await running.connect(receive_buffer=4096), window=2**31 - 1)
        stuck.h2.increment_flow_control_window(2**30)
        await stuck.ask([(":path", "/pour"), *POUR])
        await running.stuck()
        stream_id = await client.ask()
        await client.until(h2.events.DataReceived, stream_id)
        await ended(running)
        client.events += client.h2.receive_data(await read_all(client.stream))
    (told,) = [one for one in client.events if isinstance(one, h2.events.ConnectionTerminated)]
    assert (told.error_code, told.last_stream_id) == (0, stream_id)
    assert isinstance(client.events[-1], h2.events.ConnectionTerminated)
    assert client.body_of(stream_id).endswith(b"data: told\n\n")


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_client_that_stopped_reading_does_not_hold_the_exit(http2, stubborn):
    app = Streams(stubborn=stubborn)
    async with serving(app, drainer=app, drain_timeout=0.1) as running:
        stream = await running.connect(receive_buffer=4096)
        if http2:
            client = Client(stream, window=2**31 - 1)
            client.h2.increment_flow_control_window(2**30)
            await client.ask([(":path", "/pour"), *POUR])
        else:
            await stream.send_all(GET.replace(b"/", b"/pour", 1))
        await running.stuck()
        await ended(running)


POUR = [(":method", "GET"), (":scheme", "http"), (":authority", "x")]


async def test_a_client_in_the_middle_of_its_handshake_does_not_hold_the_exit(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("trio_sse_proxy.connection.HANDSHAKE_TIMEOUT", NEVER)
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    both = str(tmp_path / "both.pem")
    app = Streams()
    async with serving(app, drainer=app, certfile=both, keyfile=both) as running:
        stream = await running.connect()
        await stream.send_all(b"\x16\x03\x01")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await ended(running)
        await stream.aclose()


async def test_asking_twice_ends_at_once():
    app = Streams(stubborn=True)
    async with serving(app, drainer=app, drain_timeout=NEVER) as running:
        client = await running.connect()
        await client.send_all(GET)
        await read_until(client, b"first\n\n\r\n")
        running.stop.ask(15)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await ended(running)


async def test_cancelling_the_server_ends_it_at_once_also_under_a_stuck_write():
    app = Streams(stubborn=True)
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with serving(app, drainer=app, drain_timeout=NEVER) as running:
            client = await running.connect(receive_buffer=4096)
            await client.send_all(GET.replace(b"/", b"/pour", 1))
            await running.stuck()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not running.server.connections


SCRIPT = """
import sys, trio
sys.path.insert(0, {tests!r})
from test_server_drain import Streams
from trio_sse_proxy.server import Listening, serve_until_signalled

def listening(urls):
    print(urls[0], flush=True)

async def main():
    app = Streams(stubborn={stubborn})
    settings = Listening(bind="127.0.0.1:0", drain_timeout={drain})
    return await serve_until_signalled(app, app, settings, on_listening=listening)

sys.exit(trio.run(main))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize(
    ("signals", "code", "told"),
    [([signal.SIGTERM], 0, True), ([signal.SIGINT, signal.SIGTERM], 128 + signal.SIGTERM, False)],
)
async def test_a_process_drains_on_a_signal_and_ends_at_once_on_a_second(signals, code, told):
    here = Path(__file__).parent
    drain = 0.2 if told else NEVER
    script = SCRIPT.format(tests=str(here), stubborn=not told, drain=drain)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
    )
    try:
        url = (await read_until(process.stdout, b"\n")).decode().strip()
        assert url.startswith("http://127.0.0.1:")
        client = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        async with client:
            await client.send_all(GET)
            await read_until(client, b"first\n\n\r\n")
            for signum in signals:
                process.send_signal(signum)
                await trio.sleep(0.1)  # or the kernel may hand over the second first
            with trio.fail_after(PATIENCE):
                assert await process.wait() == code
            assert (b"told" in await read_all(client)) == told
    finally:
        process.kill()
        with trio.move_on_after(PATIENCE, shield=True):
            await process.wait()
            await process.stdout.aclose()
