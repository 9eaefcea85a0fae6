"""From the ASGI call to the bytes on the upstream's connection, at virtual time."""

from __future__ import annotations

import gzip
import json
import time

import pytest
import trio
import trio.testing
from relay.frames import (
    BEAT,
    BLOCK_DELTA,
    DONE,
    FINISH,
    HELLO,
    MESSAGE_START,
    MESSAGE_STOP,
    ROLE,
    WHOLE,
    events_in,
    wish,
)
from relay.scripted_client import Client

from .whole_path import HEAD, LAST, Close, Early, Hang, chunks, whole_path

STREAM = b"".join(WHOLE)
GOOD = [HEAD, *chunks(*WHOLE), LAST]


def json_answer(body, status=b"200 OK", fields=b""):
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%b" % (status, fields)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def test_two_minutes_of_silence_are_bridged_in_less_than_a_second():
    began = time.process_time()
    async with whole_path([121.0, *GOOD], heartbeat=15.0, commit_after=15.0) as (ask, _):
        client = await ask(Client(wish()))
    assert client.times_of(BEAT) == [15.0 * n for n in range(1, 9)]
    assert client.body.endswith(STREAM)
    assert time.process_time() - began < 1.0


async def test_silence_after_the_prelude_and_in_mid_stream_is_bridged_too():
    script = [HEAD, *chunks(ROLE, 60.0, HELLO, 61.0, FINISH, DONE), LAST]
    async with whole_path(script) as (ask, _):
        client = await ask(Client(wish()))
    assert client.body.replace(BEAT, b"") == STREAM
    gaps = [b[0] - a[0] for a, b in zip(client.pieces, client.pieces[1:], strict=False)]
    assert max(gaps) <= 5.0


async def test_the_connection_serves_the_next_request_after_a_stream():
    async with whole_path(GOOD, GOOD) as (ask, server):
        for _ in range(2):
            assert (await ask(Client(wish()))).body == STREAM
        assert server.connections == 1


async def test_a_connection_whose_last_chunk_comes_late_is_not_kept():
    async with whole_path([*GOOD[:-1], 0.2, LAST], GOOD) as (ask, server):
        for _ in range(2):
            await ask(Client(wish()))
        assert server.connections == 2


@pytest.mark.parametrize(
    "script",
    [
        [Close],
        [HEAD[:40], Close],
        [HEAD, Close],
        [HEAD, LAST],
        [HEAD, *chunks(ROLE), Close],
        [HEAD, *chunks(ROLE), LAST],
        [HEAD, *chunks(ROLE), b"5\r\nab", Close],
        [json_answer(b"busy", b"503 Service Unavailable")],
        [json_answer(b"busy", b"529 Overloaded")],
    ],
)
async def test_whatever_breaks_before_output_the_client_sees_one_clean_stream(script):
    async with whole_path(script, GOOD) as (ask, server):
        client = await ask(Client(wish()))
        assert len(server.requests) == 2
        assert server.requests[0][1] == server.requests[1][1] == wish()
    assert client.body.replace(BEAT, b"") == STREAM


@pytest.mark.parametrize("end", [[Close], [LAST], [b"5\r\nab", Close], [b"rubbish\r\n", Close]])
async def test_whatever_breaks_after_output_is_told(end):
    async with whole_path([HEAD, *chunks(ROLE, HELLO), *end]) as (ask, _):
        client = await ask(Client(wish()))
    assert client.ended
    (error,) = [event for event in events_in(client.body) if "error" in event]
    assert error["error"]["code"] in {"upstream_truncated", "upstream_protocol"}


async def test_what_is_no_http_is_not_asked_for_again():
    async with whole_path([b"SSH-2.0-OpenSSH\r\n", Close]) as (ask, server):
        client = await ask(Client(wish()))
        assert len(server.requests) == 1
    assert client.status == 502
    assert json.loads(client.body)["error"]["code"] == "upstream_protocol"


async def test_a_pooled_connection_that_died_costs_an_attempt_but_no_pause():
    async with whole_path(GOOD, [Close], GOOD) as (ask, server):
        await ask(Client(wish()))
        before = trio.current_time()
        client = await ask(Client(wish()))
        assert client.body == STREAM
        assert trio.current_time() - before < 0.2
        assert server.connections == 2


PHASES = {
    "waiting for headers": [Hang],
    "headers came": [HEAD, Hang],
    "prelude held": [HEAD, *chunks(ROLE), Hang],
    "streaming": [HEAD, *chunks(ROLE, HELLO), Hang],
    "inside a chunk": [HEAD, *chunks(ROLE, HELLO), b"ff\r\nab", Hang],
}


@pytest.mark.parametrize("script", PHASES.values(), ids=list(PHASES))
async def test_the_upstreams_connection_is_closed_at_the_instant_the_client_leaves(script):
    async with whole_path(script) as (ask, server):
        await ask(Client(wish(), leaves_at=33.25))
        await trio.testing.wait_all_tasks_blocked()
        assert server.left_at == [33.25]


@pytest.mark.parametrize("script", PHASES.values(), ids=list(PHASES))
async def test_a_json_client_that_leaves_closes_it_as_well(script):
    async with whole_path(script) as (ask, server):
        await ask(Client(wish(stream=False), leaves_at=3.25))
        await trio.testing.wait_all_tasks_blocked()
        assert server.left_at == [3.25]


async def test_a_stalled_client_closes_it_though_its_write_never_returns():
    script = [HEAD, *chunks(ROLE, HELLO, 1.0, HELLO), Hang]
    async with whole_path(script, write_stall_timeout=30.0) as (ask, server):
        await ask(Client(wish(), stuck_from=1.0, shielded=True))
        await trio.testing.wait_all_tasks_blocked()
        assert server.left_at == [31.0]


async def test_an_idle_upstream_is_left_at_the_idle_timeout():
    async with whole_path([HEAD, *chunks(ROLE, HELLO), Hang], idle_timeout=300.0) as (ask, server):
        client = await ask(Client(wish()))
        await trio.testing.wait_all_tasks_blocked()
        assert server.left_at == [300.0]
    assert client.ended


async def test_the_request_goes_upstream_as_it_came():
    headers = (
        (b"host", b"localhost:8787"),
        (b"authorization", b"Bearer k"),
        (b"content-type", b"application/json"),
        (b"x-stainless-lang", b"python"),
        (b"anthropic-beta", b"a"),
        (b"anthropic-beta", b"b"),
        (b"accept-encoding", b"gzip, br"),
        (b"connection", b"keep-alive, x-hop"),
        (b"x-hop", b"1"),
        (b"proxy-authorization", b"Basic x"),
        (b"expect", b"100-continue"),
    )
    async with whole_path(GOOD) as (ask, server):
        await ask(Client(wish(), headers=headers), query_string=b"beta=true&x=%2F")
        assert server.target() == b"/v1/chat/completions?beta=true&x=%2F"
        assert server.header(b"host") == [b"upstream.test"]
        assert server.header(b"authorization") == [b"Bearer k"]
        assert server.header(b"x-stainless-lang") == [b"python"]
        assert server.header(b"anthropic-beta") == [b"a", b"b"]
        assert server.header(b"accept-encoding") == [b"identity"]
        assert server.header(b"content-length") == [b"%d" % len(wish())]
        for gone in (b"x-hop", b"proxy-authorization", b"expect", b"transfer-encoding"):
            assert server.header(gone) == []


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("http://upstream.test", "/v1/chat/completions", b"/v1/chat/completions"),
        ("http://upstream.test/v1", "/v1/chat/completions", b"/v1/chat/completions"),
        (
            "http://upstream.test/api/paas/v4/",
            "/v1/chat/completions",
            b"/api/paas/v4/chat/completions",
        ),
        ("http://upstream.test/anthropic", "/v1/messages", b"/anthropic/v1/messages"),
    ],
)
async def test_the_base_path_goes_before(base, path, target):
    stream = WHOLE if "chat" in path else (MESSAGE_START, BLOCK_DELTA, MESSAGE_STOP)
    script = [HEAD, *chunks(*stream), LAST]
    async with whole_path(script, base_url=base) as (ask, server):
        await ask(Client(wish()), path)
        assert server.target() == target


async def test_an_encoded_path_goes_upstream_as_it_was_written():
    async with whole_path([json_answer(b"{}")]) as (ask, server):
        raw = b"/v1/models/a%2Fb%20c"
        await ask(Client(b""), "/v1/models/a/b c", method="GET", raw_path=raw)
        assert server.target() == raw


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/v1/chat/completions", b"authorization", b"Bearer ours"),
        ("/v1/responses", b"authorization", b"Bearer ours"),
        ("/v1/messages", b"x-api-key", b"ours"),
        ("/v1/messages/count_tokens", b"x-api-key", b"ours"),
        ("/v1/models", b"authorization", b"Bearer ours"),
    ],
)
async def test_our_key_takes_the_place_of_both_of_the_clients(path, name, value):
    headers = ((b"authorization", b"Bearer theirs"), (b"x-api-key", b"theirs"))
    async with whole_path([json_answer(b"{}")], api_key="ours") as (ask, server):
        await ask(Client(b"", headers=headers), path)
        sent = {
            field: server.header(field) for field in (b"authorization", b"x-api-key", b"api-key")
        }
        assert sent.pop(name) == [value]
        assert not any(sent.values())


async def test_a_stream_that_is_compressed_unasked_is_decoded():
    encoded = gzip.compress(STREAM)
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    script = [head, *chunks(encoded[:20], encoded[20:]), LAST]
    async with whole_path(script) as (ask, _):
        client = await ask(Client(wish()))
    assert client.body == STREAM
    assert b"content-encoding" not in client.response_headers


async def test_a_json_answer_that_is_compressed_unasked_is_decoded():
    script = [json_answer(gzip.compress(b'{"a":1}'), fields=b"Content-Encoding: gzip\r\n")]
    async with whole_path(script) as (ask, _):
        client = await ask(Client(wish(stream=False)))
    assert client.body == b'{"a":1}'
    assert b"content-length" not in client.response_headers


async def test_a_coding_nobody_knows_is_a_protocol_failure_not_a_stream_of_rubbish():
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: br\r\n\r\n")
    async with whole_path([head, *chunks(b"xx"), LAST]) as (ask, _):
        client = await ask(Client(wish()))
    assert client.status == 502


async def test_a_compressed_answer_that_breaks_off_is_no_answer():
    """The body ends where the connection does, so only the coding can tell that it is short."""
    encoded = gzip.compress(b'{"a":1}' * 50)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n"
    async with whole_path([head, encoded[:-6], Close], max_retries=0) as (ask, _):
        client = await ask(Client(wish(stream=False)))
    assert client.status == 502


async def test_rubbish_that_calls_itself_compressed_is_told():
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    async with whole_path([head, *chunks(STREAM), LAST]) as (ask, _):
        client = await ask(Client(wish()))
    assert client.status == 502


async def test_a_plain_answer_keeps_its_coding():
    encoded = gzip.compress(b"[]")
    async with whole_path([json_answer(encoded, fields=b"Content-Encoding: gzip\r\n")]) as (ask, _):
        headers = ((b"accept-encoding", b"gzip"),)
        client = await ask(Client(b"", headers=headers), "/v1/models", method="GET")
    assert client.body == encoded
    assert client.response_headers[b"content-encoding"] == b"gzip"


async def test_a_plain_upload_is_streamed_with_its_length():
    client = Client(b"abc", (20.0, b"def"), headers=((b"content-length", b"6"),))
    async with whole_path([json_answer(b"{}")]) as (ask, server):
        await ask(client, "/v1/files")
        assert server.header(b"content-length") == [b"6"]
        assert server.requests[0][1] == b"abcdef"
    assert client.committed_at == 20.0


async def test_a_plain_upload_of_unknown_length_is_chunked():
    client = Client(b"abc", (1.0, b"def"), headers=((b"transfer-encoding", b"chunked"),))
    async with whole_path([json_answer(b"{}")]) as (ask, server):
        await ask(client, "/v1/files")
        assert server.header(b"transfer-encoding") == [b"chunked"]
        assert server.requests[0][1] == b"abcdef"


async def test_a_bodiless_call_has_no_body_upstream():
    async with whole_path([json_answer(b"[]")]) as (ask, server):
        await ask(Client(b""), "/v1/models", method="GET")
        assert server.header(b"transfer-encoding") == server.header(b"content-length") == []


async def test_an_answer_to_head_has_its_length_and_no_body():
    async with whole_path([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"]) as (ask, _):
        client = await ask(Client(b""), "/v1/models", method="HEAD")
    assert (client.body, client.response_headers[b"content-length"]) == (b"", b"99")


async def test_cookies_of_one_client_never_reach_another():
    cookie = json_answer(b"{}", fields=b"Set-Cookie: session=1; Path=/\r\n")
    async with whole_path([cookie], [cookie]) as (ask, server):
        first = await ask(Client(b""), "/v1/models", method="GET")
        await ask(Client(b""), "/v1/models", method="GET")
        assert server.header(b"cookie") == []
    assert first.response_headers[b"set-cookie"] == b"session=1; Path=/"


async def test_redirects_are_not_followed():
    moved = json_answer(b"", b"307 Temporary Redirect", b"Location: http://elsewhere/\r\n")
    async with whole_path([moved]) as (ask, server):
        client = await ask(Client(wish()))
        assert len(server.requests) == 1
    assert (client.status, client.response_headers[b"location"]) == (307, b"http://elsewhere/")


async def test_date_and_server_are_the_upstreams():
    fields = b"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: theirs\r\n"
    async with whole_path([json_answer(b"{}", fields=fields)]) as (ask, _):
        client = await ask(Client(wish(stream=False)))
    assert client.response_headers[b"server"] == b"theirs"
    assert client.response_headers[b"date"].startswith(b"Tue")


async def test_an_upload_whose_answer_comes_early_leaves_nothing_behind():
    client = Client(b"abc", (5.0, b"def"), headers=((b"transfer-encoding", b"chunked"),))
    refusal = json_answer(b"no", b"413 Payload Too Large", b"Connection: close\r\n")
    async with whole_path([Early, refusal, Close]) as (ask, _):
        await ask(client, "/v1/files")
    assert (client.status, client.body, client.committed_at) == (413, b"no", 0.0)


async def test_many_streams_of_mixed_fates_leave_nothing_behind():
    fates = [
        GOOD,
        [3.0, *GOOD],
        [HEAD, *chunks(ROLE, HELLO), Close],
        [HEAD, *chunks(ROLE, HELLO), Hang],
        [json_answer(b"no", b"400 Bad Request")],
    ]
    async with whole_path(*fates * 20) as (ask, server), trio.open_nursery() as nursery:
        clients = [Client(wish(), leaves_at=20.0) for _ in range(100)]
        for client in clients:
            nursery.start_soon(ask, client)
    assert len(server.requests) == 100
    assert sum(client.ended for client in clients) == 80
