"""The clock of tests that a machine which stands still must not fail."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing
from steady_time import STEP, SteadyClock

pytestmark = [pytest.mark.slow, pytest.mark.steady]


async def test_tests_that_are_marked_run_on_it():
    assert isinstance(trio.lowlevel.current_clock(), SteadyClock)


async def test_what_came_while_the_process_stood_still_is_not_late():
    event = trio.Event()

    async def stand_still():
        time.sleep(0.6)  # noqa: ASYNC251  # which is the subject
        event.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_still)
        with trio.fail_after(10 * STEP):
            await event.wait()


async def test_it_runs_as_real_time_does_otherwise():
    began_really = time.perf_counter()
    began = trio.current_time()
    with trio.move_on_after(0.3) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert 0.3 <= trio.current_time() - began <= time.perf_counter() - began_really


async def test_that_nothing_happens_for_less_than_its_step_is_still_seen():
    await trio.testing.wait_all_tasks_blocked(STEP / 2)
