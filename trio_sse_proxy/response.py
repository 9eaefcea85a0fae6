"""What the client gets of one request: headers, heartbeats, frames, the last words.

Functions on an `Exchange`; all of them write, and whoever writes has the word (see `downstream`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .core import headers as fields
from .core.endings import Ending, Fact
from .core.failure import Cause, Failure
from .core.pacing import Keepalive
from .core.sse import count_frames
from .refusal import refusal

if TYPE_CHECKING:
    from .attempt import Attempt
    from .core.headers import Headers
    from .exchange import Exchange
    from .ports import Answer


async def commit(x: Exchange, *, followed: bool = False) -> None:
    """Send status and headers: the upstream's if they are there and fit. The caller has the word.

    `followed`: it goes on to write more at once.
    """
    if x.downstream.status is not None:
        return
    a = x.accepted or x.only_attempt
    answer = a.answer if a is not None else None
    if a is not None and answer is not None and a.passes and x.accept(a):
        await _begin_passing(x, a, answer)
        return
    status, headers = 200, fields.EARLY_EVENT_STREAM
    if x.pacer.keepalive is Keepalive.SPACE:
        headers = fields.EARLY_JSON
    elif a is not None and answer is not None and a.in_frames:
        status, headers = answer.status, fields.event_stream(answer.headers)
    await _start(x, status, headers, a, followed=followed)


async def show(x: Exchange, data: bytes, *, last: bool = False) -> None:
    """Send what the accepted attempt has held back, and `data`."""
    await x.downstream.take_turn()
    try:
        await commit(x, followed=last or bool(data))
        await flush(x, data, last=last)
    finally:
        x.downstream.yield_turn()
        x.set_alarm()


async def flush(x: Exchange, data: bytes = b"", *, last: bool = False) -> None:
    """The same where the caller has the word and the headers are out."""
    a = x.accepted
    if a is not None:
        x.exposed = a.stream.forwarded = True
        data = a.take_held(data)
        if x.opening:
            data, x.opening = data.removeprefix(x.opening), b""
        x.pacer.inside = a.scanner.inside
        if a.in_frames and data:
            x.record.frames += count_frames(data, unfinished=a.scanner.inside)
    x.record.bytes += len(data)
    if last or data:
        await x.downstream.send_body(data, last=last)


async def finish(
    x: Exchange, ending: Ending, failure: Failure | None = None, *, data: bytes = b""
) -> None:
    """Send the last bytes and the end of the body, and note what that means."""
    x.pacer.finished = True
    x.outcome = Fact(ending=ending, failure=failure)
    await show(x, data, last=True)
    x.note_outcome()
    x.stamp_duration()


async def introduce(x: Exchange) -> bool:
    """Send what the answer will begin with, whoever gives it, if that is known. The caller has the word.

    For clients whose timers count events, or that bear heartbeats only behind it.
    """
    opening = x.take_opening() if x.pacer.keepalive is Keepalive.FRAMES else b""
    if opening:
        x.pacer.event_at = trio.current_time()
        x.record.bytes += len(opening)
        x.record.frames += count_frames(opening)
        await x.downstream.send_body(opening)
    return bool(opening)


async def beat(x: Exchange) -> None:
    """Send a byte heartbeat. The caller has the word."""
    if x.pacer.keepalive is Keepalive.SPACE:
        frame, kind = b"\n", "space"
    else:
        frame, kind = x.stream.byte_heartbeat(), "frame"
    x.record.heartbeats += 1
    await _send_our_own(x, frame, kind)


async def beat_event(x: Exchange) -> bool:
    """Send an event heartbeat; False if there is no safe one. The caller has the word."""
    numbered = x.is_numbered_here
    if numbered and not x.is_number_free:
        return False  # as soon as that event is out, this is due again
    x.pacer.event_at = trio.current_time()
    frame = x.stream.event_heartbeat(x.agent, x.skip_number if numbered else None)
    if frame is None:
        return False
    x.record.event_heartbeats += 1
    await _send_our_own(x, frame, "event")
    return True


async def _send_our_own(x: Exchange, frame: bytes, kind: str) -> None:
    if x.exposed and x.accepted is not None:  # else the frames it cut are still to come
        x.accepted.scanner.wrote_our_own()
    x.observer.heartbeat(x.record, kind)
    await x.downstream.send_body(frame)


async def begin_whole(x: Exchange, a: Attempt, answer: Answer, failure: Failure | None) -> bool:
    """Send an answer that is no stream as far as it was read, that of the accepted attempt.

    False, with a fact noted, if that is no longer possible: an event stream was promised by then.
    """
    await x.downstream.take_turn()
    try:
        if failure is None and x.dialect is not None:
            x.saw_output(a)
            a.entry.usage = x.dialect.answer_usage(a.held)
        if x.downstream.status is None:
            await _begin_passing(x, a, answer)
        elif x.exposed or _may_follow_space(x, answer):
            x.keepalive = x.pacer.keepalive = Keepalive.NONE
            await flush(x)
        elif failure is not None:
            x.note(Ending.UPSTREAM_ERROR, failure)
            return False
        else:
            x.note(Ending.PROTOCOL, unfit(answer))
            return False
        return True
    finally:
        x.downstream.yield_turn()


def takes_frames(x: Exchange) -> bool:
    """False if JSON was promised by the time an event stream came."""
    if x.keepalive is Keepalive.SPACE:
        if x.downstream.status is not None:
            return False
        x.pacer.keepalive = Keepalive.NONE
    return True


def is_unfit(x: Exchange, a: Attempt, answer: Answer) -> bool:
    """True if an event stream was promised by the time a good answer came that is none."""
    if x.downstream.status is None or x.accepted is a or answer.status >= 400:
        return False
    return not _may_follow_space(x, answer)


def _may_follow_space(x: Exchange, answer: Answer) -> bool:
    """True for JSON, also an error's; but what leads elsewhere says nothing under the 200 of before."""
    leads_elsewhere = 300 <= answer.status < 400
    return x.pacer.keepalive is Keepalive.SPACE and _is_json(answer) and not leads_elsewhere


def unfit(answer: Answer) -> Failure:
    """The client was promised something else than what has come."""
    kind = fields.media_type(answer.headers).decode("latin-1") or "nothing in particular"
    message = f"the upstream answered with status {answer.status} and {kind}, not as asked"
    return Failure(cause=Cause.PROTOCOL, message=message)


async def _begin_passing(x: Exchange, a: Attempt, answer: Answer) -> None:
    # From here on the body is the upstream's alone: nothing of ours fits into it.
    x.keepalive = x.pacer.keepalive = Keepalive.NONE
    x.pacer.events = False
    await _start(x, answer.status, fields.plain_answer(answer.headers), a)
    await flush(x)


async def begin_bytes(x: Exchange, a: Attempt, answer: Answer) -> None:
    """Send the headers of an answer that passes as it is."""
    await x.downstream.take_turn()
    try:
        x.exposed = True
        await _start(x, answer.status, fields.plain_answer(answer.headers), a)
    finally:
        x.downstream.yield_turn()


async def begin_refusal(x: Exchange, failure: Failure) -> None:
    """Send an answer of our own, all but the end of its body."""
    status, headers, body = refusal(x.dialect, failure)
    await x.downstream.take_turn()
    try:
        x.refusing = True
        await _start(x, status, headers, None)
        await flush(x, body)
    finally:
        x.downstream.yield_turn()


async def refuse_late(x: Exchange, failure: Failure) -> None:
    """The same, whole, when nothing else runs any more."""
    status, headers, body = refusal(x.dialect, failure)
    x.refusing = True
    await x.downstream.answer(status, _marked(x, headers, None), body)


def last_words(x: Exchange, failure: Failure) -> bytes | None:
    """What tells of `failure` in the middle of a response; None where nothing can."""
    if x.pacer.inside or x.dialect is None or x.refusing:
        return None
    if x.pacer.keepalive is Keepalive.SPACE:
        return None if x.exposed else x.dialect.error_body(failure)
    in_frames = x.accepted is not None and x.accepted.in_frames
    if x.pacer.keepalive is Keepalive.FRAMES or in_frames:
        return x.stream.error_frames(failure)
    return None  # an answer of known kind, begun and not to be finished


async def _start(
    x: Exchange, status: int, headers: Headers, a: Attempt | None, *, followed: bool = False
) -> None:
    await x.downstream.send_start(status, _marked(x, headers, a), followed=followed)


def _marked(x: Exchange, headers: Headers, a: Attempt | None) -> Headers:
    """`headers` with ours: which stream this is, and if that is settled, whose answer.

    At an early commit it is not, though the headers be an upstream's: its answer may come to nothing.
    """
    ours = [(b"x-proxy-stream-id", x.record.id.encode())]
    if a is not None and a is x.accepted:
        ours.append((b"x-proxy-upstream", a.endpoint.name.encode("latin-1", "replace")))
        ours.append((b"x-proxy-attempts", b"%d" % len(x.record.attempts)))
    return (*fields.without(headers, *_OURS), *ours)


_OURS = (b"x-proxy-stream-id", b"x-proxy-upstream", b"x-proxy-attempts")


def _is_json(answer: Answer) -> bool:
    kind = fields.media_type(answer.headers)
    return kind == b"application/json" or kind.endswith(b"+json")
