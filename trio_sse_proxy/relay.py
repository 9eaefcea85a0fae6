"""One request, one nursery: everything that goes on at the same time while a request runs.

    relay                opens the nursery, and when it is empty tells the ending and writes the record
    ├─ relay_upstream    its body: asks the upstream, again if need be, and moves frames to the client
    ├─ keep_pace         owns every deadline: heartbeats, the early commit, timeouts, stuck writes
    └─ watch_downstream  reads `receive`: a body that streams, then the news that the client has left

Who may end a request: the body, by returning; either child, or an operator from outside, through
`Exchange.end`, which notes a fact, releases the upstream and cancels the nursery. All three only note
facts. Which of them counts is decided once, in `conclude`, when nothing of the request runs any more.

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
from .core.endings import Ending
from .core.errors import BadRequest, Broken, ClientGone, UpstreamError
from .core.failure import Cause, Failure, Refused
from .core.limits import OnFailure
from .core.pacing import Due, Keepalive
from .core.retry import RETRYABLE_STATUSES, Again, parse_retry_after
from .dialects import failure_of_status, is_retryable
from .dialects.base import Sight, look_through

if TYPE_CHECKING:
    from .core.endings import Fact
    from .dialects.base import DialectStream, Seen
    from .downstream import Receive
    from .exchange import Exchange
    from .ports import Answer

FAREWELL = 1.0  # seconds for the last words to a client, whatever else is being cancelled
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
            x.scope = nursery.cancel_scope
            nursery.start_soon(keep_pace, x, nursery)
            if await receive_body(x, receive):
                nursery.start_soon(watch_downstream, x, receive)
                await relay_upstream(x)
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
        await x.inbox.feed(message.get("body", b""))
        if not message.get("more_body", False):
            x.inbox.close()
        return True
    if not x.downstream.ending:
        x.end(Ending.CLIENT_LEFT)
        x.downstream.abort()
    return False


async def keep_pace(x: Exchange, nursery: trio.Nursery) -> None:
    """Do what is due when it is due; at the end, see to it that no write keeps the request."""
    try:
        while True:
            with trio.CancelScope(deadline=x.next_look()) as x.alarm:
                await trio.sleep_forever()
            if x.inbox.blocked and x.downstream.is_gone():
                x.end(Ending.CLIENT_LEFT)
            do_what_is_due(x, nursery)
    finally:
        if x.downstream.writing:
            # The server may shield its writes; one that is stuck would hold the nursery open.
            with trio.move_on_after(FAREWELL, shield=True):
                await x.downstream.silence()
            x.downstream.abort()


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
            x.end(Ending.WRITE_STALLED)
            x.downstream.abort()
        case Due.TOTAL_TIMEOUT:
            x.end(Ending.TOTAL_TIMEOUT, _timeout("the request took longer than it may"))
        case Due.FIRST_TOKEN_TIMEOUT:
            x.end(Ending.FIRST_TOKEN_TIMEOUT, _timeout("the upstream produced no output in time"))
        case Due.IDLE_TIMEOUT:
            x.end(Ending.IDLE_TIMEOUT, _timeout("the upstream fell silent"))
        case Due.PROGRESS_TIMEOUT:
            x.end(Ending.PROGRESS_TIMEOUT, _timeout("the upstream sends nothing but heartbeats"))


async def keep_company(x: Exchange, due: Due) -> None:
    """Write what the client gets while the upstream is silent. The word has been taken for it."""
    try:
        await x.commit()
        match due:
            case Due.FLUSH_PRELUDE:
                if x.pacer.holding:  # else the attempt has failed meanwhile
                    await x.flush()
            case Due.EVENT_HEARTBEAT:
                await x.beat_event()
            case _ if x.pacer.keepalive is not Keepalive.NONE:
                await x.beat()
            case _:
                pass  # the commit let an answer pass into which nothing of ours fits
    except ClientGone:
        x.end(Ending.CLIENT_LEFT)
    finally:
        x.downstream.yield_turn()
        x.set_alarm()


async def relay_upstream(x: Exchange) -> None:
    """Ask the upstream until an answer was given or none is to be had."""
    try:
        x.prepare()
        delay: float | None = 0.0
        while delay is not None:
            if delay:
                await trio.sleep(delay)
            delay = await try_once(x)
    except Refused as refused:
        await refuse(x, refused.failure)
    except ClientGone:
        x.note(Ending.CLIENT_LEFT)


async def refuse(x: Exchange, failure: Failure) -> None:
    """Answer without asking anybody, while the client may still be sending its body."""
    await x.begin_refusal(failure)
    with trio.move_on_after(LATE_BODY):
        # A connection closed under a client that still sends is reset, and the answer lost with it.
        await x.inbox.arrived.wait()
    await x.finish(Ending.REFUSED, failure)


async def try_once(x: Exchange) -> float | None:
    """One attempt. Seconds until the next one, or None once a fact says how the request ended."""
    x.begin_attempt()
    try:
        async with x.open_upstream() as answer:
            x.take(answer)
            if x.dialect is None:
                await relay_bytes(x, answer)
                return None
            if not x.in_frames:
                return await relay_whole(x, answer)
            if not x.takes_frames(answer):
                return None
            return await relay_frames(x, answer, x.stream)
    except UpstreamError as error:
        return x.failed(error)
    except BadRequest as error:  # what a transport cannot send
        x.note(Ending.REFUSED, Failure(cause=Cause.INVALID_REQUEST, message=str(error)))
        return None
    finally:
        x.end_attempt()


async def relay_frames(x: Exchange, answer: Answer, stream: DialectStream) -> float | None:
    """An event stream: held back until there is output, then let through as it comes."""
    scanner = x.scanner
    pacer, record, write = x.pacer, x.record, x.downstream.write
    while chunk := await answer.receive():
        now = pacer.heard_at = trio.current_time()
        begun = scanner.inside
        ready = scanner.cut(chunk)
        if not ready:
            continue
        whole = pacer.output and not (begun or scanner.inside)
        if whole and (frames := stream.skim(ready)):
            # The hot path. While we write the upstream is not read: its silence begins afterwards.
            pacer.event_at = now
            await write(ready)
            pacer.heard_at = pacer.progress_at = pacer.wrote_at
            record.bytes += len(ready)
            record.frames += frames
            continue
        head = scanner.head if begun else b""
        seen = look_through(stream, ready, head=head, unfinished=scanner.inside)
        if seen.final is not None:
            return await last_frames(x, answer, stream, seen)
        await forward_or_hold(x, seen)
    return await end_of_body(x, answer, stream)


async def forward_or_hold(x: Exchange, seen: Seen) -> None:
    """Frames that end nothing: output opens the way for all that was held back before it."""
    output = seen.sight is Sight.OUTPUT
    if seen.sight is not Sight.IDLE:
        x.pacer.progress_at = trio.current_time()
    if not output and not x.exposed and x.hold(seen):
        return
    await x.show(seen.data)
    x.pacer.heard_at = x.pacer.wrote_at
    if seen.sight is not Sight.IDLE:
        x.pacer.event_at = x.pacer.progress_at = x.pacer.wrote_at
    if output and not x.pacer.output:
        x.saw_output()


async def last_frames(
    x: Exchange, answer: Answer, stream: DialectStream, seen: Seen
) -> float | None:
    """The stream has come to its own end: the terminator, or the upstream's own error."""
    if seen.sight is Sight.OUTPUT and not x.pacer.output:
        x.saw_output()
    failure = stream.failure
    if seen.final is Sight.END or failure is None:
        await x.finish(Ending.COMPLETED, data=seen.data)
        with trio.move_on_after(LINGER):
            while await answer.receive():
                pass
        return None
    if not x.exposed and not x.pacer.output:
        again = Again(
            retryable=is_retryable(failure.cause) and not x.background,
            retry_after=failure.retry_after,
        )
        delay = x.ask_again(again, Ending.UPSTREAM_ERROR, failure)
        if delay is not None:
            return delay
    data = seen.data
    if stream.awaits_failed:
        x.told = x.pacer.finished = True
        await x.show(data)
        data = await second_error(x, answer, stream)
    await x.finish(Ending.UPSTREAM_ERROR, failure, data=data)
    return None


async def second_error(x: Exchange, answer: Answer, stream: DialectStream) -> bytes:
    """What follows an error frame up to the final one that clients act on; nothing if none comes."""
    with trio.move_on_after(SECOND_ERROR), suppress(UpstreamError):
        while chunk := await answer.receive():
            seen = look_through(stream, x.scanner.cut(chunk))
            if seen.final is Sight.ERROR:
                return seen.data
        seen = look_through(stream, x.scanner.close() + b"\n\n")
        if seen.final is Sight.ERROR:
            return seen.data
    return b""


async def end_of_body(x: Exchange, answer: Answer, stream: DialectStream) -> float | None:
    """The body is over, without a terminator so far."""
    tail = x.scanner.close()
    if not x.scanner.inside:
        # Some servers leave out the blank line behind their last frame.
        was_finished = stream.finished
        seen = look_through(stream, tail + b"\n\n")
        if seen.final is not None:
            return await last_frames(x, answer, stream, seen)
        if stream.finished:
            await x.finish(Ending.COMPLETED, data=tail if was_finished else seen.data)
            return None
    raise Broken("the upstream's stream ended without its terminator", responded=True)


async def relay_whole(x: Exchange, answer: Answer) -> float | None:
    """An answer that is no stream: held until it is complete, since all of it is output."""
    temporary = answer.status in RETRYABLE_STATUSES
    if not temporary:
        x.let_pass_at_commit()
    complete = False
    with trio.move_on_after(ERROR_BODY if temporary else inf) as patience:
        complete = await hold_whole(x, answer)
    failure = None
    if answer.status >= 400:
        retry_after = _retry_after(x, answer)
        failure = failure_of_status(answer.status, x.held, retry_after)
        retryable = temporary and failure.cause not in FINAL_CAUSES and not x.background
        again = Again(retryable=retryable, retry_after=retry_after)
        delay = x.ask_again(again, Ending.UPSTREAM_ERROR, failure)
        if delay is not None or patience.cancelled_caught:
            return delay  # without another attempt, its status is told in words of ours
    if not await x.begin_whole(answer, failure):
        return None
    while not complete and (chunk := await answer.receive()):
        x.pacer.heard_at = trio.current_time()
        await x.show(chunk)
        x.pacer.heard_at = x.pacer.wrote_at
    await x.finish(Ending.COMPLETED if failure is None else Ending.UPSTREAM_ERROR, failure)
    return None


async def hold_whole(x: Exchange, answer: Answer) -> bool:
    """Hold the body; False as soon as it need not be held to its end, being too long or too late."""
    while chunk := await answer.receive():
        x.pacer.heard_at = trio.current_time()
        if not x.pacer.output and chunk.strip():
            # Leading white space is how an upstream keeps the connection alive: no output yet.
            x.pacer.output = True
        if not x.hold_piece(chunk, WHOLE_ANSWER) or x.exposed:
            return False
    return True


async def relay_bytes(x: Exchange, answer: Answer) -> None:
    """Anything that is not one of the dialects' calls: streamed through, never held."""
    await x.begin_bytes(answer)
    while chunk := await answer.receive():
        await x.show(chunk)
    await x.finish(Ending.COMPLETED)


async def conclude(x: Exchange) -> None:
    """Nothing of the request runs any more: draw the verdict, tell the client, write the record."""
    if not x.facts and trio.current_effective_deadline() == -inf:
        # Somebody outside has cancelled us: the server, or whoever embeds it.
        x.record.aborted = bool(x.record.attempts)
        x.note(
            Ending.SHUTDOWN, Failure(cause=Cause.SHUTDOWN, message="the server is shutting down")
        )
    verdict = x.verdict
    try:
        if not (x.downstream.ended or verdict.ending in {Ending.CLIENT_LEFT, Ending.WRITE_STALLED}):
            with trio.move_on_after(FAREWELL, shield=True), suppress(ClientGone):
                await say_goodbye(x, verdict)
    finally:
        x.close(verdict)


async def say_goodbye(x: Exchange, verdict: Fact) -> None:
    """Tell the client, which is there and does not know yet, how it ended."""
    if verdict.ending is Ending.COMPLETED or x.told:
        await x.downstream.end()
        return
    failure = verdict.failure or Failure(
        cause=Cause.INTERNAL, message="the proxy failed; see its log"
    )
    if x.downstream.status is None:
        await x.refuse_late(failure)
    elif x.limits.on_failure is OnFailure.TELL and (words := x.last_words(failure)) is not None:
        await x.downstream.end(words)
    # Else the body ends without its end: a cut, which no client takes for a whole answer.


def _timeout(message: str) -> Failure:
    return Failure(cause=Cause.TIMEOUT, message=message)


def _retry_after(x: Exchange, answer: Answer) -> float | None:
    value = fields.get(answer.headers, b"retry-after")
    return None if value is None else parse_retry_after(value, x.outside.wall_clock())
