"""Active health checks: when they are made, what is good, and what breaker and log hear of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from patience import until
from relay.frames import WHOLE, wish
from relay.scripted_client import Client
from structlog.testing import capture_logs
from test_embedding import call
from trio.testing import wait_all_tasks_blocked
from upstreams.servers import Requests, answer, closed_port, serving

from trio_sse_proxy import Proxy, Settings
from trio_sse_proxy.core.breaker import Breaker, BreakerRules, State
from trio_sse_proxy.core.errors import Garbled, Unreachable
from trio_sse_proxy.health import Health, Rounds

OFF = BreakerRules(failures=0, rate=0.0)


class Page:
    """An upstream with nothing but a health page: statuses, errors, or seconds it takes for a 200.

    After the last of them it stays as it was.
    """

    name = "page"

    def __init__(self, *script) -> None:
        self.script = list(script)
        self.asked = []
        self.open_calls = 0

    @asynccontextmanager
    async def open(self, request, told):
        self.asked.append((trio.current_time(), request, told))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.open_calls += 1
        try:
            await trio.lowlevel.checkpoint()
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await trio.sleep(step)
                step = 200
            yield Answered(step)
        finally:
            self.open_calls -= 1

    @property
    def instants(self):
        return [at for at, _, _ in self.asked]


class Answered:
    def __init__(self, status) -> None:
        self.status = status


def health_of(page, breaker=None, *, interval=10.0, timeout=2.0):
    breaker = breaker or Breaker(OFF)
    return Health(page, "/health", breaker, interval=interval, timeout=timeout), breaker


async def watched(health, seconds):
    with trio.move_on_after(seconds):
        await health.watch()


async def test_the_first_check_is_made_at_once_and_the_next_an_interval_after_its_end(
    autojump_clock,
):
    page = Page(1.5)
    health, _ = health_of(page)
    await watched(health, 30.0)
    assert page.instants == [0.0, 11.5, 23.0]


async def test_a_check_is_a_get_of_its_path_and_leaves_no_work_to_be_ended(autojump_clock):
    page = Page(200)
    health, _ = health_of(page)
    await health.check()
    ((_, request, told),) = page.asked
    assert (request.method, request.target, request.body) == ("GET", b"/health", b"")
    assert told.over


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_a_2xx_is_good(status, autojump_clock):
    health, breaker = health_of(Page(status))
    await watched(health, 1.0)
    assert (health.last.ok, health.last.status, health.last.problem) == (True, status, None)
    assert breaker.state(1.0) is State.CLOSED


@pytest.mark.parametrize(
    ("step", "status", "problem"),
    [
        (199, 199, "it answers with status 199"),
        (302, 302, "it answers with status 302"),
        (503, 503, "it answers with status 503"),
        (Unreachable("connection refused"), None, "connection refused"),
        (Garbled(""), None, "Garbled"),
        (2.5, None, "no answer within 2 s"),
        (inf, None, "no answer within 2 s"),
    ],
)
async def test_anything_else_is_bad_and_opens_the_breaker(step, status, problem, autojump_clock):
    page = Page(step)
    health, breaker = health_of(page)
    await watched(health, 5.0)
    assert (health.last.ok, health.last.status, health.last.problem) == (False, status, problem)
    assert breaker.state(5.0) is State.OPEN
    assert page.open_calls == 0


async def test_while_it_is_ill_nobody_is_let_in_between_two_checks(autojump_clock):
    health, breaker = health_of(Page(inf), interval=40.0)
    admitted = []

    async def look():
        while True:
            await trio.sleep(0.5)
            if breaker.admits(trio.current_time()):
                admitted.append(trio.current_time())

    with trio.move_on_after(300.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(health.watch)
            await trio.sleep(2.0)
            nursery.start_soon(look)
    assert admitted == []


async def test_what_checks_have_opened_the_next_good_one_closes(autojump_clock):
    health, breaker = health_of(Page(503, 503, 200), interval=1.0)
    await watched(health, 1.5)
    assert breaker.state(1.5) is State.OPEN
    await watched(health, 0.5)
    assert breaker.state(2.0) is State.CLOSED


async def test_what_requests_have_opened_stays_open_until_the_cooldown_is_over(autojump_clock):
    breaker = Breaker(BreakerRules(failures=1, cooldown=10.0))
    health, _ = health_of(Page(200), breaker, interval=4.0)
    breaker.enter(0.0).failed(0.0)
    await watched(health, 9.0)
    assert breaker.state(9.0) is State.OPEN
    await watched(health, 4.0)  # checks at 9, still too early, and at 13
    assert breaker.state(11.0) is State.HALF_OPEN
    await watched(health, 0.5)
    assert breaker.state(13.5) is State.CLOSED


async def test_the_log_is_told_what_changes_and_nothing_else(autojump_clock):
    health, _ = health_of(Page(200, 200, 503, 503, Unreachable("no"), 200, 200), interval=1.0)
    with capture_logs() as logs:
        await watched(health, 20.5)
    assert [(entry["log_level"], entry["event"], entry["upstream"]) for entry in logs] == [
        ("warning", "upstream is ill", "page"),
        ("info", "upstream is well again", "page"),
    ]
    assert logs[0]["problem"] == "it answers with status 503"


async def test_that_it_is_ill_from_the_beginning_is_news(autojump_clock):
    health, _ = health_of(Page(503))
    with capture_logs() as logs:
        await watched(health, 1.0)
    assert [entry["event"] for entry in logs] == ["upstream is ill"]


async def test_a_check_tells_its_age(autojump_clock):
    health, _ = health_of(Page(1.5))
    await watched(health, 4.0)
    assert health.last.as_json(4.0) == {"ok": True, "status": 200, "problem": None, "age": 2.5}


async def test_after_a_reload_those_that_stay_go_on_and_the_others_are_changed(autojump_clock):
    pages = [Page(200), Page(200), Page(200)]
    first, second, third = (health_of(page, interval=4.0)[0] for page in pages)
    rounds = Rounds()
    rounds.follow([first, second])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.run)
        await trio.sleep(5.0)
        rounds.follow([second, third])
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()
    assert [page.instants for page in pages] == [[0.0, 4.0], [0.0, 4.0, 8.0], [5.0, 9.0]]


async def test_a_proxy_that_is_run_again_checks_again(autojump_clock):
    page = Page(200)
    rounds = Rounds()
    rounds.follow([health_of(page)[0]])
    for _ in range(2):
        with trio.move_on_after(5.0):
            await rounds.run()
    assert page.instants == [0.0, 5.0]


async def test_a_check_under_way_ends_with_the_proxy(autojump_clock):
    page = Page(inf)
    rounds = Rounds()
    rounds.follow([health_of(page)[0]])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.run)
        await wait_all_tasks_blocked()
        assert page.open_calls == 1
        nursery.cancel_scope.cancel()
    assert (page.open_calls, trio.current_time()) == (0, 0.0)


def server(health, requests):
    """A script for `serving`: `health` holds the answer to checks; all else is answered in full."""

    async def script(stream):
        reader = Requests(stream)
        while (request := await reader.whole()) is not None:
            requests.append(request[0])
            if request[0].startswith(b"GET /status/health "):
                await stream.send_all(health[0])
            else:
                kind = b"Content-Type: text/event-stream\r\n"
                await stream.send_all(answer(b"".join(WHOLE), fields=kind))

    return script


def table(name, port, **more):
    return {
        "name": name,
        "base_url": f"http://127.0.0.1:{port}/deep/v1",
        "health_path": "/status/health",
        "health_interval": 0.02,
        **more,
    }


def settings_for(*tables):
    return Settings(upstreams=tables, routes=[{"upstreams": [one["name"] for one in tables]}])


@pytest.mark.slow
@pytest.mark.steady
async def test_requests_go_elsewhere_while_a_server_is_ill_and_come_back_when_it_is_well():
    health, first, second = [answer(status=b"503 Service Unavailable")], [], []
    async with (
        serving(server(health, first)) as port,
        serving(server([answer()], second)) as other_port,
    ):
        more = {"api_key": "key", "add_headers": {"x-team": "us"}}
        proxy = Proxy(settings_for(table("a", port, **more), table("b", other_port)))
        async with proxy.running():
            one, _ = proxy.application.surroundings.router.endpoints.values()
            await until(lambda: one.health.last is not None)
            answered = await call(proxy, "/v1/chat/completions", Client(wish()))
            assert answered.response_headers[b"x-proxy-upstream"] == b"b"
            health[0] = answer()
            await until(lambda: one.health.last.ok)
            answered = await call(proxy, "/v1/chat/completions", Client(wish()))
            assert answered.response_headers[b"x-proxy-upstream"] == b"a"
        asked = len(first)
        await trio.sleep(0.1)
        assert len(first) == asked  # nobody asks any more
    assert first[0].startswith(b"GET /status/health HTTP/1.1\r\n")
    assert b"authorization: Bearer key" in first[0]
    assert b"x-team: us" in first[0]


@pytest.mark.slow
@pytest.mark.steady
async def test_a_server_that_is_not_there_is_found_ill_before_anybody_asks_it():
    proxy = Proxy(settings_for(table("a", closed_port())))
    async with proxy.running():
        (one,) = proxy.application.surroundings.router.endpoints.values()
        await until(lambda: one.health.last is not None)
        refused = await call(proxy, "/v1/chat/completions", Client(wish()))
    assert refused.status == 503
    assert b"retry-after" in refused.response_headers
    assert "refused" in one.health.last.problem
