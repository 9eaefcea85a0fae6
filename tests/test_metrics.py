"""What the metrics say of attempts and upstreams: each counted once, by names from the settings."""

from __future__ import annotations

import re

import pytest
import trio
from relay.frames import DONE, FINISH, HELLO, ROLE, WHOLE, usage, wish
from relay.scripted_client import Client
from relay.scripted_upstream import HANG, JSON, ScriptedUpstream, answers, fails
from test_embedding import call

from trio_sse_proxy import Proxy, Settings
from trio_sse_proxy.core.breaker import Breaker, BreakerRules
from trio_sse_proxy.core.call import Abort, Reason
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.errors import Broken, Unreachable
from trio_sse_proxy.core.record import Attempt, Record
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.gate import Gate
from trio_sse_proxy.health import Check, Health
from trio_sse_proxy.observers.metrics import Metrics
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport

CHAT = "/v1/chat/completions"
NEAR = (b"host", b"localhost")


class Named(ScriptedUpstream):
    def __init__(self, name, *attempts) -> None:
        super().__init__(*attempts)
        self.name = name


def proxy_over(*upstreams, route=(), tables=None, **settings):
    names = [upstream.name for upstream in upstreams]
    tables = tables or [{"name": name, "base_url": f"http://{name}.example"} for name in names]
    routes = [{"upstreams": names, **dict(route)}]
    return Proxy(
        Settings(upstreams=tables, routes=routes, **settings), upstreams=upstreams, check_door=True
    )


async def exposed(proxy):
    """What `GET /-/metrics` says of upstreams."""
    client = Client(b"", headers=(NEAR,))
    await call(proxy, "/-/metrics", client, method="GET", server=("127.0.0.1", 80))
    return samples(client.body.decode())


async def counters(proxy):
    return {name: value for name, value in (await exposed(proxy)).items() if "_total" in name}


def ask(**how):
    return Client(wish(), headers=(NEAR,), **how)


def samples(text):
    pattern = r"^trio_sse_proxy_upstream_(\w+?\{.*\}) (\S+)$"
    found = re.findall(pattern, text, re.MULTILINE)
    return {
        name: float(value) for name, value in found if not re.match(r"\w+_(bucket|created)", name)
    }


def counted(*attempts, **more):
    metrics = Metrics()
    record = Record(id="1", method="POST", path="/", began=0.0, attempts=list(attempts), **more)
    record.ending = record.ending or Ending.COMPLETED
    metrics.ended(record)
    return samples(metrics.exposition()[0].decode())


DONE_WELL = {"over": True, "accepted": True}


@pytest.mark.parametrize(
    ("attempt", "labels"),
    [
        (DONE_WELL, 'cause="",outcome="completed"'),
        (
            {"over": True, "problem": "upstream_error: rate_limited"},
            'cause="rate_limited",outcome="failed"',
        ),
        ({"problem": "unreachable: unreachable"}, 'cause="unreachable",outcome="failed"'),
        ({"problem": "unreachable: overloaded"}, 'cause="overloaded",outcome="failed"'),
        ({"problem": "truncated: unreachable"}, 'cause="truncated",outcome="failed"'),
        (
            {"problem": "idle_timeout: timeout", "reason": Reason.TIMEOUT},
            'cause="idle_timeout",outcome="failed"',
        ),
        ({"reason": Reason.TIMEOUT}, 'cause="timeout",outcome="failed"'),
        ({"reason": Reason.BROKEN}, 'cause="broken",outcome="failed"'),
        ({"reason": Reason.HEDGE_LOST}, 'cause="",outcome="lost"'),
        ({"reason": Reason.HEDGE_LOST, "over": True}, 'cause="",outcome="lost"'),
        ({"reason": Reason.CLIENT_LEFT}, 'cause="",outcome="left"'),
        ({"reason": Reason.OPERATOR}, 'cause="",outcome="left"'),
        ({"reason": Reason.SHUTDOWN}, 'cause="",outcome="left"'),
        ({}, 'cause="",outcome="left"'),
    ],
)
def test_each_attempt_is_counted_once_by_what_became_of_it(attempt, labels):
    found = counted(Attempt(upstream="u", started=0.0, **attempt))
    assert found == {f'attempts_total{{{labels},upstream="u"}}': 1.0}


@pytest.mark.parametrize("result", list(Abort))
def test_abort_messages_are_counted_by_what_came_of_them(result):
    found = counted(Attempt(upstream="u", started=0.0, reason=Reason.CLIENT_LEFT, abort=result))
    assert found[f'aborts_total{{result="{result.value}",upstream="u"}}'] == 1.0


def test_another_attempt_at_the_same_upstream_is_no_fallback():
    again = Attempt(upstream="u", started=1.0, **DONE_WELL)
    found = counted(Attempt(upstream="u", started=0.0, problem="truncated: unreachable"), again)
    assert not any(name.startswith("fallbacks") for name in found)


async def test_an_attempt_in_anothers_place_is_a_fallback_to_it(autojump_clock):
    proxy = proxy_over(Named("a", fails(Unreachable("no"))), Named("b", answers(*WHOLE)))
    async with proxy.running():
        await call(proxy, CHAT, ask())
        found = await counters(proxy)
    assert found == {
        'attempts_total{cause="unreachable",outcome="failed",upstream="a"}': 1.0,
        'attempts_total{cause="",outcome="completed",upstream="b"}': 1.0,
        'fallbacks_total{upstream="b"}': 1.0,
    }


async def test_a_hedge_that_wins_and_the_one_that_lost_are_told_apart(autojump_clock):
    proxy = proxy_over(
        Named("a", answers(ROLE, HANG)),
        Named("b", answers(*WHOLE)),
        route={"hedge_after": 2.0, "hedge_share": 1.0},
    )
    async with proxy.running():
        await call(proxy, CHAT, ask())
        found = await counters(proxy)
    assert found == {
        'attempts_total{cause="",outcome="lost",upstream="a"}': 1.0,
        'attempts_total{cause="",outcome="completed",upstream="b"}': 1.0,
        'hedges_total{upstream="b",won="yes"}': 1.0,
    }


async def test_a_hedge_that_loses_is_counted_so(autojump_clock):
    proxy = proxy_over(
        Named("a", answers(ROLE, 3.0, HELLO, FINISH, DONE)),
        Named("b", answers(ROLE, HANG)),
        route={"hedge_after": 2.0, "hedge_share": 1.0},
    )
    async with proxy.running():
        await call(proxy, CHAT, ask())
        found = await counters(proxy)
    assert found == {
        'attempts_total{cause="",outcome="completed",upstream="a"}': 1.0,
        'attempts_total{cause="",outcome="lost",upstream="b"}': 1.0,
        'hedges_total{upstream="b",won="no"}': 1.0,
    }


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ((ROLE, HELLO, Broken("reset", responded=True)), "truncated"),
        ((ROLE, HELLO), "truncated"),
        ((ROLE, HELLO, b'data: {"error":{"code":429,"message":"slow down"}}\n\n'), "rate_limited"),
        ((ROLE, HELLO, HANG), "idle_timeout"),
    ],
)
async def test_a_failure_in_the_clients_sight_is_one_of_its_attempt(body, cause, autojump_clock):
    proxy = proxy_over(Named("a", answers(*body)))
    async with proxy.running():
        await call(proxy, CHAT, ask())
        found = await counters(proxy)
    assert found == {f'attempts_total{{cause="{cause}",outcome="failed",upstream="a"}}': 1.0}


async def test_a_break_where_only_the_terminator_was_due_is_no_failure(autojump_clock):
    body = (ROLE, HELLO, FINISH, Broken("reset", responded=True))
    proxy = proxy_over(Named("a", answers(*body)))
    async with proxy.running():
        await call(proxy, CHAT, ask())
        found = await counters(proxy)
    assert found == {'attempts_total{cause="",outcome="completed",upstream="a"}': 1.0}


async def test_the_time_in_the_queue_is_that_of_those_who_waited_also_in_vain(autojump_clock):
    stream = answers(ROLE, HELLO, 5.0, FINISH, DONE)
    proxy = proxy_over(
        Named("a", stream, answers(*WHOLE)),
        tables=[{"name": "a", "base_url": "http://a.example", "max_inflight": 1}],
    )
    clients = [ask(), ask(), ask(leaves_at=3.0)]
    async with proxy.running(), trio.open_nursery() as nursery:
        nursery.start_soon(call, proxy, CHAT, clients[0])
        await trio.sleep(1.0)
        for client in clients[1:]:
            nursery.start_soon(call, proxy, CHAT, client)
        await trio.sleep(1.0)
        found = await exposed(proxy)
        assert found['running{upstream="a"}'] == 1.0
        assert found['queued{upstream="a"}'] == 2.0
        await trio.sleep(10.0)
        found = await exposed(proxy)
    assert found['queue_seconds_count{upstream="a"}'] == 2.0
    assert found['queue_seconds_sum{upstream="a"}'] == 4.0 + 2.0
    assert (found['running{upstream="a"}'], found['queued{upstream="a"}']) == (0.0, 0.0)


@pytest.mark.parametrize(("waited", "state"), [(None, 0.0), (12.0, 1.0), (5.0, 2.0)])
async def test_the_gauges_are_as_the_upstreams_are_at_that_moment(waited, state, autojump_clock):
    upstream = HttpUpstream(
        name="u", base_url="http://u", transport=TrioTransport(), connect_timeout=1.0
    )
    breaker = Breaker(BreakerRules(failures=1, cooldown=10.0))
    if waited is not None:
        breaker.enter(trio.current_time()).failed(trio.current_time())
        await trio.sleep(waited)
    health = Health(upstream, "/", breaker, interval=1.0, timeout=1.0)
    endpoint = Endpoint(upstream=upstream, breaker=breaker, gate=Gate(1), health=health)
    metrics = Metrics(lambda: [endpoint])
    expected = {
        'running{upstream="u"}': 0.0,
        'queued{upstream="u"}': 0.0,
        'breaker_state{upstream="u"}': state,
        'connections{state="busy",upstream="u"}': 0.0,
        'connections{state="idle",upstream="u"}': 0.0,
    }
    assert samples(metrics.exposition()[0].decode()) == expected
    for ok in (True, False):
        health.last = Check(at=0.0, problem=None if ok else "no")
        found = samples(metrics.exposition()[0].decode())
        assert found == {**expected, 'healthy{upstream="u"}': float(ok)}


def test_of_an_upstream_with_nothing_around_it_only_the_attempts_are_gauged():
    metrics = Metrics(lambda: [Endpoint(upstream=Named("u"))])
    found = samples(metrics.exposition()[0].decode())
    assert found == {'running{upstream="u"}': 0.0, 'queued{upstream="u"}': 0.0}


async def test_tokens_of_discarded_attempts_count_beside_those_of_a_whole_answer(autojump_clock):
    cut = answers(
        ROLE, usage(prompt_tokens=3, completion_tokens=0), Broken("reset", responded=True)
    )
    body = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}'
    proxy = proxy_over(Named("a", cut), Named("b", answers(body, headers=JSON)))
    async with proxy.running():
        await call(proxy, CHAT, ask())
        client = Client(b"", headers=(NEAR,))
        await call(proxy, "/-/metrics", client, method="GET", server=("127.0.0.1", 80))
    assert b'tokens_total{dialect="chat",kind="input"} 12.0\n' in client.body
    assert b'tokens_total{dialect="chat",kind="output"} 4.0\n' in client.body


async def test_the_tasks_of_the_program_are_counted():
    def counted():
        line = re.search(r"^trio_sse_proxy_tasks (\S+)$", metrics.exposition()[0].decode(), re.M)
        return float(line[1])

    metrics = Metrics()
    before = counted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        assert counted() == before + 1 == trio.lowlevel.current_statistics().tasks_living
        nursery.cancel_scope.cancel()
