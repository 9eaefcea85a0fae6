"""One request, one nursery: everything that goes on at the same time while a request runs.

    relay                opens the nursery, and when it is empty tells the ending and writes the record
    ├─ relay_upstream    its body: asks upstreams, one after another, and moves frames to the client
    ├─ keep_pace         owns every deadline: heartbeats, the early commit, timeouts, stuck writes
    ├─ watch_downstream  reads `receive`: a body that streams, then the news that the client has left
    └─ pursue_beside     asks on beside an attempt that shows nothing, or whose upstream is being told

Who may end a request: whoever relays its answer, by returning; the others, or an operator from outside,
through `Exchange.end`, which notes a fact, releases the upstreams and cancels the nursery. All only note
facts. Which of them counts is decided once, in `conclude`, when nothing of the request runs any more.

An attempt shows nothing until it has output. The first that has is accepted, in one step without a
checkpoint (`Exchange.accept`), and every other one is cancelled, each in a scope of its own.

The hot path is one task: read a chunk, cut it at the last frame end, write. There is no queue and no
task switch in it. So that a write that is stuck does not hold the upstream, whoever ends the request
closes the upstream's socket himself (`Answer.release`), without waiting for the reader.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import trio

from .core import headers as fields
from .core.call import Reason
from .core.endings import Ending, Fact
from .core.errors import BadRequest, Broken, ClientGone, Garbled, UpstreamError
from .core.failure import Cause, Failure, Refused
from .core.limits import OnFailure
from .core.pacing import DEADLINES, Due, Keepalive
from .core.retry import RETRYABLE_STATUSES, Again, parse_retry_after
from .dialects import failure_of_status, is_cut, is_retryable, may_go_elsewhere
from .dialects.base import Sight, look_through
from .flow import Flow
from .inbox import too_slow
from .response import (
    beat,
    beat_event,
    begin_bytes,
    begin_refusal,
    begin_whole,
    commit,
    finish,
    flush,
    introduce,
    is_unfit,
    last_words,
    refuse_late,
    show,
    takes_frames,
    unfit,
)
from .tries import (
    after_error,
    after_failure,
    after_unfit,
    after_unsendable,
    first_step,
    give_up_overdue,
    give_up_silent,
    next_hedge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .attempt import Attempt
    from .core.course import Step
    from .dialects.base import Seen
    from .downstream import Receive
    from .exchange import Exchange
    from .ports import Answer

FAREWELL = 1.0  # seconds for the last words to a client, whatever else is being cancelled
TURNS = 8  # of the event loop that it lasts at the least: a starved one may take seconds for each
LAG = 0.5  # seconds; whoever is woken so late for a deadline looks again after as many turns
LINGER = 0.1  # seconds the upstream gets to end its body after the terminator, so as to be pooled
SECOND_ERROR = 1.0  # seconds an upstream's error frame is given to be followed by the final one
WHOLE_ANSWER = 2**20  # bytes of an answer that is no stream, held so that a cut can be mended
FINAL_CAUSES = frozenset({Cause.NO_CREDIT, Cause.CONTEXT_EXCEEDED})  # whatever the status says
ERROR_BODY = 1.0  # seconds the body may take of an error that another attempt may mend
LATE_BODY = 2.0  # seconds a client may go on sending a body we refused, so that it reads the answer


async def relay(x: Exchange, receive: Receive) -> None:
    """Serve one request to its end. A cancellation still tells the client, briefly, and is recorded."""
    try:
        async with trio.open_nursery() as nursery:
            x.nursery = nursery
            x.pacer.await_body(trio.current_time())
            nursery.start_soon(keep_pace, x, nursery)
            if await receive_body(x, receive):
                nursery.start_soon(watch_downstream, x, receive)
                await relay_upstream(x)
                if not x.settled:
                    await trio.sleep_forever()  # another line is at it, and cancels us at its end
            nursery.cancel_scope.cancel("the answer is complete")
    finally:
        await conclude(x)  # noqa: ASYNC102  # its waiting is shielded, and has a deadline


async def receive_body(x: Exchange, receive: Receive) -> bool:
    """Read a body that has to be there before anything can be done; False if the request ended so.

    The watcher could read this one too, but to hand it over would take two task switches, and the
    upstream would be asked so much later.
    """
    while x.lacks_body:
        if not await receive_one(x, receive):
            return False
    return not x.facts


async def watch_downstream(x: Exchange, receive: Receive) -> None:
    """Read `receive` to its end: what is still to come of the body, then the client's leaving."""
    while await receive_one(x, receive):
        pass


async def receive_one(x: Exchange, receive: Receive) -> bool:
    """Take in one message; False, and the request is ended, if it says that the client has left."""
    message = await receive()
    if message["type"] == "http.request":
        piece, now = message.get("body", b""), trio.current_time()
        x.pacer.body_came(len(piece), now)
        await x.inbox.feed(piece)
        x.pacer.body_by += trio.current_time() - now  # it was the upstream that was waited for
        if not message.get("more_body", False):
            x.inbox.close()
            x.pacer.body_by = inf
        return True
    if not x.downstream.ending:
        x.client_left()
    return False


async def keep_pace(x: Exchange, nursery: trio.Nursery) -> None:
    """Do what is due when it is due; at the end, see to it that no write keeps the request."""
    try:
        while True:
            with trio.CancelScope(deadline=x.next_look()) as x.alarm:
                await trio.sleep_forever()
            await catch_up(x)
            if x.inbox.blocked and x.downstream.is_gone():
                x.end(Ending.CLIENT_LEFT)
            do_what_is_due(x, nursery)
    finally:
        if x.downstream.writing:
            for a in x.attempts:  # cancelled from outside, nobody else has let go of them
                a.abandon(Reason.SHUTDOWN)
            # The server may shield its writes; one that is stuck would hold the nursery open.
            await hear_out(x)  # noqa: ASYNC102  # shielded, and has a deadline
        if x.facts and x.attempts and not x.downstream.aborted:
            # It was ended over the head of its attempts, and what their upstreams still have to be
            # told may take them a while. The client need not wait for that: its server may not.
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()  # whoever was about to write does so, and stops
            await part(x, x.verdict)  # noqa: ASYNC102  # shielded, and has a deadline


async def catch_up(x: Exchange) -> None:
    """If nothing ran when a deadline passed, let whoever waits take what came before it is missed.

    All of it is there at once then, and chance says who is first. Heartbeats do not wait for it.
    """
    now = trio.current_time()
    if x.alarm is not None and now - x.alarm.deadline > LAG and x.pacer.poll(now) in DEADLINES:
        for _ in range(TURNS):
            await trio.lowlevel.checkpoint()


def do_what_is_due(x: Exchange, nursery: trio.Nursery) -> None:
    """The most pressing thing, if there is one; what has to wait becomes a task of its own."""
    match due := x.pacer.poll(trio.current_time()):
        case None:
            pass
        case Due.COMMIT | Due.HEARTBEAT | Due.EVENT_HEARTBEAT | Due.FLUSH_PRELUDE:
            # In a task of its own: the write may get stuck, and the deadline for that is ours.
            if x.downstream.claim():
                nursery.start_soon(keep_company, x, due)
        case Due.WRITE_STALLED if (moved := x.downstream.progressed_at()) > x.pacer.writing_since:
            x.pacer.writing_since = moved  # slowly, but it takes what is written
        case Due.WRITE_STALLED:
            x.client_left(Ending.WRITE_STALLED)
        case Due.HEDGE:
            if (step := next_hedge(x)) is not None:
                go_on_beside(x, [step])
        case Due.FINISH_TIMEOUT:
            x.end(Ending.CLIENT_LEFT)
        case Due.TOTAL_TIMEOUT:
            x.end(Ending.TOTAL_TIMEOUT, _timeout("the request took longer than it may"))
        case Due.BODY_TIMEOUT if x.inbox.blocked:
            x.pacer.await_body(trio.current_time())  # nothing can come as long as none is taken
        case Due.BODY_TIMEOUT:
            x.end(Ending.BODY_TIMEOUT, too_slow())
        case Due.FIRST_TOKEN_TIMEOUT:
            late = _timeout("the upstream produced no output in time")
            go_on_beside(x, give_up_overdue(x, late))
        case Due.IDLE_TIMEOUT if x.accepted is None:  # in the middle of an answer that is held
            go_on_beside(x, give_up_silent(x, _timeout("the upstream fell silent")))
        case Due.IDLE_TIMEOUT:
            x.end(Ending.IDLE_TIMEOUT, _timeout("the upstream fell silent"))
        case Due.PROGRESS_TIMEOUT:
            x.end(Ending.PROGRESS_TIMEOUT, _timeout("the upstream sends nothing but heartbeats"))


async def keep_company(x: Exchange, due: Due) -> None:
    """Write what the client gets while the upstream is silent. The word has been taken for it."""
    try:
        await commit(x)
        if await introduce(x):
            return
        said = False
        match due:
            case Due.FLUSH_PRELUDE:
                a = x.first_to_hold()
                if said := a is not None and x.accept(a):  # else it has failed meanwhile
                    await flush(x)
            case Due.EVENT_HEARTBEAT:
                said = await beat_event(x)
            case _:
                pass
        # Having the word puts off the next heartbeat: whoever has nothing else to say gives one. But if
        # the commit let an answer pass, nothing of ours fits into it.
        if not said and x.limits.heartbeat and x.pacer.keepalive is not Keepalive.NONE:
            await beat(x)
    except ClientGone:
        x.client_left()
    finally:
        x.downstream.yield_turn()
        x.set_alarm()


async def relay_upstream(x: Exchange) -> None:
    """Ask upstreams until an answer was given or none is to be had."""
    try:
        await x.prepare()
        await pursue(x, first_step(x))
    except Refused as refused:
        await refuse(x, refused.failure)


async def pursue(x: Exchange, step: Step | None) -> None:
    """One line of attempts, one after another. It ends with an answer, or leaves it to another line."""
    while step is not None:
        if step.delay:
            await trio.sleep(step.delay)
        if x.facts or x.accepted is not None:
            return  # another line was first meanwhile
        step = await try_once(x, step.index)


async def pursue_beside(x: Exchange, step: Step) -> None:
    """A line in a task of its own: the nursery's body leaves the end of the request to it."""
    await pursue(x, step)
    end_if_settled(x)


def go_on_beside(x: Exchange, steps: Iterable[Step]) -> None:
    """Begin such lines; or end the request, if nothing follows."""
    for step in steps:
        assert x.nursery is not None, "attempts are made inside of it"
        x.nursery.start_soon(pursue_beside, x, step)
    end_if_settled(x)


def end_if_settled(x: Exchange) -> None:
    """What upstreams still have to be told may take a while: the client hears of the end at once."""
    if x.settled and x.nursery is not None:
        x.nursery.cancel_scope.cancel("how it ends is settled")


async def refuse(x: Exchange, failure: Failure) -> None:
    """Answer without asking anybody, while the client may still be sending its body."""
    try:
        await begin_refusal(x, failure)
        if not x.downstream.aborted:  # then whoever leaves from now on has heard it
            x.note(Ending.REFUSED, failure)
            x.told = True
        with trio.move_on_after(LATE_BODY):
            # A connection closed under a client that still sends is reset, and the answer lost.
            await x.inbox.arrived.wait()
        await finish(x, Ending.REFUSED, failure)
    except ClientGone:
        x.end(Ending.CLIENT_LEFT)


async def try_once(x: Exchange, index: int) -> Step | None:
    """One attempt. The next one of its line; or None, once a fact or another line speaks for it."""
    a = x.begin_attempt(index)
    step = None
    with a.scope:
        try:
            await x.take_place(a)
            async with x.open_upstream(a) as answer:
                x.take(a, answer)
                step = await heed_answer(x, a, answer)
                if not a.call.over:
                    leave(x, a, step)
                    step = None
        except UpstreamError as error:
            step = after_failure(x, a, error)
        except BadRequest as error:  # what a transport cannot send
            step = after_unsendable(x, a, error)
        finally:
            x.end_attempt(a)
    return step


def leave(x: Exchange, a: Attempt, step: Step | None) -> None:
    """It has come to nothing. Its upstream may have to be told so, and nobody waits for that."""
    a.abandon(Reason.BROKEN)  # before anybody else says why, for he may be ending the request
    go_on_beside(x, [] if step is None else [step])


async def heed_answer(x: Exchange, a: Attempt, answer: Answer) -> Step | None:
    """Its failure is noted before the call is left: telling the upstream so may take a while, and
    nothing must be made of this answer by then."""
    try:
        try:
            return await relay_answer(x, a, answer)
        except UpstreamError as error:
            if not lacks_terminator_alone(x, a, error):
                return after_failure(x, a, error)
        a.call.over = True
        await finish(x, Ending.COMPLETED)  # which the client may take its time to take
        return None
    except ClientGone:  # what it was to get is lost: there is nothing to be read on from
        x.end(Ending.CLIENT_LEFT)
        return None


def lacks_terminator_alone(x: Exchange, a: Attempt, error: UpstreamError) -> bool:
    """True if it broke when all was said."""
    broken = isinstance(error, Broken) and not isinstance(error, Garbled)
    shown = x.accepted is a and not (a.hopeless or a.call.over)
    return broken and shown and a.in_frames and a.stream.finished


async def relay_answer(x: Exchange, a: Attempt, answer: Answer) -> Step | None:
    """The headers are there; what follows depends on what they announce."""
    if x.dialect is None:
        await relay_bytes(x, a, answer)
        return None
    if not a.in_frames:
        return await relay_whole(x, a, answer)
    if not takes_frames(x):
        return after_unfit(x, a, unfit(answer))
    return await relay_frames(x, a, answer)


async def relay_frames(x: Exchange, a: Attempt, answer: Answer) -> Step | None:
    """An event stream: held back until there is output, then let through as it comes."""
    flow = Flow(x, a)
    while ready := await flow.next(answer):
        if flow.frames:
            await flow.write(ready)
            continue
        seen = look_through(a.stream, ready, head=flow.head, unfinished=a.scanner.inside)
        if seen.final is not None:
            return await last_frames(x, a, answer, seen)
        await forward_or_hold(x, a, seen)
    return await end_of_body(x, a, answer)


async def forward_or_hold(x: Exchange, a: Attempt, seen: Seen) -> None:
    """Frames that end nothing: output opens the way for all that was held back before it.

    A piece of a frame too large to be held is output, and yet no event, nor progress: that frame may
    never end.
    """
    output, came_at = seen.sight is Sight.OUTPUT, trio.current_time()
    if seen.event or (output and a.watch.progress_at == inf):
        a.watch.progress_at = came_at
    if not output and x.accepted is not a and x.hold(a, seen):
        return
    await x.win(a)
    await show(x, seen.data)
    a.watch.heard_at = x.pacer.wrote_at
    if seen.event:
        x.pacer.event_at = x.pacer.wrote_at
    took = trio.current_time() - came_at  # the client's own time is not counted
    a.watch.progress_at += took
    a.watch.asked_at += took
    if output and not a.watch.output:
        x.saw_output(a)


async def last_frames(x: Exchange, a: Attempt, answer: Answer, seen: Seen) -> Step | None:
    """The stream has come to its own end: the terminator, or the upstream's own error."""
    failure = a.stream.failure
    if seen.final is Sight.END or failure is None:
        a.call.over = True
        await x.win(a)
        if seen.sight is Sight.OUTPUT and not a.watch.output:
            x.saw_output(a)
        a.succeeded()
        await finish(x, Ending.COMPLETED, data=seen.data)
        with trio.move_on_after(LINGER):
            while await answer.receive():
                pass
        return None
    a.judge(failure)
    a.call.over = True
    if seen.sight is not Sight.OUTPUT and x.accepted is not a:
        again = Again(
            retryable=is_retryable(failure.cause) and not x.background,
            elsewhere=may_go_elsewhere(failure.cause) and not x.background,
            retry_after=failure.retry_after,
        )
        step = after_error(x, a, again, Ending.UPSTREAM_ERROR, failure)
        if a.hopeless:
            return step
    await x.win(a)
    if seen.sight is Sight.OUTPUT and not a.watch.output:
        x.saw_output(a)
    data = seen.data
    if a.stream.awaits_failed:
        x.pacer.finished = True
        await show(x, data)
        x.told = True  # not before: cancelled in there, nothing of it went out
        data = await second_error(a, answer)
    await finish(x, Ending.UPSTREAM_ERROR, failure, data=data)
    return None


async def second_error(a: Attempt, answer: Answer) -> bytes:
    """What follows an error frame up to the final one that clients act on; nothing if none comes."""
    with trio.move_on_after(SECOND_ERROR), suppress(UpstreamError):
        while chunk := await answer.receive():
            seen = look_through(a.stream, a.scanner.cut(chunk))
            if seen.final is Sight.ERROR:
                return seen.data
        seen = look_through(a.stream, a.scanner.close() + b"\n\n")
        if seen.final is Sight.ERROR:
            return seen.data
    return b""


async def end_of_body(x: Exchange, a: Attempt, answer: Answer) -> Step | None:
    """The body is over, without a terminator so far."""
    tail = a.scanner.close()
    was_finished = a.stream.finished
    if not a.scanner.inside and (was_finished or not is_cut(tail)):
        # Some servers leave out the blank line behind their last frame.
        seen = look_through(a.stream, tail + b"\n\n")
        if seen.final is not None:
            return await last_frames(x, a, answer, seen)
        if a.stream.finished:
            a.call.over = True
            await x.win(a)
            await finish(x, Ending.COMPLETED, data=tail if was_finished else seen.data)
            return None
    raise Broken("the upstream's stream ended without its terminator", responded=True)


async def relay_whole(x: Exchange, a: Attempt, answer: Answer) -> Step | None:
    """An answer that is no stream: held until it is complete, since all of it is output."""
    temporary = answer.status in RETRYABLE_STATUSES
    if not (temporary or a.call.declined):
        x.let_pass_at_commit(a, answer)
    if is_unfit(x, a, answer):
        return after_unfit(x, a, unfit(answer))
    with trio.move_on_after(ERROR_BODY if temporary else inf) as patience:
        a.call.over = await hold_whole(x, a, answer)
    failure = None
    if answer.status >= 400:
        retry_after = _retry_after(x, answer)
        failure = failure_of_status(answer.status, a.held, retry_after)
        a.judge(failure)
        retryable = temporary and failure.cause not in FINAL_CAUSES and not x.background
        elsewhere = may_go_elsewhere(failure.cause) and not x.background
        elsewhere = elsewhere or a.call.declined
        again = Again(
            retryable=retryable,
            elsewhere=elsewhere,
            unasked=a.call.declined,
            retry_after=retry_after,
        )
        step = after_error(x, a, again, Ending.UPSTREAM_ERROR, failure)
        if a.hopeless or patience.cancelled_caught:
            return step  # without another attempt, its status is told in words of ours
    else:
        await x.downstream.silence()  # it may be the commit that is being written
        if is_unfit(x, a, answer):
            return after_unfit(x, a, unfit(answer))
    await x.win(a)
    if not await begin_whole(x, a, answer, failure):
        return None
    while not a.call.over:
        chunk = await answer.receive()
        a.watch.heard_at = trio.current_time()
        a.call.over = not chunk
        await show(x, chunk)
        a.watch.heard_at = x.pacer.wrote_at
    await finish(x, Ending.COMPLETED if failure is None else Ending.UPSTREAM_ERROR, failure)
    return None


async def hold_whole(x: Exchange, a: Attempt, answer: Answer) -> bool:
    """Hold the body; False as soon as it need not be held to its end, being too long or too late."""
    while chunk := await answer.receive():
        a.watch.heard_at = trio.current_time()
        if not a.watch.output and chunk.strip():
            # Leading white space is how an upstream keeps the connection alive: no output yet.
            a.watch.output = True
        if not a.hold_piece(chunk, WHOLE_ANSWER) or x.exposed:
            return False
    return True


async def relay_bytes(x: Exchange, a: Attempt, answer: Answer) -> None:
    """Anything that is not one of the dialects' calls: streamed through, never held."""
    await x.win(a)
    await begin_bytes(x, a, answer)
    while chunk := await answer.receive():
        await show(x, chunk)
    a.call.over = True
    await finish(x, Ending.COMPLETED)


async def conclude(x: Exchange) -> None:
    """Nothing of the request runs any more: draw the verdict, tell the client, write the record."""
    if not x.facts and trio.current_effective_deadline() == -inf:
        # Somebody outside has cancelled us: the server, or whoever embeds it.
        x.record.aborted = bool(x.record.attempts)
        x.note(
            Ending.SHUTDOWN, Failure(cause=Cause.SHUTDOWN, message="the server is shutting down")
        )
    try:
        await part(x, x.verdict)
    finally:
        x.close(x.verdict)


async def part(x: Exchange, verdict: Fact) -> None:
    """Tell the client how it ended, if it is there and does not know; shielded, at most FAREWELL."""
    if x.downstream.ended or verdict.ending in {Ending.CLIENT_LEFT, Ending.WRITE_STALLED}:
        return
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_patience, x, nursery.cancel_scope)
            with suppress(ClientGone):
                await say_goodbye(x, verdict)
                x.stamp_duration()
            nursery.cancel_scope.cancel("all was said")


async def hear_out(x: Exchange) -> None:
    """Wait for the write under way, then give it up.

    A write that only waits for its turn is not stuck, and whoever cut it off would cut off a client
    that reads. So it is turns that count where they take longer than they should.
    """
    for _ in range(TURNS):
        with trio.move_on_after(FAREWELL / TURNS, shield=True):
            await x.downstream.silence()
    x.downstream.abort()


async def lose_patience(x: Exchange, goodbye: trio.CancelScope) -> None:
    """A status line goes out wholly or not at all, so only the connection's end cuts it short."""
    for _ in range(TURNS):  # as above
        await trio.sleep(FAREWELL / TURNS)
    x.downstream.abort()
    goodbye.cancel("nothing more was taken")


async def say_goodbye(x: Exchange, verdict: Fact) -> None:
    """Tell the client, which is there and does not know yet, how it ended."""
    if x.downstream.has_end:  # and it waits to be taken
        await x.downstream.end()
        x.note_outcome()
        return
    if verdict.ending is Ending.COMPLETED or x.told:
        await x.downstream.end()
        return
    failure = verdict.failure or Failure(
        cause=Cause.INTERNAL, message="the proxy failed; see its log"
    )
    if x.downstream.status is None:
        await refuse_late(x, failure)
    elif x.limits.on_failure is OnFailure.TELL and (words := last_words(x, failure)) is not None:
        await x.downstream.end(words)
    # Else the body ends without its end: a cut, which no client takes for a whole answer.


def _timeout(message: str) -> Failure:
    return Failure(cause=Cause.TIMEOUT, message=message)


def _retry_after(x: Exchange, answer: Answer) -> float | None:
    value = fields.get(answer.headers, b"retry-after")
    return None if value is None else parse_retry_after(value, x.outside.wall_clock())
