"""Deliberate bugs of the package, of the kind that only a cancellation shows, to prove that it would."""

from __future__ import annotations

import trio

from trio_sse_proxy import relay
from trio_sse_proxy.connection import Connection
from trio_sse_proxy.gate import Gate
from trio_sse_proxy.upstreams import http
from trio_sse_proxy.upstreams.pool import Pool


def wait_before_the_abort(patch):
    """A checkpoint ahead of what has to be done on the way out: cancelled there, it is not done."""
    leave = http._Attempt.__aexit__

    async def late(self, *exception):
        await trio.lowlevel.checkpoint()
        await leave(self, *exception)

    patch.setattr(http._Attempt, "__aexit__", late)


def record_outside_of_the_shield(patch):
    """The same where the request is concluded."""
    conclude = relay.conclude

    async def late(x):
        await trio.lowlevel.checkpoint()
        await conclude(x)

    patch.setattr(relay, "conclude", late)


def slot_of_a_connection_kept(patch):
    """A connection that was not made keeps its slot if making it was cancelled."""

    async def opening(self, shelf, within):
        try:
            return await self._connect(shelf.origin, within)
        except Exception:
            self._free_slot(shelf)
            raise

    patch.setattr(Pool, "_open", opening)


def place_lost_on_the_way(patch):
    """Who is handed a place in the queue has to wake first, and may be cancelled before it has it."""
    enter = Gate.enter

    async def entering(self, client):
        slot = await enter(self, client)
        await trio.lowlevel.checkpoint()
        return slot

    patch.setattr(Gate, "enter", entering)


def abort_that_can_be_cancelled(patch):
    """The upstream is told only where nothing else is being cancelled."""
    abort = http.HttpUpstream.abort

    async def cancellable(self, call, credentials, *, named):
        await trio.lowlevel.checkpoint_if_cancelled()
        await abort(self, call, credentials, named=named)

    patch.setattr(http.HttpUpstream, "abort", cancellable)


def connection_left_to_its_tasks(patch):
    """A connection is closed where it ends, but not where its tasks are cancelled."""

    async def run(self, task):
        try:
            await task()
        except* Exception:
            self._close_wire()

    patch.setattr(Connection, "_run", run)


def leaving_kept_from_the_call(patch):
    """The reader sees that the client has left, and the application is not told."""

    async def serve_on(self):
        if not self.protocol.has_room:
            await self.protocol.have_room()
        await self._read()
        call, self.calls.next = self.calls.next, None
        if call is None:
            self._close_wire()
        else:
            self._receiving = True
            self.start(self._serve_on)
            await call()

    patch.setattr(Connection, "_serve_on", serve_on)


MUTATIONS = (
    wait_before_the_abort,
    record_outside_of_the_shield,
    slot_of_a_connection_kept,
    place_lost_on_the_way,
    abort_that_can_be_cancelled,
    connection_left_to_its_tasks,
    leaving_kept_from_the_call,
)
