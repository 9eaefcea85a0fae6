"""A client that stops reading holds little, harms nobody, and is given up in time."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from patience import NEVER, PATIENCE
from scripted.sdk import Case
from scripted.talk import PATHS

from .proxy import ServedProxy
from .wire import WireClient

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
STUCK = 20
PACED = ("paced", "paced-slowly", "comments", "normal")
HELD = 5 * MIB // 4  # bytes each may hold: an unfinished frame, one read, and some Python


@pytest.fixture
def stuck(upstream):
    """Clients that ask for more than their sockets hold and never read; one model name each."""
    with ExitStack() as clients:

        def stuck(proxy, count):
            models = [upstream.model("flood") for _ in range(count)]
            for model in models:
                client = clients.enter_context(WireClient(proxy.port, receive_buffer=4096))
                client.ask(model)
            return models

        yield stuck


def test_memory_stays_bounded_and_upstreams_are_released_at_the_stall_timeout(upstream, stuck):
    with ServedProxy(upstream.url, "--heartbeat", "1", "--write-stall-timeout", "1") as proxy:
        with WireClient(proxy.port) as client:  # whatever is allocated once is
            client.ask(upstream.model("normal")).reply()
        before, began = proxy.resident(), time.monotonic()
        models = stuck(proxy, STUCK)
        visits = [upstream.wait_for_visit(model) for model in models]
        most = 0
        while not all(visit.ending for visit in visits) and time.monotonic() < began + PATIENCE:
            most = max(most, proxy.resident())
            time.sleep(0.05)
        assert most - before < STUCK * HELD
        assert {visit.ending for visit in visits} == {"left"}


def test_others_are_served_while_clients_are_stuck(upstream, proxy, sdks, stuck):
    stuck(proxy, STUCK)
    cases = [Case(name, dialect, True) for dialect in PATHS for name in PACED]
    for heard in sdks.ask_all(upstream, cases).values():
        assert heard.whole
        assert heard.seconds < PATIENCE


def test_stuck_clients_do_not_hold_the_exit(upstream, stuck):
    flags = ("--write-stall-timeout", str(NEVER), "--drain-timeout", "1")
    with ServedProxy(upstream.url, *flags) as proxy:
        for model in stuck(proxy, STUCK):
            upstream.wait_for_visit(model)
        time.sleep(0.5)
        proxy.terminate()
        assert proxy.wait() == 0
