"""A clock that stands still while anything can run, and then jumps to what is due next."""

from __future__ import annotations

from math import inf

import trio._core._run as trio_run
from trio.testing import MockClock

SPINNING = 300_000
"""So often the clock is read at one instant only by somebody who never waits."""


def virtual_clock(look, spun) -> MockClock:
    """trio's own mock clock for autojumps alone; `look` is called before each of them.

    Everything waits at that moment: what is true then stays so until the next instant. If it never comes
    to that, `spun` is called, and time goes on by an hour all the same.
    """
    clock = MockClock(autojump_threshold=0)
    now, reads = 0.0, 0

    def current_time() -> float:
        nonlocal now, reads
        reads += 1
        if reads > SPINNING:
            reads, now = 0, now + 3600.0
            spun()
        return now

    def autojump() -> None:
        nonlocal now, reads
        reads = 0
        look()
        due = trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if now < due < inf:
            now = due

    # It must not be subclassed, and trio's loop takes no other kind.
    clock.current_time = current_time
    clock.deadline_to_sleep_time = lambda due: 0 if due <= now else 999_999_999
    clock._autojump = autojump
    return clock
