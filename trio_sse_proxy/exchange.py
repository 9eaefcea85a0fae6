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
from .core.course import Course, Step
from .core.endings import Ending, Fact, Side, settle
from .core.errors import Broken, Garbled, Overloaded, UpstreamError
from .core.failure import Cause, Failure, Refused
from .core.pacing import Keepalive
from .core.record import Attempt as Entry
from .core.retry import Again
from .core.routing import OnDisconnect
from .dialects import CHAT, peek
from .dialects.base import Seen, Sight, look_through
from .inbox import KeptBody, StreamedBody, overload

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from .core.errors import BadRequest
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


ELSEWHERE = Again(retryable=False, elsewhere=True)


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
        "_course",
        "_failed",
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
        "dialect",
        "downstream",
        "exposed",
        "facts",
        "inbox",
        "keepalive",
        "limits",
        "lines",
        "nursery",
        "observer",
        "opening",
        "outside",
        "pacer",
        "record",
        "refused",
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
        self.lines = 1  # of attempts, one after another, that may still come to an answer
        self.exposed = False  # the client has seen something of the accepted attempt
        self.opening = b""  # the client has seen this, with which every attempt begins
        self.told = False  # the client has been told of a failure, by the upstream itself
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
        self._course: Course | None = None
        self._blank: DialectStream | None = None
        self._retrying = False
        self._failed: Fact | None = None  # what became of the last attempt that was asked
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
            await self._understand(body)
        else:
            body = self.inbox
        build, self._build = self._build, None  # what it holds need not wait with us
        assert build is not None, "a request is prepared once"
        self._request, query = build(body, self.record.model)
        self._plan = self._router.plan(self.record.method, query)
        self._began = trio.current_time()
        self.pacer.began(self._began)

    async def _understand(self, body: bytes) -> None:
        if self._coding:
            limit = min(PEEK_LIMIT, 2**20 + PEEK_RATIO * len(body))  # zstd's bombs come to 30,000
            body = await decode_aside(body, self._coding, limit) or b""
        wish = peek(body)
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

    def first_step(self) -> Step | None:
        """Whom to ask first; None, and a fact is noted, if no upstream lets anybody in."""
        plan, now = self.plan, self._began  # which is this very moment: it was prepared just now
        for index in plan.order:
            if plan.endpoints[index].admits(now):
                return Step(index, 0.0)
        wait = min(endpoint.retry_after(now) for endpoint in plan.endpoints)
        message = "every upstream for this request has failed of late; try again soon"
        self.note(Ending.UNREACHABLE, overload(message, retry_after=wait))
        return None

    @property
    def plan(self) -> Plan:
        """Who may answer, in which order, by which rules; there once it is prepared."""
        assert self._plan is not None, "the request is prepared first"
        return self._plan

    def next_hedge(self) -> Step | None:
        """Whom to ask beside those that have shown nothing for so long; None if nobody."""
        plan, now = self.plan, trio.current_time()
        self.pacer.hedge_at = inf
        hopeful = [a for a in self.attempts if not a.hopeless]
        if self.accepted is not None or self.facts or not hopeful or self.background:
            return None
        if self.lines >= plan.rules.hedge_max or self.pacer.output:
            return None  # the limit; or a whole answer, which is on its way
        if len(self.record.attempts) > max(self.limits.max_retries, plan.rules.hedge_max - 1):
            return None  # one hedge after another has failed beside an attempt that takes its time
        if not plan.hedges.allows_another():
            return None
        latest = hopeful[-1].index
        index = self._course_from(latest).other(latest, now=now, available=self._has_room)
        if not plan.endpoints[index].has_room:  # the same one: no other was to be had
            self._course_from(latest).drop(index)
            return None
        plan.hedges.take()
        self.lines += 1
        return Step(index, 0.0)

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
        self._watch()
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
            self._watch()
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
            self._watch()
            self.pacer.keepalive = self.keepalive

    def failed(self, a: Attempt, error: UpstreamError) -> Step | None:
        """The attempt broke. The next one; None if there is none, with a fact unless others run."""
        if a.call.over or a.hopeless:
            return None  # nothing more was due; or we broke it: it is being ended
        if not isinstance(error, Overloaded):
            a.failed()
        if self.accepted is a:
            self._failed_in_sight(a, error)
            return None
        if isinstance(error, Overloaded):
            wait = max(1.0, a.endpoint.retry_after(trio.current_time()))
            failure = overload(str(error), retry_after=wait)
            return self.ask_again(a, ELSEWHERE, Ending.UNREACHABLE, failure)
        garbled = isinstance(error, Garbled)
        cause = Cause.PROTOCOL if garbled else Cause.UNREACHABLE
        failure = Failure(cause=cause, message=str(error))
        ending = Ending.TRUNCATED if error.responded else Ending.UNREACHABLE
        repeatable = self._may_repeat(error)
        again = Again(
            retryable=not garbled and repeatable,
            elsewhere=repeatable,
            at_once=error.reused and not error.responded,
        )
        return self.ask_again(a, again, Ending.PROTOCOL if garbled else ending, failure)

    def unfit(self, a: Attempt, failure: Failure) -> Step | None:
        """The client was promised another kind of answer. The next one, or None, as `failed`."""
        a.judge(failure)
        again = Again(retryable=False, elsewhere=not self.background)
        return self.ask_again(a, again, Ending.PROTOCOL, failure)

    def unsendable(self, a: Attempt, error: BadRequest) -> Step | None:
        """The upstream cannot be sent this. If another attempt runs, that one has got it sent."""
        failure = Failure(cause=Cause.INVALID_REQUEST, message=str(error))
        again = Again(retryable=False, elsewhere=self.lines > 1)
        return self.ask_again(a, again, Ending.REFUSED, failure)

    def _failed_in_sight(self, a: Attempt, error: UpstreamError) -> None:
        if isinstance(error, Garbled):
            self.note(Ending.PROTOCOL, Failure(cause=Cause.PROTOCOL, message=str(error)))
        elif isinstance(error, Broken) and a.in_frames and a.stream.finished:
            a.call.over = True  # all was said but the terminator
            self.note(Ending.COMPLETED)
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

    def ask_again(self, a: Attempt, again: Again, ending: Ending, failure: Failure) -> Step | None:
        """The attempt that follows `a`; if there is none, None.

        Then `ending` is noted, unless another line of attempts is still at it: that one may come to
        an answer, and what it comes to counts.
        """
        if a.hopeless:
            return None  # it was lost or given up on this very tick, and what follows is settled
        return self._go_on(a, again, ending, failure)

    def _go_on(self, a: Attempt, again: Again, ending: Ending, failure: Failure) -> Step | None:
        a.entry.problem = f"{ending.value}: {failure.cause.value}"
        if not a.call.declined:
            self._failed = Fact(ending=ending, failure=failure)
        if self.accepted is None and self.lines > 1 and again.anywhere:
            self.lines -= 1
            self._course_from(a.index).drop(a.index)
            self._dismiss(a)
            return None
        if self.facts:
            return None
        step = None
        if self.accepted is None and (self._retrying or self._budget.allows_another()):
            step = self._course_from(a.index).next(
                a.index,
                again,
                now=trio.current_time(),
                jitter=self.outside.jitter(),
                available=self._available,
            )
        if step is None and a.call.declined and self._failed is not None:
            # One that could take it had failed, and may be well again when the client comes back.
            self.facts.append(self._failed)
            self._dismiss(a)
            return None
        if step is None:
            self.note(ending, failure)
            return None
        if not self._retrying:
            self._retrying = True
            self._budget.retrying += 1
        self.observer.retried(self.record, failure.cause)
        self._dismiss(a)
        return step

    def _course_from(self, index: int) -> Course:
        """The order of tries; made when there is something to decide, and told of the first attempt."""
        if self._course is None:
            self._course = Course(self.limits, self._began, self.plan.order)
            self._course.first(lambda first: first == index)
        return self._course

    def _available(self, index: int) -> bool:
        return self.plan.endpoints[index].admits(trio.current_time())

    def _has_room(self, index: int) -> bool:
        return self._available(index) and self.plan.endpoints[index].has_room

    def _dismiss(self, a: Attempt) -> None:
        a.dismiss()
        self._watch()

    def _watch(self) -> None:
        """Let the clock know whom to watch: an attempt may be past hope and still busy ending."""
        self.pacer.watches = tuple([a.watch for a in self.attempts if not a.hopeless])

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

    def give_up_overdue(self, failure: Failure) -> list[Step]:
        """End the attempts that should have had output by now; what follows them, if anything."""
        # Reckoned as the pacer does: `now - length` may round to just before what is due.
        now, length = trio.current_time(), self.limits.first_token_timeout
        late = [a for a in self.attempts if not a.watch.output and a.watch.asked_at + length <= now]
        return self._give_up(late, Fact(ending=Ending.FIRST_TOKEN_TIMEOUT, failure=failure))

    def give_up_silent(self, failure: Failure) -> list[Step]:
        """The same for those that have begun an answer of which nothing was shown, and stopped."""
        now, length = trio.current_time(), self.limits.idle_timeout
        silent = [a for a in self.attempts if a.watch.output and a.watch.heard_at + length <= now]
        return self._give_up(silent, Fact(ending=Ending.IDLE_TIMEOUT, failure=failure))

    def _give_up(self, attempts: list[Attempt], fact: Fact) -> list[Step]:
        assert fact.failure is not None, "nothing is given up without a word"
        again = Again(retryable=False, elsewhere=not self.background)
        steps: list[Step] = []
        for a in attempts:
            if not a.hopeless:
                a.give_up(reason_for(fact.ending))
                step = self._go_on(a, again, fact.ending, fact.failure)
                steps += [step] if step is not None else []
        self._watch()
        return steps

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
