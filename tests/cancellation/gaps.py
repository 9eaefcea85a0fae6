"""Every instant at which a cancellation can come: the gaps between any two things that trio does.

A task is at a checkpoint whenever it does not run. So whatever cancels it does so before some step of
some task, or before a look at the kernel and the clock; and while tasks are in a fixed order, these gaps
can be counted, and each be met again. Before a look, all tasks stand at the checkpoint they have come
to; before a step, some have been woken already, and go past theirs before they hear of it.
"""

from __future__ import annotations

from math import inf

import trio


class Gaps(trio.abc.Instrument):
    """Counts gaps from `begin` to `end`, and does something in the `chosen` one (0: in none)."""

    def __init__(self, chosen: int) -> None:
        self.chosen = chosen
        self.count = 0
        self.acted_at = inf
        self._act = self._after = self._always = None

    def begin(self, *, act, after, always) -> None:
        """`act` is done in the gap, and `after` when no more can happen at the instant of that, as time
        goes on, or at `end`. `always` is done in every gap."""
        self._act, self._after, self._always = act, after, always

    def end(self) -> None:
        self._look_back()
        self._act = self._after = None

    def before_task_step(self, task) -> None:
        self._pass()

    def before_io_wait(self, timeout: float) -> None:
        self._pass()

    def _pass(self) -> None:
        if self._act is None:
            return
        self.count += 1
        self._always()
        if self.count == self.chosen:
            self.acted_at = trio.current_time()
            self._act()
        elif trio.current_time() > self.acted_at:
            self._look_back()

    def _look_back(self) -> None:
        after, self._after = self._after, None
        if after is not None and self.acted_at < inf:
            after()
