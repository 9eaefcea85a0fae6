"""An upstream like any other, which does what it is told at the virtual instants it is told."""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

import trio

from trio_sse_proxy.core.call import Reason
from trio_sse_proxy.core.errors import Broken

SSE = ((b"content-type", b"text/event-stream"),)
JSON = ((b"content-type", b"application/json"),)
HANG = inf
"""A step: wait for ever."""


class ReadBody:
    """A step before the headers: read the request body; `pieces` of it, or all."""

    def __init__(self, pieces: int | None = None) -> None:
        self.pieces = pieces


@dataclass
class Attempt:
    """What happens to one call.

    Steps are seconds to wait (float), errors to raise, `ReadBody`, and in the body also bytes and
    functions, which are called for such. The body ends properly after its last step. `sent` is False if
    no byte of the request ever goes out.
    """

    before: tuple = ()
    status: int = 200
    headers: tuple = SSE
    body: tuple = ()
    sent: bool = True


def answers(*body, status=200, headers=SSE, after=()):
    """An attempt that is answered; `after` are the steps before its headers."""
    steps = after if isinstance(after, tuple) else (float(after),)
    return Attempt(steps, status, headers, body)


def fails(error, after=0.0):
    """An attempt that never gets headers."""
    return Attempt((float(after), error), sent=error.sent)


@dataclass
class Call:
    """What became of one call. Instants by trio's clock."""

    request: object
    opened: float
    told: object = None
    """The relay's own core.call.Call."""
    body: bytes = b""
    answered: float | None = None
    released: float | None = None
    closed: float | None = None
    left_early: bool = True
    aborts: list = field(default_factory=list)
    """The instant and the reason of every abort message."""
    received: list = field(default_factory=list)


class Answer:
    """See ports.Answer. Like a socket's, a release wakes the reader with an error of its own."""

    def __init__(self, attempt: Attempt, call: Call) -> None:
        self.status = attempt.status
        self.headers = attempt.headers
        self._steps = list(attempt.body)
        self._call = call
        self._gone = trio.Event()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self._steps:
            if self._gone.is_set():
                raise Broken("the connection was released", responded=True)
            step = self._steps.pop(0)
            if isinstance(step, bytes):
                return step
            if isinstance(step, Exception):
                raise step
            if callable(step):
                return step()
            await self._pause(step)
        self._call.left_early = False
        return b""

    def release(self) -> None:
        if self._call.released is None:
            self._call.released = trio.current_time()
        self._gone.set()

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._gone.wait()
            raise Broken("the connection was released", responded=True)


class ScriptedUpstream:
    """See ports.Upstream. `calls` tells what happened; a call beyond the script is a failed test.

    As an HTTP upstream does, it says why a call was left where the relay has not, and sends one
    abort message for it, which takes `abort_takes` seconds.
    """

    def __init__(
        self, *attempts: Attempt, name: str = "scripted", abort_takes: float = 0.0
    ) -> None:
        self.name = name
        self._attempts = list(attempts)
        self._abort_takes = abort_takes
        self.calls: list[Call] = []

    @asynccontextmanager
    async def open(self, request, told):
        call = Call(request, trio.current_time(), told)
        self.calls.append(call)
        del request  # a call keeps no body longer than it needs
        try:
            assert self._attempts, f"{self.name} was asked more often than the script foresees"
            attempt = self._attempts.pop(0)
            if attempt.sent:
                told.begin()
            await trio.lowlevel.checkpoint()
            await self._before(attempt, call)
            call.answered = trio.current_time()
            yield Answer(attempt, call)
        except trio.Cancelled:
            told.reason = told.reason or Reason.SHUTDOWN
            raise
        finally:
            call.closed = trio.current_time()
            if call.released is None:
                call.released = call.closed
            call.request = None
            if told.begun and not told.over:
                told.reason = told.reason or Reason.BROKEN
                call.aborts.append((trio.current_time(), told.reason))
                if self._abort_takes:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(self._abort_takes)

    async def _before(self, attempt: Attempt, call: Call) -> None:
        if isinstance(call.request.body, bytes):
            call.body = call.request.body
        for step in attempt.before:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, ReadBody):
                await self._read(call, step.pieces)
            else:
                await trio.sleep(step)
        aclose = getattr(call.request.body, "aclose", None)
        if aclose is not None:
            await aclose()  # it reads no further
        call.received = [(call.request.method, call.request.target, call.request.headers)]
        call.request = None

    async def _read(self, call: Call, pieces: int | None) -> None:
        assert isinstance(call.request.body, AsyncIterable)
        iterator = aiter(call.request.body)
        while pieces is None or pieces > 0:
            try:
                call.body += await anext(iterator)
            except StopAsyncIteration:
                break
            if pieces is not None:
                pieces -= 1
