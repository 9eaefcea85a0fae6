"""R5: an attempt that produced no output is made again; the client sees one clean stream."""

from __future__ import annotations

import itertools
from email.utils import formatdate

import pytest

from trio_sse_proxy.core.errors import Broken, Garbled, Unreachable

from .frames import (
    BEAT,
    BLOCK_DELTA,
    BLOCK_START,
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
    chunk,
    events_in,
    named,
    text,
    unnamed,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, SSE, answers, fails
from .world import WALL, World

RESET = Broken("reset")
MID = Broken("reset", responded=True)
CHAT_STREAM = b"".join(WHOLE)
RATE = unnamed({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


def refuses(status, retry_after=None, body=b'{"error":{"message":"no"}}'):
    headers = JSON if retry_after is None else (*JSON, (b"retry-after", retry_after))
    return answers(body, status=status, headers=headers)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(fails(Unreachable("refused")), id="no connection"),
        pytest.param(fails(RESET), id="reset before headers"),
        pytest.param(answers(MID), id="reset after headers"),
        pytest.param(answers(), id="clean end after headers"),
        pytest.param(answers(ROLE, MID), id="reset after prelude"),
        pytest.param(answers(ROLE), id="clean end after prelude"),
        pytest.param(answers(ROLE, ROLE[:30], MID), id="reset inside a prelude frame"),
        pytest.param(answers(CHAT_ERROR), id="error frame first"),
        pytest.param(answers(b": x\n\n", ROLE, b": y\n\n", CHAT_ERROR), id="error behind prelude"),
        pytest.param(answers(ROLE + CHAT_ERROR + DONE), id="error and terminator in one read"),
        pytest.param(answers(RATE), id="rate limit frame"),
        pytest.param(answers(DONE[:8]), id="cut terminator"),
        *(pytest.param(refuses(n), id=str(n)) for n in (408, 429, 500, 502, 503, 504, 529)),
    ],
)
async def test_a_failure_before_output_is_answered_with_another_attempt(first):
    world = World(first, answers(*WHOLE))
    client = await world.ask(Client(wish()))
    assert client.status == 200
    assert client.body == CHAT_STREAM
    assert [call.body for call in world.calls] == [wish(), wish()]
    assert world.calls[0].closed is not None


@pytest.mark.parametrize(
    ("dialect", "prelude", "error", "stream"),
    [
        ("responses", (CREATED,), (RESPONSES_ERROR, FAILED), (CREATED, DELTA, COMPLETED)),
        ("responses", (CREATED,), (FAILED,), (CREATED, DELTA, COMPLETED)),
        (
            "messages",
            (MESSAGE_START, PING, BLOCK_START),
            (OVERLOADED,),
            (MESSAGE_START, BLOCK_START, BLOCK_DELTA, MESSAGE_DELTA, MESSAGE_STOP),
        ),
    ],
)
async def test_only_one_prelude_ever_reaches_the_client(dialect, prelude, error, stream):
    world = World(answers(*prelude, 6.0, *error), answers(*prelude, 6.0, MID), answers(*stream))
    client = await world.ask(dialect=dialect)
    assert client.body.replace(BEAT, b"").replace(PING, b"") == b"".join(stream)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 422, 501])
async def test_other_statuses_are_not_retried(status):
    world = World(refuses(status))
    client = await world.ask()
    assert client.status == status


async def test_a_429_that_says_the_quota_is_spent_is_not_retried():
    body = b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}'
    world = World(refuses(429, body=body))
    client = await world.ask()
    assert (client.status, client.body) == (429, body)


@pytest.mark.parametrize("error", [b"invalid_request_error", b"context_length_exceeded"])
async def test_an_error_frame_that_asking_again_cannot_mend_is_forwarded(error):
    frame = unnamed({"error": {"message": "no", "code": error.decode()}})
    world = World(answers(ROLE, frame))
    client = await world.ask()
    assert client.body == ROLE + frame
    assert client.ended


async def test_undecodable_bodies_are_not_retried():
    world = World(fails(Garbled("no HTTP")))
    client = await world.ask()
    assert client.status == 502


async def test_after_output_there_is_no_second_attempt():
    world = World(answers(ROLE, HELLO, MID))
    client = await world.ask()
    assert client.body.startswith(ROLE + HELLO)
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    "output",
    [
        HELLO,
        FINISH,
        chunk({"reasoning_content": "hm"}),
        chunk({"tool_calls": [{"index": 0, "id": "call_1"}]}),
    ],
)
async def test_output_of_any_kind_closes_the_replay_window(output):
    world = World(answers(ROLE, output, 1.0, MID))
    await world.ask()
    assert len(world.calls) == 1


async def test_when_attempts_are_used_up_the_client_gets_the_last_outcome():
    world = World(fails(RESET), answers(MID), refuses(500), refuses(503, b"7", b"full"))
    client = await world.ask()
    assert (client.status, client.body) == (503, b"full")
    assert client.response_headers[b"retry-after"] == b"7"


async def test_headers_and_body_share_one_count_of_attempts():
    world = World(fails(RESET), answers(MID), refuses(500), answers(ROLE, MID))
    client = await world.ask()
    assert client.status == 502
    assert len(world.calls) == 4


async def test_no_retries_means_one_attempt():
    world = World(refuses(500), max_retries=0)
    await world.ask()
    assert len(world.calls) == 1


async def test_the_pauses_double_and_end_at_eight_seconds():
    world = World(*(fails(RESET) for _ in range(8)), jitter=1.0, max_retries=7)
    await world.ask()
    opened = [call.opened for call in world.calls]
    pauses = [b - a for a, b in itertools.pairwise(opened)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


async def test_a_short_retry_after_is_honoured():
    world = World(refuses(429, b"9"), answers(*WHOLE), jitter=1.0)
    await world.ask()
    assert world.calls[1].opened == 9.0


async def test_a_retry_after_may_be_a_date():
    date = formatdate(WALL + 8, usegmt=True).encode()
    world = World(refuses(503, date), answers(*WHOLE), jitter=1.0)
    await world.ask()
    assert world.calls[1].opened == 8.0


@pytest.mark.parametrize("value", [b"11", formatdate(WALL + 60, usegmt=True).encode()])
async def test_a_long_retry_after_goes_to_the_client_unchanged_at_once(value):
    world = World(refuses(429, value))
    client = await world.ask()
    assert (client.status, client.response_headers[b"retry-after"]) == (429, value)
    assert client.committed_at == 0.0


async def test_an_unreadable_retry_after_counts_as_none():
    world = World(refuses(503, b"soon"), answers(*WHOLE), jitter=0.5)
    await world.ask()
    assert world.calls[1].opened == 0.25


async def test_no_attempt_starts_later_than_the_retry_deadline():
    world = World(fails(RESET, after=7.0), fails(RESET, after=7.0), retry_deadline=10.0)
    client = await world.ask()
    assert len(world.calls) == 2
    assert [e["error"]["code"] for e in events_in(client.body)] == ["upstream_unreachable"]


async def test_a_pause_that_would_end_behind_the_retry_deadline_is_not_begun():
    world = World(refuses(503, b"9"), retry_deadline=8.0)
    client = await world.ask()
    assert (client.status, client.committed_at) == (503, 0.0)


async def test_a_stale_pooled_connection_costs_no_pause():
    stale = Broken("gone", reused=True, responded=False)
    world = World(fails(stale), answers(*WHOLE), jitter=1.0)
    await world.ask()
    assert world.calls[1].opened == 0.0


async def test_a_pooled_connection_that_broke_after_it_answered_costs_the_pause():
    world = World(answers(Broken("gone", reused=True, responded=True)), answers(*WHOLE), jitter=1.0)
    await world.ask()
    assert world.calls[1].opened == 0.5


async def test_a_background_response_is_never_asked_for_twice_once_sent():
    world = World(fails(RESET))
    client = await world.ask(Client(wish(background=True)), dialect="responses")
    assert client.status == 502


async def test_a_background_response_is_asked_for_again_if_nothing_was_sent():
    world = World(fails(Unreachable("refused")), answers(CREATED, DELTA, COMPLETED))
    await world.ask(Client(wish(background=True)), dialect="responses")
    assert len(world.calls) == 2


@pytest.mark.parametrize("first", [refuses(503), answers(CREATED, FAILED), answers(CREATED)])
async def test_a_background_response_is_not_replayed(first):
    world = World(first)
    await world.ask(Client(wish(background=True)), dialect="responses")
    assert len(world.calls) == 1


async def test_the_retry_budget_stops_retries_beyond_its_share():
    world = World(fails(RESET))
    world.budget.retrying = 100
    client = Client(wish())
    await world.run(client)
    assert (client.status, world.budget.retrying) == (502, 100)


async def test_a_request_that_retries_counts_once_against_the_budget():
    seen = []
    world = World(fails(RESET), fails(RESET), answers(*WHOLE))
    world.witness.retried = lambda record, cause: seen.append(world.budget.retrying)
    await world.ask()
    assert seen == [1, 1]


async def test_prelude_hold_ends_the_replay_window():
    world = World(answers(ROLE, 128.0, MID), heartbeat=7.0, prelude_hold=120.0)
    client = await world.ask()
    assert [at for at, piece in client.pieces if piece == ROLE] == [120.0]
    assert len(world.calls) == 1
    assert [e["error"]["code"] for e in events_in(client.body) if "error" in e] == [
        "upstream_truncated"
    ]


async def test_prelude_hold_ends_on_time_with_the_default_heartbeat():
    world = World(answers(ROLE, 200.0, HELLO, FINISH, DONE))
    client = await world.ask()
    assert [at for at, piece in client.pieces if piece == ROLE] == [120.0]


async def test_prelude_hold_counts_from_the_first_frame_that_is_no_comment():
    world = World(
        answers(b": x\n\n", 50.0, ROLE, 10.0, ROLE, 60.0, HELLO, FINISH, DONE),
        heartbeat=7.0,
        prelude_hold=30.0,
    )
    client = await world.ask()
    (flushed,) = [at for at, piece in client.pieces if ROLE in piece and HELLO not in piece]
    assert flushed == 80.0


async def test_prelude_hold_counts_anew_for_each_attempt():
    world = World(
        answers(ROLE, 20.0, MID),
        answers(ROLE, 25.0, HELLO, FINISH, DONE),
        heartbeat=7.0,
        prelude_hold=30.0,
    )
    client = await world.ask()
    assert client.body.replace(BEAT, b"") == CHAT_STREAM


async def test_too_many_held_bytes_end_the_replay_window():
    big = chunk({"role": "assistant", "content": ""}, pad="x" * 600)
    world = World(answers(big, 1.0, big, 1.0, MID), max_frame_bytes=1_000)
    client = await world.ask()
    assert client.pieces[0] == (1.0, big + big)
    assert len(world.calls) == 1


async def test_a_prelude_of_200_kib_is_held_like_any_other():
    created = named("response.created", response={"id": "r", "instructions": "x" * 200_000})
    world = World(answers(created, MID), answers(created, DELTA, COMPLETED))
    client = await world.ask(dialect="responses")
    assert client.body == created + DELTA + COMPLETED


async def test_a_first_frame_without_end_above_the_limit_counts_as_output():
    long = text("x" * 3_000)
    world = World(answers(long[:2_000], 1.0, MID), max_frame_bytes=1_000)
    client = await world.ask()
    assert len(world.calls) == 1
    assert client.cut


async def test_a_plain_get_is_asked_again_if_it_never_arrived():
    world = World(fails(Unreachable("refused")), answers(b"[]", headers=JSON))
    client = await world.ask(Client(b""), method="GET", path="/v1/models")
    assert client.body == b"[]"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_get_or_head_is_asked_again_though_it_was_sent(method):
    world = World(fails(RESET), answers(b"", headers=JSON))
    await world.ask(Client(b""), method=method, path="/v1/models")
    assert len(world.calls) == 2


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_other_plain_calls_are_not_asked_again_once_sent(method):
    world = World(fails(RESET))
    client = await world.ask(Client(b""), method=method, path="/v1/files")
    assert client.status == 502


async def test_a_plain_call_whose_answer_breaks_off_is_cut_not_repeated():
    world = World(answers(b"abc", MID, headers=JSON))
    client = await world.ask(Client(b""), method="GET", path="/v1/files/1/content")
    assert (client.body, client.cut) == (b"abc", True)


async def test_statuses_of_plain_calls_are_not_retried():
    world = World(refuses(503))
    client = await world.ask(Client(b""), method="GET", path="/v1/models")
    assert client.status == 503


@pytest.mark.parametrize("wait", [119.0, 120.0, 121.0])
async def test_a_failure_on_the_tick_the_prelude_is_let_out_is_told_or_mended(wait, scheduler_seed):
    world = World(
        answers(ROLE, 120.0, MID), answers(*WHOLE), heartbeat=wait, jitter=0.5, prelude_hold=120.0
    )
    client = await world.ask()
    assert client.ended
    body = client.body.replace(BEAT, b"")
    assert body == CHAT_STREAM or events_in(body)[-1]["error"]["code"] == "upstream_truncated"


async def test_an_upstream_that_hangs_before_its_headers_is_not_asked_twice():
    world = World(fails(RESET, after=HANG), first_token_timeout=50.0)
    client = await world.ask()
    assert [e["error"]["code"] for e in events_in(client.body)] == ["upstream_timeout"]
    assert len(world.calls) == 1


async def test_each_attempt_gets_its_own_first_token_timeout():
    world = World(answers(ROLE, 40.0, MID), answers(*WHOLE, after=40.0), first_token_timeout=50.0)
    client = await world.ask()
    assert client.body.replace(BEAT, b"") == CHAT_STREAM


async def test_retries_are_told_to_the_observer_by_cause():
    world = World(fails(RESET), refuses(429), answers(CHAT_ERROR), answers(*WHOLE))
    await world.ask()
    causes = [cause.value for cause in world.witness.retries]
    assert causes == ["unreachable", "rate_limited", "overloaded"]


async def test_the_byte_order_mark_of_each_attempt_is_dropped():
    bom = b"\xef\xbb\xbf"
    world = World(answers(bom + ROLE, MID), answers(bom[:1], bom[1:] + ROLE, HELLO, FINISH, DONE))
    client = await world.ask()
    assert client.body == CHAT_STREAM


async def test_sse_headers_do_not_make_an_error_status_a_stream():
    world = World(answers(b"x", status=500, headers=SSE), answers(*WHOLE))
    client = await world.ask()
    assert client.body == CHAT_STREAM
