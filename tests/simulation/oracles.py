"""What must be true after every run, whatever happened in it. Each finding begins with its rule."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from trio_sse_proxy.core.call import Abort, Reason
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.limits import OnFailure
from trio_sse_proxy.http2 import CUT_GRACE

from .mended import mended
from .reasons import reasons
from .told import A_MOMENT, Told, tells

if TYPE_CHECKING:
    from .client import Request
    from .world import Run

BROKEN_OFF = frozenset({Ending.CANCELLED, Ending.SHUTDOWN, Ending.TOTAL_TIMEOUT})
ABORT_TIMEOUT = 2.0
GOODBYE = 3.0  # seconds; the last words, and an abort that is not answered


def findings(run: Run) -> list[str]:
    """Everything that was wrong with a run."""
    if run.crashed is not None:
        return [f"R11: the application raised {run.crashed!r}"]
    if run.unended:
        return ["R11: something never ended"]
    found = [*run.found, *_nothing_left(run), *_released(run), *_drained(run), *reasons(run)]
    for client in run.clients:
        found += client.faults
        if client.status is not None:
            found += Told(run, client).findings()
        elif client.patient and not client.stuck and _is_owed(run, client):
            found.append(f"R6: {client.name} was there, and got no answer")
        if client.record is not None:
            found += mended(run, client)
        if _is_left_hanging(run, client):
            found.append(f"R6: {client.name} waits for an end, from {client.over_at} on")
    return found


def _is_owed(run: Run, client: Request) -> bool:
    """It was taken on; or it came whole, and there was no reason to close its connection first."""
    if client.record is not None and client.limits.on_failure is OnFailure.CUT:
        return client.record.ending is Ending.COMPLETED  # its status may be cut off with all else
    if client.called_at is not None:
        # A drain closes at its end what came in that instant, and whoever takes its refusal slowly.
        ended_at = inf if run.drained is None else run.drained[1]
        return client.over_at < ended_at if client.person.slow else client.called_at < ended_at
    if client.behind is not None and not _lets_others_follow(client.behind):
        return False
    return client.uploaded_at is not None and run.drained is None


def _is_left_hanging(run: Run, client: Request) -> bool:
    """Over HTTP/2 the connection goes on: so the stream must end, or be reset, with its request."""
    if not (run.history.listening and client.person.http2) or client.left_at is not None:
        return False
    if client.stuck and not client.person.shuts:
        return False  # nothing gets through to it
    return client.called_at is not None and client.let_go_at > client.over_at + CUT_GRACE + A_MOMENT


def _lets_others_follow(before: Request) -> bool:
    """It has its end, and nobody ended it while that was being written, nor its connection with it."""
    if not before.ended or b"connection" in before.headers:
        return False
    return before.record is not None and before.record.ending not in BROKEN_OFF


def _nothing_left(run: Run):
    if run.tasks_left:
        yield f"R11: {run.tasks_left} tasks are left"
    if run.left:
        yield f"R11: of requests there are left: {run.left}"
    if run.app.live:
        yield "R11: a request is still registered"
    if run.app._held.used:
        yield f"R9: {run.app._held.used} bytes of bodies are still held"
    if run.listener is not None and run.listener.connections:
        yield "R11: a client's connection is still registered"
    budget = run.app.surroundings.budget
    if (budget.running, budget.retrying) != (0, 0):
        yield "R11: the retry budget is not given back"
    yield from _recorded(run)
    for endpoint in run.endpoints:
        if endpoint.inflight or (endpoint.connections or (0,))[0]:
            yield f"R11: {endpoint.name} still counts an attempt or a connection"
        if endpoint.gate and (endpoint.gate.inflight, endpoint.gate.queued) != (0, 0):
            yield f"R11: the gate of {endpoint.name} still counts somebody"
        if endpoint.breaker and not all(permit.told for permit in endpoint.breaker.permits):
            yield f"R11: the breaker of {endpoint.name} was not told of a call"
    for name, upstream in run.upstreams.items():
        if any(end.closed_at is None for end in upstream.ends):
            yield f"R11: a connection to {name} is still open"


def _recorded(run: Run):
    ids = sorted(record.id for record in run.witness.records)
    if ids != sorted(record.id for record in run.witness.began_with) or len(set(ids)) < len(ids):
        yield "R10: not exactly one record for each request"
    if len(ids) != sum(client.called_at is not None for client in run.clients):
        yield "R10: more or fewer records than requests"
    for record in run.witness.records:
        if record.ending in (None, Ending.INTERNAL):
            yield f"R6: a request ended by a bug: {record.detail}"


def _released(run: Run):
    """R7: who is not wanted is let go of, told once, for one reason, in time."""
    played = {one.call: one for one in run.plays.played}
    aborts: dict[str, list[float]] = {}
    for call, at in run.plays.aborts:
        aborts.setdefault(call, []).append(at)
    for record in run.witness.records:
        for number, entry in enumerate(record.attempts, 1):
            call = f"{number}-{record.id}"
            if entry.ended is None:
                yield f"R7: {call} has no end"
                continue
            told, one = aborts.get(call, []), played.get(call)
            if len(told) > 1 or (entry.over and (told or entry.abort)):
                yield f"R7: {call} was told {len(told)} times to stop, over: {entry.over}"
            if one is not None and not (entry.over or one.returned):
                yield from _let_go(run, record, entry, one, told)
        yield from _left_in_time(run, record)


def _let_go(run: Run, record, entry, one, told: list[float]):
    """One attempt that was not over."""
    client, server = run.by_id[record.id], run.upstreams[one.server].server
    if entry.reason is None:
        yield f"R7: {one.call} was left without a reason"
    if server.told and entry.abort is None:
        yield f"R7: {one.call} was left without a word"
    if server.told and entry.abort is Abort.DONE and len(told) != 1:
        yield f"R7: {one.call} was told {len(told)} times to stop, and should know"
    if one.over:
        return  # its body was at its end, if not as it should have been
    if one.released_at is None:
        yield f"R7: {one.tag} is still at work"
        return
    way = 3 * server.weather.delay + 4 * server.weather.jam  # to connect, and to get there
    way += _patience(run, client)  # whoever tells it may be waiting for a write that is under way
    if told and told[0] > one.released_at + ABORT_TIMEOUT + way + A_MOMENT:
        yield f"R7: {one.tag} was told to stop at {told[0]}, let go of at {one.released_at}"
    unwanted = _unwanted(run, client, record, entry, one)
    if one.released_at > max(unwanted, one.at) + A_MOMENT:
        yield f"R7: {one.tag} was released at {one.released_at}, unwanted since {unwanted}"


def _unwanted(run: Run, client: Request, record, entry, one) -> float:
    """The latest instant at which it may have been let go of, whatever the reason was."""
    gone = client.gone_at
    if run.history.rules.get("on_disconnect") == "finish":
        gone += run.history.rules["finish_timeout"]
    wanted = min(gone, run.cancelled.get(record.id, inf), run.ended_from(client))
    limits, began = client.limits, client.read_at
    if began is not None and limits.total_timeout and client.gone_at == inf:
        wanted = min(wanted, began + limits.total_timeout)
    if entry.reason is Reason.HEDGE_LOST and began is not None:
        winner = [other.first_output for other in record.attempts if other.accepted]
        if winner and winner[0] is not None:
            wanted = min(wanted, began + winner[0])
    if client.person.slow or client.stuck or not one.stream:
        return wanted  # while a write waits, nothing else is on the clock
    return min(wanted, _dead(run, client, one))


def _dead(run: Run, client: Request, one) -> float:
    """R4: when an upstream that has stopped is given up at the latest."""
    limits, weather = client.limits, run.upstreams[one.server].server.weather
    if weather.jam or weather.window < 65536 or one.play.flood:
        return inf  # what it sent may still have been on its way
    way = 4 * weather.delay + A_MOMENT
    if not any(one.tag.encode() in data for _, data in client.pieces):
        hold = limits.prelude_hold + limits.idle_timeout + limits.heartbeat
        return one.at + max(limits.first_token_timeout, hold) + way
    late = (one.said_at or one.at) + limits.idle_timeout
    later = (one.word_at or one.at) + limits.progress_timeout
    return max(min(late, later), one.at + limits.first_token_timeout) + way


def _left_in_time(run: Run, record):
    client = run.by_id[record.id]
    wanted = min(client.gone_at, run.cancelled.get(record.id, inf))
    if run.history.rules.get("on_disconnect") == "finish":
        wanted += run.history.rules["finish_timeout"]
    if client.over_at > wanted + ABORT_TIMEOUT + GOODBYE + _patience(run, client):
        yield f"R7: {client.name} was over only at {client.over_at}, not {wanted}"


def _patience(run: Run, client: Request) -> float:
    """How long the last words to a client may take: a status line is not broken off by us."""
    late = run.longest_stall if client.stuck else 0.0
    return late + 2 * client.person.slow


def _drained(run: Run):
    orders = [order for order in run.history.orders if order.what == "drain"]
    if orders and run.drained is None:
        yield "R11: the drain never ended"
        return
    longest = ABORT_TIMEOUT + GOODBYE + max((_patience(run, c) for c in run.clients), default=0.0)
    if run.drained and run.drained[1] - run.drained[0] > longest:
        yield f"R11: the drain took {run.drained[1] - run.drained[0]} s"
    if run.ended_at is None:
        return
    for client in run.clients:
        if run.ended_from(client) == inf or client.stuck or client.person.slow:
            continue
        read = client.pieces if client.patient else client.pieces[:-1]  # the last may be cut off
        late = [at for at, data in read if at > run.ended_at and not tells(data)]
        if late:
            yield f"R11: {client.name} was served on after the drain, at {late}"
