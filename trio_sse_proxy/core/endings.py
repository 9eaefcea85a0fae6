"""How a request can end, and which of several reasons is the one that counts.

Two things can happen on one tick (the client leaves as the upstream breaks), and trio runs the tasks
that see them in any order. So tasks only note facts; when all are quiet `settle` draws the one verdict
by the order in which `Ending` is written. A request whose last frame went out is complete, whoever
left after it; a client that left explains every failure that followed from letting go; our own
deadlines and orders explain the broken connection they cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .failure import Failure


class Side(Enum):
    """Who brought a request to its end."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"
    PROXY = "proxy"
    OPERATOR = "operator"


class Ending(Enum):
    """The verdicts, in order of precedence."""

    COMPLETED = "completed"
    REFUSED = "refused"  # by us, before anything was forwarded
    WRITE_STALLED = "write_stalled"
    CLIENT_LEFT = "client_left"
    BODY_TIMEOUT = "body_timeout"  # the client did not send its request to the end
    CANCELLED = "cancelled"  # by an operator
    SHUTDOWN = "shutdown"
    TOTAL_TIMEOUT = "total_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    PROGRESS_TIMEOUT = "progress_timeout"
    UPSTREAM_ERROR = "upstream_error"  # the upstream's own error, as status or as frame
    TRUNCATED = "truncated"
    PROTOCOL = "protocol"  # the upstream's answer cannot be what was asked for
    UNREACHABLE = "unreachable"
    INTERNAL = "internal"  # nobody noted anything: a bug of ours

    @property
    def side(self) -> Side:
        """Who caused it."""
        match self:
            case Ending.COMPLETED | Ending.UPSTREAM_ERROR | Ending.TRUNCATED | Ending.PROTOCOL:
                return Side.UPSTREAM
            case Ending.UNREACHABLE | Ending.FIRST_TOKEN_TIMEOUT:
                return Side.UPSTREAM
            case Ending.IDLE_TIMEOUT | Ending.PROGRESS_TIMEOUT:
                return Side.UPSTREAM
            case Ending.CLIENT_LEFT | Ending.WRITE_STALLED | Ending.REFUSED:
                return Side.DOWNSTREAM
            case Ending.BODY_TIMEOUT:
                return Side.DOWNSTREAM
            case Ending.CANCELLED:
                return Side.OPERATOR
            case Ending.TOTAL_TIMEOUT | Ending.SHUTDOWN | Ending.INTERNAL:
                return Side.PROXY
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something a task saw. `failure` is what a client can be told of it, if it has to be told."""

    ending: Ending
    failure: Failure | None = None


_RANK = {ending: rank for rank, ending in enumerate(Ending)}
_UNEXPLAINED = Fact(ending=Ending.INTERNAL)


def settle(facts: Sequence[Fact]) -> Fact:
    """The fact that counts: the one whose ending stands first in `Ending`, the earliest of equals."""
    return min(facts, key=lambda fact: _RANK[fact.ending], default=_UNEXPLAINED)
