"""Upstreams that give answers no upstream should give: each comes to an end, in bounds, and is told."""

from __future__ import annotations

import time

import pytest
import trio
from patience import PATIENCE

from .bystander import resident
from .upstreams import BOMBS, SCRIPTS, exploding
from .wire import chat, connect, read

pytestmark = pytest.mark.slow

MIB = 2**20
MOST = 48 * MIB  # of memory that one answer may take

# name -> the ending that its record has
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
    "bomb of frames": "truncated",
    "redirect to itself": "completed",
    "tiny chunks": "progress_timeout",
}


def record_of(proxy, model):
    deadline = time.monotonic() + PATIENCE
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
async def test_an_evil_answer_ends_as_what_it_is_and_takes_little(proxy, impatient, upstream, name):
    proxy = impatient.get(ENDINGS[name], proxy)
    script = exploding(BOMBS[name], 2 * MOST // MIB) if name in BOMBS else SCRIPTS[name]
    model = upstream.script(script)
    before = resident(proxy.pid)
    async with await connect(proxy.port) as stream:
        await stream.send_all(chat(model, close=True))
        with trio.fail_after(PATIENCE):
            await drain(stream)
    record = await trio.to_thread.run_sync(record_of, proxy, model)
    assert record["ending"] == ENDINGS[name]
    assert len(record["attempts"]) == 1
    assert resident(proxy.pid) - before < MOST
