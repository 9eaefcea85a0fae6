from __future__ import annotations

import random
from contextlib import contextmanager
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
import trio
import trio._core._run as trio_run
from trio.testing import MockClock

SEEDS = range(10)


@contextmanager
def seeded_scheduler(seed):
    """Let trio order the tasks of one tick by `seed`: the one place that touches its own switch."""
    before = trio_run._r
    trio_run._r = random.Random(seed)
    try:
        yield
    finally:
        trio_run._r = before


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def scheduler_seed(request):
    """Run the test once per seed, so that what happens on one tick happens in both orders."""
    with seeded_scheduler(request.param):
        yield request.param


def at_virtual_time(main, *, clock, instruments):
    """Run a test on a clock that jumps whenever every task waits: no relay test waits for real."""
    assert clock is None
    return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items):
    """All of this folder, so that no test can forget it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and iscoroutinefunction(item.function):
            item.add_marker(pytest.mark.trio(run=at_virtual_time), append=False)
