"""Whether to ask an upstream again, and when.

Only while the client has seen nothing of the attempt. The numbers multiply with the client's own
retries, so ours are few, spread out with full jitter, and under a budget over the whole process.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime

RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504, 529})
FIRST_BACKOFF = 0.5  # seconds
LONGEST_BACKOFF = 8.0
BUDGET_FLOOR = 100  # retries under way that are always allowed
HEDGES_SAVED = 10.0


def parse_retry_after(value: bytes, wall_clock: float) -> float | None:
    """Seconds to wait by a Retry-After field: a number, or an HTTP date against `wall_clock`.

    None if it is neither (RFC 9110, section 10.2.3). A date that has passed means 0.
    """
    text = value.decode("latin-1").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - wall_clock)
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds if 0 <= seconds < 1e9 else None  # also refuses nan and infinity


def backoff(retries: int, jitter: float) -> float:
    """Seconds before the next attempt after `retries` earlier ones; `jitter` is drawn from [0, 1)."""
    return jitter * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0**retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What one failed attempt says about asking again."""

    retryable: bool  # at the same upstream
    elsewhere: bool | None = None  # at another one; None: as `retryable`
    unasked: bool = False  # it was declined before the upstream was asked: no attempt is used up
    at_once: bool = False  # a pooled connection had gone stale: waiting would help nobody
    retry_after: float | None = None  # seconds, as the upstream wished

    @property
    def anywhere(self) -> bool:
        """True if some upstream might mend it: it is not of the caller's own making."""
        return self.retryable or bool(self.elsewhere)


class RetryBudget:
    """Over the whole process: retries under way are at most a share of the running requests."""

    def __init__(self, share: float) -> None:
        self._share = share
        self.running = 0
        self.retrying = 0

    def allows_another(self) -> bool:
        """True if one more request may go into a retry."""
        return self.retrying < max(BUDGET_FLOOR, self._share * self.running)


class HedgeBudget:
    """Hedged requests are at most a share of all, and no more than `HEDGES_SAVED` at a stretch.

    Each request adds its share of a hedge, each hedge takes a whole one (the token bucket that
    Finagle's backup requests are under).
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = 1.0 if share else 0.0

    def count(self) -> None:
        """One more request."""
        self._saved = min(HEDGES_SAVED, self._saved + self._share)

    def allows_another(self) -> bool:
        """True if one more hedge may run."""
        return self._saved >= 1.0 - 1e-9  # ten times a tenth are a little less than one

    def take(self) -> None:
        """It runs."""
        self._saved -= 1.0
