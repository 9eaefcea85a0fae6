"""What a record says, held against what there was reason for."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from trio_sse_proxy.core.endings import Ending

from .mended import CAP
from .told import A_MOMENT

if TYPE_CHECKING:
    from .client import Request
    from .world import Run

PARTING = 6.0  # seconds; the last words, and an abort that is not answered
RETRIED = frozenset({429, 500, 503, 529})


def reasons(run: Run):
    """Findings about all records of a run."""
    played = {one.call: one for one in run.plays.played}
    for record in run.witness.records:
        client = run.by_id[record.id]
        if not _has_reason(run, client, record):
            yield f"R10: {client.name} is recorded as {record.ending}, for no reason"
        yield from _waited_out(client, record, played)
        yield from _given_up(run, client)


def _has_reason(run: Run, client: Request, record) -> bool:
    limits = client.limits
    match record.ending:
        case Ending.CANCELLED:
            return record.id in run.cancelled
        case Ending.SHUTDOWN:
            return run.ended_at is not None
        case Ending.TOTAL_TIMEOUT:
            return 0 < limits.total_timeout <= record.duration + A_MOMENT
        case Ending.CLIENT_LEFT:
            return client.gone_at < inf or run.drained is not None
        case Ending.WRITE_STALLED:
            return client.person.stuck_from < inf or client.person.slow > 0
        case Ending.FIRST_TOKEN_TIMEOUT:
            return limits.first_token_timeout <= record.duration + A_MOMENT
        case Ending.IDLE_TIMEOUT:
            return limits.idle_timeout <= record.duration + A_MOMENT
        case Ending.PROGRESS_TIMEOUT:
            return limits.progress_timeout <= record.duration + A_MOMENT
        case _:
            return True


def _waited_out(client: Request, record, played):
    """R5: an upstream that says when to ask again is not asked earlier."""
    calls = [played.get(f"{n}-{record.id}") for n in range(1, len(record.attempts) + 1)]
    for number, (entry, one) in enumerate(zip(record.attempts, calls, strict=True)):
        if one is None or one.play.retry_after is None or one.play.status not in RETRIED:
            continue
        if entry.status != one.play.status or entry.ended is None:
            continue
        rounding = 1.0 if one.play.dated else 1e-3
        due = entry.ended + min(one.play.retry_after, CAP) - rounding
        for later in record.attempts[number + 1 :]:
            again = later.upstream == entry.upstream and not later.hedge
            if again and entry.ended <= later.started < due:
                yield f"R5: {client.name} asked {entry.upstream} again at {later.started}, not {due}"


def _given_up(run: Run, client: Request):
    """R7: whoever takes nothing for `write_stall_timeout` is given up."""
    person = client.person
    if client.stuck_at is None or (person.http2 and person.shuts and run.history.listening):
        return  # there may have been room in its window
    if person.stuck_for < inf:
        return
    late = PARTING + client.limits.write_stall_timeout + 2 * person.slow
    if person.http2:
        # The first that get stuck wait for the connection, unseen.
        late += 2 * client.limits.heartbeat
    if run.history.rules.get("on_disconnect") == "finish":
        late += run.history.rules["finish_timeout"]
    if client.over_at > client.stuck_at + late + A_MOMENT:
        yield f"R7: {client.name} took nothing from {client.stuck_at} to {client.over_at}"
