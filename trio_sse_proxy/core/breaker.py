"""Whether an upstream is worth asking just now: a circuit breaker.

```
            enough failures                 cooldown over
  CLOSED ───────────────────▶ OPEN ─────────────────────────▶ HALF_OPEN
    ▲                          ▲                                 │ │
    │                          └─ the probe failed: twice as long ┘ │
    └───────────────── the probe succeeded ────────────────────────┘
```

Whoever wants to call takes a `Pass`, and tells it once how the call went. What says nothing of the
upstream (the client left, its request was wrong, a hedge lost) is `withdrawn`.

Calls overlap, and a stream may run for minutes; so a call may end in another *era* than it began in. An
era ends whenever the breaker opens, opens again, or closes. What a call of an earlier era has
to say is not listened to:

- a late success does not close it: that call was let in before the trouble, and most streams that have
  begun go on well while new ones are refused;
- a late failure does not prolong the cooldown: one outage breaks all the calls under way at once, and
  that is one opening, not fifty; nor does it count against an upstream that has recovered since.

So only the one probe, let in after the cooldown, decides. An active health check may stand in for it.

What a check may do depends on who opened it. Opened by calls, it does not close at a good check before
the cooldown is over: servers often answer their health page and nothing else. Opened by a check, it
closes at the next good one, and the cooldown says nothing: nobody but the checks had a complaint. A bad
check always keeps it open until the next one will have spoken, without doubling: no client need be
the one to find out. With rules that are all off, only checks open and close it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

BUCKETS = 10
PROBE_TAKES = (
    1.0  # seconds; how long the running probe will take nobody knows, and clients want a number
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and for how long. Durations in seconds; `window` is more than 0."""

    failures: int = 5
    """So many failures in a row open it; 0 switches that off."""
    rate: float = 0.5
    """This share of failures among the calls of the window opens it; 0 switches that off."""
    window: float = 30.0
    least: int = 20
    """With fewer calls in the window than that, their share says nothing."""
    cooldown: float = 10.0
    """From an opening to the first probe; doubled by each probe that fails."""
    longest_cooldown: float = 120.0
    """As far as doubling goes. Never shortens `cooldown` itself."""


class State(Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"  # lets them in
    OPEN = "open"  # lets none in
    HALF_OPEN = "half_open"  # lets one in, the probe


class Window:
    """How many of the latest calls failed, in ten buckets of a tenth of the window each.

    Nothing older than the window is counted, everything younger than nine tenths of it is.
    """

    __slots__ = ("_calls", "_failures", "_newest", "_width")

    def __init__(self, length: float) -> None:
        self._width = length / BUCKETS
        self._newest = 0
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS

    def add(self, now: float, *, failed: bool) -> None:
        """Count one call that has ended."""
        self._turn(now)
        self._calls[self._newest % BUCKETS] += 1
        self._failures[self._newest % BUCKETS] += failed

    def share(self, now: float, least: int = 1) -> float:
        """The share of failures, 0 to 1; 0 if there were fewer than `least` calls."""
        self._turn(now)
        calls = sum(self._calls)
        return sum(self._failures) / calls if calls >= max(1, least) else 0.0

    def _turn(self, now: float) -> None:
        newest = int(now // self._width)
        if newest - self._newest >= BUCKETS:
            self.clear()
        else:
            for bucket in range(self._newest + 1, newest + 1):
                self._calls[bucket % BUCKETS] = self._failures[bucket % BUCKETS] = 0
        self._newest = max(self._newest, newest)


class Pass:
    """The right to one call. It is told once how that went; telling it twice raises RuntimeError."""

    __slots__ = ("_breaker", "era", "told")

    def __init__(self, breaker: Breaker, era: int) -> None:
        self._breaker = breaker
        self.era = era
        self.told = False

    def succeeded(self, now: float) -> None:
        """The upstream did its work."""
        self._tell()
        self._breaker.call_succeeded(self, now)

    def failed(self, now: float) -> None:
        """It did not, and that was its own fault, or the network's."""
        self._tell()
        self._breaker.call_failed(self, now)

    def withdrawn(self, now: float) -> None:
        """The call ended in a way that says nothing of the upstream."""
        self._tell()
        self._breaker.call_withdrawn(self)

    def _tell(self) -> None:
        if self.told:
            raise RuntimeError("this pass has been told already how its call went")
        self.told = True


class Breaker:
    """The breaker of one upstream. Every `now` is a reading of one monotonic clock, in seconds."""

    __slots__ = (
        "_by_check",
        "_cooldown",
        "_era",
        "_probe",
        "_rules",
        "_until",
        "_window",
        "failures",
        "opens",
    )

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._cooldown = rules.cooldown
        self._era = 0
        self._probe: Pass | None = None
        self._until: float | None = None  # the end of the cooldown; None while it is closed
        self._by_check = False  # it was a health check that opened it
        self._window = Window(rules.window)
        self.failures = 0
        """Failures in a row."""
        self.opens = 0
        """How often it has opened, again or for the first time."""

    def state(self, now: float) -> State:
        """What it does with calls at `now`."""
        if self._until is None:
            return State.CLOSED
        return State.OPEN if now < self._until else State.HALF_OPEN

    def admits(self, now: float) -> bool:
        """True if `enter` would let somebody in. Changes nothing."""
        match self.state(now):
            case State.CLOSED:
                return True
            case State.OPEN:
                return False
            case State.HALF_OPEN:
                return self._probe is None

    def enter(self, now: float) -> Pass | None:
        """Take the right to one call; None if there is none to be had."""
        if not self.admits(now):
            return None
        permit = Pass(self, self._era)
        if self._until is not None:
            self._probe = permit
        return permit

    def retry_after(self, now: float) -> float:
        """Seconds until it may let somebody in; 0 exactly if it does now."""
        if self.admits(now):
            return 0.0
        if self._until is not None and now < self._until:
            return self._until - now
        return PROBE_TAKES

    def probe_succeeded(self, now: float) -> None:
        """An active health check found the upstream well: as good as a probe that succeeded.

        It does not end a cooldown that calls began, nor a row of failures: real calls know better.
        """
        if self._by_check or self.state(now) is State.HALF_OPEN:
            self._close()

    def probe_failed(self, now: float, next_in: float = 0.0) -> None:
        """An active health check found it ill: opens it, or keeps it open.

        Not before `next_in` seconds are over will a call be let in: by then the next check is done.
        """
        by_check = self._by_check or self._until is None
        if self.state(now) is not State.OPEN:
            self._open(now)
        self._by_check = by_check
        self._until = now + max(self._cooldown, next_in)

    def as_json(self, now: float) -> dict[str, str | int | float | None]:
        """Its state for people to read. `probe_in`: seconds until a probe may go; None if closed."""
        until = self._until
        return {
            "state": self.state(now).value,
            "failures": self.failures,
            "share": self._window.share(now),
            "opens": self.opens,
            "probe_in": None if until is None else max(0.0, until - now),
        }

    # What passes tell.

    def call_succeeded(self, permit: Pass, now: float) -> None:
        """Closes it if that was the probe."""
        if permit.era != self._era:
            return
        if permit is self._probe:
            self._close()
        else:
            self.failures = 0
            self._window.add(now, failed=False)

    def call_failed(self, permit: Pass, now: float) -> None:
        """Opens it if that was the probe, or one failure too many."""
        if permit.era != self._era:
            return
        self.failures += 1
        self._window.add(now, failed=True)
        if permit is self._probe or self._is_too_much(now):
            self._open(now)

    def call_withdrawn(self, permit: Pass) -> None:
        """If that was the probe, the next call is the probe."""
        if permit is self._probe:
            self._probe = None

    def _is_too_much(self, now: float) -> bool:
        rules = self._rules
        if rules.failures and self.failures >= rules.failures:
            return True
        return bool(rules.rate) and self._window.share(now, rules.least) >= rules.rate

    def _open(self, now: float) -> None:
        if self._until is not None:
            longest = max(self._rules.cooldown, self._rules.longest_cooldown)
            self._cooldown = min(longest, self._cooldown * 2)
        self._until = now + self._cooldown
        self._by_check = False
        self.opens += 1
        self._begin_era()

    def _close(self) -> None:
        self._until = None
        self._by_check = False
        self._cooldown = self._rules.cooldown
        self.failures = 0
        self._window.clear()  # else one more failure would open it again by what is long over
        self._begin_era()

    def _begin_era(self) -> None:
        self._era += 1
        self._probe = None
