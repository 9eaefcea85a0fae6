"""The order of tries of one request over the upstreams of its route.

The first round goes down the order: what another upstream may mend goes to the next one at once, since
it has done nothing to be waited for. When every upstream that is to be had was tried, the next round
begins at the first of them that may be asked again, after a pause; from there it goes down the order
again. Over all rounds there is one number of attempts and one deadline. With a single upstream
every round is one attempt long.

Three things stay with an upstream for the rest of the request: that it is *spent* (it failed in a way
that asking it again does not mend, or wants a longer pause than we grant), until when it wants to be
left alone (Retry-After), and how many attempts of this request run at it now (hedges).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from .retry import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .limits import Limits
    from .retry import Again

ROUNDING = 1e-6  # seconds; what adding up instants may cost is no wish any more


@dataclass(frozen=True, slots=True)
class Step:
    """The next attempt: at which upstream, and in how many seconds."""

    index: int
    delay: float


class Course:
    """The decisions of one request. `order` holds the indexes of its upstreams, each once.

    `available` says whether an upstream lets a call in (breaker, drain); it is asked without effect.
    Between `first`, `next` or `other` naming an upstream and `next` or `drop` for it, an attempt
    counts as running there; no second one goes to the same upstream in that time, but a hedge that has
    nowhere else to go.
    """

    __slots__ = (
        "_granted",
        "_latest",
        "_limits",
        "_order",
        "_returns",
        "_running",
        "_spent",
        "_stale",
        "_tried",
        "_wishes",
    )

    def __init__(self, limits: Limits, began: float, order: tuple[int, ...]) -> None:
        self._limits = limits
        self._latest = began + limits.retry_deadline if limits.retry_deadline else inf
        self._order = order
        self._granted = 0  # attempts, hedges not counted: those have limits of their own
        self._returns = 0  # attempts at an upstream that had been asked before
        self._running: list[int] = []
        self._tried: set[int] = set()  # in this round
        self._spent: set[int] = set()
        self._stale: set[int] = set()  # a pooled connection to them was found closed
        self._wishes: dict[int, tuple[float, float]] = {}  # when it was said, seconds from then

    @property
    def retries(self) -> int:
        """Attempts granted beyond the first."""
        return max(0, self._granted - 1)

    def first(self, available: Callable[[int], bool]) -> int | None:
        """The upstream of the first attempt; None if none lets it in. No deadline holds this one."""
        for index in self._order:
            if available(index):
                return self._begin(Step(index, 0.0)).index
        return None

    def next(
        self,
        index: int,
        again: Again,
        *,
        now: float,
        jitter: float,
        available: Callable[[int], bool],
    ) -> Step | None:
        """What follows the failure of an attempt at `index`; None if nothing does.

        While another attempt of the request runs, None only means that there is nothing to add to it.
        """
        self.give_up(index, again, now=now)
        self._granted -= again.unasked
        elsewhere = again.retryable if again.elsewhere is None else again.elsewhere
        # A pooled connection had gone stale: neither a pause nor another upstream is called for. Twice
        # is no chance: the upstream hangs up on us, and would use up every attempt there is.
        stale = again.at_once and (index not in self._stale or len(self._order) == 1)
        if stale and self._wish(index, now) is None and self._is_open(index, available):
            self._stale.add(index)
            return self._return([Step(index, 0.0)], now)
        if elsewhere:
            return self._onward(now, jitter, available)
        return self._return(self._repeats((index,), now, jitter, available), now)

    def other(self, index: int, *, now: float, available: Callable[[int], bool]) -> int:
        """The upstream for a hedge of the attempt at `index`.

        The next one behind it in the order that is not in use and may be asked now, else the same.
        """
        place = self._order.index(index)
        for candidate in self._order[place + 1 :] + self._order[:place]:
            if self._is_open(candidate, available) and not self._wish(candidate, now):
                break
        else:
            candidate = index
        self._running.append(candidate)
        self._tried.add(candidate)
        return candidate

    def drop(self, index: int) -> None:
        """An attempt at `index` is over, or never began, and no other is wanted for it."""
        self._running.remove(index)

    def give_up(self, index: int, again: Again, *, now: float) -> None:
        """An attempt at `index` failed, and another that runs is enough for now."""
        self.drop(index)
        self._note(index, again, now)

    def _note(self, index: int, again: Again, now: float) -> None:
        """Remember what the upstream said of itself."""
        if not self._wish(index, now):  # else what it said beside another attempt still holds
            self._wishes.pop(index, None)
        if not again.retryable:
            self._spent.add(index)
        elif again.retry_after is not None:
            if again.retry_after > self._limits.retry_after_cap:
                self._spent.add(index)
            self._wishes[index] = (now, again.retry_after)

    def _onward(self, now: float, jitter: float, available: Callable[[int], bool]) -> Step | None:
        """The next one of this round, else the first one of the next round."""
        fresh = (
            Step(index, self._wish(index, now) or 0.0)
            for index in self._order
            if index not in self._tried and self._is_open(index, available)
        )
        step = self._grant(fresh, now)
        if step is None:
            step = self._return(self._repeats(self._order, now, jitter, available), now)
            if step is not None:
                self._tried = {step.index, *self._running}
        return step

    def _repeats(
        self, indexes: tuple[int, ...], now: float, jitter: float, available: Callable[[int], bool]
    ) -> Iterator[Step]:
        """The steps that ask one of `indexes` again: when it wished to be, else after a pause."""
        for index in indexes:
            if self._is_open(index, available):
                wish = self._wish(index, now)
                yield Step(index, backoff(self._returns, jitter) if wish is None else wish)

    def _grant(self, steps: Iterable[Step], now: float) -> Step | None:
        """The first that is not too late, counted; None if there is none, or no attempt is left."""
        if self._granted > self._limits.max_retries:
            return None
        for step in steps:
            if now + step.delay <= self._latest:
                return self._begin(step)
        return None

    def _return(self, steps: Iterable[Step], now: float) -> Step | None:
        """The same for upstreams that were asked before: each such attempt doubles the next pause."""
        step = self._grant(steps, now)
        self._returns += step is not None
        return step

    def _begin(self, step: Step) -> Step:
        self._granted += 1
        self._tried.add(step.index)
        self._running.append(step.index)
        return step

    def _is_open(self, index: int, available: Callable[[int], bool]) -> bool:
        return index not in self._spent and index not in self._running and available(index)

    def _wish(self, index: int, now: float) -> float | None:
        """Seconds that the upstream still wants to be left alone; None if it never said so."""
        if index not in self._wishes:
            return None
        said, seconds = self._wishes[index]
        left = seconds - (now - said)
        return left if left > ROUNDING else 0.0
