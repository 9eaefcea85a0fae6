"""The endpoints under /-/: never forwarded, and open to whom they should be."""

from __future__ import annotations

import json

import pytest
import trio
from relay.frames import HELLO, ROLE, WHOLE, usage, wish
from relay.scripted_client import Client
from relay.scripted_upstream import HANG, ScriptedUpstream, answers, fails
from test_embedding import call

from trio_sse_proxy import Proxy, Settings
from trio_sse_proxy.core.errors import Broken, Unreachable

CHAT = "/v1/chat/completions"
NEAR = (b"host", b"localhost")
GUARDED = ["/-/metrics", "/-/upstreams", "/-/streams", "/-/records"]
OPEN = ["/-/healthz", "/-/readyz"]


def proxy_over(*attempts, **settings):
    upstream = ScriptedUpstream(*attempts)
    return Proxy(Settings(**settings), upstream=upstream, check_door=True), upstream


async def get(proxy, path, *headers, method="GET", server="127.0.0.1"):
    client = Client(b"", headers=headers or (NEAR,))
    return await call(proxy, path, client, method=method, server=(server, 80))


@pytest.mark.parametrize("path", [*OPEN, *GUARDED])
async def test_on_loopback_all_are_open_without_a_key(path, autojump_clock):
    proxy, upstream = proxy_over()
    async with proxy.running():
        assert (await get(proxy, path)).status == 200
    assert upstream.calls == []


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 401),
        (((b"x-api-key", b"wrong"),), 401),
        (((b"x-api-key", b"admin"),), 200),
        (((b"authorization", b"Bearer admin"),), 200),
    ],
)
async def test_with_an_admin_key_the_guarded_ones_want_it(path, headers, status, autojump_clock):
    proxy, _ = proxy_over(admin_key="admin")
    async with proxy.running():
        assert (await get(proxy, path, NEAR, *headers)).status == status
        assert (await get(proxy, "/-/healthz", NEAR)).status == 200


@pytest.mark.parametrize("path", GUARDED)
async def test_beyond_loopback_without_an_admin_key_there_is_nothing_there(path, autojump_clock):
    proxy, _ = proxy_over(client_keys=["k"])
    async with proxy.running():
        found = await get(proxy, path, (b"host", b"a.b"), (b"x-api-key", b"k"), server="192.0.2.1")
        assert found.status == 404
        for path in OPEN:
            assert (await get(proxy, path, (b"host", b"a.b"), server="192.0.2.1")).status == 200


async def test_a_client_key_is_no_admin_key(autojump_clock):
    proxy, _ = proxy_over(admin_key="admin", client_keys=["k"])
    async with proxy.running():
        assert (await get(proxy, "/-/records", NEAR, (b"x-api-key", b"k"))).status == 401


@pytest.mark.parametrize("path", [*OPEN, *GUARDED])
async def test_a_rebound_name_gets_nothing_here_either(path, autojump_clock):
    proxy, upstream = proxy_over(admin_key="admin")
    async with proxy.running():
        found = await get(proxy, path, (b"host", b"evil.example"), (b"x-api-key", b"admin"))
    assert (found.status, upstream.calls) == (403, [])


@pytest.mark.parametrize("path", ["/-/", "/-/nothing", "/-/v1/chat/completions"])
async def test_unknown_paths_below_are_404_and_never_forwarded(path, autojump_clock):
    proxy, upstream = proxy_over()
    async with proxy.running():
        assert (await get(proxy, path)).status == 404
    assert upstream.calls == []


async def test_readyz_says_503_while_draining_and_the_rest_goes_on(autojump_clock):
    proxy, _ = proxy_over()
    async with proxy.running():
        proxy.application.begin_drain()
        assert (await get(proxy, "/-/readyz")).status == 503
        assert (await get(proxy, "/-/healthz")).status == 200
        assert (await get(proxy, "/-/metrics")).status == 200
        refused = await call(proxy, CHAT, Client(wish(), headers=(NEAR,)))
    assert refused.status == 503
    assert refused.response_headers[b"retry-after"] == b"1"
    assert refused.response_headers[b"connection"] == b"close"


async def test_a_running_stream_finishes_while_draining(autojump_clock):
    proxy, _ = proxy_over(answers(*WHOLE[:2], 5.0, *WHOLE[2:]))
    client = Client(wish(), headers=(NEAR,))
    async with proxy.running(), trio.open_nursery() as nursery:
        nursery.start_soon(call, proxy, CHAT, client)
        await trio.sleep(1.0)
        proxy.application.begin_drain()
        await proxy.application.drained()
        assert trio.current_time() == pytest.approx(5.0)
    assert client.body.replace(b": hb\n\n", b"") == b"".join(WHOLE)


async def test_live_streams_are_listed_and_can_be_cancelled(autojump_clock):
    proxy, upstream = proxy_over(answers(ROLE, HELLO, HANG))
    client = Client(wish(), headers=(NEAR,))
    async with proxy.running(), trio.open_nursery() as nursery:
        nursery.start_soon(call, proxy, CHAT, client)
        await trio.sleep(2.0)
        (stream,) = json.loads((await get(proxy, "/-/streams")).body)["streams"]
        assert (stream["dialect"], stream["model"], stream["age"]) == ("chat", "m", 2.0)
        assert stream["output"] is True
        found = await get(proxy, f"/-/streams/{stream['id']}", method="DELETE")
        assert found.status == 202
    assert upstream.calls[0].released == 2.0
    assert client.ended
    assert b"cancelled" in client.body


async def test_a_stream_that_is_not_there_cannot_be_cancelled(autojump_clock):
    proxy, _ = proxy_over()
    async with proxy.running():
        assert (await get(proxy, "/-/streams/nobody", method="DELETE")).status == 404
        assert (await get(proxy, "/-/streams/nobody")).status == 405


async def test_cancelling_wants_the_admin_key(autojump_clock):
    proxy, _ = proxy_over(answers(ROLE, HELLO, HANG), admin_key="admin")
    client = Client(wish(), headers=(NEAR,), leaves_at=9.0)
    async with proxy.running(), trio.open_nursery() as nursery:
        nursery.start_soon(call, proxy, CHAT, client)
        await trio.sleep(2.0)
        (stream_id,) = proxy.application.live
        assert (await get(proxy, f"/-/streams/{stream_id}", method="DELETE")).status == 401
        assert stream_id in proxy.application.live


async def test_the_latest_records_come_first_and_so_many_are_kept(autojump_clock):
    proxy, _ = proxy_over(*[answers(*WHOLE)] * 3, records=2)
    async with proxy.running():
        ids = []
        for _ in range(3):
            client = await call(proxy, CHAT, Client(wish(), headers=(NEAR,)))
            ids.append(client.response_headers[b"x-proxy-stream-id"].decode())
        found = json.loads((await get(proxy, "/-/records")).body)["records"]
    assert [record["id"] for record in found] == ids[:0:-1]


async def test_requests_here_are_no_streams_and_have_no_records(autojump_clock):
    proxy, _ = proxy_over()
    async with proxy.running():
        await get(proxy, "/-/healthz")
        assert json.loads((await get(proxy, "/-/records")).body) == {"records": []}
        assert json.loads((await get(proxy, "/-/streams")).body) == {"streams": []}


async def test_every_metric_the_documentation_names_is_there(autojump_clock):
    counts = usage(
        prompt_tokens=9,
        completion_tokens=4,
        prompt_tokens_details={"cached_tokens": 3},
        completion_tokens_details={"reasoning_tokens": 1},
    )
    stream = (*WHOLE[:3], counts, WHOLE[3])
    proxy, _ = proxy_over(answers(ROLE, Broken("reset")), answers(*stream, after=6.0))
    async with proxy.running():
        client = await call(proxy, CHAT, Client(wish(), headers=(NEAR,)))
        assert client.ended
        told = (await get(proxy, "/-/metrics")).body.decode()
    prefix = "trio_sse_proxy_"
    for line in (
        'requests_running{dialect="chat"} 0.0',
        'requests_total{dialect="chat",ending="completed"} 1.0',
        'time_to_headers_seconds_count{dialect="chat"} 1.0',
        'time_to_first_token_seconds_count{dialect="chat"} 1.0',
        'duration_seconds_count{dialect="chat"} 1.0',
        'heartbeats_total{dialect="chat",kind="frame"} 1.0',
        'retries_total{cause="unreachable",dialect="chat"} 1.0',
        f'body_bytes_total{{dialect="chat"}} {float(len(b"".join(stream)))}',
        'frames_total{dialect="chat"} 5.0',
        'tokens_total{dialect="chat",kind="input"} 9.0',
        'tokens_total{dialect="chat",kind="output"} 4.0',
        'tokens_total{dialect="chat",kind="cached"} 3.0',
        'tokens_total{dialect="chat",kind="reasoning"} 1.0',
    ):
        assert f"\n{prefix}{line}\n" in told
    assert f"# TYPE {prefix}aborts_total counter" in told
    assert f"# TYPE {prefix}write_stalls_total counter" in told


async def test_aborts_and_stalls_are_counted_by_ending(autojump_clock):
    proxy, _ = proxy_over(answers(ROLE, HELLO, 1.0, HELLO, HANG), write_stall_timeout=5.0)
    async with proxy.running():
        await call(proxy, CHAT, Client(wish(), headers=(NEAR,), stuck_from=0.5))
        told = (await get(proxy, "/-/metrics")).body.decode()
    assert 'trio_sse_proxy_aborts_total{dialect="chat",ending="write_stalled"} 1.0' in told
    assert 'trio_sse_proxy_write_stalls_total{dialect="chat"} 1.0' in told


async def test_metrics_name_no_model_and_no_key(autojump_clock):
    proxy, _ = proxy_over(answers(*WHOLE), client_keys=["secret-key"])
    headers = (NEAR, (b"x-api-key", b"secret-key"))
    async with proxy.running():
        await call(proxy, CHAT, Client(wish(model="model-name"), headers=headers))
        told = (await get(proxy, "/-/metrics")).body.decode()
    assert "model-name" not in told
    assert "secret-key" not in told


class Named(ScriptedUpstream):
    def __init__(self, name, *attempts) -> None:
        super().__init__(*attempts)
        self.name = name


def table(name, **more):
    return {"name": name, "base_url": f"http://{name}.example", **more}


async def upstreams_of(proxy):
    return json.loads((await get(proxy, "/-/upstreams")).body)["upstreams"]


async def test_upstreams_are_listed_with_how_they_are(autojump_clock):
    tables = [
        table("a", max_inflight=1, queue_timeout=0, weight=2.5, dialects=["chat"]),
        table("b"),
    ]
    first = Named("a", answers(ROLE, HELLO, HANG))
    proxy = Proxy(Settings(upstreams=tables), upstreams=[first], check_door=True)
    clients = [Client(wish(), headers=(NEAR,), leaves_at=5.0) for _ in range(3)]
    async with proxy.running(), trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(call, proxy, CHAT, client)
        await trio.sleep(1.0)
        one, other = await upstreams_of(proxy)
        assert one == {
            "name": "a",
            "dialects": ["chat"],
            "weight": 2.5,
            "running": 1,
            "queued": 2,
            "limits": {"max_inflight": 1, "max_queued": 1000, "queue_timeout": None},
            "breaker": {
                "state": "closed",
                "failures": 0,
                "share": 0.0,
                "opens": 0,
                "probe_in": None,
            },
            "health": None,
            "connections": None,
            "attempts": {"completed": 0, "failed": 0, "lost": 0, "left": 0},
        }
        assert (other["name"], other["running"], other["queued"]) == ("b", 0, 0)
        assert other["limits"] is None
        assert other["connections"] == {"busy": 0, "idle": 0}
        await trio.sleep(5.0)
        one, other = await upstreams_of(proxy)
        assert (one["running"], one["queued"]) == (0, 0)
        assert one["attempts"] == {"completed": 0, "failed": 0, "lost": 0, "left": 3}
        assert set(other["attempts"].values()) == {0}


async def test_an_upstream_that_failed_too_often_is_shown_as_open(autojump_clock):
    tables = [table("a", breaker_failures=1, breaker_cooldown=30), table("b")]
    own = [Named("a", fails(Unreachable("no"))), Named("b", answers(*WHOLE))]
    settings = Settings(upstreams=tables, routes=[{"upstreams": ["a", "b"]}])
    proxy = Proxy(settings, upstreams=own, check_door=True)
    async with proxy.running():
        await call(proxy, CHAT, Client(wish(), headers=(NEAR,)))
        await trio.sleep(10.0)
        one, other = await upstreams_of(proxy)
        assert (one["breaker"]["state"], one["breaker"]["probe_in"]) == ("open", 20.0)
        assert (one["attempts"]["failed"], other["attempts"]["completed"]) == (1, 1)
