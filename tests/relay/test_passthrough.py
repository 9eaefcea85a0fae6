"""R12: whatever is not one of the dialects' calls is streamed both ways, as it is."""

from __future__ import annotations

import pytest
import trio

from .frames import DONE, WHOLE, wish
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, SSE, ReadBody, answers
from .world import World


async def test_a_plain_answer_is_streamed_not_held():
    world = World(answers(b"a", 1.0, b"b", headers=JSON))
    client = await world.ask(Client(b""), method="GET", path="/v1/models")
    assert client.pieces == [(0.0, b"a"), (1.0, b"b")]
    assert world.record.dialect is None


async def test_a_plain_body_is_streamed_not_held():
    client = Client(b"abc", (5.0, b"def"), headers=((b"content-length", b"6"),))
    world = World(answers(b"ok", after=(ReadBody(1), ReadBody()), headers=JSON))
    used = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.run(client, path="/v1/files"))
        await trio.sleep(2.0)
        used.append((world.calls[0].body, world.app._held.used))
    assert used == [(b"abc", 0)]
    assert world.calls[0].body == b"abcdef"
    world.assert_no_trace()


async def test_a_plain_call_gets_no_heartbeats():
    world = World(answers(DONE, headers=SSE, after=100.0))
    client = await world.ask(Client(wish()), path="/v1/other")
    assert client.body == DONE
    assert client.committed_at == 100.0


async def test_a_plain_event_stream_is_not_looked_into():
    stream = (b"data: [DONE]\n\n", 1.0, b"data: more\n\n")
    world = World(answers(*stream, headers=SSE))
    client = await world.ask(Client(b""), method="GET", path="/v1/responses/r1")
    assert client.body == b"data: [DONE]\n\ndata: more\n\n"


@pytest.mark.parametrize("steps", [(HANG,), (b"a", HANG), (b"a", *[500.0, b"b"] * 5, HANG)])
async def test_a_plain_call_is_under_the_total_timeout_alone(steps):
    world = World(
        answers(*steps, headers=JSON),
        total_timeout=5_000.0,
        first_token_timeout=60.0,
        idle_timeout=60.0,
        progress_timeout=60.0,
    )
    await world.ask(Client(b""), method="GET", path="/v1/files/1/content")
    assert world.record.ending.value == "total_timeout"
    assert world.record.duration == 5_000.0


async def test_a_slow_plain_upload_is_under_the_total_timeout_and_the_body_timeout_alone():
    client = Client(b"abc", (900.0, b"def"), headers=((b"content-length", b"6"),))
    world = World(answers(b"ok", after=(ReadBody(),), headers=JSON), body_timeout=1_000.0)
    await world.ask(client, path="/v1/files")
    assert world.record.ending.value == "completed"


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
async def test_statuses_pass_with_their_headers(status):
    headers = ((b"location", b"/x"), (b"retry-after", b"3"))
    world = World(answers(status=status, headers=headers))
    client = await world.ask(Client(b""), method="GET", path="/")
    assert (client.status, client.response_headers[b"location"]) == (status, b"/x")


async def test_query_strings_and_unknown_headers_pass():
    headers = ((b"x-custom", b"1"), (b"x-custom", b"2"), (b"accept-encoding", b"br"))
    world = World(answers(headers=JSON))
    client = Client(b"", headers=headers)
    await world.ask(client, method="GET", path="/v1/models", query_string=b"a=%20&b")
    ((method, target, sent),) = world.calls[0].received
    assert (method, target) == ("GET", b"/v1/models?a=%20&b")
    assert [field for field in sent if field in headers] == list(headers)


async def test_a_dialects_call_asks_for_an_answer_that_is_not_compressed():
    world = World(answers(*WHOLE))
    client = Client(wish(), headers=((b"accept-encoding", b"gzip, br"),))
    await world.ask(client)
    ((_, _, sent),) = world.calls[0].received
    assert [value for name, value in sent if name == b"accept-encoding"] == [b"identity"]


async def test_unknown_body_fields_pass_byte_for_byte():
    body = b'{ "stream" : true,\n "x": [1e400, "\\ud800"], "x": 2 }'
    world = World(answers(*WHOLE))
    await world.ask(Client(body))
    assert world.calls[0].body == body


@pytest.mark.parametrize(
    "path", ["/v1/messages/count_tokens", "/v1/responses/r1/cancel", "/v1/files"]
)
async def test_calls_beside_the_dialects_are_plain(path):
    world = World(answers(b"x", 1.0, b"y", headers=JSON, after=(ReadBody(),)))
    headers = ((b"content-length", b"2"),)
    client = await world.ask(Client(b"{}", headers=headers), path=path)
    assert [piece for _, piece in client.pieces] == [b"x", b"y"]


async def test_a_refused_target_is_never_forwarded():
    world = World()
    client = await world.ask(Client(b""), method="GET", path="/v1/%2e%2e/secret")
    assert client.status == 400


async def test_a_request_with_two_framings_is_refused():
    headers = ((b"content-length", b"1"), (b"transfer-encoding", b"chunked"))
    client = await World().ask(Client(b"x", headers=headers))
    assert client.status == 400


async def test_an_upload_that_nobody_reads_to_its_end_leaves_no_trace():
    client = Client(b"abc", b"def", headers=((b"content-length", b"6"),))
    world = World(answers(b"no", status=413, after=(ReadBody(1),), headers=JSON))
    await world.ask(client, path="/v1/files")
    assert client.status == 413
