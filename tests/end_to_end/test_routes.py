"""Several upstreams behind one real proxy: each thing a route can do, once, on real sockets."""

from __future__ import annotations

import itertools
import json
from contextlib import ExitStack, contextmanager

import pytest
from patience import NEVER
from scripted import ScriptedUpstream
from scripted.answers import Answer
from scripted.talk import PATHS, Said

from .proxy import ServedProxy
from .wire import WireClient

pytestmark = pytest.mark.slow

SETTINGS = """
heartbeat = {heartbeat}
commit_after = {commit_after}

[[upstreams]]
name = "bad"
base_url = "{first}"
abort = "sglang"
abort_timeout = 30.0
breaker_failures = 0
breaker_rate = 0.0
[[upstreams]]
name = "good"
base_url = "{second}"
[[upstreams]]
name = "weak"
base_url = "{first}"
breaker_failures = 2
breaker_cooldown = 600.0
[[upstreams]]
name = "slot"
base_url = "{first}"
max_inflight = 1
[[upstreams]]
name = "kobold"
base_url = "{first}"
abort = "kobold"
abort_timeout = 30.0
[[upstreams]]
name = "exo"
base_url = "{first}"
abort = "exo"
abort_timeout = 30.0
[[upstreams]]
name = "background"
base_url = "{first}"
abort = "responses"
abort_timeout = 30.0
[[upstreams]]
name = "textgen"
base_url = "{first}"
abort = "textgen"
abort_timeout = 30.0
[[upstreams]]
name = "custom"
base_url = "{first}"
api_key = "the-key"
abort_timeout = 30.0
[upstreams.abort]
url = "/cancel/{{model}}?of={{stream_id}}"
body = {{ answer = "{{id}}" }}
headers = {{ x-why = "left" }}

[[routes]]
model = "both"
upstreams = ["bad", "good"]
[[routes]]
model = "hedged"
upstreams = ["bad", "good"]
hedge_after = 0.3
hedge_share = 1.0
[[routes]]
model = "alone"
upstreams = ["weak"]
[[routes]]
model = "rescued"
upstreams = ["weak", "good"]
[[routes]]
model = "finished"
upstreams = ["bad"]
on_disconnect = "finish"
[[routes]]
model = "*"
upstreams = ["slot"]
"""
ONE_EACH = ("slot", "kobold", "exo", "background", "textgen", "custom")
names = itertools.count(1)


@pytest.fixture(scope="module")
def first():
    with ScriptedUpstream(silence=1.5) as running:
        yield running


@pytest.fixture(scope="module")
def second():
    with ScriptedUpstream(only="normal", ids_from=101) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(first, second, tmp_path_factory):
    """It never beats, and waits for an upstream's status, however long."""
    with served(first, second, tmp_path_factory, heartbeat=NEVER, commit_after=NEVER) as running:
        yield running


@contextmanager
def served(first, second, tmp_path_factory, **settings):
    routes = "".join(
        f'[[routes]]\nmodel = "to-{name}"\nupstreams = ["{name}"]\n' for name in ONE_EACH
    )
    tables = SETTINGS.format(first=first.url, second=second.url, **settings)
    file = tmp_path_factory.mktemp("settings") / "settings.toml"
    file.write_text(tables.replace('[[routes]]\nmodel = "*"', routes + '[[routes]]\nmodel = "*"'))
    with ServedProxy(None, "--config", str(file)) as running:
        yield running


def key(scenario):
    """A name of its own for one request that plays `scenario` at the first upstream."""
    return f"{scenario}#r{next(names)}"


def ask(proxy, model, scenario, **how):
    with WireClient(proxy.port) as client:
        return client.ask(model, scenario=scenario, **how).reply()


def body_of(model, attempt, dialect="chat"):
    return b"".join(Answer(dialect, True, Said(model, attempt), 0.0).frames())


def attempts_of(proxy, reply):
    record = proxy.record_of("id", reply.headers["x-proxy-stream-id"])
    return [
        (attempt["upstream"], attempt["over"], attempt["reason"], attempt["abort"])
        for attempt in record["attempts"]
    ]


def test_what_fails_before_output_is_answered_by_the_next_upstream(proxy, first, second):
    scenario = key("reset-after-prelude")
    reply = ask(proxy, "both", scenario)
    assert (reply.status, reply.ending) == (200, "complete")
    assert reply.body == body_of("both", 101)
    assert (reply.headers["x-proxy-upstream"], reply.headers["x-proxy-attempts"]) == ("good", "2")
    assert attempts_of(proxy, reply) == [
        ("bad", False, "broken", "done"),
        ("good", True, None, None),
    ]
    (visit,) = first.visits(scenario)
    (abort,) = first.aborts_with(visit.json()["rid"])
    assert (abort.target, abort.json()) == ("/abort_request", {"rid": visit.json()["rid"]})
    assert len(second.visits(scenario)) == 1


def test_an_error_of_the_callers_own_making_asks_nobody_else(proxy, first, second):
    scenario = key("status-400")
    reply = ask(proxy, "both", scenario)
    assert (reply.status, reply.headers["x-told"]) == (400, "yes")
    assert (len(first.visits(scenario)), second.visits(scenario)) == (1, [])
    assert first.aborts_with(first.visits(scenario)[0].json()["rid"]) == []
    assert attempts_of(proxy, reply) == [("bad", True, None, None)]


def test_a_hedge_takes_the_place_of_what_stays_silent(proxy, first):
    scenario = key("hang-after-prelude")
    reply = ask(proxy, "hedged", scenario)
    assert reply.body == body_of("hedged", 101)
    (visit,) = first.visits(scenario)
    visit.wait_for_left()
    assert first.wait_for_abort(visit.json()["rid"]).at >= visit.left_at
    assert attempts_of(proxy, reply) == [
        ("bad", False, "hedge_lost", "done"),
        ("good", True, None, None),
    ]


def test_a_breaker_opens_and_from_then_on_its_upstream_is_left_alone(proxy, first, second):
    while states(proxy)["weak"]["breaker"]["state"] != "open":
        assert (
            ask(proxy, "alone", key("status-400"), stream=False).status == 400
        )  # counts for nothing
        assert ask(proxy, "alone", key("reset-before-headers"), stream=False).status >= 500
    unasked = key("normal")
    reply = ask(proxy, "alone", unasked)
    assert (reply.status, first.visits(unasked)) == (503, [])
    assert 0 < int(reply.headers["retry-after"]) <= 601
    assert json.loads(reply.body)["error"]
    reply = ask(proxy, "rescued", unasked)
    assert reply.body == body_of("rescued", 101)
    assert reply.headers["x-proxy-attempts"] == "1"
    assert (first.visits(unasked), len(second.visits(unasked))) == ([], 1)


def states(proxy):
    return {upstream["name"]: upstream for upstream in proxy.get("/-/upstreams")["upstreams"]}


def test_at_a_one_slot_upstream_others_wait_with_heartbeats_and_leave_at_once(
    first, second, tmp_path_factory
):
    running, left, waiting = key("hang-after-output"), key("normal"), key("normal")
    with ExitStack() as stack:
        beating = served(first, second, tmp_path_factory, heartbeat=1.0, commit_after=0.5)
        proxy = stack.enter_context(beating)
        clients = [stack.enter_context(WireClient(proxy.port)) for _ in range(3)]
        clients[0].ask("to-slot", scenario=running).read_until(b"tok5")
        clients[1].ask("to-slot", scenario=left).read_until(b": hb\n\n")
        assert states(proxy)["slot"]["queued"] == 1
        clients[1].leave("fin")
        clients[2].ask("to-slot", scenario=waiting).read_until(b": hb\n\n")
        clients[2].read_until(b": hb\n\n")
        assert states(proxy)["slot"]["queued"] == 1
        assert first.visits(left) == first.visits(waiting) == []
        clients[0].leave("reset")
        assert b"tok11" in clients[2].read_until(b"[DONE]")
    assert first.visits(left) == []
    visit = first.wait_for_visit(waiting)
    assert visit.at >= first.visits(running)[0].wait_for_left()


ABORTS = {
    "kobold": ("chat", {}, "/api/extra/abort", lambda visit, _: {"genkey": visit.json()["genkey"]}),
    "exo": ("chat", {}, "/v1/cancel/chatcmpl-1", lambda *_: {}),
    "background": ("responses", {"background": True}, "/v1/responses/resp_1/cancel", lambda *_: {}),
    "textgen": ("messages", {}, "/v1/internal/stop-generation", lambda *_: {}),
    "custom": ("chat", {}, "/cancel/to-custom?of={stream_id}", lambda *_: {"answer": "chatcmpl-1"}),
}


@pytest.mark.parametrize("name", ABORTS)
@pytest.mark.parametrize("how", ["fin", "reset"])
def test_who_leaves_is_told_to_the_upstream_in_its_own_way(name, how, proxy, first):
    dialect, members, target, body = ABORTS[name]
    scenario, before = key("endless-tokens"), len(first.aborts)
    with WireClient(proxy.port) as client:
        client.ask(f"to-{name}", scenario=scenario, dialect=dialect, **members)
        head = client.read_until(b"tok0").decode()
        client.leave(how)
    visit = first.visits(scenario)[0]
    visit.wait_for_left()
    stream_id = head.lower().partition("x-proxy-stream-id: ")[2].partition("\r\n")[0]
    (attempt,) = proxy.record_of("id", stream_id)["attempts"]
    assert (attempt["reason"], attempt["abort"]) == ("client_left", "done")
    (abort,) = first.aborts[before:]
    assert (abort.method, abort.target) == ("POST", target.format(stream_id=stream_id))
    assert abort.json() == body(visit, stream_id)
    assert abort.at >= visit.left_at
    if name == "custom":
        assert (abort.headers["authorization"], abort.headers["x-why"]) == (
            "Bearer the-key",
            "left",
        )


@pytest.mark.parametrize("dialect", PATHS)
def test_an_answer_that_is_wanted_to_its_end_is_read_to_it(dialect, proxy, first):
    scenario = key("paced")
    with WireClient(proxy.port) as client:
        client.ask("finished", scenario=scenario, dialect=dialect)
        head = client.read_until(b"tok0").decode()
        client.leave("fin")
    visit = first.visits(scenario)[0]
    assert visit.wait_for_end() == "played"
    stream_id = head.lower().partition("x-proxy-stream-id: ")[2].partition("\r\n")[0]
    record = proxy.record_of("id", stream_id)
    assert (record["ending"], record["finished"]) == ("client_left", True)
    assert record["usage"]["output_tokens"] == 12
    assert record["attempts"][0]["over"]
    assert first.aborts_with(visit.json()["rid"]) == []
