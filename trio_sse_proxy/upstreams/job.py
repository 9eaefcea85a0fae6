"""What a worker sees of one call: what is asked, where the answer goes, and when nobody wants it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from typing import TYPE_CHECKING, Any, cast

import trio

from ..core.failure import Cause, Failure, Refused
from ..core.usage import Usage
from ..dialects.forms import Stop
from ..dialects.wire import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..core.call import Reason
    from ..core.headers import Headers
    from ..dialects.forms import Form


class Abandoned(Exception):
    """Raised by `send` once nobody reads any more; a worker lets it pass, and is done.

    `reason` is None if the answer had come to its own end, and what was sent is too much.
    """

    def __init__(self, reason: Reason | None) -> None:
        super().__init__(f"nobody reads this answer any more ({reason and reason.value})")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortMessage:
    """That a call was abandoned, for a worker which does not live in this task tree."""

    call_id: str
    stream_id: str
    reason: Reason
    model: str | None


class AbortSignal:
    """Set once, when the call was abandoned. `reason` says why, and is None before."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self._event = trio.Event()
        self._scopes: set[trio.CancelScope] = set()

    def is_set(self) -> bool:
        """True once the call was abandoned."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once the call was abandoned."""
        await self._event.wait()

    def set(self, reason: Reason) -> None:
        """For the upstream: wake whoever waits."""
        self.reason = reason
        self._event.set()
        for scope in self._scopes:
            scope.cancel("the call was abandoned")

    @contextmanager
    def cancels(self) -> Generator[trio.CancelScope]:
        """A scope that is cancelled once the call is abandoned: for waiting that may be left at once."""
        with trio.CancelScope() as scope:
            if self.is_set():
                scope.cancel("the call was abandoned")
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)


class Output:
    """Where an answer goes, piece by piece: who sends waits until it was taken.

    Nothing is stored, so the client's pace is the worker's. It is no memory channel because a piece
    whose sending was cancelled must not be missing: frames depend on those before them. It stays, and
    goes out with the next. What several tasks send at the same time goes out as one piece.
    """

    def __init__(self, form: Form, abort: AbortSignal, *, stream: bool) -> None:
        self.closed = False
        self._form = form
        self._abort = abort
        self._stream = stream
        self._speaks: str | None = None  # "text" or "frames", once the worker has said something
        self._opened = False
        self._over = False
        self._ready: list[bytes] = []
        self._batch = 0  # how often what was ready has been taken
        self._reader, self._writers = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._text, self._reasoning = StringIO(), StringIO()

    async def say(self, text: str, *, reasoning: bool) -> None:
        """Send a piece of text as frames, or keep it for the one document."""
        self._speak("text")
        if not (self._stream and text):
            (self._reasoning if reasoning else self._text).write(text)
            await self._write(b"")
            return
        self._open()
        await self._write(self._form.reasoning(text) if reasoning else self._form.text(text))

    async def pass_on(self, frames: bytes) -> None:
        """Send frames as they are."""
        if not self._stream:
            raise RuntimeError("this client wants no stream: give it text")
        self._speak("frames")
        await self._write(frames)

    async def finish(self, usage: Usage | None, stop: Stop) -> None:
        """Send what follows the last word, unless the worker has made its own frames."""
        if self._stream and self._speaks != "frames":
            self._open()
            await self._write(self._form.closing(usage or Usage(), stop))

    def document(self, usage: Usage | None, stop: Stop) -> bytes:
        """The whole answer."""
        text, reasoning = self._text.getvalue(), self._reasoning.getvalue()
        return dumps(self._form.whole(text, reasoning, usage or Usage(), stop))

    @property
    def makes_frames(self) -> bool:
        """True if the answer is told in frames of ours, from text."""
        return self._opened

    @property
    def busy(self) -> bool:
        """See core.call.Numbering."""
        return bool(self._ready)

    def skip(self, count: int, held: bytes) -> bytes:
        """See core.call.Numbering."""
        return self._form.skip(count, held)

    async def take(self) -> bytes:
        """Everything that waits to be sent; b"" at the end, and once it is closed."""
        while not (self._ready or self._over or self.closed):
            await self._reader.park()
        frames = b"".join(self._ready)
        self._ready.clear()
        self._batch += 1
        self._writers.unpark_all()
        return frames

    def end(self) -> None:
        """Nothing more will be sent."""
        self._over = True
        self._reader.unpark_all()

    def close(self) -> None:
        """Nobody will take anything any more: wake everybody."""
        self.closed = True
        self._ready.clear()
        self._reader.unpark_all()
        self._writers.unpark_all()

    def _speak(self, kind: str) -> None:
        if kind != (self._speaks or kind):
            raise RuntimeError(f"this answer was begun with {self._speaks}")
        self._speaks = kind

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            self._ready.append(self._form.opening())

    async def _write(self, frames: bytes) -> None:
        taken = False
        if not frames:
            await trio.lowlevel.checkpoint()
        elif not self.closed:
            batch = self._batch
            self._ready.append(frames)
            self._reader.unpark_all()
            await self._writers.park()
            taken = self._batch > batch  # and then it was sent, whatever has happened since
        if self.closed and not taken:
            # In a scope that the abort cancels, that is how the worker expects to hear of it.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise Abandoned(self._abort.reason)


@dataclass(kw_only=True, eq=False)
class Job:
    """One call, for a worker. It ends when the worker returns; what was told until then is the answer.

    `body` is what the client sent, decoded. `streaming` says whether it wants a stream: with `send`
    a worker need not care, since the same calls become one JSON document for a client that does not.
    `stop` may be set to `Stop.LENGTH` before returning, if the answer was cut at `max_tokens`.
    """

    call_id: str
    stream_id: str
    dialect: str
    path: str
    headers: Headers
    body: bytes
    model: str | None
    streaming: bool
    output: Output = field(repr=False)
    abort: AbortSignal = field(default_factory=AbortSignal, repr=False)
    stop: Stop = Stop.END

    @cached_property
    def json(self) -> dict[str, Any]:
        """The request's JSON. Raises Refused, which is a worker's way to answer with status 400."""
        value = loads(self.body)
        if not isinstance(value, dict):
            message = "the request's body is no JSON object"
            raise Refused(Failure(cause=Cause.INVALID_REQUEST, message=message))
        return cast("dict[str, Any]", value)

    async def send(self, text: str) -> None:
        """Send a piece of the answer's text; return when the client's side has taken it.

        Raises Abandoned. A cancellation half-way loses this piece.
        """
        await self.output.say(text, reasoning=False)

    async def send_reasoning(self, text: str) -> None:
        """The same for what the model thinks before it answers."""
        await self.output.say(text, reasoning=True)

    async def send_frames(self, frames: bytes) -> None:
        """Send whole SSE frames of the worker's own making, for all of the answer.

        The worker then makes the prelude and the terminator too. Raises Abandoned, and RuntimeError
        if the client wants no stream, or text was sent before.
        """
        await self.output.pass_on(frames)
