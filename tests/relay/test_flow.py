"""The hot path, over a client's connection that takes a write without waiting: all, some, or nothing."""

from __future__ import annotations

import pytest
import trio

from trio_sse_proxy.wire import Written

from .frames import BEAT, DONE, FINISH, HELLO, ROLE, chunk, text, unnamed, usage, wish
from .scripted_client import Client
from .scripted_upstream import HANG, answers
from .world import World


class Quick(Client):
    """Writes at once; `room` says how often it takes all, some ("partly") or nothing of a write."""

    def __init__(self, *upload, room=(), **how) -> None:
        super().__init__(*upload, **how)
        self._room = list(room)
        self._rest = b""
        self.at_once: list[bytes] = []

    def begin_now(self, status, headers, *, followed):
        return False

    def write_now(self, body: bytes) -> Written:
        assert self.started
        assert not self.ended
        assert body
        written = self._room.pop(0) if self._room else Written.WHOLLY
        if self._rest or written is Written.NOTHING:
            return Written.NOTHING
        taken = body if written is Written.WHOLLY else body[:5]
        self._rest = body[len(taken) :]
        self.at_once.append(taken)
        self._note(taken)
        return written

    async def send(self, message):
        rest, self._rest = self._rest, b""
        if rest:
            self._note(rest)
        await super().send(message)

    def _note(self, body: bytes) -> None:
        message = {"type": "http.response.body", "body": body, "more_body": True}
        self.messages.append((trio.current_time(), message))


TEXTS = [text(f"word{number} ") for number in range(6)]


async def asked(*frames, room=(), **limits):
    world = World(answers(*frames), **limits)
    client = Quick(wish(), room=room)
    await world.ask(client)
    return world, client


async def test_frames_of_output_are_written_at_once_and_all_else_by_messages():
    world, client = await asked(ROLE, HELLO, *TEXTS, FINISH, DONE)
    assert client.body == b"".join([ROLE, HELLO, *TEXTS, FINISH, DONE])
    assert client.at_once == TEXTS
    record = world.record
    assert (record.frames, record.bytes) == (10, len(client.body))
    assert record.ending.value == "completed"


@pytest.mark.parametrize("taken", [Written.NOTHING, Written.PARTLY])
@pytest.mark.parametrize("when", range(3))
async def test_what_the_client_has_no_room_for_arrives_once_and_in_order(taken, when):
    room = [Written.WHOLLY] * when + [taken]
    world, client = await asked(ROLE, HELLO, *TEXTS, FINISH, DONE, room=room)
    assert client.body == b"".join([ROLE, HELLO, *TEXTS, FINISH, DONE])
    assert (world.record.frames, world.record.bytes) == (10, len(client.body))


@pytest.mark.parametrize(
    "telling",
    [
        usage(prompt_tokens=3, completion_tokens=4),
        chunk({"content": "x"}, "stop"),
        unnamed({"error": {"message": "no", "type": "server_error"}}),
        DONE,
    ],
    ids=["usage", "finish", "error", "done"],
)
async def test_what_may_tell_something_is_looked_at_before_it_is_written(telling):
    _, client = await asked(ROLE, HELLO, TEXTS[0], TEXTS[1] + telling, FINISH, DONE)
    assert client.at_once[0] == TEXTS[0]
    assert not any(telling in written for written in client.at_once)


async def test_a_comment_alone_is_no_output_and_goes_by_message():
    comment = b": working\n\n"
    _, client = await asked(ROLE, HELLO, TEXTS[0], comment, TEXTS[1], DONE)
    assert client.at_once == TEXTS[:2]
    assert client.body == b"".join([ROLE, HELLO, TEXTS[0], comment, TEXTS[1], DONE])


async def test_nothing_is_written_at_once_before_there_was_output():
    _, client = await asked(ROLE, ROLE, HELLO, DONE)
    assert client.at_once == []


async def test_half_a_frame_waits_and_goes_out_with_its_end():
    half = len(TEXTS[1]) // 2
    _, client = await asked(ROLE, HELLO, TEXTS[0] + TEXTS[1][:half], TEXTS[1][half:], FINISH, DONE)
    assert client.at_once == [TEXTS[0], TEXTS[1]]


async def test_a_frame_above_the_limit_is_streamed_through_by_messages():
    large = text("x" * 4000)
    _, client = await asked(
        ROLE,
        HELLO,
        large[:2000],
        large[2000:3000],
        large[3000:],
        *TEXTS,
        DONE,
        max_frame_bytes=1024,
    )
    assert client.body == b"".join([ROLE, HELLO, large, *TEXTS, DONE])
    assert client.at_once == TEXTS


async def test_a_write_at_once_puts_the_next_heartbeat_off():
    steps = [step for one in TEXTS[:3] for step in (3.0, one)]
    _, client = await asked(ROLE, HELLO, *steps, 7.0, DONE, heartbeat=5.0)
    assert client.at_once == TEXTS[:3]
    assert client.times_of(BEAT) == [14.0]


async def test_the_idle_timeout_counts_from_the_last_write_at_once():
    world, client = await asked(ROLE, HELLO, 3.0, TEXTS[0], HANG, idle_timeout=10.0, heartbeat=0.0)
    assert world.record.ending.value == "idle_timeout"
    assert client.ended_at == 13.0


async def test_a_heartbeat_that_is_being_written_is_waited_for():
    world = World(answers(ROLE, HELLO, 6.0, *TEXTS, DONE), heartbeat=5.0)
    client = Quick(wish(), slow=2.0)
    await world.ask(client)
    at = [body for _, body in client.pieces]
    assert at.index(BEAT) < at.index(TEXTS[0])
    assert client.body.replace(BEAT, b"") == b"".join([ROLE, HELLO, *TEXTS, DONE])
