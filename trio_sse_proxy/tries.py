"""Whom a request asks: the first upstream, the one after it, another one beside it, or nobody any more.

Functions on an `Exchange`. Each attempt ends in one of the ways named `after_…`; what they return is
whom to ask next. Where that is nobody, they note how the request ends, unless another line of attempts
is still at it: that one may come to an answer, and what it comes to counts.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio

from .core.course import Course, Step
from .core.endings import Ending, Fact
from .core.errors import Broken, Garbled, Overloaded
from .core.failure import Cause, Failure
from .core.retry import Again
from .exchange import reason_for
from .inbox import overload

if TYPE_CHECKING:
    from .attempt import Attempt
    from .core.errors import BadRequest, UpstreamError
    from .exchange import Exchange

ELSEWHERE = Again(retryable=False, elsewhere=True)


def first_step(x: Exchange) -> Step | None:
    """Whom to ask first; None, and a fact is noted, if no upstream lets anybody in."""
    plan, now = x.plan, x.began  # which is this very moment: it was prepared just now
    for index in plan.order:
        if plan.endpoints[index].admits(now):
            return Step(index, 0.0)
    wait = min(endpoint.retry_after(now) for endpoint in plan.endpoints)
    message = "every upstream for this request has failed of late; try again soon"
    x.note(Ending.UNREACHABLE, overload(message, retry_after=wait))
    return None


def next_hedge(x: Exchange) -> Step | None:
    """Whom to ask beside those that have shown nothing for so long; None if nobody."""
    plan, now = x.plan, trio.current_time()
    x.pacer.hedge_at = inf
    hopeful = [a for a in x.attempts if not a.hopeless]
    if x.accepted is not None or x.facts or not hopeful or x.background:
        return None
    if x.lines >= plan.rules.hedge_max or x.pacer.output:
        return None  # the limit; or a whole answer, which is on its way
    if len(x.record.attempts) > max(x.limits.max_retries, plan.rules.hedge_max - 1):
        return None  # one hedge after another has failed beside an attempt that takes its time
    if not plan.hedges.allows_another():
        return None
    latest = hopeful[-1].index
    index = _course_from(x, latest).other(latest, now=now, available=partial(_has_room, x))
    if not plan.endpoints[index].has_room:  # the same one: no other was to be had
        _course_from(x, latest).drop(index)
        return None
    plan.hedges.take()
    x.lines += 1
    return Step(index, 0.0)


def after_failure(x: Exchange, a: Attempt, error: UpstreamError) -> Step | None:
    """It broke. The next one; None if there is none, with a fact unless others run."""
    if a.call.over or a.hopeless:
        return None  # nothing more was due; or we broke it: it is being ended
    if not isinstance(error, Overloaded):
        a.failed()
    if x.accepted is a:
        _note_failure_in_sight(x, a, error)
        return None
    if isinstance(error, Overloaded):
        wait = max(1.0, a.endpoint.retry_after(trio.current_time()))
        failure = overload(str(error), retry_after=wait)
        return after_error(x, a, ELSEWHERE, Ending.UNREACHABLE, failure)
    garbled = isinstance(error, Garbled)
    cause = Cause.PROTOCOL if garbled else Cause.UNREACHABLE
    failure = Failure(cause=cause, message=str(error))
    ending = Ending.TRUNCATED if error.responded else Ending.UNREACHABLE
    repeatable = x.may_repeat(error)
    again = Again(
        retryable=not garbled and repeatable,
        elsewhere=repeatable,
        at_once=error.reused and not error.responded,
    )
    return after_error(x, a, again, Ending.PROTOCOL if garbled else ending, failure)


def after_unfit(x: Exchange, a: Attempt, failure: Failure) -> Step | None:
    """The client was promised another kind of answer. The next one, or None, as after a failure."""
    a.judge(failure)
    again = Again(retryable=False, elsewhere=not x.background)
    return after_error(x, a, again, Ending.PROTOCOL, failure)


def after_unsendable(x: Exchange, a: Attempt, error: BadRequest) -> Step | None:
    """The upstream cannot be sent this. If another attempt runs, that one has got it sent."""
    failure = Failure(cause=Cause.INVALID_REQUEST, message=str(error))
    again = Again(retryable=False, elsewhere=x.lines > 1)
    return after_error(x, a, again, Ending.REFUSED, failure)


def after_error(
    x: Exchange, a: Attempt, again: Again, ending: Ending, failure: Failure
) -> Step | None:
    """It ended in `failure`; if nobody is to be asked any more, so does the request, in `ending`."""
    if a.hopeless:
        return None  # it was lost or given up on this very tick, and what follows is settled
    return _go_on(x, a, again, ending, failure)


def give_up_overdue(x: Exchange, failure: Failure) -> list[Step]:
    """End the attempts that should have had output by now; what follows them, if anything."""
    # Reckoned as the pacer does: `now - length` may round to just before what is due.
    now, length = trio.current_time(), x.limits.first_token_timeout
    late = [a for a in x.attempts if not a.watch.output and a.watch.asked_at + length <= now]
    return _give_up(x, late, Fact(ending=Ending.FIRST_TOKEN_TIMEOUT, failure=failure))


def give_up_silent(x: Exchange, failure: Failure) -> list[Step]:
    """The same for those that have begun an answer of which nothing was shown, and stopped."""
    now, length = trio.current_time(), x.limits.idle_timeout
    silent = [a for a in x.attempts if a.watch.output and a.watch.heard_at + length <= now]
    return _give_up(x, silent, Fact(ending=Ending.IDLE_TIMEOUT, failure=failure))


def _give_up(x: Exchange, attempts: list[Attempt], fact: Fact) -> list[Step]:
    assert fact.failure is not None, "nothing is given up without a word"
    again = Again(retryable=False, elsewhere=not x.background)
    steps: list[Step] = []
    for a in attempts:
        if not a.hopeless:
            a.give_up(reason_for(fact.ending))
            step = _go_on(x, a, again, fact.ending, fact.failure)
            steps += [step] if step is not None else []
    x.watch_attempts()
    return steps


def _go_on(x: Exchange, a: Attempt, again: Again, ending: Ending, failure: Failure) -> Step | None:
    a.entry.problem = f"{ending.value}: {failure.cause.value}"
    if not a.call.declined:
        x.last_failure = Fact(ending=ending, failure=failure)
    if x.accepted is None and x.lines > 1 and again.anywhere:
        x.lines -= 1
        _course_from(x, a.index).give_up(a.index, again, now=trio.current_time())
        x.dismiss(a)
        return None
    if x.facts:
        return None
    step = None
    if x.accepted is None and (a.call.declined or x.may_retry):
        step = _course_from(x, a.index).next(
            a.index,
            again,
            now=trio.current_time(),
            jitter=x.outside.jitter(),
            available=partial(_is_available, x),
        )
    if step is None and a.call.declined and (better := x.last_failure or _shut_out(x)) is not None:
        # One that could take it has failed, and may be well again when the client comes back.
        x.facts.append(better)
        x.dismiss(a)
        return None
    if step is None:
        x.note(ending, failure)
        return None
    if not a.call.declined:  # else nobody was asked so far, and nothing is asked again
        x.retry(failure.cause)
    x.dismiss(a)
    return step


def _shut_out(x: Exchange) -> Fact | None:
    """What is told instead where one that speaks the client's dialect lets nobody in just now."""
    assert x.dialect is not None, "only what is translated is declined"
    now, dialect = trio.current_time(), x.dialect.name
    waits = [
        endpoint.retry_after(now)
        for endpoint in x.plan.endpoints
        if endpoint.speaks(dialect) and not endpoint.admits(now)
    ]
    if not waits:
        return None
    message = "every upstream that can take this request has failed of late; try again soon"
    failure = overload(message, retry_after=max(1.0, min(waits)))
    return Fact(ending=Ending.UNREACHABLE, failure=failure)


def _note_failure_in_sight(x: Exchange, a: Attempt, error: UpstreamError) -> None:
    if isinstance(error, Garbled):
        x.note(Ending.PROTOCOL, Failure(cause=Cause.PROTOCOL, message=str(error)))
    elif isinstance(error, Broken) and a.in_frames and a.stream.finished:
        a.call.over = True  # all was said but the terminator
        x.note(Ending.COMPLETED)
    else:
        x.note(Ending.TRUNCATED, Failure(cause=Cause.TRUNCATED, message=str(error)))


def _course_from(x: Exchange, index: int) -> Course:
    """The order of tries; made when there is something to decide, and told of the first attempt."""
    if x.course is None:
        x.course = Course(x.limits, x.began, x.plan.order)
        x.course.first(lambda first: first == index)
    return x.course


def _is_available(x: Exchange, index: int) -> bool:
    return x.plan.endpoints[index].admits(trio.current_time())


def _has_room(x: Exchange, index: int) -> bool:
    return _is_available(x, index) and x.plan.endpoints[index].has_room
