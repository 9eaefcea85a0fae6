"""The hot path: what is done for each chunk of a stream that runs steadily.

`take` is a plain call. Over our own server and transport it runs where the chunk was read, with no
task woken for it (see ports.Pump): that of the request is, when there is anything to look at, when
the client has no room, and at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .wire import Written

if TYPE_CHECKING:
    from .attempt import Attempt
    from .exchange import Exchange
    from .ports import Answer, Pump


class Flow:
    """One attempt's frames on their way from its upstream to the client."""

    __slots__ = (
        "_downstream",
        "_pacer",
        "_record",
        "_rest",
        "_scanner",
        "_stream",
        "_watch",
        "frames",
        "head",
    )

    def __init__(self, x: Exchange, a: Attempt) -> None:
        self._scanner, self._stream, self._watch = a.scanner, a.stream, a.watch
        self._pacer, self._record, self._downstream = x.pacer, x.record, x.downstream
        self._rest = False  # of what was written, the client has no room for some
        self.frames = 0
        """How many frames of output were left that only have to be written; 0: to be looked at."""
        self.head = b""
        """How the first of them began, if it was too large to be held."""

    async def next(self, answer: Answer) -> bytes:
        """Let pass what may, and hand out what else comes: whole frames; b"" at the end of the body."""
        pump: Pump | None = getattr(answer, "pump", None)
        if pump is not None:
            return await pump(self.take)
        while chunk := await answer.receive():
            if left := self.take(chunk):
                return left
        return b""

    def take(self, chunk: bytes) -> bytes:
        """Cut `chunk`, and forward it if it holds output and nothing else. What is left to be done."""
        watch, scanner = self._watch, self._scanner
        now = watch.heard_at = trio.current_time()
        self.head = scanner.head if scanner.inside else b""
        ready = scanner.cut(chunk)
        self.frames = 0
        if not ready or not watch.output or self.head or scanner.inside:
            return ready
        frames = self._stream.skim(ready)
        if not frames:
            return ready
        written = self._downstream.write_now(ready)
        if written is Written.WHOLLY:
            pacer, record = self._pacer, self._record
            watch.progress_at = pacer.event_at = pacer.wrote_at = now
            record.bytes += len(ready)
            record.frames += frames
            return b""
        self._rest = written is Written.PARTLY
        self.frames = frames
        return ready

    async def write(self, ready: bytes) -> None:
        """Write what `next` left that only has to be written."""
        watch, pacer, record = self._watch, self._pacer, self._record
        pacer.event_at = watch.heard_at
        await self._downstream.write(b"" if self._rest else ready)
        # While we write the upstream is not read: its silence begins afterwards.
        watch.heard_at = watch.progress_at = pacer.wrote_at
        record.bytes += len(ready)
        record.frames += self.frames
