"""What the relay asks of the outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from .core.call import Call
    from .core.failure import Cause
    from .core.headers import Headers
    from .core.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """One request as an upstream shall get it.

    `target` is the path and query below this proxy's root as the client sent them, percent-encoding
    included. `headers` are end-to-end only. `body` is the whole body, or an iterable that can be
    read once, for requests that are streamed through: a step of it that is cancelled loses nothing, so
    the next one may be taken later, by another task. Whoever has begun to read it and reads no
    further, at its end or before, calls its `aclose` if it has one; the client's side would otherwise
    wait for the next piece to be taken.
    """

    method: str
    target: bytes
    headers: Headers
    body: bytes | AsyncIterable[bytes]


class Answer(Protocol):
    """An upstream's answer: headers read, body still to come."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Headers:
        """End-to-end header fields."""
        ...

    async def receive(self) -> bytes:
        """The next piece of the body, everything that one read brought; b"" at its end.

        Raises UpstreamError. A cancellation leaves the answer usable only for `release`.
        """
        ...

    def release(self) -> None:
        """Let go of the upstream now, from whichever task, without waiting; harmless to repeat.

        A task that waits in `receive` is woken.
        """
        ...


class Pump(Protocol):
    """What an answer may have as `pump`, for streams of many small pieces; None, or absent, if not.

    `await pump(take)` is the loop below, done with less: while `take` leaves nothing, the task that
    awaits need not be woken, and `take` is a plain call from wherever the piece was read.

        while piece := await answer.receive():
            if left := take(piece):
                return left
        return b""
    """

    def __call__(self, take: Callable[[bytes], bytes]) -> Awaitable[bytes]:
        """What `take` left, or b"" at the end of the body. Raises as `receive` does."""
        ...


class Upstream(Protocol):
    """Something that answers requests."""

    @property
    def name(self) -> str:
        """As it stands in settings, records and metrics."""
        ...

    def open(self, request: UpstreamRequest, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Send `request`, wait for the headers of the answer, and hand it out.

        Leaving the context early is an abort: the connection is closed at once. A body read to its
        end returns the connection to the pool. Raises UpstreamError on the way in.

        An upstream that does not notice a closed connection gets exactly one abort message on the
        way out, also where the headers never came, if the call was begun and is not `over`: under a
        shield, with a deadline, after the connection was closed. What came of it stands in `call`.
        """
        ...


class Observer(Protocol):
    """Somebody who counts. Plain calls, none of which may raise or wait."""

    def began(self, record: Record) -> None:
        """A request was let in."""
        ...

    def retried(self, record: Record, cause: Cause) -> None:
        """The upstream will be asked again because of `cause`."""
        ...

    def heartbeat(self, record: Record, kind: str) -> None:
        """A heartbeat is being sent: "frame", "event" or "space"."""
        ...

    def ended(self, record: Record) -> None:
        """The request is over and its record complete. Called exactly once per request."""
        ...
