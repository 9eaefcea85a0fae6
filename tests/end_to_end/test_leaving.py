"""When the client leaves, the upstream is let go at once, in whatever phase."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .leaving import BEATING, FLAGS, ROWS, measure
from .proxy import ServedProxy
from .wire import WireClient

pytestmark = pytest.mark.slow

AFTER = 0.3  # seconds into the request
BOUND = 0.5  # seconds; generous, for busy machines: `benchmarks/leaving.py` prints what it is


def test_the_upstream_notices_within_half_a_second_in_every_phase(upstream):
    with (
        ServedProxy(upstream.url, *FLAGS) as quiet,
        ServedProxy(upstream.url, *BEATING) as beating,
        ThreadPoolExecutor(len(ROWS)) as pool,
    ):

        def seconds(row):
            proxy = beating if row.phase == "after a heartbeat" else quiet
            try:
                return measure(upstream, proxy, row, AFTER)
            except TimeoutError as error:
                return str(error)

        noticed = dict(zip(map(str, ROWS), pool.map(seconds, ROWS), strict=True))
    late = {row: took for row, took in noticed.items() if isinstance(took, str) or took > BOUND}
    assert late == {}


def test_nobody_is_asked_again_for_a_client_that_left_in_the_retry_sleep(upstream, proxy):
    model = upstream.model("status-429-short,normal")
    with WireClient(proxy.port) as client:
        client.ask(model)
        upstream.wait_for_visit(model)
    with pytest.raises(TimeoutError):
        upstream.wait_for_visit(model, attempt=2, timeout=1.6)
