"""When requests are over, nothing of them is left: no stream, descriptor or upstream connection."""

from __future__ import annotations

import random
import socket
import time
from functools import partial

import pytest
import trio
from patience import PATIENCE
from scripted import ScriptedUpstream
from scripted.talk import PATHS

from .conftest import HEARTBEAT, SILENCE
from .proxy import ServedProxy
from .wire import RESET, Reader, request

pytestmark = pytest.mark.slow

STREAMS = 400
FATES = (
    "normal",
    "paced",
    "silence-before-headers",
    "silence-mid-stream",
    "reset-after-prelude,normal",
    "fin-before-headers,silence-after-prelude",
    "reset-after-output",
    "eof-after-output",
    "status-400",
    "late-status-401",
    "status-503,normal",
    "status-429-5s",
    "final-error-after-output-hang",
    "endless-body",
    "garbage",
    "hang-before-headers",
    "hang-after-prelude",
    "endless-tokens",
    "flood",
)
FOREVER = ("hang-", "endless-tokens", "flood", "status-429-5s")


async def live(port, model, dialect, streamed, patience):
    """Ask, read for at most `patience` seconds, and leave, by FIN or RST."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request(model, dialect=dialect, stream=streamed))
        reader = Reader(trio.current_time())
        with trio.move_on_after(patience):
            while not reader.receive(await stream.receive_some(65536)):
                pass
        if patience * 1000 % 2 > 1:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def settled(proxy, upstream, baseline, timeout=PATIENCE):
    """Descriptors beyond those of idle upstream connections and of `baseline`, once steady."""
    deadline = time.monotonic() + timeout
    while True:
        extra = proxy.descriptors() - upstream.open_connections - baseline
        if extra <= 0 or time.monotonic() > deadline:
            return extra
        time.sleep(0.1)


def under_way(proxy, upstream, first):
    """What the proxy, or the upstream, still has to do."""
    visits = [visit.key for visit in upstream.log[first:] if visit.ending is None]
    return proxy.streams() + visits


@pytest.fixture
def upstream():
    """Of its own: a connection of its is one of the proxy's."""
    with ScriptedUpstream(silence=SILENCE) as running:
        yield running


async def test_four_hundred_streams_of_mixed_fates_leave_nothing_behind(upstream):
    with ServedProxy(upstream.url, "--heartbeat", HEARTBEAT) as proxy:
        await live_and_leave(proxy, upstream)


async def live_and_leave(proxy, upstream):
    # Output in pieces: what all streams share in reading them is there from then on.
    await live(proxy.port, upstream.model("pieces-of-7"), "chat", True, PATIENCE)
    await trio.to_thread.run_sync(upstream.wait_for_quiet, 1)
    baseline = proxy.descriptors() - upstream.open_connections
    rng, first = random.Random(7), len(upstream.log)
    async with trio.open_nursery() as nursery:
        for n in range(STREAMS):
            fate = FATES[n % len(FATES)]
            patience = rng.uniform(0.0, 2.5 if fate.startswith(FOREVER) else 8.0)
            told = upstream.model(fate), list(PATHS)[n % 3], n % 4 != 0, patience
            nursery.start_soon(live, proxy.port, *told)
    assert await trio.to_thread.run_sync(settled, proxy, upstream, baseline) <= 0
    still = partial(under_way, proxy, upstream, first)
    with trio.move_on_after(PATIENCE):  # on a machine that has a lot to do
        while still():  # noqa: ASYNC110  # two processes tell nobody
            await trio.sleep(0.1)
    assert still() == []
    # On a slow machine many are over before they got that far; that is a fate, too.
    assert len(upstream.log) - first >= STREAMS / 4
