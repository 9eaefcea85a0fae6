"""Deliberate bugs of the package, to prove that the oracles would see them."""

from __future__ import annotations

from trio_sse_proxy import app, attempt, exchange, flow, relay, response
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.usage import Usage


def heartbeat_inside_a_frame(patch):
    """Frames go out as they are read, in pieces."""
    take = flow.Flow.take

    def split(self, chunk):
        ready = take(self, chunk)
        self._pacer.inside = False
        return ready[:-2] if self.frames else ready

    patch.setattr(flow.Flow, "take", split)


def lost_abort_reason(patch):
    """An attempt is let go of without noting why."""
    patch.setattr(attempt.Attempt, "close", _without_reason(attempt.Attempt.close))


def _without_reason(close):
    def closing(self, now):
        close(self, now)
        self.entry.reason = None

    return closing


def double_terminator(patch):
    """The last frames are sent twice."""
    finish = response.finish

    async def twice(x, ending, failure=None, *, data=b""):
        await finish(x, ending, failure, data=data + data)

    patch.setattr(relay, "finish", twice)


def forgotten_release(patch):
    """Whoever ends a request leaves the upstreams to others."""
    patch.setattr(exchange.Exchange, "end_attempt", _keeping(exchange.Exchange.end_attempt))


def _keeping(end_attempt):
    def end(self, a):
        slot, a.slot = a.slot, None
        end_attempt(self, a)
        a.slot = slot

    return end


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


def record_twice(patch):
    """A request is recorded where it is concluded, and once more."""
    close = exchange.Exchange.close

    def closing(self, verdict):
        close(self, verdict)
        self.observer.ended(self.record)

    patch.setattr(exchange.Exchange, "close", closing)


def truncation_taken_for_an_end(patch):
    """A body that ends too early is a complete one."""
    patch.setattr(exchange.Exchange, "_failed_in_sight", lambda x, a, e: x.note(Ending.COMPLETED))


def held_body_kept(patch):
    """The request's body is not given back."""
    patch.setattr(exchange.Exchange, "_free_request", lambda x: None)


MUTATIONS = (
    heartbeat_inside_a_frame,
    lost_abort_reason,
    double_terminator,
    forgotten_release,
    prelude_twice,
    usage_counted_twice,
    drain_that_forgets_one,
    no_heartbeats,
    record_twice,
    truncation_taken_for_an_end,
    held_body_kept,
)
