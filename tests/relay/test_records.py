"""R10: every request ends in exactly one record, which knows what was told and invents nothing."""

from __future__ import annotations

import pytest

from trio_sse_proxy.core.errors import Broken, Unreachable
from trio_sse_proxy.core.usage import Usage

from .frames import (
    BLOCK_DELTA,
    BLOCK_START,
    CHAT_ERROR,
    DONE,
    FINISH,
    HELLO,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGE_STOP,
    ROLE,
    WHOLE,
    text,
    usage,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, answers, fails
from .world import WALL, World, at

RESET = Broken("reset", responded=True)
COUNTS = usage(
    prompt_tokens=9,
    completion_tokens=4,
    prompt_tokens_details={"cached_tokens": 3},
    completion_tokens_details={"reasoning_tokens": 1},
)


async def test_a_record_says_who_asked_for_what():
    world = World(answers(*WHOLE))
    client = await world.ask()
    record = world.record
    assert (record.method, record.path, record.dialect) == ("POST", "/v1/chat/completions", "chat")
    assert (record.model, record.streaming, record.status) == ("m", True, 200)
    assert record.began == WALL
    assert client.response_headers[b"x-proxy-stream-id"] == record.id.encode()


async def test_times_are_counted_from_the_forwarding():
    client = Client(wish()[:5], (10.0, wish()[5:]))
    world = World(answers(ROLE, 2.0, HELLO, 4.0, FINISH, DONE, after=1.0))
    await world.ask(client)
    record = world.record
    assert (record.time_to_headers, record.time_to_first_token) == (1.0, 3.0)
    assert record.duration == 7.0


async def test_times_are_those_of_the_accepted_attempt():
    world = World(
        answers(ROLE, 5.0, RESET, after=1.0), answers(ROLE, 2.0, HELLO, FINISH, DONE, after=3.0)
    )
    await world.ask()
    record = world.record
    assert (record.time_to_headers, record.time_to_first_token) == (3.0, 5.0)
    first, second = record.attempts
    assert (first.started, first.headers, first.status, first.ended) == (0.0, 1.0, 200, 6.0)
    assert (first.first_output, first.problem) == (None, "truncated: unreachable")
    assert (second.started, second.headers, second.first_output) == (6.0, 9.0, 11.0)
    assert second.problem is None


async def test_the_time_to_the_first_token_is_known_if_everything_came_in_one_read():
    world = World(answers(b"".join(WHOLE), after=2.0))
    await world.ask()
    assert world.record.time_to_first_token == 2.0


async def test_a_stream_that_told_no_usage_has_none():
    world = World(answers(*WHOLE))
    await world.ask()
    assert world.record.usage is None
    assert world.record.as_json()["usage"] is None


async def test_counts_that_were_not_told_are_unknown_not_zero():
    world = World(answers(ROLE, HELLO, FINISH, usage(prompt_tokens=9), DONE))
    await world.ask()
    assert world.record.usage == Usage(input_tokens=9)
    assert world.record.as_json()["usage"]["output_tokens"] is None


async def test_usage_is_read_from_a_finished_stream():
    world = World(answers(ROLE, HELLO, FINISH, COUNTS, DONE))
    await world.ask()
    assert world.record.usage == Usage(
        input_tokens=9, output_tokens=4, cached_tokens=3, reasoning_tokens=1
    )


async def test_an_aborted_stream_keeps_what_it_had_told():
    world = World(answers(MESSAGE_START, BLOCK_START, BLOCK_DELTA, HANG))
    await world.ask(Client(wish(), leaves_at=2.0), dialect="messages")
    assert world.record.usage == Usage(input_tokens=7)


async def test_a_request_lasts_until_its_client_leaves_however_long_its_upstream_takes_to_hear_of_it():
    world = World(at("a", answers(ROLE, HELLO, HANG), abort_takes=1.5))
    await world.ask(Client(wish(), leaves_at=2.0))
    assert (world.record.duration, world.record.attempts[0].ended) == (2.0, 3.5)


async def test_a_stream_aborted_before_output_keeps_what_it_had_told():
    world = World(answers(MESSAGE_START, HANG))
    await world.ask(Client(wish(), leaves_at=2.0), dialect="messages")
    assert world.record.attempts[0].usage == Usage(input_tokens=7)


async def test_usage_of_discarded_attempts_is_kept_apart():
    world = World(
        answers(MESSAGE_START, RESET),
        answers(MESSAGE_START, BLOCK_START, BLOCK_DELTA, MESSAGE_DELTA, MESSAGE_STOP),
    )
    await world.ask(dialect="messages")
    first, second = world.record.attempts
    assert first.usage == Usage(input_tokens=7)
    assert second.usage == world.record.usage == Usage(input_tokens=7, output_tokens=5)


async def test_usage_of_a_json_answer_is_read():
    body = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}'
    world = World(answers(body, headers=JSON))
    await world.ask(Client(wish(stream=False)))
    assert world.record.usage == Usage(input_tokens=9, output_tokens=0)


async def test_frames_bytes_and_heartbeats_are_counted():
    world = World(answers(ROLE, HELLO + HELLO, 6.0, FINISH, DONE))
    client = await world.ask()
    record = world.record
    assert (record.frames, record.heartbeats) == (5, 1)
    assert record.bytes == len(ROLE + HELLO + HELLO + FINISH + DONE)
    assert len(client.body) == record.bytes + len(b": hb\n\n")


async def test_frames_that_end_lines_with_crlf_are_counted_alike():
    world = World(answers(b"".join(WHOLE).replace(b"\n", b"\r\n")))
    await world.ask()
    assert world.record.frames == 4


async def test_a_frame_that_passes_in_pieces_is_one_frame():
    long = text("x" * 5_000)
    pieces = [long[n : n + 500] for n in range(0, len(long), 500)]
    world = World(answers(ROLE, HELLO, *pieces, FINISH, DONE), max_frame_bytes=1_000)
    await world.ask()
    assert world.record.frames == 5


async def test_frames_of_discarded_attempts_are_not_counted():
    world = World(answers(ROLE, ROLE, RESET), answers(*WHOLE))
    await world.ask()
    assert world.record.frames == 4


async def test_nothing_is_counted_that_was_held_back_for_a_client_that_left():
    world = World(answers(ROLE, HANG))
    await world.ask(Client(wish(), leaves_at=2.0))
    assert (world.record.frames, world.record.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("attempt", "limits", "ending", "side"),
    [
        (answers(*WHOLE), {}, "completed", "upstream"),
        (answers(ROLE, HELLO, RESET), {}, "truncated", "upstream"),
        (answers(ROLE, HELLO, CHAT_ERROR), {}, "upstream_error", "upstream"),
        (fails(Unreachable("no route")), {"max_retries": 0}, "unreachable", "upstream"),
        (answers(HANG), {"first_token_timeout": 9.0}, "first_token_timeout", "upstream"),
        (answers(HANG), {"total_timeout": 9.0}, "total_timeout", "proxy"),
        (answers(b"", status=404, headers=JSON), {}, "upstream_error", "upstream"),
        (answers(), {"max_body_bytes": 3}, "refused", "downstream"),
    ],
)
async def test_a_record_says_how_it_ended_and_who_caused_it(attempt, limits, ending, side):
    world = World(attempt, **limits)
    await world.ask()
    found = world.record.as_json()
    assert (found["ending"], found["side"]) == (ending, side)


async def test_an_upstream_that_was_left_is_an_abort_and_one_that_finished_is_not():
    for attempt, leaves_at, aborted in ((answers(HANG), 2.0, True), (answers(*WHOLE), 50.0, False)):
        world = World(attempt)
        await world.ask(Client(wish(), leaves_at=leaves_at))
        assert world.record.aborted is aborted


async def test_a_refused_request_has_no_attempts():
    world = World(max_body_bytes=3)
    await world.ask()
    assert world.record.attempts == []
    assert world.record.status == 413


async def test_a_client_that_left_before_any_answer_has_no_status():
    world = World(answers(HANG))
    await world.ask(Client(wish(), leaves_at=2.0))
    assert world.record.status is None


async def test_a_record_holds_no_prompt_no_completion_and_no_key():
    secret = b"sk-secret"
    headers = ((b"authorization", b"Bearer " + secret), (b"x-api-key", secret))
    client = Client(wish(messages=[{"content": "PROMPT"}]), headers=headers)
    world = World(answers(ROLE, text("COMPLETION"), 1.0, RESET))
    await world.ask(client, query_string=b"key=sk-secret")
    told = str(world.record.as_json())
    assert not [word for word in ("PROMPT", "COMPLETION", "sk-secret") if word in told]


async def test_the_record_does_not_repeat_what_the_upstream_says_of_the_request():
    body = b'{"error":{"message":"bad prompt: my SECRET","type":"invalid_request_error"}}'
    world = World(answers(body, status=400, headers=JSON))
    client = await world.ask()
    assert client.body == body
    assert world.record.detail == "invalid_request, status 400"
    assert "SECRET" not in str(world.record.as_json())
