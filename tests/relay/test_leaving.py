"""R7: when nobody listens any more, nobody works any more."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel

from trio_sse_proxy.core.errors import Broken, Unreachable

from .frames import (
    BEAT,
    BLOCK_DELTA,
    CREATED,
    DELTA,
    DONE,
    FINISH,
    HELLO,
    MESSAGE_START,
    ROLE,
    WHOLE,
    events_in,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, ReadBody, answers, fails
from .world import World, at

RESET = Broken("reset", responded=True)

PHASES = {
    "connecting or waiting for headers": ((fails(RESET, after=HANG),), {}),
    "waiting for headers, after heartbeats": ((fails(RESET, after=HANG),), {"heartbeat": 1.0}),
    "headers came, silence": ((answers(HANG),), {}),
    "prelude held": ((answers(ROLE, HANG),), {}),
    "prelude held, after heartbeats": ((answers(ROLE, HANG),), {"heartbeat": 1.0}),
    "prelude let out": ((answers(ROLE, HANG),), {"prelude_hold": 1.5, "heartbeat": 1.0}),
    "streaming": ((answers(ROLE, *[HELLO, 0.5] * 100),), {}),
    "silence after output": ((answers(ROLE, HELLO, HANG),), {}),
    "inside an oversize frame": (
        (answers(ROLE, b"data: " + b"x" * 50, HANG),),
        {"max_frame_bytes": 9},
    ),
}
phases = pytest.mark.parametrize(("attempts", "limits"), PHASES.values(), ids=list(PHASES))


def record_of(world):
    record = world.record
    return record.ending.value, record.ending.side.value, record.aborted


@phases
async def test_the_upstream_is_released_at_the_instant_the_client_leaves(attempts, limits):
    world = World(*attempts, **limits)
    client = await world.ask(Client(wish(), leaves_at=2.25))
    assert world.calls[-1].released == 2.25
    assert world.calls[-1].closed == 2.25
    assert record_of(world) == ("client_left", "downstream", True)
    assert client.messages == [] or client.messages[-1][0] <= 2.25


@phases
async def test_an_operators_cancel_releases_the_upstream_and_tells_the_client(attempts, limits):
    world = World(*attempts, **limits)
    client = Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(2.25)
        (stream_id,) = world.app.live
        assert world.app.cancel(stream_id)
    world.assert_no_trace()
    assert world.calls[-1].released == 2.25
    assert record_of(world) == ("cancelled", "operator", True)
    assert client.ended or "max_frame_bytes" in limits  # inside a frame nothing can be told


@phases
async def test_a_drain_that_is_over_tells_the_client_in_its_dialect(attempts, limits):
    world = World(*attempts, **limits)
    client = Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(2.25)
        world.app.begin_drain()
        world.app.end_streams()
        with trio.fail_after(0.5):
            await world.app.drained()
    world.assert_no_trace()
    assert world.calls[-1].released == 2.25
    assert record_of(world) == ("shutdown", "proxy", True)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("how", ["operator", "drain", "total"])
async def test_a_client_is_told_while_its_upstream_is_still_being_told(begun, how):
    """A server that has drained closes its connections before a hanging abort is given up."""
    body = (ROLE, HELLO, HANG) if begun else (ROLE, HANG)
    limits = {"total_timeout": 2.25} if how == "total" else {}
    world = World(at("slow", answers(*body), abort_takes=5.0), **limits)
    client = Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(2.25)
        if how == "operator":
            world.app.cancel(*world.app.live)
        elif how == "drain":
            world.app.end_streams()
    assert client.ended_at == 2.25
    assert client.body.count(b'"error"') == 1
    assert world.calls[0].released == world.calls[0].aborts[0][0] == 2.25
    assert world.record.duration == 2.25
    world.assert_no_trace()


class Starved(Client):
    """A client of a server that takes some turns of the event loop for each write, as TLS does."""

    async def send(self, message):
        with trio.CancelScope(shield=True):
            for _ in range(4):
                await trio.lowlevel.checkpoint()
            await super().send(message)


@pytest.mark.parametrize("how", ["broken", "operator"])
async def test_a_write_that_waits_for_its_turn_is_not_stuck(how):
    """Where each turn of the loop takes most of a second, failures are told all the same."""
    last = 1.0 if how == "operator" else RESET
    world = World(answers(ROLE, *[HELLO, 1.0] * 20, last))
    client = Starved(wish())

    async def lag():
        while True:
            trio.lowlevel.current_clock().jump(0.6)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag)
        async with trio.open_nursery() as asking:
            asking.start_soon(world.run, client)
            if how == "operator":
                for _ in iter(lambda: HELLO in client.body, True):
                    await trio.lowlevel.checkpoint()
                (x,) = world.app.live.values()
                for _ in iter(lambda: x.downstream.writing, True):
                    await trio.lowlevel.checkpoint()
                world.app.cancel(*world.app.live)
        nursery.cancel_scope.cancel()
    assert client.aborted_at is None
    assert client.ended
    assert client.body.count(b'"error"') == 1


@phases
async def test_a_cancellation_from_outside_leaves_no_trace_and_is_recorded(attempts, limits):
    world = World(*attempts, **limits)
    with trio.move_on_after(2.25):
        await world.run(Client(wish()))
    world.assert_no_trace()
    assert world.calls[-1].released == 2.25
    assert world.record.ending.value == "shutdown"


async def test_a_cancellation_from_outside_counts_as_an_abort():
    world = World(answers(ROLE, HELLO, HANG))
    with trio.move_on_after(2.25):
        await world.run(Client(wish()))
    assert world.record.aborted


async def test_a_client_that_leaves_during_its_upload_asks_nobody():
    world = World()
    await world.ask(Client(wish()[:5], (10.0, wish()[5:]), leaves_at=3.0))
    assert world.calls == []
    assert record_of(world) == ("client_left", "downstream", False)
    assert world.record.duration == 3.0


async def test_a_client_that_leaves_during_the_pause_between_attempts_is_not_asked_for_again():
    world = World(fails(Unreachable("refused"), after=1.0), jitter=1.0)
    await world.ask(Client(wish(), leaves_at=1.25))
    assert len(world.calls) == 1
    assert record_of(world) == ("client_left", "downstream", False)
    assert world.record.duration == 1.25


async def test_a_client_that_leaves_before_output_counts_no_retry():
    world = World(answers(ROLE, HANG))
    await world.ask(Client(wish(), leaves_at=2.0))
    assert world.witness.retries == []
    assert len(world.record.attempts) == len(world.calls) == 1


async def test_a_client_that_leaves_while_a_json_answer_is_held_releases_the_upstream():
    world = World(answers(b'{"a":', HANG, headers=JSON))
    await world.ask(Client(wish(stream=False), leaves_at=2.0))
    assert world.calls[0].released == 2.0
    assert record_of(world) == ("client_left", "downstream", True)


async def test_a_client_that_leaves_a_plain_call_releases_the_upstream():
    world = World(answers(b"abc", HANG, headers=JSON))
    await world.ask(Client(b"", leaves_at=2.0), method="GET", path="/v1/files/1/content")
    assert world.calls[0].released == 2.0


async def test_a_client_that_leaves_in_the_middle_of_a_plain_upload_releases_the_upstream():
    client = Client(b"abc", (10.0, b"def"), leaves_at=2.0, headers=((b"content-length", b"6"),))
    world = World(answers(b"", after=(ReadBody(),), headers=JSON))
    await world.ask(client, path="/v1/files")
    assert world.calls[0].released == 2.0


async def test_a_client_that_leaves_an_early_answer_to_its_upload_is_noticed():
    """The upstream reads no further, so the rest of the upload has nowhere to go."""
    client = Client(b"abc", b"def", b"ghi", leaves_at=2.0, headers=((b"content-length", b"9"),))
    world = World(answers(b"x", 50.0, b"y", after=(ReadBody(1),), headers=JSON))
    await world.ask(client, path="/v1/files")
    assert world.calls[0].released == 2.0


# Writes that do not return.

SHIELDED = pytest.mark.parametrize("shielded", [False, True])


@SHIELDED
async def test_the_upstream_is_released_at_the_stall_deadline_even_if_the_write_never_returns(
    shielded,
):
    client = Client(wish(), stuck_from=1.0, shielded=shielded)
    world = World(answers(ROLE, HELLO, 1.0, HELLO, HANG), write_stall_timeout=30.0)
    await world.ask(client)
    assert world.calls[0].released == 31.0
    assert client.aborted_at == 31.0
    assert record_of(world) == ("write_stalled", "downstream", True)


@SHIELDED
async def test_a_heartbeat_whose_write_is_stuck_ends_the_request_too(shielded):
    client = Client(wish(), stuck_from=8.0, shielded=shielded)
    world = World(answers(ROLE, HELLO, HANG), write_stall_timeout=30.0)
    await world.ask(client)
    assert world.calls[0].released == 40.0
    assert record_of(world) == ("write_stalled", "downstream", True)


@SHIELDED
async def test_the_early_commit_may_be_stuck_like_any_write(shielded):
    client = Client(wish(), stuck_from=5.0, shielded=shielded)
    world = World(answers(HANG), write_stall_timeout=30.0)
    await world.ask(client)
    assert world.calls[0].released == 35.0


@SHIELDED
async def test_frames_waiting_behind_a_stuck_heartbeat_do_not_hide_the_stall(shielded):
    client = Client(wish(), stuck_from=5.0, shielded=shielded)
    world = World(answers(ROLE, *[1.0, HELLO] * 60), write_stall_timeout=20.0, commit_after=5.0)
    await world.ask(client)
    assert world.record.ending.value == "write_stalled"


@SHIELDED
async def test_a_client_that_leaves_while_a_write_is_stuck_releases_the_upstream(shielded):
    client = Client(wish(), stuck_from=1.0, shielded=shielded, leaves_at=4.0)
    world = World(answers(ROLE, HELLO, 1.0, HELLO, HANG))
    await world.ask(client)
    assert world.calls[0].released == 4.0
    assert record_of(world) == ("client_left", "downstream", True)


async def test_nobody_waits_for_a_stuck_client_when_the_write_can_be_cancelled():
    client = Client(wish(), stuck_from=1.0)
    world = World(answers(ROLE, HELLO, 1.0, HELLO, HANG), write_stall_timeout=30.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(2.0)
        world.app.end_streams()
        with trio.fail_after(1.5):
            await world.app.drained()
    assert world.calls[0].released == 2.0


async def test_a_stuck_write_that_an_operator_cancels_releases_the_upstream_at_once():
    client = Client(wish(), stuck_from=1.0, shielded=True)
    world = World(answers(ROLE, HELLO, 1.0, HELLO, HANG))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(3.0)
        (stream_id,) = world.app.live
        world.app.cancel(stream_id)
        await trio.lowlevel.checkpoint()
        assert world.calls[0].released == 3.0
        client.leave()
    world.assert_no_trace()


@pytest.mark.parametrize("limit", ["total_timeout", None])
async def test_a_stuck_client_does_not_keep_a_request_that_was_ended_for_another_reason(limit):
    client = Client(wish(), stuck_from=1.0, shielded=True)
    limits = {limit: 5.0} if limit else {}
    world = World(answers(ROLE, HELLO, 1.0, HELLO, HANG), write_stall_timeout=30.0, **limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(5.0)
        if limit is None:
            world.app.end_streams()
        with trio.move_on_after(100.0):
            await world.app.drained()
        ended = trio.current_time()
        client.leave()
    assert ended <= 36.0


async def test_write_stalls_can_be_off():
    client = Client(wish(), stuck_from=1.0, leaves_at=500.0)
    world = World(answers(ROLE, HELLO, 1.0, HELLO, HANG), write_stall_timeout=0.0)
    await world.ask(client)
    assert world.record.ending.value == "client_left"


async def test_a_slow_client_is_not_a_stuck_one():
    client = Client(wish(), slow=25.0)
    world = World(answers(*WHOLE), write_stall_timeout=30.0)
    await world.ask(client)
    assert world.record.ending.value == "completed"


# What each client is told.


@pytest.mark.parametrize(
    ("dialect", "begun", "told"),
    [
        ("chat", (ROLE, HELLO), "proxy_shutting_down"),
        ("responses", (CREATED, DELTA), "proxy_shutting_down"),
        ("messages", (MESSAGE_START, BLOCK_DELTA), "overloaded_error"),
    ],
)
async def test_a_drain_speaks_the_clients_dialect(dialect, begun, told):
    world = World(answers(*begun, HANG))
    client = Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.run(client, dialect=dialect))
        await trio.sleep(1.0)
        world.app.end_streams()
    assert client.ended
    assert told in str(events_in(client.body)[-1])


async def test_an_unanswered_client_gets_503_with_a_drain():
    world = World(answers(HANG))
    client = Client(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(1.0)
        world.app.end_streams()
    assert (client.status, client.ended) == (503, True)
    assert client.response_headers[b"connection"] == b"close"


async def test_a_client_that_left_after_the_terminator_was_served_completely():
    client = Client(wish(), leaves_on=DONE)
    world = World(answers(*WHOLE, HANG))
    await world.ask(client)
    assert record_of(world) == ("completed", "upstream", False)


# Two things on one tick.


async def test_leaving_on_the_tick_of_the_terminator_is_one_ending(scheduler_seed):
    world = World(answers(ROLE, HELLO, 2.0, FINISH + DONE, HANG))
    client = await world.ask(Client(wish(), leaves_at=2.0))
    assert world.record.ending.value in {"completed", "client_left"}
    assert world.record.ending.value == "completed" or not client.ended


async def test_leaving_on_the_tick_of_a_heartbeat_is_leaving(scheduler_seed):
    world = World(answers(ROLE, HELLO, HANG))
    await world.ask(Client(wish(), leaves_at=5.0))
    assert record_of(world) == ("client_left", "downstream", True)
    assert world.calls[0].released == 5.0


async def test_leaving_on_the_tick_of_the_commit_is_leaving(scheduler_seed):
    world = World(answers(ROLE, HANG))
    await world.ask(Client(wish(), leaves_at=5.0))
    assert record_of(world) == ("client_left", "downstream", True)


@pytest.mark.parametrize("begun", [(ROLE, HELLO), (ROLE,), ()])
async def test_leaving_on_the_tick_of_an_upstream_failure_is_leaving(begun, scheduler_seed):
    world = World(answers(*begun, 2.0, RESET), fails(RESET, after=HANG))
    await world.ask(Client(wish(), leaves_at=2.0))
    # Once output was forwarded the failure is the end: it may be noted before the leaving is.
    allowed = {"client_left", "truncated"} if HELLO in begun else {"client_left"}
    assert world.record.ending.value in allowed
    assert world.record.duration == 2.0


@pytest.mark.parametrize(
    "limit", ["first_token_timeout", "total_timeout", "idle_timeout", "prelude_hold"]
)
async def test_leaving_on_the_tick_of_a_deadline_is_one_ending(limit, scheduler_seed):
    begun = (ROLE, HELLO) if limit == "idle_timeout" else (ROLE,)
    world = World(answers(*begun, HANG), **{limit: 2.0})
    await world.ask(Client(wish(), leaves_at=2.0))
    assert world.record.ending.value in {"client_left", limit}
    assert world.calls[0].released == 2.0


async def test_leaving_on_the_tick_of_the_headers_is_leaving(scheduler_seed):
    world = World(answers(HANG, after=2.0))
    await world.ask(Client(wish(), leaves_at=2.0))
    assert world.record.ending.value == "client_left"
    assert world.calls[0].released == 2.0


async def test_leaving_on_the_tick_the_pause_is_over_is_leaving(scheduler_seed):
    world = World(fails(RESET), fails(RESET, after=HANG), jitter=1.0)
    await world.ask(Client(wish(), leaves_at=0.5))
    assert world.record.ending.value == "client_left"


async def test_an_operator_and_the_client_on_one_tick_is_one_ending(scheduler_seed):
    world = World(answers(ROLE, HELLO, HANG))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, Client(wish(), leaves_at=2.0))
        await trio.sleep(2.0)
        for stream_id in list(world.app.live):
            world.app.cancel(stream_id)
    world.assert_no_trace()
    assert world.record.ending.value in {"client_left", "cancelled"}


async def test_a_failure_on_the_tick_of_an_idle_timeout_is_told_once(scheduler_seed):
    world = World(answers(ROLE, HELLO, 10.0, RESET), idle_timeout=10.0)
    client = await world.ask()
    assert client.ended
    assert len([event for event in events_in(client.body) if "error" in event]) == 1


async def test_heartbeats_stop_with_the_client(scheduler_seed):
    world = World(answers(ROLE, HELLO, HANG))
    client = await world.ask(Client(wish(), leaves_at=11.0))
    assert client.times_of(BEAT) == [5.0, 10.0]


async def test_a_client_that_takes_its_bytes_slowly_is_not_stalled():
    client = Client(wish(), slow=40.0)
    client.progressed_at = lambda: trio.current_time() - 1.0
    world = World(answers(*WHOLE), write_stall_timeout=5.0)
    await world.ask(client)
    assert client.body == b"".join(WHOLE)
    assert world.record.ending.value == "completed"


async def test_a_client_whose_upload_waits_for_its_upstream_is_noticed_leaving():
    client = Client(b"abc", b"def", b"ghi", leaves_at=2.0, headers=((b"content-length", b"9"),))
    world = World(answers(b"", after=(ReadBody(1), HANG), headers=JSON))
    await world.ask(client, path="/v1/files")
    assert world.calls[0].closed == 2.0
    assert world.record.ending.value == "client_left"
