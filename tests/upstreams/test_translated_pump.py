"""A translated answer that is pumped says the same as one that is received."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sse_proxy.core.errors import Broken, UpstreamError
from trio_sse_proxy.dialects import CHAT
from trio_sse_proxy.dialects.translate.profile import GENERIC
from trio_sse_proxy.dialects.translate.ways import WAYS
from trio_sse_proxy.upstreams.told_back import GRACE, QUIET, ToldBack

KEY = "0123456789abcdef01234567"
EVENTS = ((b"content-type", b"text/event-stream"),)
ASKED = json.dumps(
    {
        "model": "m",
        "stream": True,
        "input": "hi",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    }
).encode()
ways = pytest.mark.parametrize("way", ["responses", "messages"])


def chunk(delta=None, finish=None):
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "c1", "choices": choices}).encode() + b"\n\n"


TEXT = chunk({"content": "hi"})
CALL = chunk(
    {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}
)
STOP, DONE, COMMENT = chunk(finish="stop"), b"data: [DONE]\n\n", b": still here\n\n"
ERROR, RUBBISH = b'data: {"error":{"message":"no"}}\n\n', b"data: {\n\n"
CUT = Broken("cut", responded=True)


class Wire:
    """An answer of these pieces; a number is so many seconds of silence."""

    status, headers = 200, EVENTS

    def __init__(self, *parts):
        self.parts = list(parts)
        self.pumped = 0
        self.over = False

    async def receive(self):
        assert not self.over, "read on behind the end"
        await trio.lowlevel.checkpoint()
        while self.parts:
            match self.parts.pop(0):
                case bytes() as piece:
                    return piece
                case UpstreamError() as error:
                    raise error
                case seconds:
                    await trio.sleep(seconds)
        self.over = True
        return b""

    async def pump(self, take):
        while piece := await self.receive():
            self.pumped += 1
            if left := take(piece):
                return left
        return b""

    def release(self):
        pass


def answer(way, wire):
    translation = WAYS[way](ASKED, GENERIC, KEY, 7)
    return ToldBack(wire, translation, translation.open(), CHAT.open_stream())


async def received(way, parts):
    stream, said = answer(way, Wire(*parts)), b""
    try:
        while given := await stream.receive():
            said += given
    except UpstreamError as error:
        return said, str(error)
    return said, None


async def pumped(way, parts, leaves=lambda number: False):
    """Of what is given, some is left over: the reader takes that itself, and pumps on."""
    wire = Wire(*parts)
    stream, said, number = answer(way, wire), b"", 0

    def take(given):
        nonlocal said, number
        number += 1
        if leaves(number):
            return given
        said += given
        return b""

    try:
        while left := await stream.pump(take):
            said += left
    except UpstreamError as error:
        return said, str(error), wire
    return said, None, wire


pieces = st.lists(
    st.sampled_from([TEXT, CALL, COMMENT, TEXT + TEXT, TEXT[:9], TEXT[9:]]), max_size=8
)
ends = st.sampled_from(
    [
        (STOP, DONE),
        (STOP,),
        (STOP + DONE,),
        (DONE,),
        (),
        (CUT,),
        (STOP, CUT),
        (ERROR, DONE),
        (RUBBISH,),
    ]
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["responses", "messages"]), pieces, ends, st.integers(1, 4))
def test_pumped_it_says_what_it_says_received(way, begun, end, every):
    parts = [*begun, *end]

    async def compared():
        said, error = await received(way, parts)
        assert (await pumped(way, parts))[:2] == (said, error)
        assert (await pumped(way, parts, lambda number: number % every == 0))[:2] == (said, error)

    trio.run(compared, clock=trio.testing.MockClock(autojump_threshold=0))


@ways
async def test_what_runs_steadily_is_pumped_through(way):
    """But for the opening, which comes from nobody, and what is behind the finish_reason."""
    _, _, wire = await pumped(way, [TEXT] * 50 + [STOP, DONE])
    assert wire.pumped == 51


@ways
async def test_behind_the_finish_reason_it_waits_no_longer_than_ever(way, autojump_clock):
    said, error, _ = await pumped(way, [TEXT, STOP, 1000.0, DONE])
    assert error is None
    assert b"stop" in said or b"completed" in said
    assert trio.current_time() == GRACE


@ways
async def test_what_shows_nothing_says_that_somebody_is_there(way, autojump_clock):
    parts = [TEXT, *[QUIET, COMMENT] * 3, STOP, DONE]
    said, _, _ = await pumped(way, parts)
    beat = b": hb\n\n" if way == "responses" else b"event: ping"
    assert said.count(beat) == (3 if way == "responses" else 4)
