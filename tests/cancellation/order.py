"""A fixed order of tasks, so that a run can be repeated to the step."""

from __future__ import annotations

import random
from contextlib import contextmanager

import trio._core._run as trio_run

import trio_sse_proxy.app as app


@contextmanager
def fixed_order(seed: str):
    """Within, tasks of one tick run in an order that follows from `seed`, whatever woke them.

    Without the second switch it would also hang on addresses in memory, by which sets are ordered.
    """
    before = (trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING, app.random)
    trio_run._r = random.Random(f"order {seed}")
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    app.random = random.Random(f"ids {seed}")
    try:
        yield
    finally:
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING, app.random = before
