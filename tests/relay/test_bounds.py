"""R9: one client holds so much memory and no more, and so many clients are served and no more."""

from __future__ import annotations

import gzip
import sys
from functools import partial

import pytest
import trio

from trio_sse_proxy.core.breaker import BreakerRules
from trio_sse_proxy.core.errors import Broken
from trio_sse_proxy.endpoint import Endpoint

from .frames import (
    COMPLETED,
    CREATED,
    DELTA,
    DONE,
    FINISH,
    HELLO,
    ROLE,
    WHOLE,
    json_in,
    text,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, ScriptedUpstream, answers
from .test_translated import Seen
from .world import HeardBreaker, World


def error_of(client):
    return json_in(b"data: " + client.body)["error"]


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [
        ("chat", "invalid_request_error"),
        ("responses", "invalid_request_error"),
        ("messages", "request_too_large"),
    ],
)
async def test_a_body_that_is_too_large_gets_413_in_the_dialects_shape(dialect, kind):
    world = World(max_body_bytes=10)
    client = await world.ask(Client(b"x" * 11), dialect=dialect)
    assert (client.status, error_of(client)["type"]) == (413, kind)
    assert world.calls == []
    assert world.record.ending.value == "refused"


async def test_a_compressed_body_that_is_large_decoded_is_understood_and_forwarded_as_it_is():
    """It is decoded on a thread, while others go on."""
    body = gzip.compress(wish(padding="x" * 3 * 2**20, model="m"), 1)
    body += gzip.compress(b" " * 10)
    world = World(answers(*WHOLE))
    client = await world.ask(Client(body, headers=((b"content-encoding", b"gzip"),)))
    assert client.body == b"".join(WHOLE)
    assert (world.record.model, world.record.streaming) == ("m", True)
    assert bytes(world.calls[0].body) == body


async def test_a_body_of_exactly_the_limit_passes():
    world = World(answers(*WHOLE), max_body_bytes=len(wish()))
    await world.ask()
    assert world.record.ending.value == "completed"


async def test_413_is_sent_while_the_client_still_uploads():
    world = World(max_body_bytes=10)
    client = await world.ask(Client(b"x" * 11, (1.0, b"y"), (0.5, b"z")))
    assert (client.status, client.committed_at) == (413, 0.0)
    assert client.ended_at == 1.5


async def test_a_client_that_uploads_on_and_on_after_its_413_is_not_read_for_ever():
    world = World(max_body_bytes=10)
    client = await world.ask(Client(b"x" * 11, *[(1.0, b"y")] * 60))
    assert client.ended_at == 2.0


async def test_what_is_refused_is_not_kept():
    world = World(max_body_bytes=10)
    client = Client(b"x" * 5, (1.0, b"y" * 6), (1.0, b"z"))
    used = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        for wait in (0.5, 1.0):
            await trio.sleep(wait)
            used.append(world.app._held.used)
    assert used == [5, 0]
    world.assert_no_trace()


async def test_kept_bodies_together_have_a_limit():
    world = World(answers(HANG), max_held_bytes=2 * len(wish()) - 1)
    first, second = Client(wish(), leaves_at=10.0), Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, first)
        await trio.sleep(1.0)
        await world.run(second)
        assert (second.status, second.committed_at) == (503, 1.0)
        assert second.response_headers[b"retry-after"] == b"1"
    world.assert_no_trace()


def translated(*attempts, **how):
    upstream = Seen(ScriptedUpstream(*attempts, name="chat"))
    return Endpoint(upstream=upstream, dialects=frozenset({"chat"}), **how)


def packed(size, **how):
    """A client whose body is `size` bytes and a few more, but for their coding."""
    said = [{"role": "user", "content": "x" * size}]
    body = gzip.compress(wish(input=said))
    return Client(body, headers=((b"content-encoding", b"gzip"),), **how)


async def test_bodies_that_are_decoded_to_be_translated_count_as_large_as_they_are_then():
    breaker = HeardBreaker(BreakerRules(failures=1, cooldown=1000.0))
    world = World(
        translated(answers(5.0, HELLO, HANG), answers(*WHOLE), breaker=breaker),
        max_held_bytes=150_000,
    )
    first, second, third = packed(100_000, leaves_at=10.0), packed(100_000), packed(100_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(world.run, first, dialect="responses"))
        await trio.sleep(1.0)
        assert 100_000 < world.app._held.used < 110_000
        await world.run(second, dialect="responses")
        assert (second.status, second.committed_at) == (503, 1.0)
        assert second.response_headers[b"retry-after"] == b"1"
        await trio.sleep(5.0)
        assert world.app._held.used == 0
        await world.run(third, dialect="responses")
        assert third.status == 200
    world.assert_no_trace()


async def test_attempts_one_after_another_keep_one_such_body():
    failing = [answers(Broken("cut", responded=True)) for _ in range(3)]
    world = World(translated(*failing, answers(*WHOLE)), max_held_bytes=150_000)
    client = await world.ask(packed(100_000), dialect="responses")
    assert client.status == 200
    assert len(world.calls) == 4


async def test_an_upstream_that_need_not_decode_it_may_have_room():
    native = ScriptedUpstream(answers(CREATED, DELTA, COMPLETED), name="native")
    world = World(translated(), Endpoint(upstream=native), max_held_bytes=50_000)
    client = await world.ask(packed(100_000), dialect="responses")
    assert client.response_headers[b"x-proxy-upstream"] == b"native"


@pytest.mark.parametrize(
    "last",
    [
        pytest.param((b"",), id="end told apart"),
        pytest.param(
            (),
            id="end told with the last piece",
        ),
    ],
)
async def test_a_body_is_freed_at_the_first_output(last):
    world = World(answers(ROLE, 2.0, HELLO, HANG))
    body = wish(pad="x" * 1000)
    references = sys.getrefcount(body)
    client = Client(body, *last, leaves_at=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(1.0)
        assert world.app._held.used == len(body)
        await trio.sleep(2.0)
        assert world.app._held.used == 0
        world.calls[0].body = b""
        assert sys.getrefcount(body) == references
    world.assert_no_trace()


async def test_more_streams_than_the_limit_get_503_with_retry_after():
    world = World(answers(HANG), answers(*WHOLE), max_streams=1)
    first, second = Client(wish(), leaves_at=10.0), Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, first)
        await trio.sleep(1.0)
        await world.run(second)
        assert (second.status, second.response_headers[b"retry-after"]) == (503, b"1")
    third = Client(wish())
    await world.run(third)
    assert third.status == 200
    world.assert_no_trace()


async def test_a_frame_above_the_limit_is_streamed_through():
    long = text("x" * 5_000)
    pieces = [step for n in range(0, len(long), 500) for step in (long[n : n + 500], 1.0)]
    world = World(answers(ROLE, HELLO, *pieces, FINISH, DONE), max_frame_bytes=1_000)
    client = await world.ask()
    assert client.body == ROLE + HELLO + long + FINISH + DONE
    arrived = 0
    for at, piece in client.pieces:
        arrived += len(piece)
        sent = len(ROLE + HELLO) + 500 * (int(at) + 1)
        assert sent - arrived <= 1_000 + 500 or at >= 10.0


async def test_a_slow_client_slows_its_own_upstream():
    client = Client(wish(), slow=10.0)
    world = World(answers(ROLE, *[HELLO] * 5, FINISH, DONE))
    await world.ask(client)
    assert [at for at, _ in client.pieces] == [10.0 * n for n in range(1, 8)]


async def test_a_long_json_answer_is_not_held_to_its_end():
    half = b'["' + b"x" * 2**20
    world = World(answers(half, 3.0, b'"]', headers=JSON))
    client = await world.ask(Client(wish(stream=False)))
    assert client.pieces == [(0.0, half), (3.0, b'"]')]
