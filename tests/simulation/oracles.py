"""What must be true after every run, whatever happened in it. Each finding begins with its rule."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

from trio_sse_proxy.core.endings import Ending

from .words import BEATS, INPUT, TAG
from .world import ABORT_TIMEOUT, SERVER_STALL, WALL, Run

if TYPE_CHECKING:
    from .client import Client
    from .server import Played

A_MOMENT = 1e-6  # seconds: what adding up floats may cost
GOODBYE = 3.0  # seconds; the last words, and an abort that is not answered
OURS = frozenset({Ending.CANCELLED, Ending.SHUTDOWN, Ending.TOTAL_TIMEOUT, Ending.REFUSED})


def findings(run: Run) -> list[str]:
    """Everything that was wrong with a run."""
    if run.crashed is not None:
        return [f"R11: the application raised {run.crashed!r}"]
    if run.unended:
        return ["R11: something never ended"]
    found = [*_nothing_left(run), *_released(run), *_drained(run)]
    by_id = {record.id: record for record in run.witness.records}
    for client in run.clients:
        found += client.faults
        id = client.headers.get(b"x-proxy-stream-id", b"").decode()
        if (record := by_id.get(id)) is not None:
            found += _Told(run, client, record).findings()
        elif client.patient:
            found.append(f"R6: c{client.person.number} was there, and got no answer")
    return found


def _nothing_left(run: Run):
    if run.tasks_left:
        yield f"R11: {run.tasks_left} tasks are left"
    if run.app.live:
        yield "R11: a request is still registered"
    if run.app._held.used:
        yield f"R9: {run.app._held.used} bytes of bodies are still held"
    if (run.budget.running, run.budget.retrying) != (0, 0):
        yield "R11: the retry budget is not given back"
    ids = sorted(record.id for record in run.witness.records)
    if ids != sorted(record.id for record in run.witness.began_with) or len(set(ids)) < len(ids):
        yield "R10: not exactly one record for each request"
    if len(ids) != len(run.clients):
        yield "R10: more or fewer records than requests"
    for record in run.witness.records:
        if record.ending in (None, Ending.INTERNAL):
            yield f"R6: a request ended by a bug: {record.detail}"
    for endpoint, upstream in zip(run.endpoints, run.upstreams, strict=True):
        if endpoint.inflight or (endpoint.connections or (0,))[0]:
            yield f"R11: {endpoint.name} still counts an attempt or a connection"
        if endpoint.gate and (endpoint.gate.inflight, endpoint.gate.queued) != (0, 0):
            yield f"R11: the gate of {endpoint.name} still counts somebody"
        if endpoint.breaker and not all(permit.told for permit in endpoint.breaker.permits):
            yield f"R11: the breaker of {endpoint.name} was not told of a call"
        if any(end.closed_at is None for end in upstream.ends):
            yield f"R11: a connection to {endpoint.name} is still open"


def _released(run: Run):
    """R7: who is not wanted is let go of, told once, for one reason, in time."""
    played = {one.call: one for one in run.plays.played}
    told = {endpoint.name for endpoint, up in zip(run.endpoints, run.upstreams, strict=True)
            if up.server.told}  # fmt: skip
    for record in run.witness.records:
        for number, entry in enumerate(record.attempts, 1):
            call = f"{number}-{record.id}"
            if entry.ended is None:
                yield f"R7: {call} has no end"
            aborts = [at for id, at in run.plays.aborts if id == call]
            if len(aborts) > 1 or (entry.over and (aborts or entry.abort)):
                yield f"R7: {call} was told {len(aborts)} times to stop, over: {entry.over}"
            if call not in played or entry.over:
                continue
            if entry.reason is None:
                yield f"R7: {call} was left without a reason"
            if entry.upstream in told and entry.abort is None:
                yield f"R7: {call} was left without a word"
        yield from _released_in_time(run, record, played)


def _released_in_time(run: Run, record, played: dict[str, Played]):
    client = _client_of(run, record)
    for number, entry in enumerate(record.attempts, 1):
        one = played.get(f"{number}-{record.id}")
        if one is None or entry.over or client is None or one.closed_at is None:
            continue
        gone = min(
            (at for at in (client.left_at, client.aborted_at) if at is not None), default=inf
        )
        wanted = min(gone, run.cancelled.get(record.id, inf))
        if one.closed_at > max(wanted, one.at) + A_MOMENT:
            yield f"R7: {one.tag} was released at {one.closed_at}, unwanted since {wanted}"
        if client.over_at > wanted + ABORT_TIMEOUT + GOODBYE + _patience(run, client):
            yield f"R7: c{client.person.number} was over only at {client.over_at}, not {wanted}"


def _patience(run: Run, client: Client) -> float:
    """How long the last words to a client may take: a status line is not broken off by us."""
    late = run.limits.write_stall_timeout + SERVER_STALL if client.stuck else 0.0
    return late + 2 * client.person.slow


def _client_of(run: Run, record) -> Client | None:
    for client in run.clients:
        if client.headers.get(b"x-proxy-stream-id", b"").decode() == record.id:
            return client
    return None


def _drained(run: Run):
    orders = [order for order in run.history.orders if order.what == "drain"]
    if orders and run.drained is None:
        yield "R11: the drain never ended"
        return
    longest = ABORT_TIMEOUT + GOODBYE + max((_patience(run, c) for c in run.clients), default=0.0)
    if run.drained and run.drained[1] - run.drained[0] > longest:
        yield f"R11: the drain took {run.drained[1] - run.drained[0]} s"
    for client in run.clients:
        if not run.drained or client.began >= run.drained[0] or client.stuck or client.person.slow:
            continue
        late = [at for at, data in client.pieces if at > run.drained[0] and not _tells(data)]
        if late:
            yield f"R11: c{client.person.number} was served on after the drain, at {late}"


class _Told:
    """What one client got, held against what its upstreams sent."""

    def __init__(self, run: Run, client: Client, record) -> None:
        self.run, self.client, self.record = run, client, record
        self.name = f"c{client.person.number}"
        self.dialect = client.person.dialect
        self.in_frames = client.headers.get(b"content-type", b"").startswith(b"text/event-stream")
        tags = TAG.findall(client.body)
        played = {one.call: one for one in run.plays.played}
        calls = (f"{number}-{record.id}" for number in range(1, len(record.attempts) + 1))
        self.played = [played[call] for call in calls if call in played]
        self.tags = {f"tag{int(tag)}x" for tag in tags}
        shown = [one for one in self.played if one.tag in self.tags]
        accepted = [f"{n}-{record.id}" for n, a in enumerate(record.attempts, 1) if a.accepted]
        self.one = shown[0] if shown else played.get(accepted[0]) if accepted else None

    def findings(self):
        if len(self.tags) > 1:
            yield f"R5: {self.name} got pieces of several attempts: {sorted(self.tags)}"
            return
        yield from self._gaps()
        if self.in_frames and self.client.status == 200:
            yield from self._stream()
        elif self.client.patient and self.client.ended:
            yield from self._whole()
        if self.client.patient and not self.client.stuck:
            yield from self._verdict()

    def _gaps(self):
        person, limits = self.client.person, self.run.limits
        if not person.stream or person.stuck_from < inf or self.client.uploaded_at is None:
            return
        if not self.in_frames or any(one.play.long for one in self.played):
            return
        last = self.client.uploaded_at
        over = self.client.over_at if self.client.patient else last
        longest = limits.heartbeat + 2 * person.slow + A_MOMENT
        for at, data in (*self.client.pieces, (min(over, self._settled_at) - ABORT_TIMEOUT, b"")):
            # At its end a client is told after its upstream, which takes a while.
            if at - last > longest + ABORT_TIMEOUT * _tells(data):
                yield f"R1: {self.name} got nothing from {last} to {at}"
            last = at

    @property
    def _settled_at(self) -> float:
        """When the record says that the client's part was over."""
        return self.record.began - WALL + self.record.duration if self.client.ended else inf

    def _stream(self):
        beat = BEATS[self.dialect]
        frames = self.client.body.split(b"\n\n")
        frames = [frame + b"\n\n" for frame in frames[:-1]] + [frames[-1]]
        beats = frames.count(beat)
        rest = [frame for frame in frames if frame != beat]
        if not self.client.patient and beat.startswith(rest[-1]):
            rest.pop()  # it left in the middle of a heartbeat
        sent = self.one.sent if self.one is not None else b""
        errors = self._take_errors(rest, sent)
        body = b"".join(rest)
        if not (sent.startswith(body) or body.rstrip(b"\n") == sent.rstrip(b"\n")):
            yield f"R12: {self.name} got {body!r}, of which its upstream sent {sent!r}"
            return
        if not self.client.patient:
            return
        if self.client.person.slow or self.client.stuck:
            pass  # what was being written when all was over is counted, and lost
        elif not 0 <= self.record.heartbeats - beats <= 1:  # one may be lost on the last tick
            yield f"R10: {self.name} got {beats} heartbeats of {self.record.heartbeats}"
        elif len(body) != self.record.bytes:
            yield f"R10: {self.name} got {len(body)} bytes of {self.record.bytes}"
        yield from self._ending(body, errors)

    def _take_errors(self, rest: list[bytes], sent: bytes) -> list[bytes]:
        """The error frames at the end that are none of the upstream's."""
        at = 0
        for number, frame in enumerate(rest):
            if not sent.startswith(frame, at):
                late = [frame for frame in rest[number:] if frame]
                cut = not self.client.patient and not late[-1].endswith(b"\n\n")
                if all(map(_is_error, late[:-1] if cut else late)):
                    errors, rest[number:] = late, []
                    return errors
                return []
            at += len(frame)
        return []

    def _ending(self, body: bytes, errors: list[bytes]):
        record = self.record
        final = self._final(body)
        said = len(errors) > 0
        if said and (
            final in {"end", "error"} or len(errors) != (2 if self.dialect == "responses" else 1)
        ):
            yield f"R6: {self.name} was told {errors}, behind {final}"
        if not self.client.ended:
            honest = final != "end"
        elif record.ending is Ending.COMPLETED:
            honest = final in {"end", "finished"} and not said
        else:
            honest = (final == "error") != said and final != "end"
        if not honest:
            yield f"R6: {self.name} ended {record.ending}, {final}, told {errors}"
        if record.ending is Ending.COMPLETED and self.one is not None:
            yield from self._complete(body, final)

    def _final(self, body: bytes) -> str | None:
        one = self.one
        if one is None:
            return None
        speech, play = one.speech, one.play
        if play.error:
            told = speech.error(one.tag, play.error)
            return "error" if any(frame.rstrip() in body for frame in told) else None
        ending = speech.ending(one.tag, play.words, play.usage)
        last = speech.terminator or ending[-1]
        if body.rstrip().endswith(last.rstrip()):
            return "end"
        finished = self.dialect == "chat" and ending[0].rstrip() in body
        return "finished" if finished else None

    def _complete(self, body: bytes, final: str | None):
        one = self.one
        if final == "end" and body.rstrip() != one.sent.rstrip():
            yield f"R5: {self.name} has lost the end of {one.tag}"
        speech = one.speech
        ending = speech.ending(one.tag, one.play.words, one.play.usage)[-1].rstrip()
        if one.play.usage and ending in body:
            usage = self.record.usage
            if usage is None or (usage.input_tokens, usage.output_tokens) != (
                INPUT,
                one.play.words,
            ):
                yield f"R10: {self.name} is recorded with {usage}"

    def _whole(self):
        """An answer that is no stream: the upstream's own, or an error of ours in JSON."""
        body = self.client.body
        if self.one is not None and self.client.status == 200:
            if body.lstrip() != self.one.sent and not _is_error_object(body):
                yield f"R12: {self.name} got {body!r}, of which its upstream sent {self.one.sent!r}"
        elif self.client.status != 200:
            try:
                json.loads(body)
            except ValueError:
                yield f"R6: {self.name} was told {body!r}"

    def _verdict(self):
        """Whether what was made of the accepted attempt is what it was, or of the last if none was."""
        record, one = self.record, self.one
        if one is None or one.tag not in self.tags or record.ending in OURS:
            return
        if record.ending is Ending.COMPLETED and self.in_frames and not one.play.error:
            return  # seen above
        whole = one.stream and one.over and not one.play.error and one.play.sent == 1
        if whole and self.in_frames and self.client.ended and self._final(one.sent) == "end":
            yield f"R6: {self.name} ended {record.ending}, though {one.tag} was whole"


def _tells(data: bytes) -> bool:
    """True if a failure is told in it."""
    return any(map(_is_error, data.split(b"\n\n"))) or b'"error"' in data


def _is_error(frame: bytes) -> bool:
    data = [line[6:] for line in frame.split(b"\n") if line.startswith(b"data: ")]
    try:
        told = json.loads(b"\n".join(data))
    except ValueError:
        return False
    return "error" in told or told.get("type") in {"error", "response.failed"}


def _is_error_object(body: bytes) -> bool:
    try:
        return "error" in json.loads(body)
    except ValueError:
        return False
