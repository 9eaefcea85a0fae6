"""R1 and R3: never silent, by both clocks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sse_proxy.core.errors import Broken, Unreachable

from .frames import (
    BEAT,
    BLOCK_DELTA,
    BLOCK_START,
    COMPLETED,
    CREATED,
    DELTA,
    DONE,
    FINISH,
    HELLO,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGE_STOP,
    PING,
    ROLE,
    WHOLE,
    events_in,
    json_in,
    named,
    text,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import answers, fails
from .world import World

CODEX = ((b"user-agent", b"codex_cli_rs/0.169.0"),)
CLAUDE = ((b"user-agent", b"claude-cli/2.1.197 (external)"),)


async def test_heartbeats_begin_with_the_request_not_with_the_upstreams_headers():
    world = World(answers(*WHOLE, after=17.0))
    client = await world.ask()
    assert client.times_of(BEAT) == [5.0, 10.0, 15.0]
    assert client.body.endswith(b"".join(WHOLE))


async def test_heartbeats_begin_when_the_request_was_read_not_when_it_began_to_arrive():
    client = Client(wish()[:5], (8.0, wish()[5:]))
    await World(answers(*WHOLE, after=6.0)).ask(client)
    assert client.times_of(BEAT) == [13.0]


async def test_a_forwarded_frame_puts_the_next_heartbeat_off():
    world = World(answers(ROLE, HELLO, 4.0, HELLO, 4.0, HELLO, 6.0, FINISH, DONE))
    client = await world.ask()
    assert client.times_of(BEAT) == [13.0]


async def test_heartbeats_go_on_through_the_sleep_between_attempts_and_the_next_attempt():
    world = World(fails(Unreachable("no route"), after=4.0), answers(*WHOLE, after=9.0), jitter=1.0)
    client = await world.ask()
    assert client.times_of(BEAT) == [5.0, 10.0]


async def test_frames_that_are_held_back_do_not_put_a_heartbeat_off():
    client = await World(answers(ROLE, 3.0, ROLE, 8.0, HELLO, FINISH, DONE)).ask()
    assert client.times_of(BEAT) == [5.0, 10.0]


async def test_an_unfinished_frame_puts_no_heartbeat_off_since_it_is_held_back():
    start, end = HELLO[:20], HELLO[20:]
    client = await World(answers(ROLE, HELLO, start, 12.0, end, FINISH, DONE)).ask()
    assert client.times_of(BEAT) == [5.0, 10.0]
    assert client.body.replace(BEAT, b"") == ROLE + HELLO + HELLO + FINISH + DONE


async def test_a_heartbeat_never_lands_inside_an_oversize_frame():
    long = text("x" * 3_000)
    world = World(
        answers(ROLE, HELLO, long[:2_000], 30.0, long[2_000:], 6.0, FINISH, DONE),
        max_frame_bytes=1_000,
    )
    client = await world.ask()
    assert client.body == ROLE + HELLO + long + BEAT + FINISH + DONE


async def test_no_heartbeat_follows_the_terminator():
    client = await World(answers(*WHOLE, 0.09)).ask()
    assert client.body == b"".join(WHOLE)


async def test_heartbeats_of_15_s_bridge_a_silence_just_under_the_idle_limit():
    world = World(answers(ROLE, HELLO, 299.0, FINISH, DONE), heartbeat=15.0, idle_timeout=300.0)
    client = await world.ask()
    assert client.times_of(BEAT) == [15.0 * n for n in range(1, 20)]
    assert world.record.heartbeats == 19


async def test_heartbeats_can_be_off():
    client = await World(answers(*WHOLE, after=60.0), heartbeat=0.0).ask()
    assert client.body == b"".join(WHOLE)


async def test_a_request_that_wants_no_stream_gets_no_heartbeats():
    body = b'{"choices":[]}'
    from .scripted_upstream import JSON

    client = Client(wish(stream=False))
    await World(answers(body, headers=JSON, after=60.0)).ask(client)
    assert (client.body, client.committed_at) == (body, 60.0)


async def test_messages_get_pings():
    stream = (MESSAGE_START, BLOCK_START, BLOCK_DELTA, 6.0, MESSAGE_DELTA, MESSAGE_STOP)
    client = await World(answers(*stream, after=6.0)).ask(dialect="messages")
    assert client.times_of(PING) == [5.0, 11.0]


async def test_after_an_id_line_a_heartbeat_is_a_comment_line_alone():
    with_id = b"id: 7\n" + HELLO
    client = await World(answers(ROLE, with_id, 6.0, FINISH, DONE)).ask()
    assert client.body == ROLE + with_id + b": hb\n" + FINISH + DONE


async def test_a_late_line_feed_is_not_split_from_its_carriage_return_by_a_heartbeat():
    crlf = HELLO.replace(b"\n", b"\r\n")
    client = await World(answers(ROLE, crlf[:-1], 6.0, b"\n" + FINISH, DONE)).ask()
    assert client.body == ROLE + crlf[:-1] + BEAT + FINISH + DONE


async def test_heartbeats_are_counted():
    world = World(answers(*WHOLE, after=12.0))
    await world.ask()
    assert world.record.heartbeats == 2
    assert world.witness.heartbeats == [(5.0, "frame"), (10.0, "frame")]


async def test_a_heartbeat_is_left_out_while_a_slow_client_is_being_written_to():
    client = Client(wish(), slow=7.0)
    await World(answers(ROLE, HELLO, HELLO, HELLO, FINISH, DONE)).ask(client)
    assert client.times_of(BEAT) == []


@given(
    waits=st.lists(st.floats(0.0, 30.0, width=16), min_size=1, max_size=6),
    before=st.floats(0.0, 30.0, width=16),
    heartbeat=st.sampled_from([1.0, 5.0, 15.0]),
    commit_after=st.sampled_from([0.5, 5.0, 20.0]),
)
@settings(max_examples=60, deadline=None)
def test_the_client_never_waits_longer_than_one_heartbeat_for_bytes(
    waits, before, heartbeat, commit_after
):
    import trio
    from trio.testing import MockClock

    steps = [ROLE]
    for wait in waits:
        steps += [wait, HELLO]

    async def main():
        attempt = answers(*steps, FINISH, DONE, after=before)
        client = await World(attempt, heartbeat=heartbeat, commit_after=commit_after).ask()
        times = [at for at, _ in client.pieces]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert times[0] <= max(heartbeat, commit_after) + 1e-9
        assert max(gaps, default=0.0) <= heartbeat + 1e-9
        assert (
            client.body.replace(BEAT, b"")
            == b"".join(s for s in steps if isinstance(s, bytes)) + FINISH + DONE
        )

    trio.run(main, clock=MockClock(autojump_threshold=0))


# The second clock: agents that count events.


async def test_codex_gets_an_event_before_created_after_120_s_of_heartbeats():
    client = Client(wish(), headers=CODEX)
    world = World(answers(CREATED, DELTA, COMPLETED, after=130.0), heartbeat=15.0)
    await world.ask(client, dialect="responses")
    (keepalive,) = [(at, p) for at, p in client.pieces if b"keepalive" in p]
    assert keepalive[0] == 120.0
    assert json_in(keepalive[1]) == {"type": "keepalive", "sequence_number": 0}
    assert world.record.event_heartbeats == 1


async def test_codex_is_recognised_by_its_originator_too():
    client = Client(wish(), headers=((b"originator", b"codex_vscode"),))
    await World(answers(CREATED, DELTA, COMPLETED, after=130.0)).ask(client, dialect="responses")
    assert b"keepalive" in client.body


async def test_event_heartbeats_keep_every_gap_under_300_s_with_15_s_heartbeats():
    world = World(answers(CREATED, DELTA, 290.0, DELTA, COMPLETED, after=550.0), heartbeat=15.0)
    client = Client(wish(), headers=CODEX)
    await world.ask(client, dialect="responses")
    events = [at for at, piece in client.pieces if piece.startswith(b"event:")]
    gaps = [b - a for a, b in zip([0.0, *events], events, strict=False)]
    assert max(gaps) <= 120.0
    assert world.record.event_heartbeats == 6


async def test_other_clients_get_no_event_heartbeats():
    for dialect, stream in (
        ("responses", (CREATED, DELTA, COMPLETED)),
        ("messages", (MESSAGE_START, BLOCK_DELTA, MESSAGE_STOP)),
        ("chat", WHOLE),
    ):
        client = Client(wish(), headers=((b"user-agent", b"openai-python/3.52"),))
        await World(answers(*stream, after=400.0)).ask(client, dialect=dialect)
        assert b"keepalive" not in client.body
        assert b"message_delta" not in client.body


async def test_chat_gets_no_event_heartbeats_whoever_asks():
    client = Client(wish(), headers=CODEX)
    await World(answers(*WHOLE, after=400.0)).ask(client)
    assert client.body.replace(BEAT, b"") == b"".join(WHOLE)


async def test_claude_code_gets_an_empty_message_delta():
    client = Client(wish(), headers=CLAUDE)
    stream = (MESSAGE_START, BLOCK_START, BLOCK_DELTA, 125.0, MESSAGE_DELTA, MESSAGE_STOP)
    await World(answers(*stream, after=125.0)).ask(client, dialect="messages")
    empty = [
        at
        for at, p in client.pieces
        if b'"stop_reason":null' in p and p.startswith(b"event: message_delta")
    ]
    assert empty == [120.0, 245.0]


async def test_before_the_first_item_codex_gets_in_progress_with_the_snapshot():
    client = Client(wish(), headers=CODEX)
    world = World(answers(CREATED, 130.0, DELTA, COMPLETED), prelude_hold=10.0)
    await world.ask(client, dialect="responses")
    (beat,) = [p for _, p in client.pieces if b"response.in_progress" in p]
    assert json_in(beat)["response"] == {"id": "r1", "output": []}


async def test_upstream_pings_do_not_put_an_event_heartbeat_off():
    client = Client(wish(), headers=CODEX)
    steps = [CREATED, DELTA]
    for _ in range(13):
        steps += [10.0, b": keep-alive\n\n"]
    await World(answers(*steps, DELTA, COMPLETED)).ask(client, dialect="responses")
    assert [at for at, p in client.pieces if b"keepalive" in p] == [120.0]


async def test_the_event_heartbeat_repeats_the_last_sequence_number():
    client = Client(wish(), headers=CODEX)
    second = named("response.output_text.delta", sequence_number=41, delta="x")
    await World(answers(CREATED, DELTA, second, 125.0, COMPLETED)).ask(client, dialect="responses")
    (beat,) = [p for _, p in client.pieces if b"keepalive" in p]
    assert json_in(beat)["sequence_number"] == 41


async def test_event_heartbeats_can_be_off():
    client = Client(wish(), headers=CODEX)
    world = World(answers(CREATED, DELTA, COMPLETED, after=500.0), event_heartbeat=0.0)
    await world.ask(client, dialect="responses")
    assert len(events_in(client.body)) == 3


@pytest.mark.parametrize("wait", [4.9999, 5.0, 5.0001])
async def test_a_frame_on_the_tick_of_a_heartbeat_is_never_split_by_it(wait, scheduler_seed):
    client = await World(answers(ROLE, HELLO, wait, HELLO, FINISH, DONE)).ask()
    assert client.body.replace(BEAT, b"") == ROLE + HELLO + HELLO + FINISH + DONE
    for _, piece in client.pieces:
        assert piece.endswith(b"\n\n")


async def test_a_failed_attempt_leaves_the_heartbeat_in_its_plain_form():
    with_id = b"id: 7\n" + ROLE
    world = World(answers(with_id, Broken("reset")), answers(*WHOLE, after=6.0))
    client = await world.ask()
    assert client.body == BEAT + b"".join(WHOLE)


async def test_a_client_for_which_no_event_heartbeat_is_safe_gets_its_byte_heartbeat_then():
    """Both are due on one tick; the one that cannot be given must not put off the other."""
    opened = (MESSAGE_START, BLOCK_START, BLOCK_DELTA, MESSAGE_DELTA)
    world = World(answers(*opened, 17.0, MESSAGE_STOP), event_heartbeat=10.0)
    client = await world.ask(Client(wish(), headers=CLAUDE), dialect="messages")
    assert client.times_of(PING) == [5.0, 10.0, 15.0]
