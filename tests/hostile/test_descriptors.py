"""When the process has no descriptor left, what runs goes on, and it recovers by itself."""

from __future__ import annotations

import resource
import sys

import pytest
import trio
from end_to_end.proxy import ServedProxy
from patience import PATIENCE

from .wire import chat, connect, read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit"),
]


async def test_without_descriptors_streams_go_on_the_log_stays_short_and_it_recovers(upstream):
    with ServedProxy(upstream.url) as proxy:
        async with await connect(proxy.port) as stream:
            await stream.send_all(chat(upstream.model("paced")))
            await read(stream, until=b"tok0")
            few = proxy.descriptors() + 4
            resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (few, few))
            silent = [await connect(proxy.port) for _ in range(30)]
            with trio.fail_after(PATIENCE):
                assert b"[DONE]" in await read(stream, until=b"[DONE]")
            assert proxy.stderr().count("accepting failed") == 1
            for one in silent:
                await one.aclose()
        async with await connect(proxy.port) as stream:
            await stream.send_all(chat(upstream.model("normal")))
            with trio.fail_after(PATIENCE):
                assert b"[DONE]" in await read(stream, until=b"[DONE]")


async def test_it_takes_as_many_descriptors_as_the_system_allows(proxy):
    soft, hard = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
