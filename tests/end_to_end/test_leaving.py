"""When the client leaves, the upstream is let go at once, in whatever phase."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .leaving import BEATING, FLAGS, ROWS, measure
from .proxy import ServedProxy
from .wire import WireClient

pytestmark = pytest.mark.slow

AFTER = 0.3  # seconds into the request


def test_the_upstream_notices_in_every_phase(upstream):
    with (
        ServedProxy(upstream.url, *FLAGS) as quiet,
        ServedProxy(upstream.url, *BEATING) as beating,
        ThreadPoolExecutor(len(ROWS)) as pool,
    ):

        def failure(row):
            proxy = beating if row.phase == "after a heartbeat" else quiet
            try:
                measure(upstream, proxy, row, AFTER)
            except TimeoutError as error:
                return f"{row}: {error}"

        assert set(pool.map(failure, ROWS)) == {None}


def test_nobody_is_asked_again_for_a_client_that_left_in_the_retry_sleep(upstream, proxy):
    model = upstream.model("status-429-5s,normal")
    with WireClient(proxy.port) as client:
        client.ask(model)
        upstream.wait_for_visit(model)
    record = proxy.record_of("model", model)
    assert (record["ending"], len(record["attempts"])) == ("client_left", 1)
    assert len(upstream.visits(model)) == 1
