"""Event heartbeats among events that are numbered here: for the client they are one row of numbers."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_sse_proxy.core.errors import Broken, Unreachable
from trio_sse_proxy.core.routing import Rules
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.upstreams.worker import WorkerUpstream

from .frames import DONE, FINISH, HELLO, ROLE, chunk, events_in
from .scripted_client import Client
from .scripted_upstream import HANG, Answer, ScriptedUpstream, answers, fails
from .test_translated import Seen, kinds, wish
from .world import World

CODEX = ((b"user-agent", b"codex_cli_rs/1"),)
CUT = Broken("cut", responded=True)
NAMED = {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}
CALL = chunk({"tool_calls": [NAMED]})
"""A call that begins: it shows nothing yet, so it is held back."""
ARGUMENTS = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})
THOUGHT = chunk({"reasoning_content": "hm"})


class Pumped(Answer):
    """An answer that another task reads: what is left takes a turn to wake whoever waits for it."""

    async def pump(self, take):
        while piece := await self.receive():
            if left := take(piece):
                await trio.lowlevel.checkpoint()
                return left
        return b""


def chat(*attempts, name="chat"):
    return Endpoint(
        upstream=Seen(ScriptedUpstream(*attempts, name=name)), dialects=frozenset({"chat"})
    )


async def ask(world, *, slow=0.0):
    client = Client(wish("responses"), headers=CODEX, slow=slow)
    await world.run(client, dialect="responses")
    return client


def assert_numbered(client):
    """No event of ours has the number of another, and none is missing: clients may look for that."""
    events = events_in(client.body)
    while events and events[0]["type"] == "keepalive":
        events.pop(0)  # nothing has begun: these count nothing
    numbers = [event["sequence_number"] for event in events]
    if "error" in kinds(client) and numbers[-2] == len(numbers) - 1:
        # A failure has cancelled the heartbeat that was being written, which may have gone out.
        numbers[-2:] = [number - 1 for number in numbers[-2:]]
    assert numbers == list(range(len(numbers)))


def beats(world):
    return [at for at, kind in world.witness.heartbeats if kind == "event"]


async def test_what_was_held_back_has_numbers_behind_those_of_the_heartbeats_before_it():
    w = World(chat(answers(ROLE, CALL, 35.0, ARGUMENTS, FINISH, DONE)), event_heartbeat=10.0)
    client = await ask(w)
    assert len(beats(w)) == 2
    assert_numbered(client)


async def test_so_has_what_a_hedge_held_back():
    w = World(
        chat(answers(ROLE, CALL, HANG), name="a"),
        chat(answers(ROLE, CALL, 25.0, ARGUMENTS, 15.0, FINISH, DONE), name="b"),
        rules=Rules(hedge_after=12.0, hedge_share=1.0),
        event_heartbeat=10.0,
    )
    client = await ask(w)
    assert len(beats(w)) >= 4
    assert_numbered(client)


@pytest.mark.parametrize("pumped", [False, True])
async def test_an_event_on_the_tick_of_the_heartbeat_comes_before_or_behind_it(
    pumped, scheduler_seed, monkeypatch
):
    if pumped:
        monkeypatch.setattr(Answer, "pump", Pumped.pump, raising=False)
    steps = [part for _ in range(20) for part in (10.0, HELLO)]
    w = World(chat(answers(ROLE, HELLO, *steps, FINISH, DONE)), event_heartbeat=10.0)
    assert_numbered(await ask(w))


parts = st.sampled_from([ROLE, HELLO, THOUGHT, CALL, ARGUMENTS, b": hi\n\n", 5.0, 10.0, 20.0])
ends = st.sampled_from([(FINISH, DONE), (CUT,), (FINISH, HANG), (15.0, CUT)])
attempts = st.one_of(
    st.builds(
        lambda after, body, end: answers(*body, *end, after=after),
        st.sampled_from([0.0, 10.0, 30.0]),
        st.lists(parts, max_size=8),
        ends,
    ),
    st.builds(lambda after: fails(Unreachable("no"), after=after), st.sampled_from([0.0, 25.0])),
)


@settings(max_examples=150, deadline=None)
@given(
    tries=st.lists(attempts, min_size=12, max_size=12),
    hedge=st.sampled_from([0.0, 10.0, 15.0]),
    slow=st.sampled_from([0.0, 5.0, 12.0]),
    pumped=st.booleans(),
)
def test_whatever_goes_between_the_numbers_grow_by_one(tries, hedge, slow, pumped):
    async def main():
        w = World(
            chat(*tries[:6], name="a"),
            chat(*tries[6:], name="b"),
            rules=Rules(hedge_after=hedge, hedge_share=1.0),
            event_heartbeat=10.0,
            retry_deadline=0.0,
        )
        assert_numbered(await ask(w, slow=slow))

    with pytest.MonkeyPatch.context() as patch:
        if pumped:
            patch.setattr(Answer, "pump", Pumped.pump, raising=False)
        trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=50, deadline=None)
@given(
    said=st.lists(st.sampled_from(["text", "thought", 5.0, 10.0, 25.0]), max_size=12),
    slow=st.sampled_from([0.0, 5.0, 12.0]),
)
def test_so_do_those_of_a_worker(said, slow):
    async def worker(job):
        await job.send("begun")
        for one in said:
            if one == "text":
                await job.send("more")
            elif one == "thought":
                await job.send_reasoning("hm")
            else:
                await trio.sleep(one)

    async def main():
        w = World(Endpoint(upstream=Asked(worker)), event_heartbeat=10.0)
        client = await ask(w, slow=slow)
        assert_numbered(client)
        assert kinds(client)[-1] == "response.completed"

    trio.run(main, clock=MockClock(autojump_threshold=0))


class Asked(WorkerUpstream):
    """One that has no calls to show, as the world wants them."""

    calls = ()


async def test_a_workers_own_frames_pass_as_they_are():
    frames = [
        b'event: a\ndata: {"type":"a.delta","sequence_number":%d,"delta":"x"}\n\n' % n
        for n in (0, 1)
    ]

    async def worker(job):
        for frame in frames:
            await job.send_frames(frame)
            await trio.sleep(15.0)

    w = World(Endpoint(upstream=Asked(worker)), event_heartbeat=10.0)
    client = await ask(w)
    assert all(frame in client.body for frame in frames)
