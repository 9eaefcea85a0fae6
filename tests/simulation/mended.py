"""R5: a failure that another attempt could mend, and nobody had seen yet, was answered with one."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from trio_sse_proxy.core.call import Reason
from trio_sse_proxy.core.endings import Ending

from .words import TAG

if TYPE_CHECKING:
    from .client import Request
    from .world import Run

FAILED = frozenset({Ending.TRUNCATED, Ending.UNREACHABLE, Ending.UPSTREAM_ERROR})
RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
CAP = 10.0  # seconds of a Retry-After that are waited out


def mended(run: Run, client: Request):
    """At most one finding. Judged where it is plain: nothing but attempts in the way of another."""
    record = client.record
    if record.ending not in FAILED or not record.attempts or not client.patient:
        return
    servers = [upstream.server for upstream in run.upstreams.values()]
    if run.reloaded or any(one.gate or one.breaker or one.ill for one in servers):
        return
    played = {one.call: one for one in run.plays.played}
    attempts = [
        (entry, played.get(f"{number}-{record.id}"))
        for number, entry in enumerate(record.attempts, 1)
    ]
    if any(entry.accepted and entry.first_output is not None for entry, _ in attempts):
        return
    granted = sum(not entry.hedge for entry, _ in attempts)
    if any(entry.hedge for entry, _ in attempts) or granted > client.limits.max_retries:
        return
    last, one = attempts[-1]
    if one is not None and (last.accepted or not _is_mendable(one, client)):
        return
    spent = {entry.upstream for entry, one in attempts if _is_spent(entry, one)}
    if spent < {server.name for server in servers}:
        yield f"R5: {client.name} was told of {last.problem} after {granted} attempts"


def _is_mendable(one, client: Request) -> bool:
    """It failed by itself, for the moment, with nothing that a client would show."""
    play = one.play
    if play.status != 200:
        return play.status in RETRIED and not play.quota
    if play.garbled or play.answer:
        return False
    if play.error:
        return play.error != 400 and play.error_at <= 0
    if one.stream and one.tag.encode() + b"w" in one.sent:
        return False
    held = sum(map(len, one.body)) < client.limits.max_frame_bytes
    return held and one.tag not in {f"tag{int(tag)}x" for tag in TAG.findall(client.body)}


def _is_spent(entry, one) -> bool:
    """Its upstream is not asked again in this request."""
    if entry.reason is Reason.TIMEOUT:
        return True
    if one is None:
        return False
    play = one.play
    if play.garbled or play.answer or play.quota or play.error == 400:
        return True
    return play.status not in {200, *RETRIED} or (play.retry_after or -inf) > CAP
