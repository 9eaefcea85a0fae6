"""Settings that change while requests run."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request

import pytest
import structlog.testing
import trio
import trio.testing
from end_to_end.proxy import ServedProxy
from patience import PATIENCE
from relay.frames import WHOLE, wish
from relay.scripted_client import Client
from relay.scripted_upstream import answers
from several import GOOD, Network, ask, scripted, slow_stream

from trio_sse_proxy import Proxy, Route, Settings, SettingsError, Upstream, listening, wiring
from trio_sse_proxy.core.breaker import State
from trio_sse_proxy.dialects.translate.profile import PRESETS

A = Upstream(name="a", base_url="http://a")
B = Upstream(name="b", base_url="http://b")


def endpoint(proxy, name="a"):
    return proxy.application.surroundings.router.endpoints[name]


def but(upstream, **changes):
    return upstream.model_copy(update=changes)


async def test_new_requests_get_the_new_settings_and_running_ones_keep_theirs(
    nursery, monkeypatch, autojump_clock
):
    begun, finish = trio.Event(), trio.Event()
    network = Network(nursery, monkeypatch, a=slow_stream(begun, finish), b=GOOD)
    proxy = Proxy(Settings(upstreams=[A], heartbeat=5))
    async with proxy.running():
        client = Client(wish())

        async def first():
            await ask(proxy, client=client)

        nursery.start_soon(first)
        await begun.wait()
        await proxy.reload(Settings(upstreams=[B], heartbeat=50))
        later = await ask(proxy)
        assert later.response_headers[b"x-proxy-upstream"] == b"b"
        assert network.open == {"a": 1, "b": 1}
        await trio.sleep(6)
        assert b": hb\n\n" in client.body
        finish.set()
        await trio.sleep(1)
        assert client.body.replace(b": hb\n\n", b"").endswith(b"".join(WHOLE[2:]))
        assert network.open == {"a": 0, "b": 1}
        assert proxy.settings.heartbeat == 50


async def test_an_upstream_that_nobody_uses_is_closed_at_once(nursery, monkeypatch, autojump_clock):
    network = Network(nursery, monkeypatch, a=GOOD, b=GOOD)
    proxy = Proxy(Settings(upstreams=[A]))
    async with proxy.running():
        await ask(proxy)
        await trio.testing.wait_all_tasks_blocked()
        assert network.open["a"] == 1
        await proxy.reload(Settings(upstreams=[B]))
        await trio.testing.wait_all_tasks_blocked()
        assert network.open["a"] == 0


async def test_an_old_upstream_waits_for_the_last_of_those_that_ran(
    nursery, monkeypatch, autojump_clock
):
    network = Network(nursery, monkeypatch, a=GOOD, b=GOOD)
    events = [(trio.Event(), trio.Event()) for _ in range(2)]
    proxy = Proxy(Settings(upstreams=[A]))
    async with proxy.running():
        for begun, finish in events:
            network.hosts["a"] = slow_stream(begun, finish)
            nursery.start_soon(ask, proxy)
            await begun.wait()
        await proxy.reload(Settings(upstreams=[B]))
        await proxy.reload(Settings(upstreams=[but(B, weight=2)]))
        events[0][1].set()
        await trio.sleep(1)
        assert network.open["a"] == 2  # one is idle, one streams
        events[1][1].set()
        await trio.sleep(1)
        assert network.open["a"] == 0


async def test_what_is_left_of_old_upstreams_is_closed_at_the_end(
    nursery, monkeypatch, autojump_clock
):
    begun, finish = trio.Event(), trio.Event()
    network = Network(nursery, monkeypatch, a=slow_stream(begun, finish), b=GOOD)
    proxy = Proxy(Settings(upstreams=[A]))
    async with proxy.running():
        nursery.start_soon(ask, proxy)
        await begun.wait()
        await proxy.reload(Settings(upstreams=[B]))
        await ask(proxy)
    finish.set()  # it now writes to nobody, and would else wait for another request
    await trio.testing.wait_all_tasks_blocked()
    assert network.open == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight": 3.0},
        {"dialects": ("chat",)},
        {"dialects": ("chat",), "profile": PRESETS["deepseek"]},
        {"max_inflight": 7},
        {"breaker_failures": 1},
        {"health_path": "/health"},
    ],
)
async def test_connections_are_kept_where_only_the_surroundings_change(changes, monkeypatch):
    proxy = Proxy(Settings(upstreams=[A]))
    before = endpoint(proxy).upstream
    await proxy.reload(Settings(upstreams=[but(A, **changes), B]))
    after = endpoint(proxy).upstream
    assert (after.inner if "dialects" in changes else after) is before
    for name, value in changes.items():
        if name in ("weight", "dialects"):
            assert getattr(endpoint(proxy), name) == (
                frozenset(value) if name == "dialects" else value
            )


async def test_another_profile_is_another_translation_over_the_same_connections(monkeypatch):
    chat = but(A, dialects=("chat",), profile=PRESETS["deepseek"])
    proxy = Proxy(Settings(upstreams=[chat]))
    before = proxy._fleet.members["a"]
    await proxy.reload(Settings(upstreams=[chat]))
    assert proxy._fleet.members["a"].endpoint is before.endpoint
    await proxy.reload(Settings(upstreams=[but(chat, profile=PRESETS["vllm"])]))
    after = proxy._fleet.members["a"]
    assert after.upstream is before.upstream
    assert after.endpoint.upstream.inner is before.upstream
    assert after.endpoint.upstream.profile is PRESETS["vllm"]
    assert proxy._fleet.to_close() == (before.upstream,)


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "http://a/v2"},
        {"models": {"x": "y"}},
        {"max_connections": 3},
        {"abort": "exo"},
        {"add_headers": {"x": "y"}},
    ],
)
async def test_connections_are_new_where_an_upstream_itself_changes(changes):
    proxy = Proxy(Settings(upstreams=[A]))
    before = endpoint(proxy).upstream
    changed = Upstream.model_validate({"name": "a", "base_url": "http://a", **changes})
    await proxy.reload(Settings(upstreams=[changed]))
    assert endpoint(proxy).upstream is not before


async def test_a_new_connect_timeout_is_for_all_upstreams():
    proxy = Proxy(Settings(upstreams=[A]))
    before = endpoint(proxy).upstream
    await proxy.reload(Settings(upstreams=[A], connect_timeout=3))
    assert endpoint(proxy).upstream is not before


async def test_nothing_is_new_where_nothing_changed():
    proxy = Proxy(Settings(upstreams=[A, B]))
    before = endpoint(proxy), endpoint(proxy, "b")
    await proxy.reload(Settings(upstreams=[A, B]))
    assert (endpoint(proxy), endpoint(proxy, "b")) == before


async def test_a_new_key_forgets_neither_who_is_in_nor_that_it_was_down():
    table = but(A, max_inflight=1, breaker_failures=1)
    proxy = Proxy(Settings(upstreams=[table]))
    slot = endpoint(proxy).gate.try_enter()
    endpoint(proxy).breaker.enter(trio.current_time()).failed(trio.current_time())
    keyed = Upstream(
        name="a", base_url="http://a", max_inflight=1, breaker_failures=1, api_key="sk"
    )
    await proxy.reload(Settings(upstreams=[keyed]))
    assert not endpoint(proxy).has_room
    assert endpoint(proxy).breaker.state(trio.current_time()) is State.OPEN
    slot.leave()
    assert endpoint(proxy).has_room


async def test_another_server_of_that_name_begins_anew():
    proxy = Proxy(Settings(upstreams=[but(A, max_inflight=1, breaker_failures=1)]))
    endpoint(proxy).gate.try_enter()
    breaker = endpoint(proxy).breaker
    moved = Upstream(name="a", base_url="http://b", max_inflight=1, breaker_failures=1)
    await proxy.reload(Settings(upstreams=[moved]))
    assert endpoint(proxy).has_room
    assert endpoint(proxy).breaker is not breaker


async def test_other_rules_are_another_breaker():
    proxy = Proxy(Settings(upstreams=[but(A, breaker_failures=1)]))
    before = endpoint(proxy).breaker
    await proxy.reload(Settings(upstreams=[but(A, breaker_failures=2)]))
    assert endpoint(proxy).breaker is not before


async def test_a_wider_limit_lets_those_in_that_wait(autojump_clock):
    mine = scripted("a", *[answers(*WHOLE[:2], 10.0, *WHOLE[2:])] * 3)
    table = but(A, max_inflight=1)
    proxy = Proxy(Settings(upstreams=[table]), upstreams=[mine])
    async with proxy.running(), trio.open_nursery() as all_of_them:
        for _ in range(3):
            all_of_them.start_soon(ask, proxy)
        await trio.sleep(1)
        assert len(mine.calls) == 1
        await proxy.reload(Settings(upstreams=[but(A, max_inflight=2)]))
        await trio.sleep(1)
        assert len(mine.calls) == 2
        await proxy.reload(Settings(upstreams=[A]))
        await trio.sleep(1)
        assert len(mine.calls) == 3


async def test_a_limit_that_was_lifted_and_set_again_still_knows_who_is_in(autojump_clock):
    table = but(A, max_inflight=1)
    proxy = Proxy(Settings(upstreams=[table]))
    endpoint(proxy).gate.try_enter()
    await proxy.reload(Settings(upstreams=[A]))
    assert endpoint(proxy).has_room
    await proxy.reload(Settings(upstreams=[table]))
    assert not endpoint(proxy).has_room


async def test_settings_that_are_refused_change_nothing(autojump_clock):
    proxy = Proxy(Settings(upstreams=[but(A, max_inflight=1)]))
    settings, before = proxy.settings, endpoint(proxy)
    wrong = Settings(upstreams=[but(A, max_inflight=5), B], routes=[Route(upstreams=["nowhere"])])
    with pytest.raises(SettingsError, match="nowhere: no such upstream"):
        await proxy.reload(wrong)
    gone = but(B, ca_file="/gone.pem")
    with pytest.raises(OSError, match="No such file"):
        await proxy.reload(Settings(upstreams=[but(A, max_inflight=5), gone]))
    assert (proxy.settings, endpoint(proxy)) == (settings, before)
    before.gate.try_enter()
    assert not before.has_room


async def test_an_embedders_own_upstreams_stay(autojump_clock):
    mine = scripted("mine", answers(*WHOLE), answers(*WHOLE))
    proxy = Proxy(Settings(upstreams=[A]), upstreams=[mine])
    async with proxy.running():
        await proxy.reload(Settings(routes=[Route(upstreams=["mine"])]))
        client = await ask(proxy)
    assert client.response_headers[b"x-proxy-upstream"] == b"mine"


async def test_other_keys_open_the_door(autojump_clock):
    mine = scripted("mine", answers(*WHOLE), answers(*WHOLE))
    proxy = Proxy(Settings(client_keys=["old"]), upstream=mine, check_door=True)

    async def status(key):
        headers = [(b"authorization", b"Bearer " + key), (b"host", b"127.0.0.1")]
        return (await ask(proxy, headers=headers)).status

    async with proxy.running():
        assert [await status(b"old"), await status(b"new")] == [200, 401]
        await proxy.reload(Settings(client_keys=["new"]))
        assert [await status(b"old"), await status(b"new")] == [401, 200]


async def test_settings_that_need_a_new_start_are_named_and_stay():
    proxy = Proxy(Settings(), upstream=scripted("mine"))
    late = await proxy.reload(
        Settings(bind="127.0.0.1:1", drain_timeout=1, records=5, heartbeat=9, admin_key="sk")
    )
    assert late == ("bind", "drain_timeout", "admin_key", "records")
    assert proxy.settings.bind == "127.0.0.1:8787"
    assert proxy.settings.heartbeat == 9
    assert await proxy.reload(Settings(heartbeat=8)) == ()


async def test_health_checks_follow_the_settings(nursery, monkeypatch, autojump_clock):
    network = Network(nursery, monkeypatch, a=GOOD, b=GOOD)
    checked = but(A, health_path="/health", health_interval=1.0)
    proxy = Proxy(Settings(upstreams=[A]))
    async with proxy.running():
        await trio.sleep(5)
        assert network.got == []
        await proxy.reload(Settings(upstreams=[checked]))
        await trio.sleep(2.5)
        assert len(network.got) == 3
        await proxy.reload(Settings(upstreams=[checked], heartbeat=9))
        await trio.sleep(1)
        assert len(network.got) == 4  # it goes on in its own time
        await proxy.reload(Settings(upstreams=[A]))
        await trio.sleep(5)
        assert len(network.got) == 4


def refusing(error):
    def read_again():
        raise error

    return read_again


async def test_a_wrong_file_is_told_in_the_log_and_the_old_settings_stay():
    proxy = Proxy(Settings(), upstream=scripted("mine"))
    before = proxy.settings
    with structlog.testing.capture_logs() as logged:
        await wiring.reread(proxy, refusing(SettingsError("heartbeat", " = 0: too little", "f")))
        await wiring.reread(proxy, refusing(OSError("disk gone")))
    assert [(line["log_level"], line["problem"]) for line in logged] == [
        ("error", "heartbeat = 0: too little (from f)"),
        ("error", "disk gone"),
    ]
    assert proxy.settings is before


async def test_settings_read_again_are_told_in_the_log_with_those_that_come_too_late():
    proxy = Proxy(Settings(), upstream=scripted("mine"))
    with structlog.testing.capture_logs() as logged:
        await wiring.reread(proxy, lambda: Settings(records=5))
        await wiring.reread(proxy, Settings)
    assert [line["event"] for line in logged] == [
        "some settings change only with a new start",
        "settings read again",
        "settings read again",
    ]
    assert logged[0]["settings"] == ("records",)


async def test_keys_cannot_be_taken_from_an_address_that_everybody_reaches():
    """Though the file names another address by now: the old one is still listened on."""
    proxy = Proxy(Settings(bind="0.0.0.0:1", client_keys=["sk"]), upstream=scripted("mine"))
    with structlog.testing.capture_logs() as logged:
        await wiring.reread(proxy, lambda: Settings(bind="127.0.0.1:1"))
    assert "client_keys are required" in logged[0]["problem"]
    assert len(proxy.settings.client_keys) == 1


async def hangups_of(count):
    for _ in range(count):
        yield signal.SIGTERM
        await trio.lowlevel.checkpoint()


async def heeded(hangups):
    reloads = []

    async def reload():
        await trio.lowlevel.checkpoint()
        reloads.append(1)

    await listening.heed_hangups(hangups, reload)
    return len(reloads)


async def test_each_hangup_is_a_reload(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda _: False)
    assert await heeded(hangups_of(2)) == 2
    monkeypatch.setattr(os, "isatty", lambda _: True)
    assert await heeded(hangups_of(2)) == 2


async def test_a_terminal_that_is_closed_ends_the_server_instead(monkeypatch):
    raised = []
    there = iter([True, False])
    monkeypatch.setattr(os, "isatty", lambda _: next(there))
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    assert await heeded(hangups_of(1)) == 0
    assert raised == [signal.SIGTERM]


async def test_where_there_are_no_hangups_nobody_waits_for_them():
    assert await heeded(None) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
async def test_hangups_are_received_from_the_opening_on():
    with listening.open_hangups() as hangups:
        signal.raise_signal(signal.SIGHUP)
        with trio.fail_after(PATIENCE):
            assert await anext(hangups) == signal.SIGHUP


def waited_for(found, words):
    """Until `found()` holds `words`; the rest of it."""
    deadline = time.monotonic() + PATIENCE
    while words not in (said := found()):
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
    return said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_served_proxy_reads_its_file_again_on_sighup(tmp_path):
    file = tmp_path / "proxy.toml"

    def write(key, *more):
        file.write_text("\n".join([f"client_keys = ['{key}']", *more]))

    def status(key):
        request = urllib.request.Request(
            f"{proxy.url}/v1/chat/completions",
            data=json.dumps({"model": "demo", "messages": []}).encode(),
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    write("first")
    closed = "http://127.0.0.1:9"
    with ServedProxy(closed, "--config", str(file), "--max-retries=0") as proxy:
        assert status("first") == 502
        write("second", "records = 5")
        os.kill(proxy.pid, signal.SIGHUP)
        said = waited_for(proxy.stderr, "settings read again")
        assert re.search(r'new start.*"records"|"records".*new start', said)
        assert (status("first"), status("second")) == (401, 502)
        write("third", "heartbeet = 5")
        os.kill(proxy.pid, signal.SIGHUP)
        waited_for(proxy.stderr, "the nearest is heartbeat")
        assert (status("third"), status("second")) == (401, 502)
