"""What must be true at every instant: looked at whenever everything waits, before time goes on."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER as OUTBOX

from trio_sse_proxy.http2 import H2

if TYPE_CHECKING:
    from .world import Run

READ = 65536
LINGER = 0.11
MOMENT = 0.1
"""A worker is waited for again when nothing more is read of it."""
WHOLE = 2**20
"""Bytes of an answer that is no stream, which may be held."""


class Watch:
    """Looks, and notes what it sees in `run.found`; after a few findings it looks no more."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def look(self) -> None:
        run = self._run
        if run.witness is None or len(run.found) > 3:
            return
        now = trio.current_time()
        live = run.app.live.values()
        for what in (
            *self._accounts(live),
            *self._clients(),
            *self._memory(live),
            *self._unwanted(now),
        ):
            run.found.append(f"{what}, at {now}")

    def spun(self) -> None:
        self._run.found.append("R11: somebody ran on and on, and time stood still")

    def _accounts(self, live):
        run = self._run
        if len(run.witness.records) + len(live) != len(run.witness.began_with):
            yield "R10: there is not one record for each request that is over"
        if run.app.surroundings.budget.retrying > len(live):
            yield "R11: more requests are in a retry than there are"
        taken = sum(x.refused is None for x in live)
        if taken > run.history.limits.get("max_streams", taken):
            yield f"R9: {taken} requests are taken on"
        for endpoint in run.endpoints:
            attempts = [a for x in live for a in x.attempts if a.endpoint is endpoint]
            if endpoint.inflight != len(attempts):
                yield f"R11: {endpoint.name} counts {endpoint.inflight} of {len(attempts)} attempts"
            if endpoint.gate is not None:
                server = run.upstreams[endpoint.name].server
                if endpoint.gate.inflight > server.gate[0] and not self._loses_its_table(server):
                    yield f"R9: {endpoint.gate.inflight} are in at {endpoint.name}"
                if endpoint.gate.queued > server.gate[1] and not self._loses_its_table(server):
                    yield f"R9: {endpoint.gate.queued} wait at {endpoint.name}"

    def _clients(self):
        """Over HTTP/2 little is kept of a stream, and nothing if its client has had it, or left it."""
        if self._run.listener is None:
            return
        for connection in self._run.listener.connections:
            protocol = getattr(connection, "protocol", None)
            if not isinstance(protocol, H2):
                continue
            requests = connection.wire.requests
            for one in {*protocol.streams, *protocol.stream_buffers}:
                request = requests[one // 2]
                if request.ended or request.left_at is not None:
                    yield f"R11: a stream of {request.name} is kept by its connection"
            for one, outbox in protocol.stream_buffers.items():
                limits = requests[one // 2].limits or self._run.proxy.settings.limits
                if self._may_be_retold(requests[one // 2]):
                    continue
                if len(outbox.buffer) > OUTBOX + READ + 2 * limits.max_frame_bytes:
                    yield f"R9: {len(outbox.buffer)} bytes wait for {requests[one // 2].name}"

    def _may_be_retold(self, request) -> bool:
        """The end of a translated Responses answer tells all of it again, several times."""
        upstreams = self._run.history.servers
        return request.person.dialect == "responses" and any(one.chat_only for one in upstreams)

    def _loses_its_table(self, server):
        """A worker stays when a reload takes its table away, and has no limits then."""
        left_out = [one.without for one in self._run.history.orders if one.what == "reload"]
        names = [self._run.history.servers[at].name for at in left_out if at is not None]
        return server.worker and server.name in names

    def _memory(self, live):
        run = self._run
        used = run.app._held.used
        if used > run.app._limits.max_held_bytes or (used and not live):
            yield f"R9: {used} bytes of bodies are held for {len(live)} requests"
        for x in live:
            most = x.limits.max_frame_bytes
            for a in x.attempts:
                held = a._held_size
                if held > (most if a.in_frames else WHOLE + READ):
                    yield f"R9: {held} bytes are held of an answer"
                if a.scanner._held_size > most:
                    yield f"R9: {a.scanner._held_size} bytes are held of a frame"
        for one in run.plays.open():
            id = one.call.partition("-")[2]
            request, x = run.by_id.get(id), run.app.live.get(id)
            if request is None or not (one.play.flood and request.patient):
                continue
            if x is not None and x.downstream.discarding:
                continue  # it is read on, and kept nowhere
            if one.dialect != request.person.dialect or one.play.gzip:
                continue  # other bytes are on their way than are counted here
            most = request.limits.max_frame_bytes if one.stream else WHOLE
            most += OUTBOX * request.person.http2
            window = run.upstreams[one.server].server.weather.window
            ahead = len(one.sent) - request.got
            if ahead > window + READ + 2 * most + one.play.burst * one.play.flood:
                yield f"R9: {ahead} bytes of {one.tag} are on their way"

    def _unwanted(self, now: float):
        """R7: at no instant does anybody work for nobody."""
        run = self._run
        for one in run.plays.open():
            id = one.call.partition("-")[2]
            request = run.by_id.get(id)
            if request is None:
                yield f"R7: {one.tag} is nobody's"
                continue
            ordered = min(run.cancelled.get(id, inf), run.ended_from(request))
            gone = request.gone_at
            if gone < inf and run.history.rules.get("on_disconnect") == "finish":
                gone += run.history.rules["finish_timeout"]
            worker = run.upstreams[one.server].server.worker
            if one.has_said_all(but_one=worker or one.dialect != request.person.dialect):
                # All was said, and the proxy reads on for the end of the body.
                more = LINGER + MOMENT * worker
                ordered, gone = ordered + more, gone + more
            if now >= min(ordered, gone):
                yield f"R7: {one.tag} still works, unwanted since {min(ordered, gone)}"
