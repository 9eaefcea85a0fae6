"""SIGTERM: what can finish does, the rest is told, and the exit is a good one."""

from __future__ import annotations

import subprocess

import pytest
import trio
from patience import NEVER, PATIENCE
from scripted.talk import PATHS

from .proxy import ServedProxy
from .wire import Reader, WireClient, request

pytestmark = pytest.mark.slow

DRAIN = 5.0  # seconds; "paced-slowly" needs 1.5, on a machine that never stands still
STREAMS = 100
ERRORS = {
    "chat": (b'"error":', b"[DONE]"),
    "responses": (b"event: response.failed", b"event: response.completed"),
    "messages": (b"event: error", b"event: message_stop"),
}


async def converse(port, model, dialect, going, replies):
    """Ask, send to `going` when the first words are there, and read to the end."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request(model, dialect=dialect))
        reader, raw, told = Reader(trio.current_time()), b"", False
        while True:
            try:
                data = await stream.receive_some(65536)
            except trio.BrokenResourceError:
                replies[model] = dialect, reader.result("reset")
                return
            raw = raw[-10:] + data
            if b"tok" in raw and not told:
                told = True
                await going.send(model)
            if reply := reader.receive(data):
                replies[model] = dialect, reply
                return


async def test_sigterm_with_a_hundred_streams_lets_finish_or_tells_each(upstream):
    dialects = [list(PATHS)[n % 3] for n in range(STREAMS)]
    kinds = ["paced-slowly" if n % 2 else "endless-tokens" for n in range(STREAMS)]
    models = [upstream.model(kind) for kind in kinds]
    replies = {}
    going, started = trio.open_memory_channel[str](STREAMS)
    with ServedProxy(upstream.url, "--drain-timeout", str(DRAIN)) as proxy:
        async with trio.open_nursery() as nursery:
            for model, dialect in zip(models, dialects, strict=True):
                nursery.start_soon(converse, proxy.port, model, dialect, going, replies)
            with trio.fail_after(PATIENCE):
                for _ in models:
                    await started.receive()
            proxy.terminate()
            nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
        assert await trio.to_thread.run_sync(proxy.wait) == 0
    wrong = {}
    for model, dialect in zip(models, dialects, strict=True):
        _, reply = replies[model]
        told, done = (mark in reply.body for mark in ERRORS[dialect])
        finished = model.startswith("paced")
        if (reply.status, reply.ending, done, told) != (200, "complete", finished, not finished):
            wrong[model] = dialect, reply.ending, reply.seconds, reply.body[-300:]
    assert wrong == {}
    assert {upstream.visits(m)[0].wait_for_end() for m in models if "endless" in m} == {"left"}


def drain(proxy):
    """Tell it to end, which it heeds soon, not at once."""
    proxy.terminate()
    while proxy.page("/-/readyz")[0] == 200:
        pass


def test_a_client_that_drain_ends_is_told_of_the_shutdown_not_of_a_broken_upstream(upstream):
    flags = ("--heartbeat", "1", "--drain-timeout", "0.2")
    with ServedProxy(upstream.url, *flags) as proxy, WireClient(proxy.port) as client:
        client.ask(upstream.model("hang-after-output")).read_until(b"tok5")
        proxy.terminate()
        assert b"shutting down" in client.read_until(b"0\r\n\r\n")
        assert proxy.wait() == 0


def test_a_draining_proxy_answers_what_it_will_not_do(upstream):
    with (
        ServedProxy(upstream.url, "--drain-timeout", str(NEVER)) as proxy,
        WireClient(proxy.port) as running,
    ):
        running.ask(upstream.model("endless-tokens"))
        running.read_until(b"tok0")
        assert proxy.page("/-/readyz")[0] == 200
        drain(proxy)
        with WireClient(proxy.port) as client:
            refused = client.ask(upstream.model("normal")).reply()
        assert refused.status == 503
        assert refused.headers["retry-after"]
        assert refused.headers["connection"] == "close"
        assert proxy.page("/-/readyz")[0] == 503
        assert proxy.page("/-/healthz")[0] == 200
        running.read_until(b"tok0")
        running.leave("fin")
        assert proxy.wait() == 0


def test_an_idle_proxy_ends_at_once_and_a_second_signal_does_not_wait(upstream):
    with ServedProxy(upstream.url) as proxy:
        proxy.terminate()
        assert proxy.wait() == 0
    with (
        ServedProxy(upstream.url, "--drain-timeout", str(NEVER)) as proxy,
        WireClient(proxy.port) as running,
    ):
        running.ask(upstream.model("endless-tokens"))
        running.read_until(b"tok0")
        drain(proxy)  # the kernel may take two signals for one
        with pytest.raises(subprocess.TimeoutExpired):
            proxy.wait(0.5)
        proxy.terminate()
        proxy.wait()
        proxy.forgive_exit_code()
