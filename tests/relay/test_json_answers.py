"""Answers that are no stream: held whole, so that a cut can be mended (R5), and kept alive (R3)."""

from __future__ import annotations

import json

import pytest

from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.errors import Broken, Unreachable

from .frames import WHOLE, wish
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, SSE, answers, fails
from .world import World

RESET = Broken("reset", responded=True)
BODY = b'{"choices":[],"n":1}'
BIG = b'["' + b"x" * 2**20


def asking():
    return Client(wish(stream=False))


@pytest.mark.parametrize(
    "first",
    [
        answers(BODY[:9], RESET, headers=JSON),
        answers(RESET, headers=JSON),
        fails(Unreachable("no")),
    ],
)
async def test_a_cut_json_answer_is_asked_for_again(first):
    world = World(first, answers(BODY, headers=JSON))
    client = await world.ask(asking())
    assert (client.status, client.body) == (200, BODY)


async def test_a_json_answer_passes_with_its_headers():
    headers = (*JSON, (b"content-length", b"20"), (b"x-request-id", b"a"), (b"date", b"today"))
    client = await World(answers(BODY, headers=headers)).ask(asking())
    assert {name: client.response_headers[name] for name, _ in headers} == dict(headers)


async def test_a_cut_that_cannot_be_mended_is_a_status():
    world = World(answers(BODY[:9], RESET, headers=JSON), max_retries=0)
    client = await world.ask(asking())
    assert client.status == 502


async def test_white_space_before_the_answer_passes_too():
    client = await World(answers(b"\n\n", 3.0, BODY, headers=JSON)).ask(asking())
    assert client.body == b"\n\n" + BODY


async def test_more_than_a_mebibyte_streams_through_and_a_cut_is_visible():
    world = World(answers(BIG, 3.0, b"more", RESET, headers=JSON))
    client = await world.ask(asking())
    assert client.body == BIG + b"more"
    assert client.cut
    assert world.record.ending.value == "truncated"


async def test_json_heartbeats_are_off_by_default():
    client = await World(answers(BODY, headers=JSON, after=60.0)).ask(asking())
    assert client.body == BODY


async def test_json_heartbeats_are_white_space_the_parser_skips():
    world = World(answers(BODY, headers=JSON, after=12.0), json_heartbeat=True)
    client = await world.ask(asking())
    assert [at for at, piece in client.pieces] == [5.0, 10.0, 12.0]
    assert json.loads(client.body) == json.loads(BODY)
    assert client.response_headers[b"content-type"] == b"application/json"
    assert b"content-length" not in client.response_headers
    assert world.witness.heartbeats == [(5.0, "space"), (10.0, "space")]


async def test_a_json_heartbeat_never_lands_inside_the_answer():
    half = BIG + b"y"
    world = World(answers(half, 20.0, b'"]', headers=JSON), json_heartbeat=True)
    client = await world.ask(asking())
    assert client.body == half + b'"]'


async def test_with_json_heartbeats_a_late_error_is_its_body_under_200():
    body = b'{"error":{"message":"no"}}'
    world = World(answers(body, status=400, headers=JSON, after=6.0), json_heartbeat=True)
    client = await world.ask(asking())
    assert (client.status, client.body.strip()) == (200, body)
    assert client.ended


async def test_with_json_heartbeats_a_late_redirect_is_an_error_body_too():
    """Found by the soak: under the 200 of the white space, a redirect's body passed for the answer."""
    world = World(answers(b"{}", status=307, headers=JSON, after=6.0), json_heartbeat=True)
    client = await world.ask(Client(wish(stream=False)))
    assert json.loads(client.body)["error"]["code"] == "upstream_protocol"
    assert world.record.ending is Ending.PROTOCOL


async def test_with_json_heartbeats_a_late_failure_is_an_error_body():
    world = World(fails(Unreachable("no"), after=6.0), json_heartbeat=True, max_retries=0)
    client = await world.ask(asking())
    assert client.ended
    assert json.loads(client.body)["error"]["code"] == "upstream_unreachable"


async def test_with_json_heartbeats_a_late_html_page_is_an_error_body():
    page = answers(b"<html>", status=200, headers=((b"content-type", b"text/html"),), after=6.0)
    client = await World(page, json_heartbeat=True).ask(asking())
    assert json.loads(client.body)["error"]["code"] == "upstream_protocol"


async def test_with_json_heartbeats_a_cut_is_still_mended():
    world = World(
        answers(BODY[:9], 6.0, RESET, headers=JSON),
        answers(BODY, headers=JSON),
        json_heartbeat=True,
    )
    client = await world.ask(asking())
    assert client.body.strip() == BODY


async def test_a_background_answer_that_was_cut_is_not_asked_for_again():
    world = World(answers(BODY[:9], RESET, headers=JSON))
    client = await world.ask(Client(wish(stream=False, background=True)), dialect="responses")
    assert client.status == 502


async def test_a_hanging_json_answer_ends_in_a_timeout():
    world = World(answers(HANG, headers=JSON), first_token_timeout=60.0)
    client = await world.ask(asking())
    assert (client.status, client.committed_at) == (504, 60.0)


async def test_a_stream_nobody_asked_for_passes_frame_by_frame():
    client = await World(answers(*WHOLE, headers=SSE)).ask(asking())
    assert client.body == b"".join(WHOLE)


async def test_a_status_that_is_retried_is_mended_for_json_too():
    world = World(answers(b"busy", status=529, headers=JSON), answers(BODY, headers=JSON))
    client = await world.ask(asking())
    assert client.body == BODY


async def test_a_body_that_is_no_json_asks_for_no_stream():
    client = await World(answers(BODY, headers=JSON, after=60.0)).ask(Client(b"\xff{"))
    assert client.body == BODY


@pytest.mark.parametrize("stream", [None, False, "true", 1, 0])
async def test_only_true_asks_for_a_stream(stream):
    world = World(answers(BODY, headers=JSON, after=60.0))
    client = await world.ask(Client(wish(stream=stream)))
    assert client.body == BODY
    assert world.record.streaming is False


async def test_an_event_stream_does_not_follow_promised_json():
    world = World(answers(*WHOLE, after=7.0), json_heartbeat=True)
    client = await world.ask(asking())
    assert json.loads(client.body)["error"]["code"] == "upstream_protocol"
    assert world.record.ending.value == "protocol"


async def test_an_event_stream_in_time_passes_though_json_heartbeats_are_on():
    client = await World(answers(*WHOLE[:1], 20.0, *WHOLE[1:]), json_heartbeat=True).ask(asking())
    assert client.body == b"".join(WHOLE)


async def test_an_error_status_in_time_is_kept_though_json_heartbeats_are_on():
    slow = answers(b'{"error":', 7.0, b'"no"}', status=400, headers=JSON)
    client = await World(slow, json_heartbeat=True).ask(asking())
    assert (client.status, client.body) == (400, b'{"error":"no"}')
