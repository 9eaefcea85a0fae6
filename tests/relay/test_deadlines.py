"""R4: heartbeats of ours never hide a dead upstream; each deadline has an ending of its own."""

from __future__ import annotations

import pytest
import trio

from .frames import BEAT, DONE, FINISH, HELLO, ROLE, WHOLE, events_in, text, wish
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, answers
from .world import World, at

COMMENT = b": keep-alive\n\n"


def told(client):
    """The code of the one error that was told, and when."""
    (error,) = [event for event in events_in(client.body) if "error" in event]
    assert client.ended
    return error["error"]["code"], client.ended_at


async def test_no_headers_in_time_is_a_first_token_timeout():
    world = World(answers(*WHOLE, after=HANG), first_token_timeout=600.0)
    client = await world.ask()
    assert told(client) == ("upstream_timeout", 600.0)
    assert world.record.ending.value == "first_token_timeout"
    assert world.calls[0].released == 600.0


async def test_no_output_in_time_is_a_first_token_timeout_whatever_else_comes():
    steps = [ROLE] + [10.0, COMMENT] * 70
    world = World(answers(*steps), first_token_timeout=600.0)
    client = await world.ask()
    assert told(client) == ("upstream_timeout", 600.0)
    assert world.record.ending.value == "first_token_timeout"


async def test_what_the_client_takes_to_read_a_prelude_is_not_counted():
    """Its output was there in time, but it could not be read before the prelude was written."""
    steps = (ROLE, 98.0, COMMENT, 1.0, HELLO, FINISH, DONE)
    world = World(answers(*steps), prelude_hold=20.0, first_token_timeout=100.0)
    await world.ask(Client(wish(), slow=4.0))
    assert world.record.ending.value == "completed"


async def test_what_the_client_takes_to_read_comments_is_no_lack_of_progress():
    steps = (ROLE, HELLO, *[9.0, COMMENT] * 5, 8.0, FINISH, DONE)
    world = World(answers(*steps), progress_timeout=60.0)
    await world.ask(Client(wish(), slow=4.0))
    assert world.record.ending.value == "completed"


async def test_the_first_token_timeout_counts_from_the_forwarding_not_from_the_upload():
    client = Client(wish()[:5], (100.0, wish()[5:]))
    world = World(answers(HANG), first_token_timeout=50.0, body_timeout=200.0)
    await world.ask(client)
    assert told(client) == ("upstream_timeout", 150.0)


async def test_the_first_token_timeout_falls_due_however_its_instant_is_rounded():
    """60 s after this instant, minus 60 s, is a little before it: the clock would never move on."""
    await trio.sleep(1.3021398342442307)
    world = World(answers(HANG), first_token_timeout=60.0)
    await world.ask()
    assert world.record.ending.value == "first_token_timeout"


async def test_silence_after_output_is_an_idle_timeout():
    world = World(answers(ROLE, HELLO, HANG), idle_timeout=300.0)
    client = await world.ask()
    assert told(client) == ("upstream_timeout", 300.0)
    assert world.record.ending.value == "idle_timeout"
    assert world.calls[0].released == 300.0


async def test_output_that_comes_slowly_is_not_idle():
    world = World(answers(ROLE, *[HELLO, 299.0] * 5, FINISH, DONE), idle_timeout=300.0)
    await world.ask()
    assert world.record.ending.value == "completed"


async def test_comments_hold_off_the_idle_timeout_but_not_the_progress_timeout():
    world = World(answers(ROLE, HELLO, *[90.0, COMMENT] * 20), progress_timeout=600.0)
    client = await world.ask()
    assert told(client) == ("upstream_timeout", 600.0)
    assert world.record.ending.value == "progress_timeout"


async def test_bytes_of_an_unfinished_frame_hold_off_the_idle_timeout():
    long = text("x" * 100)
    pieces = [step for n in range(0, len(long), 60) for step in (long[n : n + 60], 200.0)]
    world = World(
        answers(ROLE, HELLO, *pieces, FINISH, DONE), idle_timeout=300.0, progress_timeout=0.0
    )
    await world.ask()
    assert world.record.ending.value == "completed"


@pytest.mark.parametrize("idle", [7.0, 12.3, 300.0])
@pytest.mark.parametrize("heartbeat", [1.0, 5.0, 15.0])
async def test_deadlines_are_kept_to_the_instant_whatever_the_heartbeat(idle, heartbeat):
    world = World(answers(ROLE, HELLO, HANG), idle_timeout=idle, heartbeat=heartbeat)
    client = await world.ask()
    assert told(client)[1] == pytest.approx(idle)


async def test_total_timeout_ends_a_stream_that_gets_on():
    world = World(answers(ROLE, *[HELLO, 1.0] * 100), total_timeout=30.5)
    client = await world.ask()
    assert told(client) == ("upstream_timeout", 30.5)
    assert (world.record.ending.value, world.record.ending.side.value) == ("total_timeout", "proxy")


async def test_total_timeout_is_off_by_default():
    world = World(answers(ROLE, *[HELLO, 250.0] * 40, FINISH, DONE))
    await world.ask()
    assert world.record.ending.value == "completed"


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        ("first_token_timeout", (5_000.0, ROLE, HELLO)),
        ("idle_timeout", (ROLE, HELLO, 500.0)),
        ("progress_timeout", (ROLE, HELLO, *[250.0, COMMENT] * 8)),
    ],
)
async def test_zero_switches_a_deadline_off(limit, steps):
    world = World(answers(*steps, FINISH, DONE), **{limit: 0.0})
    await world.ask()
    assert world.record.ending.value == "completed"


async def test_a_slow_clients_write_is_not_the_upstreams_silence():
    client = Client(wish(), slow=25.0)
    world = World(answers(ROLE, HELLO, 15.0, HELLO, FINISH, DONE), idle_timeout=20.0)
    await world.ask(client)
    assert world.record.ending.value == "completed"


async def test_a_slow_clients_write_is_not_the_upstreams_silence_in_a_long_answer_either():
    big = b"[" + b" " * 2**20 + b"1"
    client = Client(wish(stream=False), slow=15.0)
    world = World(answers(big, b",2", 10.0, b",3]", headers=JSON), idle_timeout=20.0)
    await world.ask(client)
    assert world.record.ending.value == "completed"


async def test_the_first_token_timeout_of_an_uncommitted_request_is_a_status():
    world = World(answers(HANG), first_token_timeout=3.0)
    client = await world.ask()
    assert (client.status, client.committed_at) == (504, 3.0)


async def test_a_json_answer_has_a_first_token_timeout_too():
    world = World(answers(b"{}", headers=JSON, after=HANG), first_token_timeout=600.0)
    client = await world.ask(Client(wish(stream=False)))
    assert (client.status, client.committed_at) == (504, 600.0)


async def test_white_space_before_a_json_answer_is_no_output():
    world = World(
        answers(*[b"\n", 100.0] * 20, headers=JSON), first_token_timeout=600.0, idle_timeout=300.0
    )
    client = await world.ask(Client(wish(stream=False)))
    assert (client.status, client.committed_at) == (504, 600.0)


async def test_a_json_answer_that_stops_half_way_is_idle():
    world = World(answers(b'{"a"', HANG, headers=JSON), idle_timeout=300.0)
    client = await world.ask(Client(wish(stream=False)))
    assert (client.status, client.committed_at) == (504, 300.0)
    assert world.record.ending.value == "idle_timeout"


async def test_a_timeout_is_not_answered_with_another_attempt():
    world = World(answers(ROLE, HANG), first_token_timeout=60.0)
    await world.ask()
    assert len(world.calls) == 1


async def test_output_on_the_tick_of_the_first_token_timeout_is_kept_or_told(scheduler_seed):
    world = World(answers(ROLE, 60.0, HELLO, FINISH, DONE), first_token_timeout=60.0)
    client = await world.ask()
    assert client.ended
    assert world.record.ending.value in {"completed", "first_token_timeout"}
    errors = [event for event in events_in(client.body) if "error" in event]
    assert len(errors) == (world.record.ending.value != "completed")
    assert (DONE in client.body) == (world.record.ending.value == "completed")


async def test_heartbeats_of_ours_do_not_count_as_the_upstreams():
    world = World(answers(ROLE, HELLO, HANG), heartbeat=1.0, idle_timeout=10.0)
    client = await world.ask()
    assert len(client.times_of(BEAT)) >= 9
    assert world.record.ending.value == "idle_timeout"


@pytest.mark.parametrize("silent", [answers(after=HANG), answers(HANG)], ids=["headers", "output"])
async def test_the_client_hears_of_it_before_its_upstream_was_told(silent):
    world = World(at("a", silent, abort_takes=2.0), max_retries=0, first_token_timeout=10.0)
    client = await world.ask()
    assert (client.ended_at, world.record.duration) == (10.0, 10.0)


# A process that stood still: stopped by its terminal or a debugger, or on a machine that was paused.


async def standing_still(world, *, at, seconds):
    """Ask, and let the process stand still meanwhile."""

    async def stand_still():
        await trio.sleep(at)
        trio.lowlevel.current_clock().jump(seconds)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_still)
        client = await world.ask()
        nursery.cancel_scope.cancel()
    return client


@pytest.mark.parametrize(
    ("steps", "limits"),
    [
        ((ROLE, HELLO, 200.0, HELLO, FINISH, DONE), {"idle_timeout": 300.0}),
        (
            (ROLE, HELLO, 90.0, COMMENT, 90.0, COMMENT, 20.0, FINISH, DONE),
            {"progress_timeout": 300.0},
        ),
        ((ROLE, 200.0, HELLO, FINISH, DONE), {"first_token_timeout": 300.0}),
        ((200.0, ROLE, HELLO, FINISH, DONE), {"first_token_timeout": 300.0}),
    ],
)
async def test_what_came_while_nothing_ran_is_not_late(steps, limits, scheduler_seed):
    world = World(answers(*steps), **limits)
    await standing_still(world, at=195.0, seconds=1000.0)
    assert world.record.ending.value == "completed"


async def test_what_did_not_come_while_nothing_ran_is_late_as_soon_as_something_does():
    world = World(answers(ROLE, HELLO, HANG), idle_timeout=300.0)
    client = await standing_still(world, at=100.0, seconds=1000.0)
    assert told(client) == ("upstream_timeout", 1100.0)
    assert world.record.ending.value == "idle_timeout"
