"""Upstreams that give answers no upstream should give: each comes to an end, in bounds, and is told."""

from __future__ import annotations

import time

import pytest
import trio

from .bystander import resident
from .upstreams import SCRIPTS
from .wire import chat, connect, read

pytestmark = pytest.mark.slow

MIB = 2**20

# name -> the ending that its record has; of several, one
ENDINGS = {
    "endless headers": "protocol",
    "endless header line": "protocol",
    "endless status line": "protocol",
    "garbage status line": "protocol",
    "1xx flood": "protocol",
    "endless chunk extension": "protocol",
    "endless comments": "first_token_timeout",
    "endless comments after output": "progress_timeout",
    "frame without end": "progress_timeout",
    "frame without end at once": "progress_timeout",
    "endless trailers": "protocol",
    "length too long": "truncated",
    "length too short": "truncated",
    "two lengths": "protocol",
    "negative length": "protocol",
    "giant length": "protocol",
    "length beside chunks": "protocol",
    "giant retry-after": "upstream_error",
    "bomb of frames": "truncated progress_timeout first_token_timeout",  # whichever is first
    "redirect to itself": "completed",
    "tiny chunks": "progress_timeout",
}


def record_of(proxy, model):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for record in proxy.get("/-/records")["records"]:
            if record["model"] == model:
                return record
        time.sleep(0.02)
    raise AssertionError(f"no record of {model}")


async def drain(stream):
    """Read to the end and keep nothing; how many bytes there were."""
    size = 0
    while len(data := await read(stream, most=1)):
        size += len(data)
    return size


@pytest.mark.parametrize("name", ENDINGS)
async def test_an_evil_answer_ends_as_what_it_is_and_takes_little(request, upstream, name):
    endless = "timeout" in ENDINGS[name]
    proxy = request.getfixturevalue("impatient_proxy" if endless else "proxy")
    model = upstream.script(SCRIPTS[name])
    before = resident(proxy.pid)
    async with await connect(proxy.port) as stream:
        await stream.send_all(chat(model, close=True))
        with trio.fail_after(20):
            await drain(stream)
    record = await trio.to_thread.run_sync(record_of, proxy, model)
    assert record["ending"] in ENDINGS[name].split()
    assert len(record["attempts"]) == 1
    assert resident(proxy.pid) - before < 48 * MIB
