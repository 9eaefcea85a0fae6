from __future__ import annotations

import random
from contextlib import contextmanager

import pytest
import trio._core._run as trio_run
from virtual_time import keep_virtual_time

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


def pytest_collection_modifyitems(items):
    keep_virtual_time(items, __file__)
