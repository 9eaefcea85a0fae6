"""One attempt at answering a request: the call of one upstream, and what of its answer is held back.

Several may run at one time, each in its own line of the relay; the client sees at most one of them.
Everything here is plain and immediate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .core import headers as fields
from .core.endings import Ending
from .core.pacing import Watch
from .core.sse import FrameScanner
from .dialects import CHAT, is_upstreams_fault

if TYPE_CHECKING:
    from .core.breaker import Pass
    from .core.call import Call, Reason
    from .core.failure import Failure
    from .core.record import Attempt as Entry
    from .dialects.base import Dialect
    from .endpoint import Endpoint
    from .gate import Slot
    from .ports import Answer


class Attempt:
    """`entry` is its part of the record, `index` its upstream's place among those of the request."""

    __slots__ = (
        "_held",
        "_held_size",
        "_permit",
        "answer",
        "asked_at",
        "call",
        "endpoint",
        "entry",
        "hopeless",
        "in_frames",
        "index",
        "passes",
        "scanner",
        "scope",
        "slot",
        "stream",
        "watch",
    )

    def __init__(
        self,
        *,
        index: int,
        endpoint: Endpoint,
        call: Call,
        entry: Entry,
        asked_at: float,
        dialect: Dialect | None,
        max_frame_bytes: int,
    ) -> None:
        self.index = index
        self.endpoint = endpoint
        self.call = call
        self.entry = entry
        self.asked_at = asked_at  # when the request was forwarded, by trio's clock
        self.scope = trio.CancelScope()
        self.watch = Watch()
        self.stream = call.told = (dialect or CHAT).open_stream()
        self.scanner = FrameScanner(max_frame_bytes)
        self.slot: Slot | None = None  # its place among those that its upstream serves at one time
        self.answer: Answer | None = None
        self.in_frames = False  # the answer is an event stream
        self.passes = False  # the answer is none, and final: the commit lets it pass as it is
        self.hopeless = False  # no more will come of it: it was let go of, or another follows
        self._permit: Pass | None = None
        self._held: list[bytes] = []
        self._held_size = 0

    def permit(self, permit: Pass) -> None:
        """The upstream's breaker lets it through, and wants to hear how it went."""
        self._permit = permit

    def take(self, answer: Answer, *, in_dialect: bool) -> None:
        """The headers have come."""
        self.answer = answer
        good = 200 <= answer.status < 300
        self.in_frames = in_dialect and good and fields.is_event_stream(answer.headers)

    def abandon(self, reason: Reason) -> None:
        """Let go of the upstream now, though the reader may be stuck in a write; harmless to repeat."""
        self.hopeless = True
        if not self.call.over and self.call.reason is None:
            self.call.reason = reason
        self.release()

    def release(self) -> None:
        """Close the connection; harmless to repeat.

        Others get its place only when it is closed: until then the upstream may still have to be told,
        and the next request would stand beside work that is yet to end, or be ended with it.
        """
        if self.answer is not None:
            self.answer.release()

    def give_up(self, reason: Reason) -> None:
        """End it from outside its task; another one may follow."""
        self.failed()
        self.abandon(reason)
        self.scope.cancel(reason.value)

    def lose(self, reason: Reason) -> None:
        """End it from outside its task, for good."""
        self.entry.reason = reason  # also of one that had just come to its end, unseen
        self.abandon(reason)
        self.scope.cancel(reason.value)

    def dismiss(self) -> None:
        """It came to nothing, and another follows or goes on; only its upstream may have to be told."""
        self.hopeless = True
        self.release()

    def close(self, now: float) -> None:
        """It is over, for better or worse; `now` is in seconds since the request was read."""
        self.release()
        self.answer = None
        if self.slot is not None:
            self.slot.leave()
        self.entry.ended = now
        self.entry.over = self.call.over
        self.entry.abort = self.call.abort
        if not self.call.over:
            self.entry.reason = self.call.reason
        if self.in_frames:
            self.entry.usage = self.stream.usage
        self.withdrawn()

    # What the breaker hears, exactly once.

    def succeeded(self) -> None:
        """The upstream answers."""
        if self._permit is not None:
            self._permit.succeeded(trio.current_time())
            self._permit = None

    def failed(self) -> None:
        """The upstream does not, by its own fault."""
        if self._permit is not None:
            self._permit.failed(trio.current_time())
            self._permit = None

    def judge(self, failure: Failure) -> None:
        """It ended with the upstream's own error."""
        self.entry.problem = f"{Ending.UPSTREAM_ERROR.value}: {failure.cause.value}"
        if is_upstreams_fault(failure.cause):
            self.failed()

    def withdrawn(self) -> None:
        """What happened says nothing of the upstream."""
        if self._permit is not None:
            self._permit.withdrawn(trio.current_time())
            self._permit = None

    # What is held back.

    def hold(self, data: bytes, limit: int) -> bool:
        """Keep frames back; False, and they are not kept, if that would be over `limit` bytes."""
        if self._held_size + len(data) > limit:
            return False
        self._held.append(data)
        self._held_size += len(data)
        return True

    @property
    def is_busy(self) -> bool:
        """True while events that have their numbers are yet to be looked at."""
        return self.call.numbering is not None and self.call.numbering.busy

    def skip_number(self, seen: int) -> None:
        """An event of ours took the next number. Of what is held, `seen` bytes went out already."""
        if self.call.numbering is not None:
            held = self.held
            self._held = [held[:seen], self.call.numbering.skip(1, held[seen:])]

    def hold_piece(self, piece: bytes, limit: int) -> bool:
        """Keep a piece of an answer that is no stream; False once that is over `limit` bytes."""
        self._held.append(piece)
        self._held_size += len(piece)
        return self._held_size <= limit

    @property
    def held(self) -> bytes:
        """What is held back."""
        return b"".join(self._held)

    def take_held(self, data: bytes) -> bytes:
        """What was held back, and `data` behind it; nothing is held any more."""
        if self._held:
            data = b"".join((*self._held, data))
            self._held, self._held_size = [], 0
        self.watch.flushed()
        return data
