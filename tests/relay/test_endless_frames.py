"""R4: a frame too large to be held passes in pieces, and has its time to come to its end."""

from __future__ import annotations

import pytest

from .frames import COMPLETED, CREATED, DELTA, DONE, FINISH, HELLO, ROLE, text, wish
from .scripted_client import Client
from .scripted_upstream import answers
from .world import World

PIECE = b"x" * 5000
BEGIN = b"data: "


def endless(*before, every, times=2000):
    pieces = [part for _ in range(times) for part in (every, PIECE)]
    return answers(*before, BEGIN, *pieces)


@pytest.mark.parametrize("before", [(ROLE, HELLO), (ROLE,), ()])
async def test_a_frame_without_an_end_is_given_up_after_progress_timeout(before):
    world = World(endless(*before, every=1.0), max_frame_bytes=4096, progress_timeout=100.0)
    await world.ask()
    assert world.record.ending.value == "progress_timeout"
    assert 100.0 <= world.record.duration <= 103.0
    world.assert_no_trace()


async def test_what_the_client_takes_to_read_a_large_frame_is_not_counted():
    pieces = [part for _ in range(40) for part in (0.1, PIECE)]
    world = World(
        answers(ROLE, HELLO, BEGIN, *pieces, b"\n\n", FINISH, DONE),
        max_frame_bytes=4096,
        progress_timeout=60.0,
    )
    await world.ask(Client(wish(), slow=5.0))
    assert world.record.ending.value == "completed"
    assert world.record.duration > 200.0


async def test_comments_too_large_to_be_held_are_no_events():
    comments = [part for _ in range(19) for part in (9.0, b": " + PIECE, b"\n\n")]
    world = World(
        answers(CREATED, DELTA, *comments, COMPLETED),
        max_frame_bytes=4096,
        event_heartbeat=20.0,
        progress_timeout=0.0,
    )
    client = Client(wish(), headers=((b"user-agent", b"codex_cli_rs/0.169.0"),))
    await world.ask(client, dialect="responses")
    beats = [at for at, data in client.pieces if data.startswith(b"event: keepalive\n")]
    assert beats == [20.0 * n for n in range(1, 9)]


async def test_the_end_of_one_is_progress_though_the_next_has_begun():
    frame = text("x" * 3000)
    stream, size = frame * 60, 3 * len(frame)
    pieces = [stream[:1500], *(stream[at : at + size] for at in range(1500, len(stream), size))]
    steps = [part for piece in pieces for part in (10.0, piece)]
    world = World(answers(ROLE, *steps, FINISH, DONE), max_frame_bytes=1024, progress_timeout=60.0)
    await world.ask()
    assert world.record.ending.value == "completed"
