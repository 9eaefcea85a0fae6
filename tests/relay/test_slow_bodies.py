"""R9: a client that does not send its request to the end holds nothing for long (`body_timeout`)."""

from __future__ import annotations

import json

from .frames import HELLO, WHOLE, wish
from .scripted_client import Client
from .scripted_upstream import JSON, ReadBody, answers
from .world import World

NEVER = (1e6, b"")
LENGTH = ((b"content-length", b"1000000"),)


def trickle(piece, every, times):
    return [(every, piece)] * times


async def test_a_body_that_does_not_go_on_gets_408_and_no_upstream():
    world = World()
    client = await world.ask(Client(wish()[:5], NEVER))
    assert (client.status, client.ended_at) == (408, 30.0)
    assert "body_timeout" in json.loads(client.body)["error"]["message"]
    assert world.record.ending.value == "body_timeout"
    assert world.calls == []
    world.assert_no_trace()


async def test_a_byte_a_second_does_not_keep_a_request_alive():
    world = World()
    client = await world.ask(Client(*trickle(b" ", 1.0, 100_000)))
    assert client.status == 408
    assert client.ended_at < 31.0


async def test_a_body_that_comes_slowly_but_steadily_is_read_to_its_end():
    body = wish() + b" " * 400_000
    pieces = [(1.0, body[at : at + 1024]) for at in range(0, len(body), 1024)]
    world = World(answers(*WHOLE))
    client = await world.ask(Client(*pieces))
    assert client.body.endswith(b"[DONE]\n\n")
    assert client.committed_at > 390.0


async def test_what_came_quickly_is_not_saved_up_for_a_pause():
    world = World()
    client = await world.ask(Client(b" " * 500_000, NEVER))
    assert (client.status, client.ended_at) == (408, 30.0)


async def test_a_streamed_body_that_does_not_go_on_is_given_up_and_its_upstream_let_go():
    world = World(answers(b"ok", after=(ReadBody(),), headers=JSON))
    client = await world.ask(Client(b"abc", NEVER, headers=LENGTH), path="/v1/files")
    assert client.status == 408
    assert world.record.ending.value == "body_timeout"
    assert 30.0 <= world.calls[0].released < 31.0
    world.assert_no_trace()


async def test_an_upstream_that_is_slow_to_take_a_body_is_not_held_against_the_client():
    upload = (b"abc", b"def", (5.0, b"ghi"))
    world = World(answers(b"ok", after=(ReadBody(1), 100.0, ReadBody()), headers=JSON))
    client = await world.ask(Client(*upload, headers=LENGTH), path="/v1/files")
    assert world.record.ending.value == "completed"
    assert (client.status, world.calls[0].body) == (200, b"abcdefghi")


async def test_a_body_that_came_whole_is_off_the_clock():
    world = World(answers(HELLO, 100.0, *WHOLE[-1:]))
    await world.ask()
    assert world.record.ending.value == "completed"
