"""Real time, less that in which nothing ran: for tests with everything they time in their own process.

A machine that has better things to do may let a process stand still for seconds, and then every
deadline of the test is over at once, before any of its tasks could do a thing. On this clock such a
gap counts as `STEP`, and all tasks are as late as each other, which is to say not at all.

Not for what another process or the kernel times: this clock runs behind theirs.
"""

from __future__ import annotations

import time
from inspect import iscoroutinefunction

import pytest
import trio

STEP = (
    0.05  # seconds; how long the event loop sleeps at the most, and what one turn of it counts for
)


class SteadyClock(trio.abc.Clock):
    """Real time in steps of at most `STEP`, one for each turn of the event loop."""

    def __init__(self):
        self._now = self._looked_at = time.perf_counter()

    def start_clock(self):
        pass

    def current_time(self):
        looked_at, self._looked_at = self._looked_at, time.perf_counter()
        self._now += min(STEP, self._looked_at - looked_at)
        return self._now

    def deadline_to_sleep_time(self, deadline):
        return min(STEP, deadline - self.current_time())


def at_steady_time(main, *, clock, instruments):
    """Runs a test in the place of `trio.run`."""
    return trio.run(main, clock=clock or SteadyClock(), instruments=instruments)


def keep_steady_time(items):
    """For every asynchronous test that is marked `steady`."""
    for item in items:
        if item.get_closest_marker("steady") and iscoroutinefunction(item.function):
            item.add_marker(pytest.mark.trio(run=at_steady_time), append=False)
