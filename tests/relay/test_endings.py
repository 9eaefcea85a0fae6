"""R6: every stream ends in its terminator, in an error told, or in a visible cut; never in a lie."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_sse_proxy.core.call import Reason
from trio_sse_proxy.core.errors import Broken, Garbled
from trio_sse_proxy.core.limits import OnFailure
from trio_sse_proxy.endpoint import Endpoint

from .frames import (
    BEAT,
    BLOCK_DELTA,
    CHAT_ERROR,
    COMPLETED,
    CREATED,
    DELTA,
    DONE,
    FAILED,
    FINISH,
    HELLO,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGE_STOP,
    OVERLOADED,
    PING,
    RESPONSES_ERROR,
    ROLE,
    WHOLE,
    events_in,
    named,
    text,
    usage,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, ScriptedUpstream, answers, fails
from .world import World, at

RESET = Broken("reset", responded=True)
STREAMS = {
    "chat": (ROLE, HELLO, FINISH, DONE),
    "responses": (CREATED, DELTA, COMPLETED),
    "messages": (MESSAGE_START, BLOCK_DELTA, MESSAGE_DELTA, MESSAGE_STOP),
}
CUT = {
    "chat": (ROLE, HELLO),
    "responses": (CREATED, DELTA),
    "messages": (MESSAGE_START, BLOCK_DELTA),
}
dialects = pytest.mark.parametrize("dialect", STREAMS)


def errors(client):
    return [
        e for e in events_in(client.body) if e.get("error") or e.get("type") == "response.failed"
    ]


@dialects
async def test_the_terminator_ends_the_body_at_once(dialect):
    world = World(answers(*STREAMS[dialect], HANG))
    client = await world.ask(dialect=dialect)
    assert client.body == b"".join(STREAMS[dialect])
    assert client.ended_at == 0.0
    assert world.record.ending.value == "completed"


@dialects
async def test_the_upstream_is_read_on_for_100_ms_at_most_after_the_terminator(dialect):
    world = World(answers(*STREAMS[dialect], HANG))
    await world.ask(dialect=dialect)
    assert world.calls[0].closed == pytest.approx(0.1)


@dialects
async def test_a_connection_whose_end_comes_soon_after_the_terminator_is_not_left_early(dialect):
    world = World(answers(*STREAMS[dialect], 0.05))
    await world.ask(dialect=dialect)
    assert not world.calls[0].left_early


@dialects
async def test_what_follows_the_terminator_is_dropped(dialect):
    stream = STREAMS[dialect]
    rubbish = b"data: {}\n\nevent: x\ndata: rubbish\n\n"
    world = World(answers(*stream[:-1], stream[-1] + rubbish, rubbish))
    client = await world.ask(dialect=dialect)
    assert client.body == b"".join(stream)


@dialects
async def test_a_failure_after_the_terminator_changes_nothing(dialect):
    world = World(answers(*STREAMS[dialect], RESET))
    client = await world.ask(dialect=dialect)
    assert client.body == b"".join(STREAMS[dialect])
    assert world.record.ending.value == "completed"


@dialects
@pytest.mark.parametrize("end", [(), (RESET,)])
async def test_a_truncation_is_told_and_never_completed_by_us(dialect, end):
    world = World(answers(*CUT[dialect], 1.0, *end))
    client = await world.ask(dialect=dialect)
    assert client.body.startswith(b"".join(CUT[dialect]))
    assert client.ended
    assert errors(client)
    assert STREAMS[dialect][-1] not in client.body
    assert world.record.ending.value == "truncated"


@dialects
async def test_a_failure_is_told_while_its_upstream_still_has_to_hear_of_the_end(dialect):
    world = World(at("a", answers(*CUT[dialect], 1.0, RESET), abort_takes=2.0))
    client = await world.ask(dialect=dialect)
    assert errors(client)
    assert client.ended_at == client.pieces[-1][0] == 1.0
    assert world.record.duration == 1.0
    (entry,) = world.record.attempts
    assert entry.reason is Reason.BROKEN


async def test_an_error_is_told_while_its_upstream_still_has_to_hear_of_the_end():
    late = answers(b"{", HANG, status=503, headers=JSON)
    world = World(at("a", late, abort_takes=2.0), max_retries=0)
    client = await world.ask()
    assert (client.status, client.ended_at) == (503, 1.0)


@dialects
async def test_a_cut_inside_a_frame_drops_the_piece_and_tells(dialect):
    whole = CUT[dialect][-1]
    world = World(answers(*CUT[dialect], whole[:25], 1.0, RESET))
    client = await world.ask(dialect=dialect)
    assert client.body.startswith(b"".join(CUT[dialect]))
    assert whole[:25] not in client.body[len(b"".join(CUT[dialect])) :] or whole in client.body
    assert errors(client)


@dialects
async def test_on_failure_cut_resets_instead_of_telling(dialect):
    world = World(answers(*CUT[dialect], 1.0, RESET), on_failure=OnFailure.CUT)
    client = await world.ask(dialect=dialect)
    assert client.body == b"".join(CUT[dialect])
    assert client.cut


async def test_on_failure_cut_before_the_headers_is_a_status_all_the_same():
    world = World(fails(Broken("reset")), on_failure=OnFailure.CUT, max_retries=0)
    client = await world.ask()
    assert (client.status, client.ended) == (502, True)


async def test_on_failure_cut_lets_an_upstreams_own_error_through():
    world = World(answers(ROLE, HELLO, CHAT_ERROR), on_failure=OnFailure.CUT)
    client = await world.ask()
    assert client.body == ROLE + HELLO + CHAT_ERROR
    assert client.ended


async def test_a_cut_inside_an_oversize_frame_cannot_be_told_and_is_a_cut():
    long = text("x" * 3_000)
    world = World(answers(ROLE, HELLO, long[:2_000], 1.0, RESET), max_frame_bytes=1_000)
    client = await world.ask()
    assert client.cut
    assert client.body == ROLE + HELLO + long[:2_000]


async def test_a_chat_stream_without_done_but_with_every_finish_reason_is_complete():
    world = World(answers(ROLE, HELLO, FINISH))
    client = await world.ask()
    assert client.ended
    assert client.body == ROLE + HELLO + FINISH
    assert world.record.ending.value == "completed"


async def test_a_chat_stream_reset_after_every_finish_reason_is_complete():
    world = World(answers(ROLE, HELLO, FINISH, 1.0, RESET))
    client = await world.ask()
    assert (client.ended, world.record.ending.value) == (True, "completed")
    assert not errors(client)


async def test_a_terminator_without_its_blank_line_still_counts():
    world = World(answers(ROLE, HELLO, FINISH, DONE.rstrip(b"\n")))
    client = await world.ask()
    assert client.body == ROLE + HELLO + FINISH + DONE


@pytest.mark.parametrize(
    "left", range(1, len(COMPLETED) - len("event: response.completed\ndata: "))
)
async def test_a_terminator_that_breaks_off_is_a_truncation(left):
    """Though its name has come, and the body has a proper end."""
    world = World(answers(CREATED, DELTA, COMPLETED.rstrip(b"\n")[:-left]), max_retries=0)
    client = await world.ask(dialect="responses")
    assert world.record.ending.value == "truncated"
    assert client.body.startswith(CREATED + DELTA + b"event: error\n")


async def test_a_last_chunk_without_its_blank_line_reaches_clients_that_want_one():
    world = World(answers(ROLE, HELLO, FINISH.rstrip(b"\n")))
    client = await world.ask()
    assert client.body == ROLE + HELLO + FINISH
    assert world.record.ending.value == "completed"


async def test_an_error_frame_wins_over_the_terminator_that_follows_it():
    world = World(answers(ROLE, HELLO, CHAT_ERROR + DONE))
    client = await world.ask()
    assert client.body == ROLE + HELLO + CHAT_ERROR
    assert world.record.ending.value == "upstream_error"


@dialects
async def test_an_upstreams_error_after_output_passes_and_ends_the_body(dialect):
    error = {"chat": CHAT_ERROR, "responses": FAILED, "messages": OVERLOADED}[dialect]
    world = World(answers(*CUT[dialect], error, HANG))
    client = await world.ask(dialect=dialect)
    assert client.body == b"".join(CUT[dialect]) + error
    assert client.ended_at == 0.0
    assert world.record.ending.value == "upstream_error"


async def test_after_a_responses_error_the_failed_that_follows_within_a_second_is_forwarded():
    world = World(answers(CREATED, DELTA, RESPONSES_ERROR, 0.9, FAILED, HANG))
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + DELTA + RESPONSES_ERROR + FAILED
    assert client.ended_at == 0.9


async def test_after_a_responses_error_alone_the_body_ends_in_a_second():
    world = World(answers(CREATED, DELTA, RESPONSES_ERROR, HANG))
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + DELTA + RESPONSES_ERROR
    assert client.ended_at == 1.0


@pytest.mark.parametrize(
    "end",
    [
        (),
        pytest.param((RESET,)),
        pytest.param((0.5, RESET)),
        pytest.param((Garbled("rubbish"),)),
    ],
)
async def test_no_second_error_is_added_to_one_of_the_upstreams(end):
    world = World(answers(CREATED, DELTA, RESPONSES_ERROR, *end))
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + DELTA + RESPONSES_ERROR
    assert client.ended
    assert world.record.ending.value == "upstream_error"


async def test_the_terminator_may_come_in_the_same_read_as_everything_else():
    world = World(answers(b"".join(WHOLE)))
    client = await world.ask()
    assert client.body == b"".join(WHOLE)


async def test_a_stream_of_bytes_one_by_one_is_the_same_stream():
    world = World(answers(*(bytes([byte]) for byte in b"".join(WHOLE))))
    client = await world.ask()
    assert client.body == b"".join(WHOLE)


async def test_an_oversize_terminator_completes_the_stream():
    long = named("response.completed", response={"id": "r1", "output": ["x" * 3_000]})
    pieces = (long[:2_000], long[2_000:])
    world = World(answers(CREATED, DELTA, *pieces), max_frame_bytes=1_000)
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + DELTA + long
    assert world.record.ending.value == "completed"


async def test_frames_with_crlf_pass_as_they_are():
    stream = b"".join(WHOLE).replace(b"\n", b"\r\n")
    world = World(answers(stream[:50], stream[50:]))
    client = await world.ask()
    assert client.body == stream
    assert world.record.ending.value == "completed"


async def test_frames_with_cr_alone_pass_as_they_are():
    stream = b"".join(WHOLE).replace(b"\n", b"\r")
    world = World(answers(stream[:50], stream[50:]))
    client = await world.ask()
    assert client.body == stream


@dialects
async def test_undecodable_bytes_in_mid_stream_are_told(dialect):
    world = World(answers(*CUT[dialect], 1.0, Garbled("bad chunk")))
    client = await world.ask(dialect=dialect)
    assert errors(client)
    assert world.record.ending.value == "protocol"


async def test_frames_behind_the_usage_of_a_finished_stream_pass_too():
    counts = usage(prompt_tokens=3, completion_tokens=2)
    world = World(answers(ROLE, HELLO, FINISH, counts, DONE))
    client = await world.ask()
    assert client.body == ROLE + HELLO + FINISH + counts + DONE


async def test_a_long_json_answer_to_a_streaming_request_is_never_mixed_with_frames():
    big = b'["' + b"x" * 2**20
    world = World(answers(big, 12.0, b"more", RESET, headers=JSON))
    client = await world.ask()
    assert client.body == big + b"more"
    assert client.cut


async def test_a_long_json_answer_to_a_streaming_request_gets_no_heartbeats():
    big = b'["' + b"x" * 2**20
    world = World(answers(big, 12.0, b'"]', headers=JSON))
    client = await world.ask()
    assert client.body == big + b'"]'
    assert BEAT not in client.body


async def test_a_terminator_that_never_reaches_a_stuck_client_is_no_completion():
    client = Client(wish(), stuck_from=1.0, shielded=True)
    world = World(answers(ROLE, HELLO, 1.0, FINISH + DONE))
    await world.ask(client)
    assert world.record.ending.value == "write_stalled"


@given(
    dialect=st.sampled_from(list(STREAMS)),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.tuples(st.integers(0, 900), st.sampled_from([0.0, 3.0, 7.0])), max_size=6),
    limit=st.sampled_from([200, 2**20]),
)
@settings(max_examples=150, deadline=None)
def test_however_the_bytes_are_cut_the_client_gets_the_upstreams_stream(dialect, end, cuts, limit):
    stream = b"".join(STREAMS[dialect]).replace(b"\n", end)
    edges = sorted({cut % len(stream): wait for cut, wait in cuts}.items())
    steps, begin = [], 0
    for edge, wait in edges:
        steps += [stream[begin:edge], wait]
        begin = edge
    steps = [step for step in [*steps, stream[begin:]] if step != b""]

    async def main():
        world = World(answers(*steps), max_frame_bytes=limit)
        client = await world.ask(dialect=dialect)
        body = client.body.replace(BEAT, b"").replace(PING, b"")
        if end != b"\r\n":
            assert body == stream
        else:  # a line feed behind a heartbeat is dropped
            assert body.replace(b"\r", b"").replace(b"\n", b"") == stream.replace(end, b"")
        assert client.ended
        assert world.record.ending.value == "completed"

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_the_final_error_counts_though_its_blank_line_is_missing():
    failed = named("response.failed", response={"id": "r1"})
    world = World(answers(CREATED, DELTA, RESPONSES_ERROR, failed.rstrip()))
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + DELTA + RESPONSES_ERROR + failed


async def test_a_deadline_in_the_second_after_an_upstreams_error_adds_none_of_ours():
    world = World(answers(CREATED, DELTA, 0.5, RESPONSES_ERROR, HANG), idle_timeout=0.7)
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + DELTA + RESPONSES_ERROR
    assert client.ended


async def test_a_total_timeout_in_that_second_adds_none_either():
    world = World(answers(CREATED, DELTA, 0.5, RESPONSES_ERROR, HANG), total_timeout=0.7)
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + DELTA + RESPONSES_ERROR
    assert client.ended


async def test_a_client_that_is_stuck_before_its_status_does_not_hold_the_goodbye():
    """Nor does it under a server that shields its writes, and has no deadline for them."""
    world = World(fails(Garbled("no HTTP")))
    client = await world.ask(Client(wish(), stuck_from=0.0, shielded=True))
    assert (client.aborted_at, trio.current_time()) == (1.0, 1.0)
    assert world.record.ending.value == "protocol"


class SlowToBegin(Client):
    """Its connection is busy with others when a status is to be sent, longer than goodbyes may take.

    So it is over HTTP/2, where one that others use is not closed for the sake of one.
    """

    def abort(self):
        pass

    async def send(self, message):
        if message["type"] == "http.response.start":
            await trio.sleep(5.0)
        await super().send(message)


async def test_a_refusal_of_which_only_the_headers_went_out_is_a_cut():
    """The words of a stream would be behind a Content-Length that is not theirs."""
    world = World(answers(HANG, after=30.0), commit_after=60.0)
    client = SlowToBegin(wish())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, client)
        await trio.sleep(1.0)
        assert world.app.cancel(*world.app.live)
    assert (client.status, client.cut, client.body) == (500, True, b"")
    world.assert_no_trace()


class Slowly(ScriptedUpstream):
    """One that takes a turn to close its connection, and only then looks why."""

    @asynccontextmanager
    async def open(self, request, told):
        async with super().open(request, told) as answer:
            try:
                yield answer
            finally:
                for _ in range(2):
                    await trio.lowlevel.cancel_shielded_checkpoint()


@pytest.mark.parametrize("after", [5.0, 5.2, 5.4])
async def test_what_broke_while_a_heartbeat_is_written_was_broken(after, scheduler_seed):
    upstream = Slowly(answers(ROLE, HELLO, after, RESET), name="a")
    world = World(Endpoint(upstream=upstream))
    await world.ask(Client(wish(), slow=0.3))
    (entry,) = world.record.attempts
    assert entry.reason is Reason.BROKEN
