"""R2: the upstream's status and headers pass if they come in time; if not, ours go out in time."""

from __future__ import annotations

import json

import pytest

from trio_sse_proxy.core.errors import Broken, Unreachable

from .frames import (
    BEAT,
    CHAT_ERROR,
    CREATED,
    DONE,
    FAILED,
    FINISH,
    HELLO,
    RESPONSES_ERROR,
    ROLE,
    WHOLE,
    events_in,
    json_in,
    wish,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, SSE, answers, fails
from .world import World

HTML = ((b"content-type", b"text/html"),)


def with_id(value, kind=SSE):
    return (*kind, (b"x-request-id", value))


async def test_upstream_headers_pass_when_they_come_in_time():
    headers = (*with_id(b"a"), (b"x-ratelimit-remaining", b"9"), (b"content-length", b"999"))
    client = await World(answers(*WHOLE, headers=headers, after=4.9)).ask()
    assert client.status == 200
    assert client.response_headers[b"x-request-id"] == b"a"
    assert client.response_headers[b"x-ratelimit-remaining"] == b"9"
    assert client.response_headers[b"cache-control"] == b"no-cache"
    assert client.response_headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in client.response_headers


async def test_a_quick_200_is_held_with_the_prelude_until_the_first_output():
    client = await World(answers(ROLE, 3.0, HELLO, FINISH, DONE, headers=with_id(b"a"))).ask()
    assert client.committed_at == 3.0
    assert client.pieces[0] == (3.0, ROLE + HELLO)


async def test_it_commits_with_a_heartbeat_at_the_instant_commit_after_is_over():
    client = await World(answers(*WHOLE, after=20.0), commit_after=2.0, heartbeat=5.0).ask()
    assert (client.status, client.committed_at) == (200, 2.0)
    assert client.response_headers[b"content-type"].startswith(b"text/event-stream")
    assert client.times_of(BEAT) == [2.0, 7.0, 12.0, 17.0]


async def test_nothing_is_sent_before_commit_after_though_a_heartbeat_would_be_due():
    client = await World(answers(*WHOLE, after=20.0), commit_after=12.0, heartbeat=5.0).ask()
    assert client.times_of(BEAT) == [12.0, 17.0]


async def test_without_heartbeats_it_never_commits_early():
    client = await World(answers(*WHOLE, after=500.0, headers=with_id(b"a")), heartbeat=0.0).ask()
    assert client.committed_at == 500.0
    assert client.response_headers[b"x-request-id"] == b"a"


async def test_the_commit_uses_upstream_headers_that_are_there():
    world = World(answers(ROLE, 20.0, HELLO, FINISH, DONE, headers=with_id(b"a"), after=1.0))
    client = await world.ask()
    assert client.committed_at == 5.0
    assert client.response_headers[b"x-request-id"] == b"a"


async def test_headers_of_a_discarded_attempt_are_never_sent():
    world = World(
        answers(ROLE, 1.0, Broken("reset"), headers=with_id(b"first")),
        answers(*WHOLE, headers=with_id(b"second")),
    )
    client = await world.ask()
    assert client.response_headers[b"x-request-id"] == b"second"


async def test_the_commit_between_attempts_uses_headers_of_our_own():
    world = World(
        answers(ROLE, 1.0, Broken("reset"), headers=with_id(b"first")),
        answers(*WHOLE, headers=with_id(b"second"), after=10.0),
    )
    client = await world.ask()
    assert client.committed_at == 5.0
    assert b"x-request-id" not in client.response_headers


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
async def test_a_quick_answer_that_is_no_stream_passes_unchanged(status):
    headers = (*JSON, (b"content-length", b"9"), (b"location", b"/x"), (b"retry-after", b"3"))
    client = await World(answers(b'{"a": 1}\n', status=status, headers=headers)).ask()
    assert (client.status, client.body) == (status, b'{"a": 1}\n')
    assert client.response_headers[b"location"] == b"/x"
    assert client.response_headers[b"content-length"] == b"9"


async def test_a_quick_json_200_to_a_streaming_request_passes_as_it_is():
    client = await World(answers(b'{"choices":[]}', headers=JSON)).ask()
    assert client.body == b'{"choices":[]}'
    assert client.response_headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, JSON, b'{"choices":[]}'),
        (200, HTML, b"<html>please log in</html>"),
        (302, HTML, b"moved"),
        (204, (), b""),
    ],
)
async def test_a_late_answer_that_is_no_stream_becomes_an_error_frame(status, headers, body):
    world = World(answers(body, status=status, headers=headers, after=6.0))
    client = await world.ask()
    assert client.status == 200
    assert client.ended
    (error,) = events_in(client.body)
    assert error["error"]["code"] == "upstream_protocol"
    assert world.record.ending.value == "protocol"


async def test_a_late_4xx_becomes_an_error_frame_of_its_kind():
    body = b'{"error":{"message":"prompt is too long","type":"invalid_request_error"}}'
    world = World(answers(body, status=400, headers=JSON, after=6.0))
    client = await world.ask()
    (error,) = events_in(client.body)
    assert error["error"]["code"] == "context_length_exceeded"
    assert (world.record.status, world.record.ending.value) == (200, "upstream_error")


async def test_redirects_are_not_followed_when_late():
    world = World(answers(b"", status=307, headers=((b"location", b"/x"),), after=6.0))
    await world.ask()
    assert len(world.calls) == 1


async def test_the_id_of_the_stream_is_ours_whatever_the_upstream_sends():
    headers = (*SSE, (b"x-proxy-stream-id", b"theirs"))
    world = World(answers(*WHOLE, headers=headers))
    client = await world.ask()
    assert client.response_headers[b"x-proxy-stream-id"] == world.record.id.encode()


async def test_a_failure_before_the_commit_is_a_status():
    world = World(fails(Unreachable("no route")), max_retries=0)
    client = await world.ask()
    assert client.status == 502
    assert json_in(b"data: " + client.body)["error"]["code"] == "upstream_unreachable"


async def test_a_failure_after_the_commit_is_told_on_the_stream():
    world = World(fails(Unreachable("no route"), after=6.0), max_retries=0)
    client = await world.ask()
    assert client.status == 200
    assert client.ended
    (error,) = events_in(client.body)
    assert error["error"]["code"] == "upstream_unreachable"


async def test_hop_by_hop_fields_of_the_upstream_end_here():
    headers = (*SSE, (b"connection", b"keep-alive, x-hop"), (b"x-hop", b"1"), (b"te", b"x"))
    client = await World(answers(*WHOLE, headers=headers)).ask()
    assert not {b"connection", b"x-hop", b"te"} & set(client.response_headers)


async def test_an_error_frame_first_thing_passes_with_the_headers_it_came_with():
    world = World(answers(CHAT_ERROR, headers=with_id(b"a")), max_retries=0)
    client = await world.ask()
    assert client.response_headers[b"x-request-id"] == b"a"
    assert client.body == CHAT_ERROR


async def test_headers_on_the_tick_of_the_commit_are_sent_once(scheduler_seed):
    client = await World(answers(*WHOLE, headers=with_id(b"a"), after=5.0)).ask()
    assert client.committed_at == 5.0
    assert client.body.removeprefix(BEAT) == b"".join(WHOLE)


async def test_a_plain_answer_on_the_tick_of_the_commit_is_told_one_way_or_the_other(
    scheduler_seed,
):
    client = await World(answers(b'{"a":1}', status=404, headers=JSON, after=5.0)).ask()
    assert client.ended
    if client.status == 404:
        assert client.body == b'{"a":1}'
    else:
        (error,) = events_in(client.body)
        assert error["error"]["code"] == "model_not_found"


async def test_with_heartbeats_off_a_failure_however_late_is_a_status():
    world = World(answers(HANG), heartbeat=0.0, first_token_timeout=100.0)
    client = await world.ask()
    assert (client.status, client.committed_at) == (504, 100.0)


async def test_responses_error_and_failed_pass_as_they_came():
    world = World(answers(CREATED, RESPONSES_ERROR, FAILED), max_retries=0)
    client = await world.ask(dialect="responses")
    assert client.body == CREATED + RESPONSES_ERROR + FAILED


async def test_a_client_that_wants_json_gets_the_late_answer_as_it_is():
    client = Client(wish(stream=False))
    await World(answers(b'{"a":1}', status=404, headers=JSON, after=50.0)).ask(client)
    assert (client.status, client.body) == (404, b'{"a":1}')


# A status in time, and a body that is late.


async def test_a_status_in_time_passes_though_its_body_is_later_than_the_commit():
    world = World(answers(b'{"error":', 7.0, b'"no"}', status=400, headers=with_id(b"a", JSON)))
    client = await world.ask()
    assert (client.status, client.committed_at) == (400, 5.0)
    assert client.response_headers[b"x-request-id"] == b"a"
    assert client.body == b'{"error":"no"}'
    assert client.ended


async def test_a_json_answer_in_time_passes_though_it_is_slow():
    client = await World(answers(b'{"a":', 60.0, b"1}", headers=JSON)).ask()
    assert (client.status, client.committed_at, client.body) == (200, 5.0, b'{"a":1}')
    assert client.pieces[0] == (5.0, b'{"a":')


async def test_a_retryable_status_does_not_wait_for_a_body_that_hangs():
    world = World(answers(b"x", HANG, status=503, headers=JSON), answers(*WHOLE))
    client = await world.ask()
    assert client.body == b"".join(WHOLE)
    assert world.calls[1].opened == 1.0


async def test_a_retryable_status_with_a_body_that_hangs_is_told_in_our_words_at_last():
    world = World(answers(b"x", HANG, status=503, headers=JSON), max_retries=0)
    client = await world.ask()
    assert (client.status, client.committed_at) == (503, 1.0)
    assert json.loads(client.body)["error"]["type"] == "server_error"


async def test_heartbeats_go_on_when_an_answer_that_held_them_back_was_discarded():
    slow_503 = answers(b"x", HANG, status=503, headers=JSON)
    client = await World(slow_503, answers(*WHOLE, after=20.0)).ask()
    assert client.times_of(BEAT) == [5.0, 10.0, 15.0, 20.0]
