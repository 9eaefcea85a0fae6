"""What the tasks of one request share: the facts, the attempts, and which of them the client gets.

Everything here is plain and immediate, but for `take_place` and `win`, which may wait. What runs at the
same time, and who may cancel whom, is in `relay`; what the client gets is in `response`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from .attempt import Attempt
from .codings import decode_aside
from .core.call import Call, Reason
from .core.endings import Ending, Fact, Side, settle
from .core.errors import Overloaded
from .core.failure import Cause, Failure, Refused
from .core.pacing import Keepalive
from .core.record import Attempt as Entry
from .core.routing import OnDisconnect
from .dialects import CHAT, peek
from .dialects.base import Seen, Sight, look_through
from .inbox import KeptBody, StreamedBody

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from .core.course import Course
    from .core.errors import UpstreamError
    from .core.limits import Limits
    from .core.pacing import Pacer
    from .core.record import Record
    from .core.retry import RetryBudget
    from .core.routing import Query
    from .dialects.base import Dialect, DialectStream
    from .downstream import Downstream
    from .ports import Answer, Observer, UpstreamRequest
    from .router import Plan, Router

    Build = Callable[[bytes | StreamedBody, str | None], tuple[UpstreamRequest, Query]]

GLANCE = 0.25  # seconds between looks for a client whose upload waits for its upstream
PEEK_LIMIT = 64 * 2**20  # bytes a compressed request may decode to, to be understood
PEEK_RATIO = 200  # times its own size, and a MiB; conversations full of repetition come to 50


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
    router: Router
    budget: RetryBudget
    observer: Observer
    outside: Outside


class Exchange:
    """One request, from its first byte to its record.

    `build` makes, from the body and the model it names, the upstream's request and what routes are
    chosen by; `agent` is what the client calls itself (User-Agent and originator), in lower case;
    `client` stands for its key; `coding` is its body's Content-Encoding. `refused` says why nobody
    will be asked, if that was settled at the door.
    """

    __slots__ = (
        "_began",
        "_blank",
        "_budget",
        "_build",
        "_client",
        "_coding",
        "_plan",
        "_request",
        "_retrying",
        "_router",
        "_skipped",
        "accepted",
        "agent",
        "alarm",
        "attempts",
        "background",
        "course",
        "dialect",
        "downstream",
        "exposed",
        "facts",
        "inbox",
        "keepalive",
        "last_failure",
        "limits",
        "lines",
        "nursery",
        "observer",
        "opening",
        "outcome",
        "outside",
        "pacer",
        "record",
        "refused",
        "refusing",
        "told",
    )

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        record: Record,
        dialect: Dialect | None,
        agent: str,
        client: str,
        coding: str,
        pacer: Pacer,
        downstream: Downstream,
        inbox: KeptBody | StreamedBody,
        build: Build,
        refused: Failure | None = None,
    ) -> None:
        self.limits = surroundings.limits
        self.outside = surroundings.outside
        self.observer = surroundings.observer
        self.record = record
        self.dialect = dialect
        self.agent = agent
        self.pacer = pacer
        self.downstream = downstream
        self.inbox = inbox
        self.refused = refused
        self.background = False
        self.facts: list[Fact] = []
        self.nursery: trio.Nursery | None = None  # the request's own
        self.alarm: trio.CancelScope | None = None  # its deadline is when the next thing may be due
        self.attempts: list[Attempt] = []  # those under way
        self.accepted: Attempt | None = None  # the one the client gets; it is the last one
        self.course: Course | None = None  # the order of attempts, once one of them has failed
        self.last_failure: Fact | None = None  # what became of the last attempt that was asked
        self.lines = 1  # of attempts, one after another, that may still come to an answer
        self.exposed = False  # the client has seen something of the accepted attempt
        self.opening = b""  # the client has seen this, with which every attempt begins
        self.outcome: Fact | None = None  # what the end of the body means, once it is being sent
        self.refusing = False  # an answer of our own has begun: nothing fits into it but its body
        self.told = False  # the client has been told of a failure, all but the end
        self.keepalive = Keepalive.NONE  # what the request wishes for
        if isinstance(inbox, StreamedBody):
            inbox.on_block = self.set_alarm
        self._router = surroundings.router
        self._budget = surroundings.budget
        self._client = client
        self._coding = coding
        self._build: Build | None = build
        self._request: UpstreamRequest | None = None
        self._began = pacer.request_read
        self._plan: Plan | None = None
        self._blank: DialectStream | None = None
        self._retrying = False
        self._skipped = 0  # numbers that events of ours took out of the answer's

    @property
    def began(self) -> float:
        """When the request was read, by trio's clock."""
        return self._began

    @property
    def lacks_body(self) -> bool:
        """True while it can be neither forwarded nor refused, for want of its body."""
        return self.refused is None and isinstance(self.inbox, KeptBody) and not self.inbox.decided

    async def prepare(self) -> None:
        """Make the upstream's request, choose who may answer it, start the clocks. Raises Refused."""
        if self.refused is not None:
            raise Refused(self.refused)
        body: bytes | StreamedBody
        if isinstance(self.inbox, KeptBody):
            body = self.inbox.whole()
            await self._understand(self.inbox, body)
        else:
            body = self.inbox
        build, self._build = self._build, None  # what it holds need not wait with us
        assert build is not None, "a request is prepared once"
        self._request, query = build(body, self.record.model)
        self._plan = self._router.plan(self.record.method, query)
        self._began = trio.current_time()
        self.pacer.began(self._began)

    async def _understand(self, inbox: KeptBody, body: bytes) -> None:
        if self._coding:
            limit = min(PEEK_LIMIT, 2**20 + PEEK_RATIO * len(body))  # zstd's bombs come to 30,000
            body = await decode_aside(body, self._coding, limit) or b""
        wish = await inbox.look_into(body, peek)
        self.record.model, self.record.streaming = wish.model, wish.stream
        self.background = wish.background
        if wish.stream:
            self.keepalive = Keepalive.FRAMES
            clients = self.limits.event_heartbeat_clients
            self.pacer.events = any(client in self.agent for client in clients)
        elif self.limits.json_heartbeat:
            self.keepalive = Keepalive.SPACE
        self.pacer.keepalive = self.keepalive

    # How it ends.

    def note(self, ending: Ending, failure: Failure | None = None) -> None:
        """Write down something that was seen."""
        self.facts.append(Fact(ending=ending, failure=failure))

    def note_outcome(self) -> None:
        """Note what the end of the body means, which was sent; unless it may not have arrived."""
        if self.outcome is not None and not (self.downstream.aborted or self.downstream.discarding):
            self.facts.append(self.outcome)

    def end(self, ending: Ending, failure: Failure | None = None) -> None:
        """End the request from outside its reader: note why, let go of upstreams, cancel."""
        self.note(ending, failure)
        working = any(a.call.begun for a in self.attempts)  # else it only waits for its turn
        self.record.aborted = self.record.aborted or working
        for a in self.attempts:
            a.abandon(reason_for(ending))
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel(ending.value)

    def client_left(self, ending: Ending = Ending.CLIENT_LEFT) -> None:
        """Nobody reads any more: end it, or read on for the record's sake if that is wanted."""
        self.stamp_duration()
        rules = self._plan.rules if self._plan is not None else None
        if rules is not None and rules.on_disconnect is OnDisconnect.FINISH and self._can_finish:
            self.note(ending)
            for a in self.attempts:
                if not a.call.begun:
                    a.lose(reason_for(ending))  # nothing begins for somebody who has left
            self.downstream.abort()  # a write that is stuck, or nothing would be read on
            self.downstream.discard()
            self.pacer.keepalive, self.pacer.events = Keepalive.NONE, False
            self.pacer.writing_since = inf  # nobody is to take it any more
            self.pacer.finish_by = trio.current_time() + (rules.finish_timeout or inf)
            self.set_alarm()
        else:
            self.end(ending)
        self.downstream.abort()

    @property
    def _can_finish(self) -> bool:
        """True if an upstream has all it needs to come to its end without the client."""
        return self.inbox.arrived.is_set and any(a.call.begun for a in self.attempts)

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

    @property
    def verdict(self) -> Fact:
        """The fact that counts, of those noted so far."""
        return settle(self.facts)

    @property
    def settled(self) -> bool:
        """True once it is noted how it ends, and no attempt goes on that may still come to an answer.

        One that was let go of may take a while to tell its upstream: nobody waits for that.
        """
        return bool(self.facts) and all(a.hopeless for a in self.attempts)

    # Its attempts.

    @property
    def only_attempt(self) -> Attempt | None:
        """The one that may still come to an answer, if there is one and no other."""
        hopeful = [a for a in self.attempts if not a.hopeless]
        return hopeful[0] if len(hopeful) == 1 else None

    @property
    def stream(self) -> DialectStream:
        """What is known of what the client has seen."""
        if self.accepted is not None and not self.opening:
            return self.accepted.stream
        if self._blank is None:
            self._blank = (self.dialect or CHAT).open_stream()
        return self._blank

    @property
    def plan(self) -> Plan:
        """Who may answer, in which order, by which rules; there once it is prepared."""
        assert self._plan is not None, "the request is prepared first"
        return self._plan

    def begin_attempt(self, index: int) -> Attempt:
        """The request is about to be forwarded."""
        endpoint, record, now = self.plan.endpoints[index], self.record, trio.current_time()
        entry = Entry(
            upstream=endpoint.name,
            started=now - self._began,
            hedge=bool(self.attempts) and not all(one.hopeless for one in self.attempts),
        )
        record.attempts.append(entry)
        a = Attempt(
            index=index,
            endpoint=endpoint,
            call=Call(
                # No id is the beginning of another: some servers abort whatever begins so (SGLang).
                id=f"{len(record.attempts)}-{record.id}",
                stream_id=record.id,
                dialect=record.dialect,
                model=record.model,
                background=self.background,
                began=record.began,
                skipped=self._skipped,
                room=self.inbox.grow if self._coding and isinstance(self.inbox, KeptBody) else None,
            ),
            entry=entry,
            asked_at=now,
            dialect=self.dialect,
            max_frame_bytes=self.limits.max_frame_bytes,
        )
        self.attempts.append(a)
        endpoint.inflight += 1
        self.watch_attempts()
        return a

    async def take_place(self, a: Attempt) -> None:
        """Wait until its upstream takes one more. Raises UpstreamError where it will not."""
        endpoint = a.endpoint
        if endpoint.gate is not None:
            a.slot = endpoint.gate.try_enter()
            if a.slot is None:
                try:
                    a.slot = await endpoint.gate.enter(self._client)
                finally:  # whoever waited in vain has waited too
                    a.asked_at = trio.current_time()
                    a.entry.queued = a.asked_at - self._began - a.entry.started
        now = a.asked_at
        if endpoint.breaker is not None:
            permit = endpoint.breaker.enter(now)
            if permit is None:
                raise Overloaded(f"{endpoint.name} has failed of late; try again soon")
            a.permit(permit)
        if self.dialect is None:
            return  # any other call is under `total_timeout` alone
        a.watch.asked_at = now
        if self.plan.rules.hedge_after and self.accepted is None:
            self.pacer.hedge_at = now + self.plan.rules.hedge_after
            self.set_alarm()

    def open_upstream(self, a: Attempt) -> AbstractAsyncContextManager[Answer]:
        """Forward the request."""
        assert self._request is not None, "the request is kept for as long as it may be forwarded"
        return a.endpoint.upstream.open(self._request, a.call)

    def take(self, a: Attempt, answer: Answer) -> None:
        """The headers have come."""
        a.take(answer, in_dialect=self.dialect is not None)
        now = trio.current_time()
        self.record.time_to_headers = now - a.asked_at
        a.entry.headers = now - self._began
        a.entry.status = answer.status

    def accept(self, a: Attempt) -> bool:
        """The client gets this attempt and no other; False if another was first.

        The kept body is of no more use, and whoever else was asked works for nobody.
        """
        if self.accepted is None and not a.hopeless:
            self.accepted = a
            a.entry.accepted = True
            for other in self.attempts:
                if not (other is a or other.hopeless):
                    other.lose(Reason.HEDGE_LOST)
            self.watch_attempts()
            self.pacer.hedge_at = inf
            self.record.time_to_headers = (a.entry.headers or 0.0) + self._began - a.asked_at
            self._free_request()
            self._stop_retrying()
        return self.accepted is a

    async def win(self, a: Attempt) -> None:
        """Accept it; if another was first, this does not return: it has been cancelled."""
        if not self.accept(a):
            await trio.sleep_forever()

    def end_attempt(self, a: Attempt) -> None:
        """The attempt is over, for better or worse."""
        a.endpoint.inflight -= 1
        a.close(trio.current_time() - self._began)
        self.attempts.remove(a)
        if self.accepted is None:
            self.watch_attempts()
            self.pacer.keepalive = self.keepalive

    def may_repeat(self, error: UpstreamError) -> bool:
        """True if sending the request again cannot do its work twice."""
        if isinstance(self.inbox, KeptBody):
            return not error.sent or not self.background
        untouched = self._request is not None and (
            self._request.body == b"" or not self.inbox.touched
        )
        return untouched and (not error.sent or self.record.method in {"GET", "HEAD"})

    def dismiss(self, a: Attempt) -> None:
        """It came to nothing, and another follows or goes on."""
        a.dismiss()
        self.watch_attempts()

    def watch_attempts(self) -> None:
        """Let the clock know whom to watch: an attempt may be past hope and still busy ending."""
        self.pacer.watches = tuple([a.watch for a in self.attempts if not a.hopeless])

    @property
    def may_retry(self) -> bool:
        """False if enough requests are being tried again just now."""
        return self._retrying or self._budget.allows_another()

    def retry(self, cause: Cause) -> None:
        """Another attempt follows one that failed so."""
        if not self._retrying:
            self._retrying = True
            self._budget.retrying += 1
        self.observer.retried(self.record, cause)

    def _stop_retrying(self) -> None:
        if self._retrying:
            self._retrying = False
            self._budget.retrying -= 1

    def _free_request(self) -> None:
        self._request = None
        if isinstance(self.inbox, KeptBody):
            self.inbox.drop()

    def saw_output(self, a: Attempt) -> None:
        """The first output of the accepted attempt was forwarded."""
        now = trio.current_time()
        a.watch.output = True
        a.entry.first_output = now - self._began
        a.succeeded()
        self.record.time_to_first_token = now - a.asked_at

    def take_opening(self) -> bytes:
        """What every attempt begins with, if it is known before one is accepted; nothing twice.

        No later attempt may have ids of its own: so it is only taken where each would be translated.
        From here on there is nothing to flush in what is held back.
        """
        dialect, known = self.dialect, [a.call.opening for a in self.attempts if a.call.opening]
        if self.opening or self.accepted or dialect is None or not known:
            return b""
        if not any(one.speaks(dialect.name) for one in self.plan.endpoints):
            self.opening = known[0]
            look_through(self.stream, self.opening)
            self.stream.forwarded = True
            for a in self.attempts:
                a.watch.flushed()
        return self.opening

    @property
    def is_numbered_here(self) -> bool:
        """True if the events that the client gets are numbered by us, whichever attempt it gets."""
        if self.accepted is None:
            return bool(self.opening)
        return self.accepted.call.numbering is not None

    @property
    def is_number_free(self) -> bool:
        """False while an event is on its way to the client that may have the next number."""
        return not (self.downstream.awaited or any(a.is_busy for a in self.attempts))

    def skip_number(self) -> None:
        """An event of ours takes the next number of the answer's."""
        self._skipped += 1
        for a in self.attempts:
            a.call.skipped = self._skipped
            a.skip_number(len(self.opening))

    def hold(self, a: Attempt, seen: Seen) -> bool:
        """Keep frames back until there is output; False if they would be too many."""
        if not a.hold(seen.data, self.limits.max_frame_bytes):
            return False
        if seen.sight is not Sight.IDLE and not self.opening:
            a.watch.hold(trio.current_time())
        return True

    def first_to_hold(self) -> Attempt | None:
        """The attempt that has held frames back for longest; None if none does (any more)."""
        holding = [a for a in self.attempts if a.watch.holding and not a.hopeless]
        return min(holding, key=lambda a: a.watch.held_at, default=None)

    def let_pass_at_commit(self, a: Attempt, answer: Answer) -> None:
        """No other attempt will follow this answer, and its headers have come in time, or not.

        If its body is slower than the commit, it passes as it comes: status and headers are worth
        more to the client than heartbeats. White space before good JSON is the exception.
        """
        a.passes = not (answer.status < 300 and self.keepalive is Keepalive.SPACE)

    # The record.

    def close(self, verdict: Fact) -> None:
        """Give back what the request still holds, and complete its record."""
        self._free_request()
        self._stop_retrying()
        record = self.record
        record.ending = verdict.ending
        record.aborted = record.aborted and verdict.ending is not Ending.COMPLETED
        got = self.accepted.entry if self.accepted is not None else None
        record.finished = self.downstream.discarding and got is not None and got.over
        record.detail = _detail(verdict)
        record.status = self.downstream.status
        if self.accepted is not None and verdict.ending.side is Side.UPSTREAM:
            _blame(self.accepted.entry, verdict)
        if record.attempts:  # also of a stream that was left before its end
            record.usage = (got or record.attempts[-1]).usage
        self.stamp_duration()
        self.observer.ended(record)

    def stamp_duration(self) -> None:
        """The client's part is over; the first call counts."""
        if self.record.duration is None:
            self.record.duration = trio.current_time() - self._began


def reason_for(ending: Ending) -> Reason:
    """What an upstream is told of why its call was abandoned."""
    match ending:
        case Ending.CLIENT_LEFT | Ending.WRITE_STALLED | Ending.BODY_TIMEOUT:
            return Reason.CLIENT_LEFT
        case Ending.CANCELLED:
            return Reason.OPERATOR
        case Ending.SHUTDOWN:
            return Reason.SHUTDOWN
        case (
            Ending.TOTAL_TIMEOUT
            | Ending.FIRST_TOKEN_TIMEOUT
            | Ending.IDLE_TIMEOUT
            | Ending.PROGRESS_TIMEOUT
        ):
            return Reason.TIMEOUT
        case _:
            return Reason.BROKEN


def _blame(entry: Entry, verdict: Fact) -> None:
    """What the client was told of the attempt it got is what was wrong with that."""
    if verdict.failure is not None and entry.problem is None:
        entry.problem = f"{verdict.ending.value}: {verdict.failure.cause.value}"


def _detail(verdict: Fact) -> str | None:
    """Why, for the record: in our words only, since an upstream's may quote prompts and keys."""
    failure = verdict.failure
    if failure is None:
        return None
    if verdict.ending is Ending.UPSTREAM_ERROR:
        status = f", status {failure.status}" if failure.status is not None else ""
        return f"{failure.cause.value}{status}"
    return failure.message
