"""One call of an upstream, as both sides of it know it, and how the work behind it was ended.

A call that is let go of before the upstream came to its own end is *abandoned*: its connection is
closed, and an upstream that does not notice that gets one abort message, which says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from .errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable


class Reason(Enum):
    """Why a call was abandoned."""

    CLIENT_LEFT = "client_left"  # disconnect, reset, or a write that stalled
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"
    HEDGE_LOST = "hedge_lost"  # another attempt of the same request was first
    BROKEN = "broken"  # what came, or did not come, was of no use; its work may go on all the same


class Abort(Enum):
    """What came of the one abort message."""

    DONE = "done"  # acknowledged: nothing works on it any more
    UNKNOWN = "unknown"  # the upstream does not know that call (any more)
    UNNAMED = "unnamed"  # it had told no id to name the call by: closing the connection had to do
    FAILED = "failed"  # it could not be delivered, or was refused
    TIMED_OUT = "timed_out"  # no word within `abort_timeout`
    IGNORED = "ignored"  # a worker went on all the same, and was cancelled


class Told(Protocol):
    """What the frames of an answer have told so far."""

    @property
    def answer_id(self) -> str | None:
        """What the upstream calls the answer."""
        ...


class Numbering(Protocol):
    """Whoever numbers the events of an answer, so that they can make room for events of others."""

    @property
    def busy(self) -> bool:
        """True while events that have their numbers are on their way to the relay."""
        ...

    def skip(self, count: int, held: bytes) -> bytes:
        """Leave out the next `count` numbers; `held`, events that were given but that nobody has
        seen, with numbers that are higher by as many."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """The relay makes it, and says in it how it ended; the upstream adds what became of the abort.

    `id` is unique among all calls of this proxy: an upstream that takes ids from clients gets it.
    """

    id: str
    stream_id: str
    dialect: str | None = None
    model: str | None = None
    background: bool = False
    """The request asked for work that goes on without its connection."""
    began: float = 0.0
    """When the request was read, in seconds since 1970: the same in all its calls, as `stream_id` is."""
    opening: bytes = b""
    """Set by the upstream, if it knows the first frames of the answer before it asks; they are the same
    in all calls of the request."""
    skipped: int = 0
    """Set by the relay: how many events of its own the client has got so far, each with a number out of
    the answer's; only where `numbering` can leave them out."""
    numbering: Numbering | None = None
    """Set by the upstream, if it numbers the events of the answer."""
    told: Told | None = None
    """Set by the relay: what is known of the answer's frames."""
    room: Callable[[int], bool] | None = None
    """Set by the relay, for a body that came encoded: the upstream asks before it keeps so many bytes of
    it decoded; False if bodies take up as much as they may."""
    declined: bool = False
    """Set by the upstream, where its answer is its own: the request cannot be told in what it speaks,
    and nobody was asked. Another upstream may take it."""
    begun: bool = False
    """Set by the upstream once a byte of the request may have reached it: there may be work to end."""
    over: bool = False
    """Set by the relay once the upstream came to its own end: there is nothing to abort."""
    reason: Reason | None = None
    """Set by the relay before it lets go of a call that is not over, or by the upstream where the
    failure was its own. None, if the call is left all the same: somebody outside cancelled us."""
    abort: Abort | None = None
    """Set by the upstream: what came of the abort message; None if none was due."""

    @property
    def answer_id(self) -> str | None:
        """What the upstream's own frames call the answer, as far as they have told."""
        return self.told.answer_id if self.told is not None else None

    def make_room(self, size: int) -> None:
        """Account for so many bytes of a decoded body. Raises Overloaded if there is no room."""
        if self.room is not None and not self.room(size):
            raise Overloaded("too many request bodies are waiting; try again soon")

    def begin(self) -> None:
        """A byte of the request may be on its way from now on."""
        self.begun = True
