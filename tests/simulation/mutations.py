"""Deliberate bugs of the package, to prove that the oracles would see them."""

from __future__ import annotations

from types import SimpleNamespace

import trio
from hypercorn.events import RawData

from trio_sse_proxy import (
    app,
    attempt,
    connection,
    exchange,
    flow,
    gate,
    http1,
    http2,
    inbox,
    relay,
    response,
    server,
    tries,
    wiring,
)
from trio_sse_proxy.core import pacing
from trio_sse_proxy.core.course import Course
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.errors import Broken
from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.upstreams.http import HttpUpstream


def replay_after_output(patch):
    """A cut is answered with another attempt also when the client has seen some of the answer."""
    accept, failed = exchange.Exchange.accept, relay.after_failure
    requests = {}

    def remember(self, a):
        requests[a] = self._request
        return accept(self, a)

    def again(x, a, error):
        if x.accepted is a and isinstance(error, Broken) and not a.hopeless:
            x.accepted, x._request = None, requests[a]
        return failed(x, a, error)

    patch.setattr(exchange.Exchange, "accept", remember)
    patch.setattr(relay, "after_failure", again)


def no_replay_before_output(patch):
    """What could be mended is told."""
    patch.setattr(Course, "next", lambda *_, **__: None)


def heartbeat_inside_a_frame(patch):
    """Frames go out as they are read, in pieces, and nobody remembers that."""
    take = flow.Flow.take

    def split(self, chunk):
        ready = take(self, chunk)
        if not (self.frames and ready):
            return ready
        self._scanner._held.append(ready[-2:])
        self._scanner._held_size += 2
        return ready[:-2]

    patch.setattr(flow.Flow, "take", split)


def lost_abort(patch):
    """An upstream that wants to be told is not."""

    async def nothing(self, call, credentials, *, named):
        pass

    patch.setattr(HttpUpstream, "abort", nothing)


def lost_reason(patch):
    """An attempt is let go of without noting why."""
    close = attempt.Attempt.close

    def closing(self, now):
        close(self, now)
        self.entry.reason = None

    patch.setattr(attempt.Attempt, "close", closing)


def double_terminator(patch):
    """The last frames are sent twice."""
    finish = response.finish

    async def twice(x, ending, failure=None, *, data=b""):
        await finish(x, ending, failure, data=data + data)

    patch.setattr(relay, "finish", twice)


def forgotten_release(patch):
    """Whoever ends a request leaves the upstreams to others, who may be stuck in a write."""

    def abandon(self, reason):
        self.hopeless = True
        if not self.call.over and self.call.reason is None:
            self.call.reason = reason

    patch.setattr(attempt.Attempt, "abandon", abandon)


def place_not_given_back(patch):
    """Nobody leaves the upstream's queue."""
    patch.setattr(gate.Slot, "leave", lambda self: None)


def prelude_twice(patch):
    """What was held back is sent, and still held."""

    def take_held(self, data):
        held = b"".join((*self._held, *self._held, data))
        self._held, self._held_size = [], 0
        self.watch.flushed()
        return held

    patch.setattr(attempt.Attempt, "take_held", take_held)


def usage_counted_twice(patch):
    """Tokens are added up over what a stream told."""
    close = exchange.Exchange.close

    def closing(self, verdict):
        close(self, verdict)
        told = self.record.usage
        if told is not None and told.output_tokens:
            self.record.usage = Usage(
                input_tokens=told.input_tokens, output_tokens=told.output_tokens * 2
            )

    patch.setattr(exchange.Exchange, "close", closing)


def drain_that_forgets_one(patch):
    """The last of the streams is not ended."""

    def end_streams(self):
        failure = Failure(cause=Cause.SHUTDOWN, message="the proxy is shutting down")
        for x in tuple(self.live.values())[:-1]:
            x.end(Ending.SHUTDOWN, failure)

    patch.setattr(app.Application, "end_streams", end_streams)


def no_heartbeats(patch):
    """The commit is made, and then nothing more is said."""

    async def nothing(x):
        pass

    patch.setattr(relay, "beat", nothing)


def no_event_heartbeats(patch):
    """Agents that count events are not told from others."""
    patch.setattr(relay, "beat_event", _nothing_said)


async def _nothing_said(x):
    x.pacer.event_at = trio.current_time()
    return False


def dead_upstream_not_noticed(patch):
    """Nothing ends a silence of the upstream after its first output."""
    armed = pacing.Pacer._armed
    blind = {pacing.Due.IDLE_TIMEOUT, pacing.Due.PROGRESS_TIMEOUT}

    def without(self):
        return [one for one in armed(self) if one[1] not in blind]

    patch.setattr(pacing.Pacer, "_armed", without)


def hedge_that_goes_on(patch):
    """Whoever has lost is let go of a little later."""

    def lose(self, reason):
        self.call.reason = self.entry.reason = reason
        self.scope.deadline = trio.current_time() + 1.0

    patch.setattr(attempt.Attempt, "lose", lose)


def record_twice(patch):
    """A request is recorded where it is concluded, and once more."""
    close = exchange.Exchange.close

    def closing(self, verdict):
        close(self, verdict)
        self.observer.ended(self.record)

    patch.setattr(exchange.Exchange, "close", closing)


def truncation_taken_for_an_end(patch):
    """A body that ends too early is a complete one."""
    patch.setattr(tries, "_note_failure_in_sight", lambda x, a, e: x.note(Ending.COMPLETED))


def held_body_kept(patch):
    """The request's body is not given back."""
    patch.setattr(exchange.Exchange, "_free_request", lambda x: None)


def bodies_without_bound(patch):
    """Whatever comes is kept."""

    def take(self, size):
        self.used += size
        return True

    patch.setattr(inbox.HeldBytes, "take", take)


def opening_without_bound(patch):
    """Frames are held back however many they are."""
    hold = attempt.Attempt.hold
    patch.setattr(attempt.Attempt, "hold", lambda self, data, _: hold(self, data, 2**30))


def leaving_not_noticed(patch):
    """Somebody who leaves before the answer began is waited for."""
    left = exchange.Exchange.client_left

    def later(self, ending=Ending.CLIENT_LEFT):
        if self.downstream.status is not None:
            left(self, ending)

    patch.setattr(exchange.Exchange, "client_left", later)


def pipelined_request_lost(patch):
    """What was held back behind an answer is never looked at."""

    def rest(self):
        self._set_read_by(trio.current_time() + 75.0)
        self.server.crowd.rest(self)

    patch.setattr(connection.Connection, "_rest", rest)


def connection_that_fails(patch):
    """Each ends in an error that nobody sees but the log."""

    async def begin(self):
        raise OSError("out of order")

    patch.setattr(connection.Connection, "begin", begin)


def stream_taken_back_is_kept(patch):
    """What is left to send of an HTTP/2 stream stays when its client has reset it."""
    heed, forget = http2.H2._handle_events, http2.H2._forget
    reading = set()

    async def read(self, events):
        reading.add(self)
        await heed(self, events)
        reading.discard(self)

    async def keep(self, stream_id):
        if self not in reading:
            await forget(self, stream_id)

    patch.setattr(http2.H2, "_handle_events", read)
    patch.setattr(http2.H2, "_forget", keep)


def outbox_without_bound(patch):
    """Whatever there is for an HTTP/2 stream waits for its window in memory."""

    async def push(self, data):
        self.moved_at = max(self.moved_at, trio.current_time())
        self.buffer.extend(data)

    patch.setattr(http2.Outbox, "push", push)


def shut_window_not_noticed(patch):
    """A window that stays shut is waited for."""
    patch.setattr(http2.H2, "progressed_at", lambda *_: trio.current_time())


def cut_taken_for_an_end(patch):
    """An HTTP/2 stream that breaks off ends like one that is whole."""

    async def cut(self, stream_id):
        self.stream_buffers[stream_id].set_complete()
        self.priority.unblock(stream_id)
        await self.has_data.set()

    patch.setattr(http2.H2, "cut", cut)


def stream_left_hanging(patch):
    """An HTTP/2 stream that breaks off is neither ended nor reset."""

    async def cut(self, stream_id):
        await self._forget(stream_id)

    patch.setattr(http2.H2, "cut", cut)


def goodbye_first(patch):
    """HTTP/2 clients are told to go when a drain begins, and take nothing any more."""
    wait = server.Server._wait_for_the_end

    async def wait_for_the_end(self, drainer, stop):
        await stop.asked.wait()
        await self._go_away_at_once()
        await wait(self, drainer, stop)

    async def go_away_at_once(self):
        for one in list(self.connections):
            if isinstance(one.protocol, http2.H2):
                await one.protocol.go_away()

    patch.setattr(server.Server, "_wait_for_the_end", wait_for_the_end)
    patch.setattr(server.Server, "_go_away_at_once", go_away_at_once, raising=False)


def opening_goes_ahead(patch):
    """What opens an answer is let through when more of it comes than one frame."""
    hold = attempt.Attempt.hold
    patch.setattr(attempt.Attempt, "hold", lambda self, *a: not self._held and hold(self, *a))


def asked_again_too_early(patch):
    """An upstream's wish to be left alone for a while is not heeded."""
    patch.setattr(Course, "_wish", lambda *_: 0.0)


def usage_of_what_was_cut_is_lost(patch):
    """Tokens are counted of whole answers alone."""
    close = attempt.Attempt.close

    def closing(self, now):
        close(self, now)
        if not self.call.over:
            self.entry.usage = None

    patch.setattr(attempt.Attempt, "close", closing)


def silent_json(patch):
    """No white space is sent while JSON is waited for."""
    armed = pacing.Pacer._armed
    kept = {pacing.Due.COMMIT, pacing.Due.HEARTBEAT}

    def without(self):
        quiet = self.keepalive is pacing.Keepalive.SPACE
        return [one for one in armed(self) if not (quiet and one[1] in kept)]

    patch.setattr(pacing.Pacer, "_armed", without)


def stuck_clients_kept(patch):
    """Nobody gives up a client that takes nothing."""
    armed = pacing.Pacer._armed

    def without(self):
        return [one for one in armed(self) if one[1] is not pacing.Due.WRITE_STALLED]

    patch.setattr(pacing.Pacer, "_armed", without)


def cut_that_tells(patch):
    """Those who want a cut are told, and those who want to be told are cut off."""
    patch.setattr(relay, "OnFailure", SimpleNamespace(TELL=relay.OnFailure.CUT))


def more_than_max_streams(patch):
    """One more than may run is taken on."""
    patch.setattr(app, "overload", lambda _: None)


def queue_without_bound(patch):
    """Whoever wants to wait for an upstream may."""
    patch.setattr(gate.Gate, "_find_place", lambda *_: None)


def another_ending(patch):
    """An operator's order is written down as a timeout."""

    def cancel(self, stream_id):
        x = self.live.get(stream_id)
        if x is not None:
            x.end(Ending.TOTAL_TIMEOUT, Failure(cause=Cause.TIMEOUT, message="too late"))

    patch.setattr(app.Application, "cancel", cancel)


def task_left(patch):
    """Each request leaves a task behind."""
    call = wiring.Proxy.__call__

    async def calling(self, scope, receive, send):
        nursery = trio.lowlevel.current_root_task().child_nurseries[0]
        nursery.start_soon(trio.sleep_forever)
        await call(self, scope, receive, send)

    patch.setattr(wiring.Proxy, "__call__", calling)


def request_behind_another_lost(patch):
    """Of what one read brings, the first whole request alone is looked at."""

    async def handle(self, event):
        if isinstance(event, RawData) and event.data:
            self.held_back = False
            self.connection.receive_data(event.data)
            if (whole := self.connection.take_whole()) is not None:
                await self._serve_whole(*whole)
                return
            event = RawData(b"")
        await heed(self, event)

    heed = http1.H11.handle
    patch.setattr(http1.H11, "handle", handle)


MUTATIONS = {
    replay_after_output: "R5",
    no_replay_before_output: "R5",
    heartbeat_inside_a_frame: "R12",
    lost_abort: "R7",
    lost_reason: "R7",
    double_terminator: "R6",
    forgotten_release: "R7",
    place_not_given_back: "R11",
    prelude_twice: "R5",
    usage_counted_twice: "R10",
    drain_that_forgets_one: "R7",
    no_heartbeats: "R1",
    no_event_heartbeats: "R3",
    dead_upstream_not_noticed: "R11",
    hedge_that_goes_on: "R7",
    record_twice: "R10",
    truncation_taken_for_an_end: "R6",
    held_body_kept: "R9",
    bodies_without_bound: "R9",
    opening_without_bound: "R9",
    leaving_not_noticed: "R7",
    pipelined_request_lost: "R6",
    connection_that_fails: "R11",
    stream_taken_back_is_kept: "R11",
    outbox_without_bound: "R9",
    shut_window_not_noticed: "R11",
    cut_taken_for_an_end: "R6",
    goodbye_first: "R6",
    stream_left_hanging: "R6",
    opening_goes_ahead: "R5",
    asked_again_too_early: "R5",
    usage_of_what_was_cut_is_lost: "R10",
    silent_json: "R1",
    stuck_clients_kept: "R11",
    cut_that_tells: "R6",
    more_than_max_streams: "R9",
    queue_without_bound: "R9",
    another_ending: "R10",
    task_left: "R11",
    request_behind_another_lost: "R6",
}
"""Each with the rule it breaks."""
