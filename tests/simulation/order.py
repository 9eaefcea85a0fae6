"""One seed for everything that trio, and the application, would leave to chance."""

from __future__ import annotations

import random
from contextlib import contextmanager

import trio._core._run as trio_run

import trio_sse_proxy.app as app


@contextmanager
def fixed_order(seed: str):
    """Within, tasks that can run on one tick do so in an order that follows from `seed`.

    Sorted first: cancel scopes and events keep tasks in sets, whose order hangs on addresses in memory.
    The ids of requests follow from the seed too.
    """
    before = (trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING, app.random)
    trio_run._r = random.Random(f"order {seed}")
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    app.random = random.Random(f"ids {seed}")
    try:
        yield
    finally:
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING, app.random = before
