"""The proxy inside somebody else's application, and what it says where it cannot work."""

from __future__ import annotations

import asyncio

import pytest
import trio
import trio.testing
from fastapi import FastAPI
from relay.frames import DONE, HELLO, ROLE, WHOLE, wish
from relay.scripted_client import Client
from relay.scripted_upstream import HANG, JSON, ScriptedUpstream, answers
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trio_sse_proxy import Proxy, Settings, Upstream
from trio_sse_proxy import Route as Way
from trio_sse_proxy.upstreams.http import HttpUpstream

CHAT = "/v1/chat/completions"


def proxy_over(*attempts, proxy_options=None, **settings):
    upstream = ScriptedUpstream(*attempts)
    return Proxy(Settings(**settings), upstream=upstream, **(proxy_options or {})), upstream


def scope_for(client, path, *, method="POST", raw_path=None, **more):
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": raw_path or path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(client.headers),
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 5000),
        "state": dict(client.state),
        **more,
    }


async def call(app, path, client=None, **more):
    client = client or Client(wish())
    await app(scope_for(client, path, **more), client.receive, client.send)
    return client


def in_starlette(prefix, proxy):
    async def hello(_):
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/hello", hello), Mount(prefix, proxy)], lifespan=proxy.lifespan)


def in_fastapi(prefix, proxy):
    app = FastAPI(lifespan=proxy.lifespan)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    app.mount(prefix, proxy)
    return app


hosts = pytest.mark.parametrize("host", [in_starlette, in_fastapi])


@hosts
async def test_mounted_it_serves_below_its_prefix(host, autojump_clock):
    proxy, upstream = proxy_over(answers(*WHOLE, after=7.0))
    app = host("/llm", proxy)
    async with proxy.running():
        client = await call(app, "/llm" + CHAT, query_string=b"a=b")
    assert client.body.endswith(b"".join(WHOLE))
    assert client.body.startswith(b": hb\n\n")
    ((_, target, _),) = upstream.calls[0].received
    assert target == CHAT.encode() + b"?a=b"


@hosts
@pytest.mark.parametrize("raw", [b"/my%20llm", b"/%6dy%20llm", b"/my%20%6clm"])
async def test_a_prefix_may_be_percent_encoded(host, raw, autojump_clock):
    proxy, upstream = proxy_over(answers(*WHOLE))
    app = host("/my llm", proxy)
    async with proxy.running():
        await call(app, "/my llm" + CHAT, raw_path=raw + CHAT.encode())
    ((_, target, _),) = upstream.calls[0].received
    assert target == CHAT.encode()


@hosts
async def test_the_hosts_own_routes_are_left_alone(host, autojump_clock):
    proxy, upstream = proxy_over()
    app = host("/llm", proxy)
    async with proxy.running():
        client = await call(app, "/hello", Client(b""), method="GET")
    assert (client.status, upstream.calls) == (200, [])


@hosts
async def test_mounts_in_mounts_drop_both_prefixes(host, autojump_clock):
    proxy, upstream = proxy_over(answers(*WHOLE))
    outer = Starlette(routes=[Mount("/outer", host("/llm", proxy))])
    async with proxy.running():
        await call(outer, "/outer/llm" + CHAT)
    ((_, target, _),) = upstream.calls[0].received
    assert target == CHAT.encode()


@hosts
async def test_the_hosts_lifespan_runs_it(host, autojump_clock):
    proxy, _ = proxy_over(answers(*WHOLE))
    app = host("/llm", proxy)
    events = trio.Event()
    sent = []
    lifespan = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        kind = next(lifespan)
        if kind == "lifespan.shutdown":
            await events.wait()
        return {"type": kind}

    async def send(message):
        sent.append(message["type"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
        await trio.testing.wait_all_tasks_blocked()
        client = await call(app, "/llm" + CHAT)
        assert client.status == 200
        events.set()
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(RuntimeError, match="not running"):
        await proxy(scope_for(Client(b""), "/"), None, None)


async def test_on_its_own_it_makes_a_lifespan_itself(autojump_clock):
    proxy, _ = proxy_over(answers(*WHOLE))
    sent, stop = [], trio.Event()
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        message = next(messages)
        if message["type"] == "lifespan.shutdown":
            await stop.wait()
        return message

    async def send(message):
        sent.append(message["type"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy, {"type": "lifespan"}, receive, send)
        await trio.testing.wait_all_tasks_blocked()
        assert (await call(proxy, CHAT)).status == 200
        stop.set()
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_not_running_it_says_in_words_what_to_do():
    proxy, _ = proxy_over()
    with pytest.raises(RuntimeError, match=r"proxy\.running\(\).*lifespan=proxy\.lifespan"):
        await call(proxy, CHAT)


def test_under_asyncio_a_request_says_in_words_what_to_do():
    proxy, _ = proxy_over()
    with pytest.raises(RuntimeError, match=r"trio only.*hypercorn -k trio"):
        asyncio.run(call_plainly(proxy))


async def call_plainly(proxy):
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await proxy(scope, None, None)


def test_under_asyncio_running_says_so_too():
    proxy, _ = proxy_over()

    async def enter():
        async with proxy.running():
            pass

    with pytest.raises(RuntimeError, match="trio only"):
        asyncio.run(enter())


def test_under_asyncio_the_server_is_told_that_the_start_up_failed():
    proxy, _ = proxy_over()
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    asyncio.run(proxy({"type": "lifespan"}, receive, send))
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "trio only" in sent[0]["message"]


async def test_leaving_running_ends_what_runs_and_tells_each_client(autojump_clock):
    proxy, upstream = proxy_over(answers(ROLE, HELLO, HANG))
    client = Client(wish())
    async with trio.open_nursery() as nursery, proxy.running():
        nursery.start_soon(call, proxy, CHAT, client)
        await trio.sleep(1.0)
    assert client.ended
    assert b"proxy_shutting_down" in client.body
    assert upstream.calls[0].released == 1.0


async def test_leaving_running_closes_upstreams_beside_an_abort_that_hangs(
    autojump_clock, monkeypatch
):
    closed = []

    async def aclose(upstream):
        closed.append((upstream.name, trio.current_time()))

    monkeypatch.setattr(HttpUpstream, "aclose", aclose)
    slow = ScriptedUpstream(answers(ROLE, HELLO, HANG), name="slow", abort_takes=10.0)
    other = Upstream(name="other", base_url="http://other")
    proxy = Proxy(Settings(upstreams=[other], routes=[Way(upstreams=["slow"])]), upstreams=[slow])
    client = Client(wish())
    async with trio.open_nursery() as nursery:
        async with proxy.running():
            nursery.start_soon(call, proxy, CHAT, client)
            await trio.sleep(1.0)
        assert client.ended_at == 1.0
        assert closed == [("other", 3.0)]
    assert trio.current_time() == 11.0


async def test_two_proxies_in_one_application_are_apart(autojump_clock):
    first, one = proxy_over(answers(*WHOLE))
    second, two = proxy_over(answers(*WHOLE))
    app = Starlette(routes=[Mount("/a", first), Mount("/b", second)])
    async with first.running(), second.running():
        await call(app, "/a" + CHAT)
        await call(app, "/b" + CHAT)
    assert (len(one.calls), len(two.calls)) == (1, 1)


async def test_embedded_it_leaves_the_door_to_its_host(autojump_clock):
    proxy, _ = proxy_over(answers(*WHOLE), client_keys=["k"])
    headers = ((b"host", b"evil.example"), (b"origin", b"https://evil.example"))
    async with proxy.running():
        client = await call(proxy, CHAT, Client(wish(), headers=headers))
    assert client.status == 200


async def test_a_websocket_is_answered_with_426(autojump_clock):
    proxy, _ = proxy_over()
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = scope_for(Client(), "/v1/responses", method="GET")
    scope |= {"type": "websocket", "extensions": {"websocket.http.response": {}}}
    async with proxy.running():
        await proxy(scope, receive, send)
    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 426)


# The door, where the proxy keeps it.

KEEPS = {"check_door": True}


async def through_the_door(headers, *, server="127.0.0.1", attempts=None, **settings):
    proxy, upstream = proxy_over(*(attempts or (answers(*WHOLE),)), proxy_options=KEEPS, **settings)
    async with proxy.running():
        client = Client(wish(), headers=headers)
        await call(proxy, CHAT, client, server=(server, 80))
    return client, upstream


async def test_a_rebound_name_gets_403_and_reaches_nobody(autojump_clock):
    client, upstream = await through_the_door(((b"host", b"evil.example"),))
    assert (client.status, upstream.calls) == (403, [])


async def test_a_foreign_page_gets_403(autojump_clock):
    headers = ((b"host", b"localhost"), (b"origin", b"https://evil.example"))
    client, _ = await through_the_door(headers)
    assert client.status == 403


async def test_an_origin_that_is_no_url_gets_403(autojump_clock):
    headers = ((b"host", b"localhost"), (b"origin", b"http://[x"))
    client, _ = await through_the_door(headers)
    assert client.status == 403


async def test_without_the_key_it_is_401_in_the_dialects_shape(autojump_clock):
    client, _ = await through_the_door(((b"host", b"localhost"),), client_keys=["k"])
    assert client.status == 401
    assert b"invalid_api_key" in client.body


async def test_a_clients_proxy_key_is_never_forwarded(autojump_clock):
    headers = (
        (b"host", b"localhost"),
        (b"x-api-key", b"upstreams"),
        (b"authorization", b"Bearer mine"),
    )
    client, upstream = await through_the_door(headers, client_keys=["mine"])
    assert client.status == 200
    ((_, _, sent),) = upstream.calls[0].received
    assert [field for field in sent if field[0] in {b"authorization", b"x-api-key"}] == [
        (b"x-api-key", b"upstreams")
    ]
    assert b"mine" not in repr(sent).encode()


async def test_far_from_loopback_a_key_is_required(autojump_clock):
    headers = ((b"host", b"proxy.example"),)
    client, _ = await through_the_door(headers, server="192.0.2.1")
    assert client.status == 403


async def test_refusals_at_the_door_are_recorded_like_any_request(autojump_clock):
    proxy, _ = proxy_over(proxy_options=KEEPS)
    async with proxy.running():
        await call(proxy, CHAT, Client(wish(), headers=((b"host", b"evil.example"),)))
        admin = Client(b"", headers=((b"host", b"localhost"),))
        await call(proxy, "/-/records", admin, method="GET")
    assert b'"ending":"refused"' in admin.body


async def test_the_terminator_is_the_last_thing_a_mounted_client_gets(autojump_clock):
    proxy, _ = proxy_over(answers(*WHOLE, HANG))
    app = in_starlette("/llm", proxy)
    async with proxy.running():
        client = await call(app, "/llm" + CHAT)
    assert client.body.endswith(DONE)
    assert client.ended_at == 0.0


async def test_a_plain_path_of_the_mounted_proxy_goes_upstream(autojump_clock):
    proxy, upstream = proxy_over(answers(b"[]", headers=JSON))
    app = in_starlette("/llm", proxy)
    async with proxy.running():
        client = await call(app, "/llm/v1/models", Client(b""), method="GET")
    assert client.body == b"[]"
    assert upstream.calls[0].received[0][1] == b"/v1/models"
