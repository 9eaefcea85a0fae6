"""What one client got, held against what its upstreams sent."""

from __future__ import annotations

import json
import re
from math import inf
from typing import TYPE_CHECKING

from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.limits import OnFailure

from .words import BEATS, EVENT_BEATS, INPUT, LINE_ENDS, TAG, WORD, beats_in, cut, in_lf

if TYPE_CHECKING:
    from .client import Request
    from .world import Run

A_MOMENT = 1e-6  # seconds: what adding up floats may cost
OURS = frozenset({Ending.CANCELLED, Ending.SHUTDOWN, Ending.TOTAL_TIMEOUT, Ending.REFUSED})
LATE = frozenset({Ending.FIRST_TOKEN_TIMEOUT, Ending.IDLE_TIMEOUT, Ending.PROGRESS_TIMEOUT})
PRELUDES = (b"event: message_start\n", b"event: response.created\n")
DELTAS = (
    b"event: content_block_delta\n",
    b"event: response.output_text.delta\n",
    b"event: response.function_call_arguments.delta\n",
)
ENDS = (b"event: message_stop\n", b"event: response.completed\n", b"event: response.incomplete\n")
FINISHED = (*ENDS, b'"finish_reason":"stop"', b"data: [DONE]", b"event: content_block_stop")
STOPPED = b'"stop_reason":"'
FAILING = re.compile(rb'"error"(?!: ?null)')


class Told:
    """`findings` says what was wrong with it."""

    def __init__(self, run: Run, client: Request) -> None:
        self.run, self.client, self.record = run, client, client.record
        self.name = client.name
        self.dialect = client.person.dialect
        self.in_frames = client.headers.get(b"content-type", b"").startswith(b"text/event-stream")
        record = self.record
        played = {one.call: one for one in run.plays.played}
        calls = [f"{number}-{record.id}" for number in range(1, len(record.attempts) + 1)]
        self.played = [played[call] for call in calls if call in played]
        self.tags = {f"tag{int(tag)}x" for tag in TAG.findall(client.body)}
        shown = [one for one in self.played if one.tag in self.tags]
        accepted = [call for call, a in zip(calls, record.attempts, strict=True) if a.accepted]
        self.one = shown[0] if shown else played.get(accepted[0]) if accepted else None
        self.translated = self.one is not None and self.one.dialect != self.dialect
        self.made = self.one is not None and self.run.upstreams[self.one.server].server.worker

    def findings(self):
        if len(self.tags) > 1:
            yield f"R5: {self.name} got pieces of several attempts: {sorted(self.tags)}"
            return
        yield from self._gaps()
        yield from self._early()
        if self.in_frames and self.client.status == 200:
            frames = self._frames()
            yield from self._events(frames)
            if self.translated or self._may_be_translated:
                yield from self._in_other_words(frames)
            else:
                yield from self._stream(frames)
        elif self.client.patient and self.client.ended:
            yield from self._whole()
        if self.client.patient and not self.client.stuck:
            yield from self._verdict()

    @property
    def _may_be_translated(self) -> bool:
        """The opening of a translated answer may go out before anybody has accepted one."""
        servers = [self.run.upstreams[a.upstream].server for a in self.record.attempts]
        return self.one is None and all(server.chat_only for server in servers)

    def _frames(self) -> list[bytes]:
        """Each with its end, and what is behind the last end."""
        return cut(self.client.body)

    # How long it waited.

    def _gaps(self):
        """R1: it never waits longer than a heartbeat for bytes, as long as it takes them."""
        person = self.client.person
        spaced = self.client.limits.json_heartbeat and self.client.status == 200
        kept = self.in_frames if person.stream else spaced
        if not kept or self.client.read_at is None:
            return
        last = self.client.read_at
        longest = self.client.limits.heartbeat + 2 * person.slow + A_MOMENT + self._long_frame
        patient = self.client.patient
        over = self._settled_at if patient else last
        for number, (at, data) in enumerate((*self.client.pieces, (over, b"")), 1):
            told = tells(data) or (not patient and number == len(self.client.pieces))
            # A heartbeat that waited to be taken is lost when all is over.
            lost = told and self.client.stuck
            if at > self._readable(last + longest) + A_MOMENT and not lost:
                yield f"R1: {self.name} got nothing from {last} to {at}"
            last = at

    def _readable(self, due: float) -> float:
        """When it gets what is written to it at `due`: it may be stuck just then."""
        stuck_from = self.client.began + self.client.person.stuck_from
        stuck_until = stuck_from + self.client.person.stuck_for
        return stuck_until if stuck_from - A_MOMENT <= due < stuck_until else due

    @property
    def _long_frame(self) -> float:
        """How much longer it may wait inside a frame over the limit, into which nothing fits.

        The rule can only promise what the upstream does: the frame comes as fast as the network
        brings it, and if it never goes on, `idle_timeout` ends it.
        """
        limits = self.client.limits
        for one in self.played:
            comment = one.play.long * one.play.comments
            if max(comment + 50, *map(len, one.body)) > limits.max_frame_bytes:
                hangs = one.play.end == "hang" and one.play.sent < 1
                return limits.idle_timeout if hangs else self._way_of(one)
        return 0.0

    def _way_of(self, one) -> float:
        """Seconds from its upstream's saying something long to our reading it, window by window."""
        weather = self.run.upstreams[one.server].server.weather
        return (weather.delay + 2 * weather.jam) * (1 + 5500 / weather.window)

    @property
    def _settled_at(self) -> float:
        """When the record says that the client's part was over."""
        if not self.client.ended:
            return -inf
        return min(self.client.over_at, self.client.called_at + self.record.duration)

    def _early(self):
        """R5: what opens an answer goes out with its first output, if it has not waited too long."""
        client, one = self.client, self.one
        if one is None or not (one.stream and self.in_frames) or client.person.http2:
            return
        if client.person.slow or client.stuck or not client.patient or self.translated or self.made:
            return
        tag = one.tag.encode()
        first = next((at for at, data in client.pieces if tag in data), None)
        if first is None or first >= one.at + client.limits.prelude_hold - A_MOMENT:
            return
        if len(one.sent) > client.limits.max_frame_bytes:
            return
        then = in_lf(b"".join(data for at, data in client.pieces if at <= first))
        shown = tag + b"w" in then or FAILING.search(then) or any(end in then for end in FINISHED)
        if not shown:
            yield f"R5: {self.name} got the opening of {one.tag} alone, at {first}"

    def _events(self, frames: list[bytes]):
        """R3: an agent that counts events never waits longer than its heartbeats for one."""
        client, limits = self.client, self.client.limits
        person = client.person
        kinds = EVENT_BEATS[self.dialect]
        if not (person.agent and person.stream and kinds and client.patient) or client.stuck:
            return
        if client.read_at is None or person.slow:
            return
        events = [
            number
            for number, frame in enumerate(frames)
            if frame != BEATS[self.dialect] and not frame.startswith(b":")
        ]
        ends = [0]
        for frame in frames:
            ends.append(ends[-1] + len(frame))
        longest = max(limits.event_heartbeat, limits.heartbeat) + A_MOMENT + self._long_frame
        last = client.read_at
        for number in events:
            at = self._arrived(ends[number + 1])
            if at > last + longest:
                yield f"R3: {self.name} got no event from {last} to {at}"
            if STOPPED in frames[number]:
                return  # from here on another event would take that back
            last = at

    def _arrived(self, size: int) -> float:
        """When so many bytes of the body were there."""
        for at, data in self.client.pieces:
            size -= len(data)
            if size <= 0:
                return at
        return self.client.pieces[-1][0] if self.client.pieces else -inf

    # What it got.

    def _stream(self, frames: list[bytes]):
        rest, beats, events = beats_in(self.dialect, frames)
        rest = [in_lf(frame) for frame in rest]
        beat = BEATS[self.dialect]
        if not self.client.patient and rest and self._is_part_of_ours(rest[-1], beat):
            rest.pop()  # it left in the middle of a heartbeat
        sent = self.one.sent if self.one is not None else b""
        errors = self._take_errors(rest, sent)
        body = b"".join(rest)
        if self.one is not None:
            yield from self._usage(body)
        if not (sent.startswith(body) or body.rstrip(b"\n") == sent.rstrip(b"\n")):
            yield f"R12: {self.name} got {body!r}, of which its upstream sent {sent!r}"
            return
        if not self.client.patient:
            return
        record = self.record
        if self.client.person.slow or self.client.stuck:
            pass  # what was being written when all was over is counted, and lost
        elif not 0 <= record.heartbeats - beats <= 1:  # one may be lost on the last tick
            yield f"R10: {self.name} got {beats} heartbeats of {record.heartbeats}"
        elif not 0 <= record.event_heartbeats - events <= 1:
            yield f"R10: {self.name} got {events} event heartbeats of {record.event_heartbeats}"
        elif len(body) != record.bytes and not self._other_ends:
            yield f"R10: {self.name} got {len(body)} bytes of {record.bytes}"
        yield from self._ending(body, errors)

    @property
    def _other_ends(self) -> bool:
        """Lines end otherwise than here, so that there are fewer bytes here than there."""
        return self.one is not None and self.one.play.form in LINE_ENDS

    def _is_part_of_ours(self, piece: bytes, beat: bytes) -> bool:
        events = EVENT_BEATS[self.dialect]
        return beat.startswith(piece) or any(
            event.startswith(piece) or piece.startswith(event) for event in events
        )

    def _take_errors(self, rest: list[bytes], sent: bytes) -> list[bytes]:
        """The error frames at the end that are none of the upstream's."""
        at = 0
        for number, frame in enumerate(rest):
            if not sent.startswith(frame, at):
                late = [frame for frame in rest[number:] if frame]
                cut = not self.client.patient and not late[-1].endswith(b"\n\n")
                if all(map(is_error, late[:-1] if cut else late)):
                    errors, rest[number:] = late, []
                    return errors
                return []
            at += len(frame)
        return []

    def _ending(self, body: bytes, errors: list[bytes]):
        record = self.record
        final = self._final(body)
        said = len(errors) > 0
        if said and self.client.limits.on_failure is OnFailure.CUT:
            yield f"R6: {self.name} was told {errors}, and wanted a cut"
        if said and (
            final in {"end", "error"} or len(errors) != (2 if self.dialect == "responses" else 1)
        ):
            yield f"R6: {self.name} was told {errors}, behind {final}"
        if not self.client.ended:
            honest = final != "end" and record.ending is not Ending.COMPLETED
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

    def _usage(self, body: bytes):
        """R10: what an answer told of its tokens is recorded, however it went on."""
        one = self.one
        ending = one.speech.ending(one.tag, one.play.words, one.play.usage)[-1].rstrip()
        if one.play.usage and not one.play.error and ending in body:
            yield from self._counted()

    def _counted(self):
        usage, words = self.record.usage, self.one.play.words
        if usage is None or (usage.input_tokens, usage.output_tokens) != (INPUT, words):
            yield f"R10: {self.name} is recorded with {usage}, not {words} words"

    def _in_other_words(self, frames: list[bytes]):
        """R12 for a translated answer: the same words in the client's dialect, in order."""
        record = self.record
        text = b"".join(frame for frame in frames if frame.startswith(DELTAS)).decode()
        words = [(f"tag{tag}x", int(number)) for tag, number in WORD.findall(text)]
        if words != [(self.one.tag, number) for number in range(len(words))] if words else False:
            yield f"R12: {self.name} got the words {words}"
        openings = sum(frame.startswith(PRELUDES) for frame in frames)
        if openings > 1 or (words and not openings):
            yield f"R5: {self.name} got {openings} preludes"
        whole = [frame for frame in frames if frame.endswith(b"\n\n")]
        errors, ends = sum(map(is_error, frames)), sum(frame.startswith(ENDS) for frame in whole)
        if errors > (2 if self.dialect == "responses" else 1) or ends > 1 or (errors and ends):
            yield f"R6: {self.name} was told {errors} errors and {ends} ends"
        if not self.client.patient:
            return
        if self.client.ended:
            honest = bool(ends) if record.ending is Ending.COMPLETED else errors and not ends
        else:
            honest = not ends
        if not honest:
            yield f"R6: {self.name} ended {record.ending}, {ends} ends, told {errors} errors"
        if record.ending is Ending.COMPLETED and self.one is not None:
            if len(words) != self.one.words:
                yield f"R5: {self.name} got {len(words)} words of {self.one.words}"
            late = self.one.play.silence or self.client.stuck or self.client.person.slow
            one, play = self.one, self.one.play
            counted = one.speech.ending(one.tag, play.words, True)[-1] in one.sent
            if play.usage and one.over and counted and not late:
                # What comes seconds after the finish reason is not waited for.
                yield from self._counted()

    def _whole(self):
        """An answer that is no stream: the upstream's own, or an error of ours in JSON."""
        body, one = self.client.body, self.one
        if one is not None and body.lstrip() == one.sent:
            return
        try:
            told = json.loads(body)
        except ValueError:
            yield f"R6: {self.name} was told {body!r}"
            return
        if one is None or self.client.status != 200 or "error" in told:
            return
        if self.translated or self.made:
            if f"{one.tag}w0. ".encode() not in body:
                yield f"R12: {self.name} got {body!r} of {one.tag}"
        else:
            yield f"R12: {self.name} got {body!r}, of which its upstream sent {one.sent!r}"

    def _verdict(self):
        """Whether what was made of the accepted attempt is what it was."""
        record, one = self.record, self.one
        if one is None or one.tag not in self.tags or record.ending in OURS:
            return
        if record.ending is Ending.COMPLETED and self.in_frames and not one.play.error:
            return  # seen above
        if record.ending in LATE and (one.said_at or 0.0) + self._way_of(one) > self._settled_at:
            return  # what came last was still on its way when it was given up
        whole = one.stream and one.over and not one.play.error and one.play.sent == 1
        if whole and self.in_frames and self.client.ended and self._final(one.sent) == "end":
            yield f"R6: {self.name} ended {record.ending}, though {one.tag} was whole"


def tells(data: bytes) -> bool:
    """True if a failure is told in it, or the beginning of one."""
    return any(map(is_error, data.split(b"\n\n"))) or FAILING.search(data) is not None


def is_error(frame: bytes) -> bool:
    if b"error" not in frame and b"failed" not in frame:
        return False
    data = [line[6:] for line in frame.split(b"\n") if line.startswith(b"data: ")]
    try:
        told = json.loads(b"\n".join(data))
    except ValueError:
        return False
    return bool(told.get("error")) or told.get("type") in {"error", "response.failed"}
