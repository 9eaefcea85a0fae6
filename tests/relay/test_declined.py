"""A request that only some upstreams of its route can take: what counts is how it stands with those."""

from __future__ import annotations

import json

import pytest
import trio

from trio_sse_proxy.core.breaker import BreakerRules
from trio_sse_proxy.core.errors import Unreachable
from trio_sse_proxy.upstreams import translated

from .scripted_upstream import answers, fails
from .test_translated import client
from .test_translated_attempts import NATIVE, chat_only, native
from .world import HeardBreaker, World

ANSWER = NATIVE["responses"]
MANY = 300


def inexpressible():
    return client("responses", previous_response_id="r")


async def test_it_is_a_503_while_the_breaker_of_the_only_one_that_can_take_it_is_open():
    shut = native("responses")
    shut.breaker = HeardBreaker(BreakerRules(failures=1, cooldown=30.0))
    shut.breaker.enter(trio.current_time()).failed(trio.current_time())
    w = World(chat_only(), shut)
    c = await w.ask(inexpressible(), dialect="responses")
    assert (c.status, c.response_headers[b"retry-after"]) == (503, b"30")
    assert w.record.ending.value == "unreachable"


async def test_going_on_to_it_takes_nothing_out_of_the_retry_budget():
    w = World(chat_only(), native("responses", *[answers(*ANSWER, after=3.0)] * MANY))
    clients = [inexpressible() for _ in range(MANY)]
    async with trio.open_nursery() as nursery:
        for c in clients:
            nursery.start_soon(lambda c=c: w.run(c, dialect="responses"))
    assert {c.status for c in clients} == {200}
    assert w.witness.retries == []


async def test_going_on_to_it_is_no_retry():
    w = World(
        chat_only(name="a"),
        chat_only(name="b"),
        native("responses", answers(*ANSWER)),
        max_retries=0,
    )
    c = await w.ask(inexpressible(), dialect="responses")
    assert c.body == b"".join(ANSWER)


@pytest.mark.parametrize("turns", range(4))
async def test_a_commit_on_the_same_tick_does_not_settle_on_the_refusal(
    turns, scheduler_seed, monkeypatch
):
    body_of = translated._body_of

    async def later(request):
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        return await body_of(request)

    monkeypatch.setattr(translated, "_body_of", later)
    w = World(
        native("responses", fails(Unreachable("no"), after=5.0), name="a"),
        chat_only(),
        native("responses", answers(*ANSWER), name="b"),
        commit_after=5.0,
    )
    c = await w.ask(inexpressible(), dialect="responses")
    assert c.status == 200
    assert c.body.endswith(ANSWER[-1])
    assert json.dumps("previous_response_not_found").encode() not in c.body
