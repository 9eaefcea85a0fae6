"""What the tasks of one request share: the facts, the client's side, the attempt under way.

Everything here is plain and immediate, except what writes to the client. What runs at the same time,
and who may cancel whom, is in `relay`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from .codings import decode_whole
from .core import headers as fields
from .core.endings import Ending, Fact, settle
from .core.errors import Broken, Garbled, UpstreamError
from .core.failure import Cause, Failure, Refused
from .core.pacing import Keepalive
from .core.record import Attempt
from .core.retry import Again, RetryPolicy
from .core.sse import FrameScanner, count_frames
from .dialects import CHAT, peek
from .dialects.base import Seen, Sight
from .inbox import KeptBody, StreamedBody
from .refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from .core.headers import Headers
    from .core.limits import Limits
    from .core.pacing import Pacer
    from .core.record import Record
    from .core.retry import RetryBudget
    from .dialects.base import Dialect
    from .downstream import Downstream
    from .ports import Answer, Observer, Upstream, UpstreamRequest

GLANCE = 0.25  # seconds between looks for a client whose upload waits for its upstream
PEEK_LIMIT = 64 * 2**20  # bytes a compressed request may decode to, to be understood


class Outside(Protocol):
    """What is neither argument nor trio's clock; replaced in tests."""

    def wall_clock(self) -> float:
        """Seconds since the epoch."""
        ...

    def jitter(self) -> float:
        """A random number in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all requests of one proxy share."""

    limits: Limits
    upstream: Upstream
    budget: RetryBudget
    observer: Observer
    outside: Outside


class Exchange:
    """One request, from its first byte to its record.

    `build` makes the upstream's request once the body is there; `agent` is what the client calls
    itself (User-Agent and originator), in lower case; `coding` its body's Content-Encoding. `refused`
    says why nobody will be asked, if that was settled at the door.
    """

    __slots__ = (
        "_agent",
        "_answer",
        "_asked_at",
        "_attempt",
        "_began",
        "_budget",
        "_build",
        "_coding",
        "_held",
        "_held_size",
        "_keepalive",
        "_observer",
        "_passes",
        "_policy",
        "_request",
        "_retrying",
        "_upstream",
        "alarm",
        "background",
        "dialect",
        "downstream",
        "exposed",
        "facts",
        "in_frames",
        "inbox",
        "limits",
        "outside",
        "pacer",
        "record",
        "refused",
        "scanner",
        "scope",
        "stream",
        "told",
    )

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        record: Record,
        dialect: Dialect | None,
        agent: str,
        coding: str,
        pacer: Pacer,
        downstream: Downstream,
        inbox: KeptBody | StreamedBody,
        build: Callable[[bytes | StreamedBody], UpstreamRequest],
        refused: Failure | None = None,
    ) -> None:
        self.limits = surroundings.limits
        self.outside = surroundings.outside
        self.record = record
        self.dialect = dialect
        self.pacer = pacer
        self.downstream = downstream
        self.inbox = inbox
        self.refused = refused
        self.background = False
        self.facts: list[Fact] = []
        self.scope: trio.CancelScope | None = None  # of the request's nursery
        self.alarm: trio.CancelScope | None = None  # its deadline is when the next thing may be due
        self.stream = (dialect or CHAT).open_stream()
        self.scanner = FrameScanner(self.limits.max_frame_bytes)
        self.exposed = False  # the client has seen something of the attempt: it is the last one
        self.told = False  # the client has been told of a failure, by the upstream itself
        if isinstance(inbox, StreamedBody):
            inbox.on_block = self.set_alarm
        self._upstream = surroundings.upstream
        self._observer = surroundings.observer
        self._budget = surroundings.budget
        self._agent = agent
        self._coding = coding
        self._build: Callable[[bytes | StreamedBody], UpstreamRequest] | None = build
        self._request: UpstreamRequest | None = None
        self._answer: Answer | None = None
        self.in_frames = False  # the answer is an event stream
        self._passes = False  # the answer is none, and final: the commit lets it pass as it is
        self._keepalive = Keepalive.NONE  # what the request wishes for
        self._held: list[bytes] = []
        self._held_size = 0
        self._attempt: Attempt | None = None
        self._began = self._asked_at = trio.current_time()
        self._policy: RetryPolicy | None = None
        self._retrying = False

    @property
    def began(self) -> float:
        """When the request was read, by trio's clock."""
        return self._began

    @property
    def lacks_body(self) -> bool:
        """True while it can be neither forwarded nor refused, for want of its body."""
        return self.refused is None and isinstance(self.inbox, KeptBody) and not self.inbox.decided

    def prepare(self) -> None:
        """Make the upstream's request, and start the clocks. Raises Refused."""
        if self.refused is not None:
            raise Refused(self.refused)
        body: bytes | StreamedBody
        if isinstance(self.inbox, KeptBody):
            body = self.inbox.whole()
            self._understand(body)
        else:
            body = self.inbox
        build, self._build = self._build, None  # what it holds need not wait with us
        assert build is not None, "a request is prepared once"
        self._request = build(body)
        self._began = trio.current_time()
        self.pacer.began(self._began)

    def _understand(self, body: bytes) -> None:
        decoded = decode_whole(body, self._coding, PEEK_LIMIT)
        wish = peek(decoded or b"")
        self.record.model, self.record.streaming = wish.model, wish.stream
        self.background = wish.background
        if wish.stream:
            self._keepalive = Keepalive.FRAMES
            clients = self.limits.event_heartbeat_clients
            self.pacer.events = any(client in self._agent for client in clients)
        elif self.limits.json_heartbeat:
            self._keepalive = Keepalive.SPACE
        self.pacer.keepalive = self._keepalive

    # How it ends.

    def note(self, ending: Ending, failure: Failure | None = None) -> None:
        """Write down something that was seen."""
        self.facts.append(Fact(ending=ending, failure=failure))

    def end(self, ending: Ending, failure: Failure | None = None) -> None:
        """End the request from outside its reader: note why, let go of the upstream, cancel."""
        self.note(ending, failure)
        self.record.aborted = self._attempt is not None and self._attempt.ended is None
        self.let_go()
        if self.scope is not None:
            self.scope.cancel(ending.value)

    def next_look(self) -> float:
        """When to look at the clock again, at the latest."""
        now = trio.current_time()
        due_at = self.pacer.next_due(now)
        return min(due_at, now + GLANCE) if self.inbox.blocked else due_at

    def set_alarm(self) -> None:
        """Something may be due sooner or later than before: a write has ended that kept it waiting.

        The deadline is moved, and the task that owns it sleeps on: most of the time nothing is due yet.
        """
        if self.alarm is not None:
            self.alarm.deadline = self.next_look()

    def let_go(self) -> None:
        """Release the upstream at once, though its reader may be stuck in a write to the client."""
        if self._answer is not None:
            self._answer.release()

    @property
    def verdict(self) -> Fact:
        """The fact that counts, of those noted so far."""
        return settle(self.facts)

    # One attempt.

    def begin_attempt(self) -> None:
        """The request is about to be forwarded."""
        now = self._asked_at = trio.current_time()
        if self.dialect is not None:  # any other call is under `total_timeout` alone
            self.pacer.ask(now)
        self._attempt = Attempt(upstream=self._upstream.name, started=now - self._began)
        self.record.attempts.append(self._attempt)

    def open_upstream(self) -> AbstractAsyncContextManager[Answer]:
        """Forward the request."""
        assert self._request is not None, "the request is kept for as long as it may be forwarded"
        return self._upstream.open(self._request)

    def take(self, answer: Answer) -> None:
        """The headers have come."""
        self._answer = answer
        frames = 200 <= answer.status < 300 and fields.is_event_stream(answer.headers)
        self.in_frames = self.dialect is not None and frames
        now = trio.current_time()
        self.record.time_to_headers = now - self._asked_at
        if self._attempt is not None:
            self._attempt.headers = now - self._began
            self._attempt.status = answer.status

    def end_attempt(self) -> None:
        """The attempt is over, for better or worse."""
        self._answer = None
        if self._attempt is not None:
            self._attempt.ended = trio.current_time() - self._began
            if self.in_frames:
                self._attempt.usage = self.stream.usage
        if not self.exposed:
            self.pacer.pause()
            self._forget_attempt()

    def _forget_attempt(self) -> None:
        self._held, self._held_size = [], 0
        self.in_frames = self._passes = False
        self.pacer.keepalive = self._keepalive
        self.stream = (self.dialect or CHAT).open_stream()
        self.scanner = FrameScanner(self.limits.max_frame_bytes)

    def failed(self, error: UpstreamError) -> float | None:
        """The attempt broke. Seconds until the next one; None (and a fact) if there is none."""
        if self.facts:
            return None  # we broke it: the request is being ended
        if self.exposed:
            self._failed_in_sight(error)
            return None
        garbled = isinstance(error, Garbled)
        cause = Cause.PROTOCOL if garbled else Cause.UNREACHABLE
        failure = Failure(cause=cause, message=str(error))
        ending = Ending.TRUNCATED if error.responded else Ending.UNREACHABLE
        again = Again(
            retryable=not garbled and self._may_repeat(error),
            at_once=error.reused and not error.responded,
        )
        return self.ask_again(again, Ending.PROTOCOL if garbled else ending, failure)

    def _failed_in_sight(self, error: UpstreamError) -> None:
        if isinstance(error, Garbled):
            self.note(Ending.PROTOCOL, Failure(cause=Cause.PROTOCOL, message=str(error)))
        elif isinstance(error, Broken) and self.in_frames and self.stream.finished:
            self.note(Ending.COMPLETED)  # all was said but the terminator
        else:
            self.note(Ending.TRUNCATED, Failure(cause=Cause.TRUNCATED, message=str(error)))

    def _may_repeat(self, error: UpstreamError) -> bool:
        """True if sending the request again cannot do its work twice."""
        if isinstance(self.inbox, KeptBody):
            return not error.sent or not self.background
        untouched = self._request is not None and (
            self._request.body == b"" or not self.inbox.touched
        )
        return untouched and (not error.sent or self.record.method in {"GET", "HEAD"})

    def ask_again(self, again: Again, ending: Ending, failure: Failure) -> float | None:
        """Seconds until the next attempt; if there is none, `ending` is noted and None returned."""
        if self.facts:
            return None
        if self._attempt is not None:
            self._attempt.problem = f"{ending.value}: {failure.cause.value}"
        delay = None
        if self._retrying or self._budget.allows_another():
            if self._policy is None:
                self._policy = RetryPolicy(self.limits, self._began)
            delay = self._policy.next_delay(
                again, now=trio.current_time(), jitter=self.outside.jitter()
            )
        if delay is None:
            self.note(ending, failure)
            return None
        if not self._retrying:
            self._retrying = True
            self._budget.retrying += 1
        self._observer.retried(self.record, failure.cause)
        return delay

    def _stop_retrying(self) -> None:
        if self._retrying:
            self._retrying = False
            self._budget.retrying -= 1

    def _expose(self) -> None:
        """The client sees this attempt now: the kept body is of no more use."""
        if self.exposed:
            return
        self.exposed = self.stream.forwarded = True
        self.pacer.flushed()
        self._free_request()
        self._stop_retrying()

    def _free_request(self) -> None:
        self._request = None
        if isinstance(self.inbox, KeptBody):
            self.inbox.drop()

    def saw_output(self) -> None:
        """The first output of the accepted attempt was forwarded."""
        now = trio.current_time()
        self.pacer.output = True
        self.record.time_to_first_token = now - self._asked_at
        if self._attempt is not None:
            self._attempt.first_output = now - self._began

    # What the client gets.

    def hold(self, seen: Seen) -> bool:
        """Keep frames back until there is output; False if they would be too many."""
        if self._held_size + len(seen.data) > self.limits.max_frame_bytes:
            return False
        self._held.append(seen.data)
        self._held_size += len(seen.data)
        if seen.sight is not Sight.IDLE:
            self.pacer.hold(trio.current_time())
        return True

    @property
    def held(self) -> bytes:
        """What is held back."""
        return b"".join(self._held)

    def hold_piece(self, piece: bytes, limit: int) -> bool:
        """Keep a piece of an answer that is no stream; False once that is over `limit` bytes."""
        self._held.append(piece)
        self._held_size += len(piece)
        return self._held_size <= limit

    def let_pass_at_commit(self) -> None:
        """No other attempt will follow this answer, and its headers have come in time, or not.

        If its body is slower than the commit, it passes as it comes: status and headers are worth
        more to the client than heartbeats. White space before good JSON is the exception.
        """
        good = self._answer is not None and self._answer.status < 300
        self._passes = not (good and self._keepalive is Keepalive.SPACE)

    def takes_frames(self, answer: Answer) -> bool:
        """False, with a fact noted, if JSON was promised by the time an event stream came."""
        if self._keepalive is Keepalive.SPACE:
            if self.downstream.status is not None:
                self._note_unfit(answer, None)
                return False
            self.pacer.keepalive = Keepalive.NONE
        return True

    async def commit(self) -> None:
        """Send status and headers: the upstream's if they are there and fit. The caller has the word."""
        if self.downstream.status is not None:
            return
        status, headers = 200, fields.EARLY_EVENT_STREAM
        if self._answer is not None and self._passes:
            await self._begin_passing(self._answer)
            return
        if self.pacer.keepalive is Keepalive.SPACE:
            headers = fields.EARLY_JSON
        elif self._answer is not None and self.in_frames:
            status, headers = self._answer.status, fields.event_stream(self._answer.headers)
        await self._start(status, headers)

    async def show(self, data: bytes, *, last: bool = False) -> None:
        """Send what was held back and `data`: from here on there is no other attempt."""
        await self.downstream.take_turn()
        try:
            await self.commit()
            await self.flush(data, last=last)
        finally:
            self.downstream.yield_turn()
            if not last:
                self.set_alarm()

    async def flush(self, data: bytes = b"", *, last: bool = False) -> None:
        """The same where the caller has the word and the headers are out."""
        self._expose()
        data = b"".join((*self._held, data)) if self._held else data
        self._held, self._held_size = [], 0
        self.pacer.inside = self.scanner.inside
        self.record.bytes += len(data)
        if self.in_frames and data:
            self.record.frames += count_frames(data, unfinished=self.scanner.inside)
        if last or data:
            await self.downstream.send_body(data, last=last)

    async def finish(
        self, ending: Ending, failure: Failure | None = None, *, data: bytes = b""
    ) -> None:
        """Send the last bytes and the end of the body, and note what that means."""
        self.pacer.finished = True
        await self.show(data, last=True)
        if not self.downstream.aborted:
            self.note(ending, failure)
        self._stamp_duration()

    async def beat(self) -> None:
        """Send a byte heartbeat. The caller has the word."""
        if self.pacer.keepalive is Keepalive.SPACE:
            frame, kind = b"\n", "space"
        else:
            frame, kind = self.stream.byte_heartbeat(), "frame"
        self.record.heartbeats += 1
        await self._send_our_own(frame, kind)

    async def beat_event(self) -> None:
        """Send an event heartbeat, if there is a safe one. The caller has the word."""
        self.pacer.event_at = trio.current_time()
        frame = self.stream.event_heartbeat(self._agent)
        if frame is not None:
            self.record.event_heartbeats += 1
            await self._send_our_own(frame, "event")

    async def _send_our_own(self, frame: bytes, kind: str) -> None:
        if self.exposed:  # else the frames it cut are still to come
            self.scanner.wrote_our_own()
        self._observer.heartbeat(self.record, kind)
        await self.downstream.send_body(frame)

    async def _begin_passing(self, answer: Answer) -> None:
        # From here on the body is the upstream's alone: nothing of ours fits into it.
        self._keepalive = self.pacer.keepalive = Keepalive.NONE
        self.pacer.events = False
        await self._start(answer.status, fields.plain_answer(answer.headers))
        await self.flush()

    async def begin_whole(self, answer: Answer, failure: Failure | None) -> bool:
        """Send an answer that is no stream as far as it was read.

        False, with a fact noted, if that is no longer possible: an event stream was promised by then.
        """
        await self.downstream.take_turn()
        try:
            if failure is None and self.dialect is not None:
                self.saw_output()
                self.record.usage = self.dialect.answer_usage(self.held)
            if self.downstream.status is None:
                await self._begin_passing(answer)
            elif self.exposed or (self.pacer.keepalive is Keepalive.SPACE and _is_json(answer)):
                self._keepalive = self.pacer.keepalive = Keepalive.NONE
                await self.flush()
            else:
                self._note_unfit(answer, failure)
                return False
            return True
        finally:
            self.downstream.yield_turn()

    def _note_unfit(self, answer: Answer, failure: Failure | None) -> None:
        if failure is not None:
            self.note(Ending.UPSTREAM_ERROR, failure)
            return
        kind = fields.media_type(answer.headers).decode("latin-1") or "nothing in particular"
        message = f"the upstream answered with status {answer.status} and {kind}, not as asked"
        self.note(Ending.PROTOCOL, Failure(cause=Cause.PROTOCOL, message=message))

    async def begin_bytes(self, answer: Answer) -> None:
        """Send the headers of an answer that passes as it is."""
        await self.downstream.take_turn()
        try:
            self._expose()
            await self._start(answer.status, fields.plain_answer(answer.headers))
        finally:
            self.downstream.yield_turn()

    async def begin_refusal(self, failure: Failure) -> None:
        """Send an answer of our own, all but the end of its body."""
        status, headers, body = refusal(self.dialect, failure)
        await self.downstream.take_turn()
        try:
            await self._start(status, headers)
            await self.flush(body)
        finally:
            self.downstream.yield_turn()

    async def refuse_late(self, failure: Failure) -> None:
        """The same, whole, when nothing else runs any more."""
        status, headers, body = refusal(self.dialect, failure)
        await self.downstream.answer(status, self._with_id(headers), body)

    def last_words(self, failure: Failure) -> bytes | None:
        """What tells of `failure` in the middle of a response; None where nothing can."""
        if self.pacer.inside or self.dialect is None:
            return None
        if self.pacer.keepalive is Keepalive.SPACE:
            return None if self.exposed else self.dialect.error_body(failure)
        if self.pacer.keepalive is Keepalive.FRAMES or self.in_frames:
            return self.stream.error_frames(failure)
        return None  # an answer of known kind, begun and not to be finished

    def close(self, verdict: Fact) -> None:
        """Give back what the request still holds, and complete its record."""
        self._free_request()
        self._stop_retrying()
        record = self.record
        record.ending = verdict.ending
        record.aborted = record.aborted and verdict.ending is not Ending.COMPLETED
        record.detail = _detail(verdict)
        record.status = self.downstream.status
        if record.usage is None and self._attempt is not None:
            record.usage = self._attempt.usage  # also of a stream that was left before its end
        self._stamp_duration()
        self._observer.ended(record)

    def _stamp_duration(self) -> None:
        """The client's part is over; the first call counts."""
        if self.record.duration is None:
            self.record.duration = trio.current_time() - self._began

    async def _start(self, status: int, headers: Headers) -> None:
        await self.downstream.send_start(status, self._with_id(headers))

    def _with_id(self, headers: Headers) -> Headers:
        stream_id = (b"x-proxy-stream-id", self.record.id.encode())
        return (*fields.without(headers, b"x-proxy-stream-id"), stream_id)


def _detail(verdict: Fact) -> str | None:
    """Why, for the record: in our words only, since an upstream's may quote prompts and keys."""
    failure = verdict.failure
    if failure is None:
        return None
    if verdict.ending is Ending.UPSTREAM_ERROR:
        status = f", status {failure.status}" if failure.status is not None else ""
        return f"{failure.cause.value}{status}"
    return failure.message


def _is_json(answer: Answer) -> bool:
    kind = fields.media_type(answer.headers)
    return kind == b"application/json" or kind.endswith(b"+json")
