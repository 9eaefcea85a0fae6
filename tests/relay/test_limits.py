"""An upstream that serves only so many at a time: the others wait, with heartbeats, and in turns."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_sse_proxy.core.breaker import BreakerRules, State
from trio_sse_proxy.gate import Gate

from .frames import BEAT, HELLO, ROLE, WHOLE, json_in, wish
from .scripted_client import Client
from .scripted_upstream import HANG, answers
from .world import HeardBreaker, World, at

STREAM = b"".join(WHOLE)


def slow(seconds=12.0):
    return answers(ROLE, seconds, *WHOLE[1:])


def one_slot(*attempts, others=(), queue=1000, wait=0.0, **limits):
    gate = Gate(1, queue, wait)
    return World(at("a", *attempts, gate=gate), *others, **limits)


async def run_all(world, *clients, every=0.0, dialect="chat"):
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(lambda client=client: world.run(client, dialect=dialect))
            await trio.testing.wait_all_tasks_blocked()
            if every:
                await trio.sleep(every)
    world.assert_no_trace()


def clients(n):
    return [Client(wish()) for _ in range(n)]


async def test_one_is_served_at_a_time_and_all_are():
    world = one_slot(slow(), slow(), slow())
    three = clients(3)
    await run_all(world, *three)
    assert [call.opened for call in world.calls] == [0.0, 12.0, 24.0]
    assert all(client.body.replace(BEAT, b"") == STREAM for client in three)


async def test_whoever_waits_gets_heartbeats_from_the_request_on():
    world = one_slot(slow(22.0), answers(*WHOLE))
    _, waits = both = clients(2)
    await run_all(world, *both)
    assert waits.times_of(BEAT) == [5.0, 10.0, 15.0, 20.0]
    assert world.record_of(waits).attempts[0].queued == 22.0


async def test_the_first_token_timeout_does_not_run_while_it_waits():
    world = one_slot(slow(8.0), slow(8.0), first_token_timeout=9.0)
    both = clients(2)
    await run_all(world, *both)
    assert all(client.body.replace(BEAT, b"") == STREAM for client in both)


async def test_who_leaves_the_queue_is_gone_at_once_and_was_never_forwarded():
    world = one_slot(slow(), slow())
    first, leaves, last = Client(wish()), Client(wish(), leaves_at=3.0), Client(wish())
    await run_all(world, first, leaves, last)
    assert [call.opened for call in world.calls] == [0.0, 12.0]
    record = world.record_of(leaves)
    assert (record.ending.value, record.duration) == ("client_left", 3.0)
    assert not record.aborted  # nothing worked on it yet


async def test_a_slot_is_free_the_moment_its_client_leaves(scheduler_seed):
    """A request that was sent again does not wait behind its own ghost."""
    world = one_slot(answers(ROLE, HANG), answers(*WHOLE))
    again = Client((3.0, wish()))
    await run_all(world, Client(wish(), leaves_at=3.0), again)
    assert (world.calls[0].released, world.calls[1].opened) == (3.0, 3.0)
    assert again.body == STREAM


async def test_an_upstream_that_is_told_of_the_leaving_gets_the_next_one_after_that():
    """The message may end whatever runs there."""
    a = at("a", answers(ROLE, HANG), answers(*WHOLE), gate=Gate(1), abort_takes=1.5)
    world = World(a)
    again = Client((3.0, wish()))
    await run_all(world, Client(wish(), leaves_at=3.0), again)
    assert (world.calls[0].released, world.calls[1].opened) == (3.0, 4.5)
    assert again.body == STREAM


async def test_a_stuck_client_does_not_keep_its_slot():
    world = one_slot(answers(ROLE, HELLO, 1.0, HELLO), answers(*WHOLE), write_stall_timeout=4.0)
    stuck = Client(wish(), stuck_from=1.0, shielded=True)
    waits = Client(wish())
    await run_all(world, stuck, waits)
    assert world.calls[1].opened == 5.0
    assert waits.body == STREAM or waits.body == BEAT + STREAM


async def test_clients_take_turns_however_many_requests_one_of_them_has():
    world = one_slot(*(slow(2.0) for _ in range(5)))
    many = [Client(wish(), headers=((b"authorization", b"Bearer one"),)) for _ in range(4)]
    other = Client(wish(), headers=((b"x-api-key", b"two"),))
    await run_all(world, *many, other)
    assert [client.ended_at for client in many] == [2.0, 4.0, 8.0, 10.0]
    assert other.ended_at == 6.0


@pytest.mark.parametrize(("queue", "wait", "at_second"), [(0, 0.0, 0.0), (1000, 3.0, 3.0)])
async def test_who_finds_no_place_goes_to_the_next_upstream(queue, wait, at_second):
    others = (at("b", answers(*WHOLE)),)
    world = one_slot(slow(), others=others, queue=queue, wait=wait)
    _, second = both = clients(2)
    await run_all(world, *both)
    assert [call.opened for call in world.calls_of("b")] == [at_second]
    assert second.body == STREAM
    assert world.record_of(second).attempts[0].problem == "unreachable: overloaded"


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [("chat", "server_error"), ("responses", "server_error"), ("messages", "overloaded_error")],
)
@pytest.mark.parametrize(("queue", "wait"), [(0, 0.0), (1000, 3.0)])
async def test_if_there_is_no_next_one_it_is_503_in_the_dialects_shape(dialect, kind, queue, wait):
    world = one_slot(answers(HANG), queue=queue, wait=wait)
    second = Client(wish())
    await run_all(world, Client(wish(), leaves_at=9.0), second, dialect=dialect)
    assert second.status == 503
    assert b"retry-after" in second.response_headers
    assert kind in second.body.decode()
    assert world.record_of(second).ending.value == "unreachable"


async def test_a_queue_that_takes_too_long_is_told_on_a_stream_that_has_begun():
    world = one_slot(answers(HANG), wait=7.0)
    second = Client(wish())
    await run_all(world, Client(wish(), leaves_at=9.0), second)
    assert second.body.startswith(BEAT)
    assert "error" in json_in(second.body.removeprefix(BEAT))


async def test_a_full_queue_says_nothing_against_the_upstream():
    breaker = HeardBreaker(BreakerRules(failures=1))
    a = at("a", slow(), gate=Gate(1, 0), breaker=breaker)
    world = World(a)
    await run_all(world, *clients(3))
    assert breaker.state(trio.current_time()) is State.CLOSED


@pytest.mark.parametrize("how", ["operator", "drain"])
async def test_whoever_waits_can_be_ended(how):
    world = one_slot(answers(HANG))
    first, second = clients(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(world.run, second)
        await trio.sleep(3.0)
        if how == "drain":
            world.app.end_streams()
        else:
            for stream_id in tuple(world.app.live):
                world.app.cancel(stream_id)
    world.assert_no_trace()
    assert len(world.calls) == 1
    assert world.record_of(second).duration == 3.0
    assert second.ended
