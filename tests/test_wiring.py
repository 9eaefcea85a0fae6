"""From settings to a proxy over several upstreams, an embedder's own among them."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from relay.frames import HELLO, WHOLE, wish
from relay.scripted_client import Client
from relay.scripted_upstream import HANG, JSON, answers, fails
from several import GOOD, MODELS, Network, ask, listed, scripted

from trio_sse_proxy import AbortCall, Proxy, Route, Settings, SettingsError, Unreachable, Upstream
from trio_sse_proxy.config import load
from trio_sse_proxy.core.breaker import State
from trio_sse_proxy.upstreams.aborts import KNOWN

A = Upstream(name="a", base_url="http://a")
B = Upstream(name="b", base_url="http://b/v1")


def endpoints(proxy):
    return proxy.application.surroundings.router.endpoints


async def test_each_upstream_is_asked_in_its_own_way(nursery, monkeypatch, autojump_clock):
    network = Network(nursery, monkeypatch, a=GOOD, b=GOOD)
    changed = Upstream(
        name="a",
        base_url="http://a",
        api_key="sk-a",
        models={"m-*": "own"},
        add_headers={"X-Team": "red"},
        drop_headers=["X-Secret"],
        abort="sglang",
    )
    settings = Settings(upstreams=[changed, B], routes=[Route(model=["other"], upstreams=["b"])])
    client = Client(wish(model="m-1"), headers=[(b"x-secret", b"1"), (b"x-api-key", b"sk-mine")])
    proxy = Proxy(settings)
    async with proxy.running():
        await ask(proxy, client=client)
        await ask(proxy, model="other", headers=[(b"x-secret", b"1")])
    (head,), (body,) = network.heads_of("a"), network.bodies_of("a")
    assert head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert "authorization: Bearer sk-a" in head
    assert "x-team: red" in head
    assert "x-secret" not in head
    assert "sk-mine" not in head
    document = json.loads(body)
    assert document["model"] == "own"
    assert document["rid"]
    (head,), (body,) = network.heads_of("b"), network.bodies_of("b")
    assert "x-secret: 1" in head
    assert "rid" not in json.loads(body)


async def test_gate_breaker_weight_and_dialects_are_as_the_table_says():
    first = Upstream(base_url="http://a", name="a", max_inflight=1, weight=2.5, dialects=["chat"])
    second = Upstream(base_url="http://b", name="b", breaker_failures=0, breaker_rate=0)
    found = endpoints(Proxy(Settings(upstreams=[first, second])))
    a, b = found["a"], found["b"]
    assert a.gate.try_enter() is not None
    assert not a.has_room
    assert (a.weight, a.dialects, b.weight) == (2.5, {"chat"}, 1.0)
    assert (a.breaker is not None, b.breaker, b.gate) == (True, None, None)
    await trio.lowlevel.checkpoint()


async def test_a_single_upstream_has_no_breaker_unless_it_is_asked_for():
    found = endpoints(Proxy(Settings(upstreams=[A])))
    assert found["a"].breaker is None
    wanted = A.model_copy(update={"breaker_failures": 2})
    assert endpoints(Proxy(Settings(upstreams=[wanted])))["a"].breaker is not None
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("name", KNOWN)
async def test_an_abort_call_is_the_known_one_of_its_name(name):
    table = A.model_copy(update={"abort": name, "abort_timeout": 0.5})
    upstream = endpoints(Proxy(Settings(upstreams=[table])))["a"].upstream
    assert upstream.abort_calls is KNOWN[name]
    assert upstream._abort_timeout == 0.5
    await trio.lowlevel.checkpoint()


async def test_an_abort_call_of_a_table_goes_out_when_the_client_leaves(
    nursery, monkeypatch, autojump_clock
):
    async def hang(stream):
        await trio.sleep_forever()

    network = Network(nursery, monkeypatch, a=hang)
    call = AbortCall(url="/stop/{stream_id}", method="PUT", headers={"X-Why": "left"})
    proxy = Proxy(Settings(upstreams=[A.model_copy(update={"abort": call})]))
    async with proxy.running():
        await ask(proxy, client=Client(wish(), leaves_at=1.0))
    asked, told = network.heads_of("a")
    assert asked.startswith("POST /v1/chat")
    assert told.startswith("PUT /stop/")
    assert "x-why: left" in told


async def test_what_fails_before_output_goes_to_the_next_of_the_route(autojump_clock):
    a = scripted("a", fails(Unreachable("refused")))
    b = scripted("b", answers(*WHOLE))
    settings = Settings(routes=[Route(upstreams=["a", "b"], model=["m"])])
    proxy = Proxy(settings, upstreams=[b, a])
    async with proxy.running():
        client = await ask(proxy)
    assert client.body == b"".join(WHOLE)
    assert client.response_headers[b"x-proxy-upstream"] == b"b"
    assert client.response_headers[b"x-proxy-attempts"] == b"2"
    assert len(a.calls) == len(b.calls) == 1


AS_DOCUMENTED = """
[[upstreams]]
name = "a"
base_url = "http://127.0.0.1:9001"
max_inflight = 4
[[upstreams]]
name = "b"
base_url = "http://127.0.0.1:9002"
abort = "sglang"
[[routes]]
model = "deepseek-*"          # glob; also: dialect, path, client
upstreams = ["a", "b"]        # in this order
hedge_after = 2.0
on_disconnect = "abort"
"""


async def test_a_file_with_two_upstreams_and_a_route_loads_and_serves(
    nursery, monkeypatch, tmp_path, autojump_clock
):
    calls = []

    async def first_hangs(stream):
        calls.append(trio.current_time())
        if len(calls) > 1:
            await stream.send_all(GOOD)
        await trio.sleep_forever()

    network = Network(nursery, monkeypatch, **{"127.0.0.1": first_hangs})
    file = tmp_path / "proxy.toml"
    file.write_text(AS_DOCUMENTED)
    proxy = Proxy(load(file, {}, {}))
    async with proxy.running():
        client = await ask(proxy, model="deepseek-v3")
    assert client.response_headers[b"x-proxy-upstream"] == b"b"
    assert client.response_headers[b"x-proxy-attempts"] == b"2"
    assert client.body == b"".join(WHOLE)
    assert calls[:2] == [0.0, 2.0]
    hosts = [head.split("host: ")[1].split()[0] for head in network.heads_of("127.0.0.1")]
    assert hosts == ["127.0.0.1:9001", "127.0.0.1:9002"]


async def test_headers_of_ours_do_not_come_from_the_upstream(autojump_clock):
    own = ((b"content-type", b"text/event-stream"), (b"x-proxy-upstream", b"behind"))
    proxy = Proxy(Settings(), upstream=scripted("mine", answers(*WHOLE, headers=own)))
    async with proxy.running():
        client = await ask(proxy)
    assert client.response_headers[b"x-proxy-upstream"] == b"mine"
    assert client.response_headers[b"x-proxy-attempts"] == b"1"


async def test_an_early_commit_names_no_upstream_yet(autojump_clock):
    proxy = Proxy(Settings(), upstream=scripted("mine", answers(*WHOLE, after=7.0)))
    async with proxy.running():
        client = await ask(proxy)
    assert b"x-proxy-upstream" not in client.response_headers
    assert b"x-proxy-stream-id" in client.response_headers


async def test_without_a_route_the_first_upstream_answers_and_tables_come_first(
    nursery, monkeypatch, autojump_clock
):
    network = Network(nursery, monkeypatch, a=GOOD)
    proxy = Proxy(Settings(upstreams=[A]), upstreams=[scripted("mine")])
    async with proxy.running():
        client = await ask(proxy)
    assert client.response_headers[b"x-proxy-upstream"] == b"a"
    assert len(network.got) == 1
    first, second = scripted("first", answers(*WHOLE)), scripted("second")
    proxy = Proxy(Settings(), upstreams=[first, second])
    async with proxy.running():
        client = await ask(proxy)
    assert client.response_headers[b"x-proxy-upstream"] == b"first"


async def test_an_own_upstream_stands_in_routes_beside_http_ones(
    nursery, monkeypatch, autojump_clock
):
    Network(nursery, monkeypatch, a=b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    mine = scripted("mine", answers(*WHOLE))
    settings = Settings(upstreams=[A], routes=[Route(upstreams=["a", "mine"])])
    proxy = Proxy(settings, upstreams=[mine])
    async with proxy.running():
        client = await ask(proxy)
    assert client.body == b"".join(WHOLE)
    assert client.response_headers[b"x-proxy-upstream"] == b"mine"


async def test_an_own_upstream_called_like_a_table_takes_its_place_and_its_limits(autojump_clock):
    mine = scripted("a", answers(*WHOLE[:2], 3.0, *WHOLE[2:]), answers(*WHOLE))
    proxy = Proxy(Settings(upstreams=[A.model_copy(update={"max_inflight": 1})]), upstreams=[mine])
    async with proxy.running(), trio.open_nursery() as both:
        both.start_soon(ask, proxy)
        both.start_soon(ask, proxy)
    assert [call.opened for call in mine.calls] == [0.0, 3.0]


async def test_one_upstream_alone_takes_the_place_of_all_tables(autojump_clock):
    mine = scripted("mine", answers(*WHOLE))
    proxy = Proxy(Settings(upstreams=[A, B]), upstream=mine)
    assert list(endpoints(proxy)) == ["mine"]
    async with proxy.running():
        assert (await ask(proxy)).body == b"".join(WHOLE)


async def test_without_any_upstream_the_demo_answers():
    assert list(endpoints(Proxy(Settings()))) == ["demo"]
    await trio.lowlevel.checkpoint()


def test_a_route_to_an_upstream_that_there_is_not_is_refused():
    settings = Settings(upstreams=[A], routes=[Route(upstreams=["mine"])])
    with pytest.raises(SettingsError, match="mine: no such upstream; the nearest is a"):
        Proxy(settings)
    with pytest.raises(SettingsError, match="there are none"):
        Proxy(Settings(routes=[Route(upstreams=["mine"])]))
    with pytest.raises(SettingsError, match="nearest is other"):
        Proxy(settings, upstream=scripted("other"))
    assert list(endpoints(Proxy(settings, upstreams=[scripted("mine")]))) == ["a", "mine"]


def test_upstreams_that_could_not_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="name of its own"):
        Proxy(Settings(), upstreams=[scripted("same"), scripted("same")])
    with pytest.raises(ValueError, match="either `upstream`"):
        Proxy(Settings(), upstream=scripted("one"), upstreams=[scripted("two")])


class Owned:
    """An embedder's upstream with connections of its own."""

    name = "owned"
    closed = 0

    async def aclose(self):
        self.closed += 1


async def test_at_the_end_our_connections_are_closed_and_an_embedders_are_not(
    nursery, monkeypatch, autojump_clock
):
    network = Network(nursery, monkeypatch, a=GOOD, b=GOOD)
    owned = Owned()
    settings = Settings(upstreams=[A, B], routes=[Route(model=["b"], upstreams=["b"])])
    proxy = Proxy(settings, upstreams=[owned])
    async with proxy.running():
        await ask(proxy, model="a")
        await ask(proxy, model="b")
        await trio.testing.wait_all_tasks_blocked()
        assert network.open == {"a": 1, "b": 1}
    await trio.testing.wait_all_tasks_blocked()
    assert network.open == {"a": 0, "b": 0}
    assert owned.closed == 0


async def test_what_is_raised_while_it_runs_comes_out_as_it_is():
    with pytest.raises(KeyError):
        async with Proxy(Settings()).running():
            raise KeyError("mine")


async def test_a_health_check_keeps_requests_away_while_it_runs(
    nursery, monkeypatch, autojump_clock
):
    sick = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    network = Network(nursery, monkeypatch, a=sick, b=GOOD)
    checked = Upstream(
        name="a",
        base_url="http://a/v1",
        api_key="sk-a",
        health_path="/health?deep=1",
        max_connections=1,
        health_interval=5,
    )
    settings = Settings(upstreams=[checked, B], routes=[Route(upstreams=["a", "b"])])
    proxy = Proxy(settings)
    async with proxy.running():
        await trio.sleep(1)
        assert endpoints(proxy)["a"].breaker.state(trio.current_time()) is not State.CLOSED
        client = await ask(proxy)
        await trio.sleep(5)
    assert client.response_headers[b"x-proxy-attempts"] == b"1"
    assert [head.split("\r\n")[0] for head in network.heads_of("a")] == [
        "GET /health?deep=1 HTTP/1.1"
    ] * 2
    kept = [(made["keepalive_expiry"], made["max_connections"]) for made in network.made]
    assert set(kept) == {(0.0, None), (30.0, None), (30.0, 1)}
    assert len(network.got) == 3  # nobody checks any more


async def test_what_is_shown_of_upstreams_is_of_those_in_force(autojump_clock):
    admin = Settings(admin_key="sk-admin")
    proxy = Proxy(admin, upstreams=[scripted("one"), scripted("two")])
    key = [(b"authorization", b"Bearer sk-admin")]
    async with proxy.running():
        shown = await ask(proxy, method="GET", path="/-/upstreams", headers=key)
        measured = await ask(proxy, method="GET", path="/-/metrics", headers=key)
    assert [one["name"] for one in json.loads(shown.body)["upstreams"]] == ["one", "two"]
    assert b'upstream_running{upstream="two"} 0.0' in measured.body


async def test_models_of_several_upstreams_are_one_list(nursery, monkeypatch, autojump_clock):
    network = Network(nursery, monkeypatch, a=listed("one", "own"), b=listed("one", "two"))
    first = A.model_copy(update={"models": {"alias": "own", "two-*": "own"}, "api_key": None})
    proxy = Proxy(Settings(upstreams=[first, B]))
    async with proxy.running():
        client = await ask(
            proxy, method="GET", path=MODELS, headers=[(b"authorization", b"Bearer sk-mine")]
        )
    assert client.status == 200
    document = json.loads(client.body)
    assert [model["id"] for model in document["data"]] == ["one", "own", "alias", "two"]
    assert client.response_headers[b"x-proxy-upstream"] == b"models"
    for host in "ab":
        (head,) = network.heads_of(host)
        assert "Bearer sk-mine" in head


async def test_models_of_a_single_upstream_pass_unchanged(autojump_clock):
    body = b'{ "anything": 1 }'
    mine = scripted("mine", answers(body, headers=JSON))
    proxy = Proxy(Settings(), upstream=mine)
    async with proxy.running():
        client = await ask(proxy, method="GET", path=MODELS)
    assert client.body == body


async def test_a_route_for_that_path_comes_before_the_common_list(autojump_clock):
    body = b'{"data": []}'
    a, b = scripted("a"), scripted("b", answers(body, headers=JSON))
    settings = Settings(routes=[Route(path=["/v1/models"], upstreams=["b"])])
    proxy = Proxy(settings, upstreams=[a, b])
    async with proxy.running():
        client = await ask(proxy, method="GET", path=MODELS)
    assert (client.body, a.calls) == (body, [])


async def test_a_client_that_leaves_ends_the_asking_for_models(autojump_clock):
    a, b = scripted("a", answers(after=HANG)), scripted("b", answers(b"{", HANG, headers=JSON))
    proxy = Proxy(Settings(), upstreams=[a, b])
    async with proxy.running():
        await ask(proxy, client=Client(b"", leaves_at=1.0), method="GET", path=MODELS)
    assert [call.closed for call in (*a.calls, *b.calls)] == [1.0, 1.0]


async def test_a_worker_that_fails_among_several_upstreams_is_left_alone(autojump_clock):
    bad = scripted("bad", *[fails(Unreachable("no"))] * 5)
    good = scripted("good", *[answers(*WHOLE)] * 6)
    proxy = Proxy(Settings(routes=[Route(upstreams=["bad", "good"])]), upstreams=[bad, good])
    async with proxy.running():
        for _ in range(6):
            client = await ask(proxy)
    assert client.response_headers[b"x-proxy-attempts"] == b"1"
    assert HELLO in client.body
