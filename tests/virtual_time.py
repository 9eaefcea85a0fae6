"""Tests that never wait: a clock that jumps whenever every task waits, for all of a folder."""

from __future__ import annotations

import os
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock


def at_virtual_time(main, *, clock, instruments):
    """Runs a test in the place of `trio.run`."""
    assert clock is None
    return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)


def keep_virtual_time(items, conftest: str) -> None:
    """For every asynchronous test beside that `conftest`, so that no test can forget it."""
    here = f"{Path(conftest).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(here) and iscoroutinefunction(item.function):
            item.add_marker(pytest.mark.trio(run=at_virtual_time), append=False)
