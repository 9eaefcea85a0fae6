"""What is written down of one request: facts and counts, never a prompt, an answer or a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .call import Reason

if TYPE_CHECKING:
    from .call import Abort
    from .endings import Ending
    from .usage import Usage


class Outcome(Enum):
    """What became of an attempt."""

    COMPLETED = "completed"
    FAILED = "failed"  # by itself, or it was too slow
    LOST = "lost"  # another attempt beside it was first
    LEFT = "left"  # nobody wanted it any more: the client, an operator or this proxy went away


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One call of an upstream. Durations are seconds since the request was read."""

    upstream: str
    started: float
    hedge: bool = False
    """It began beside another one that had shown nothing for long."""
    accepted: bool = False
    """Its answer is the one that the client got, whole or in part."""
    headers: float | None = None
    queued: float | None = None
    """How long it waited for its turn; None if it did not."""
    status: int | None = None
    first_output: float | None = None
    ended: float | None = None
    over: bool = False
    """The upstream came to its own end, in success or failure: there was nothing to abort."""
    problem: str | None = None
    """Why it did not complete, as a short word; None if it did, or was left."""
    reason: Reason | None = None
    """Why it was left."""
    abort: Abort | None = None
    """What came of telling the upstream so, where it wants to be told."""
    usage: Usage | None = None

    @property
    def outcome(self) -> Outcome:
        """What became of it, once it has ended."""
        if self.reason is Reason.HEDGE_LOST:
            return Outcome.LOST
        if self.problem is not None or self.reason in _TOO_BAD:
            return Outcome.FAILED
        return Outcome.COMPLETED if self.over and self.reason is None else Outcome.LEFT

    @property
    def cause(self) -> str | None:
        """Of a failed one, the word that tells most: what the upstream said, else what happened."""
        if self.outcome is not Outcome.FAILED:
            return None
        if self.problem is None:
            return self.reason.value if self.reason is not None else None
        ending, _, cause = self.problem.partition(": ")
        return cause if ending in _SAY_LITTLE and cause else ending


_TOO_BAD = frozenset((Reason.TIMEOUT, Reason.BROKEN))
_SAY_LITTLE = frozenset(("upstream_error", "unreachable"))  # as endings; their causes say more


@dataclass(slots=True, kw_only=True)
class Record:
    """One request, filled in while it runs and frozen by convention once `ending` is set.

    `time_to_headers` and `time_to_first_token` are counted from the forwarding of the attempt that was
    accepted; `duration` from the reading of the request. `usage` is the accepted attempt's.
    """

    id: str
    method: str
    path: str
    began: float  # seconds since the epoch
    dialect: str | None = None
    model: str | None = None
    streaming: bool = False
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    status: int | None = None
    ending: Ending | None = None
    detail: str | None = None
    time_to_headers: float | None = None
    time_to_first_token: float | None = None
    duration: float | None = None
    frames: int = 0
    bytes: int = 0
    heartbeats: int = 0
    event_heartbeats: int = 0
    usage: Usage | None = None
    aborted: bool = False
    finished: bool = False
    """The client had left, and the upstream was read to its end all the same."""

    def as_json(self) -> dict[str, object]:
        """The record as plain values, for a log line or a JSON answer."""
        return {
            "id": self.id,
            "method": self.method,
            "path": self.path,
            "began": round(self.began, 3),
            "dialect": self.dialect,
            "model": self.model,
            "streaming": self.streaming,
            "status": self.status,
            "ending": self.ending.value if self.ending else None,
            "side": self.ending.side.value if self.ending else None,
            "detail": self.detail,
            "time_to_headers": _rounded(self.time_to_headers),
            "time_to_first_token": _rounded(self.time_to_first_token),
            "duration": _rounded(self.duration),
            "frames": self.frames,
            "bytes": self.bytes,
            "heartbeats": self.heartbeats,
            "event_heartbeats": self.event_heartbeats,
            "usage": _usage(self.usage),
            "aborted": self.aborted,
            "finished": self.finished,
            "attempts": [_attempt(attempt) for attempt in self.attempts],
        }


def _attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "upstream": attempt.upstream,
        "started": _rounded(attempt.started),
        "hedge": attempt.hedge,
        "queued": _rounded(attempt.queued),
        "headers": _rounded(attempt.headers),
        "status": attempt.status,
        "first_output": _rounded(attempt.first_output),
        "ended": _rounded(attempt.ended),
        "accepted": attempt.accepted,
        "over": attempt.over,
        "problem": attempt.problem,
        "reason": attempt.reason.value if attempt.reason else None,
        "abort": attempt.abort.value if attempt.abort else None,
        "usage": _usage(attempt.usage),
    }


def _usage(usage: Usage | None) -> dict[str, int | None] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
