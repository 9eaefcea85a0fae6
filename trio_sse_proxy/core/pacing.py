"""When something is due on a stream: heartbeats, the commit, and every deadline.

One `Pacer` per request. The relay stamps what happens (`wrote`, `heard`, …); the one task that owns the
clock asks `next_due` how long it may sleep and `poll` what to do. Nothing has to wake that task when a
deadline is armed: it cannot come sooner than its whole length from now, so sleeping no longer than
the shortest length there is misses none. That keeps the hot path at a few plain stores a chunk.

Several attempts may run at one time; each has a `Watch` of its own. Once one of them was accepted it is
the only one.

While a write to the client is under way the upstream is not read, so its silence proves nothing: only
the write itself is on the clock then. When it has ended the others count again, from where they
stood; so whoever wrote, unless it stamped them all anew, sets that task's alarm by `next_due`.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .limits import Limits

BODY_RATE = 1024.0  # bytes a second; no line that carries a conversation is slower for long


class Keepalive(Enum):
    """How a client that waits may be kept company."""

    NONE = "none"  # not at all: the answer passes through as it is
    FRAMES = "frames"  # an event stream: the dialect's heartbeats
    SPACE = "space"  # a JSON answer: white space before it (RFC 8259, section 2)


class Due(Enum):
    """What has to be done now, the most pressing first."""

    WRITE_STALLED = "write_stalled"
    TOTAL_TIMEOUT = "total_timeout"
    BODY_TIMEOUT = "body_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    PROGRESS_TIMEOUT = "progress_timeout"
    FINISH_TIMEOUT = "finish_timeout"
    COMMIT = "commit"
    FLUSH_PRELUDE = "flush_prelude"
    HEDGE = "hedge"
    EVENT_HEARTBEAT = "event_heartbeat"
    HEARTBEAT = "heartbeat"


DEADLINES = frozenset(
    {
        Due.WRITE_STALLED,
        Due.TOTAL_TIMEOUT,
        Due.BODY_TIMEOUT,
        Due.FIRST_TOKEN_TIMEOUT,
        Due.IDLE_TIMEOUT,
        Due.PROGRESS_TIMEOUT,
        Due.FINISH_TIMEOUT,
    }
)
"""What somebody was too late for, and what ends an attempt or the request."""


class Watch:
    """The instants of one attempt; inf for what has not happened."""

    __slots__ = ("asked_at", "heard_at", "held_at", "output", "progress_at")

    def __init__(self) -> None:
        self.asked_at = inf  # the request was forwarded; inf while it waits for its turn
        self.heard_at = inf  # the upstream sent bytes
        self.progress_at = inf  # the upstream sent a frame that is no comment and no ping
        self.held_at = inf  # the first frame was held back
        self.output = False  # output was forwarded, in a stream's case

    def hold(self, now: float) -> None:
        """A frame is held back; the first one starts the clock."""
        self.held_at = min(self.held_at, now)

    @property
    def holding(self) -> bool:
        """True while frames are held back."""
        return self.held_at < inf

    def flushed(self) -> None:
        """Nothing is held back any more."""
        self.held_at = inf


class Pacer:
    """The instants of one request, all readings of one clock, and what follows from them."""

    __slots__ = (
        "_began",
        "_limits",
        "_shortest",
        "body_by",
        "committed",
        "event_at",
        "events",
        "finish_by",
        "finished",
        "hedge_at",
        "inside",
        "keepalive",
        "watches",
        "writing_since",
        "wrote_at",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._began = now  # the request was read
        self.body_by = inf  # more of the request's body is to have come by then
        self.event_at = now  # the client got its last real event
        self.wrote_at = now  # the client got its last byte
        self.writing_since = inf  # a write to the client began and has not ended
        self.watches: tuple[Watch, ...] = ()  # of the attempts under way
        self.hedge_at = inf  # another attempt is to join those that have shown nothing
        self.finish_by = inf  # the client has left; until then the upstream is read on
        self.keepalive = Keepalive.NONE
        self.events = False  # this client's timers count events
        self.committed = False  # the response's headers went out
        self.inside = False  # the client stands inside a frame: nothing of ours may go in
        self.finished = False  # the last frame went out, or soon will
        shortest = inf
        for length in (
            limits.heartbeat,
            limits.commit_after,
            limits.event_heartbeat,
            limits.prelude_hold,
            limits.first_token_timeout,
            limits.idle_timeout,
            limits.progress_timeout,
            limits.write_stall_timeout,
            limits.body_timeout,
        ):
            if 0 < length < shortest:
                shortest = length
        self._shortest = shortest

    @property
    def request_read(self) -> float:
        """When the request was read, as far as it is known by now."""
        return self._began

    @property
    def output(self) -> bool:
        """True once the accepted attempt has forwarded output."""
        return any(watch.output for watch in self.watches)

    def began(self, now: float) -> None:
        """The request was read to its end: the clocks of the client start here."""
        self._began = self.event_at = self.wrote_at = now

    def await_body(self, now: float) -> None:
        """The client is to send its request's body: from now on it is on the clock."""
        self.body_by = now + self._limits.body_timeout if self._limits.body_timeout else inf

    def body_came(self, size: int, now: float) -> None:
        """So many bytes of it came. They buy time, but none to be saved up (a leaky bucket)."""
        if self.body_by < inf:
            self.body_by = min(now + self._limits.body_timeout, self.body_by + size / BODY_RATE)

    def next_due(self, now: float) -> float:
        """The instant to ask `poll` again at the latest: never in the past, inf if there is none."""
        return max(now, min([now + self._shortest, *[due for due, _ in self._armed()]]))

    def poll(self, now: float) -> Due | None:
        """The most pressing thing that is due at `now`, or None."""
        for due, what in self._armed():
            if due <= now:
                return what
        return None

    def _armed(self) -> list[tuple[float, Due]]:
        """Every armed deadline as (instant, what), the most pressing first."""
        limits = self._limits
        armed: list[tuple[float, Due]] = []

        def arm(since: float, length: float, what: Due) -> None:
            if length > 0 and since < inf:
                armed.append((since + length, what))

        arm(self.writing_since, limits.write_stall_timeout, Due.WRITE_STALLED)
        arm(self._began, limits.total_timeout, Due.TOTAL_TIMEOUT)
        if self.finish_by < inf:
            armed.append((self.finish_by, Due.FINISH_TIMEOUT))
        if self.writing_since < inf or self.finished:
            return armed
        if self.body_by < inf:
            armed.append((self.body_by, Due.BODY_TIMEOUT))
        for watch in self.watches:
            if not watch.output:
                arm(watch.asked_at, limits.first_token_timeout, Due.FIRST_TOKEN_TIMEOUT)
            else:
                arm(watch.heard_at, limits.idle_timeout, Due.IDLE_TIMEOUT)
                arm(watch.progress_at, limits.progress_timeout, Due.PROGRESS_TIMEOUT)
        kept = self.keepalive is not Keepalive.NONE and limits.heartbeat > 0
        if kept and not self.committed:
            armed.append((self._began + limits.commit_after, Due.COMMIT))
        if self.finish_by == inf and (self.committed or limits.heartbeat > 0):
            for watch in self.watches:
                arm(watch.held_at, limits.prelude_hold, Due.FLUSH_PRELUDE)
        if self.hedge_at < inf:
            armed.append((self.hedge_at, Due.HEDGE))
        if self.committed and not self.inside:
            if self.events:
                arm(self.event_at, limits.event_heartbeat, Due.EVENT_HEARTBEAT)
            if kept:
                arm(self.wrote_at, limits.heartbeat, Due.HEARTBEAT)
        return armed
