"""What the relay asks of a dialect.

A dialect is knowledge, not behaviour: bytes of whole frames in, a judgement out; a failure in, the
bytes that tell of it out. Nothing here waits, reads a clock or logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from ..core.sse import split_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.failure import Failure
    from ..core.usage import Usage


class Sight(Enum):
    """What one whole frame means for the request it belongs to."""

    IDLE = (
        "idle"  # comment, blank line, ping, keepalive: the upstream is there, but gets no further
    )
    PRELUDE = "prelude"  # a real event, yet nothing a client shows or stores: held back
    OUTPUT = "output"  # closes the replay window
    END = "end"  # the terminator: the stream is complete with this frame
    ERROR = "error"  # the upstream's own error; `DialectStream.failure` says which


class DialectStream(Protocol):
    """What is known of one attempt's stream. One instance per attempt, and one while there is none."""

    forwarded: bool
    """Set by the relay once frames of this attempt have reached the client."""

    @property
    def failure(self) -> Failure | None:
        """What the frame seen as `Sight.ERROR` said; None before."""
        ...

    @property
    def answer_id(self) -> str | None:
        """What the upstream calls this answer, as far as its frames have told: an abort may need it."""
        ...

    @property
    def awaits_failed(self) -> bool:
        """True after an error frame which a second, final error frame is expected to follow."""
        ...

    @property
    def finished(self) -> bool:
        """True if the body may end here without a terminator and still be complete."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The token counts told so far; None while none were told."""
        ...

    def look(self, frame: bytes) -> Sight:
        """Judge one whole frame (terminating blank line included) and remember what it tells.

        Never raises: what cannot be decoded counts as output, since a client may make sense of it.
        """
        ...

    def skim(self, frames: bytes) -> int:
        """After the first output: how many whole frames these are; 0 if one must be looked at.

        This is the hot path: a comparison with the frames before, or else a few substring searches;
        no decoding. If not 0, it remembers `frames` (the bytes object itself) so that a heartbeat or
        error can decode what it has to know.
        """
        ...

    def byte_heartbeat(self) -> bytes:
        """A frame that is no event to the client, valid between any two frames."""
        ...

    def event_heartbeat(self, agent: str, skip: Callable[[], None] | None = None) -> bytes | None:
        """A frame that re-arms the timer of an agent which counts events; None where none is safe.

        `agent` is the client's User-Agent and originator in lower case, joined by a space. `skip` is
        called if the frame takes the number that the next event would have had; without it, it
        repeats the last one, since what follows is numbered by an upstream that knows nothing of it.
        """
        ...

    def error_frames(self, failure: Failure) -> bytes:
        """The frame or frames that tell of `failure`; the body ends right after them."""
        ...


class Dialect(Protocol):
    """One wire format: its errors outside a stream, and its streams."""

    @property
    def name(self) -> str:
        """As it stands in records, metrics and settings: "chat", "responses", "messages"."""
        ...

    def http_status(self, failure: Failure) -> int:
        """The HTTP status that tells of `failure` while no header was sent."""
        ...

    def error_body(self, failure: Failure) -> bytes:
        """The JSON body that goes with `http_status`."""
        ...

    def answer_usage(self, body: bytes) -> Usage | None:
        """The token counts of a non-streaming answer; None where it has none or is no JSON."""
        ...

    def open_stream(self) -> DialectStream:
        """A fresh state for one attempt."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What some whole frames, looked at one by one, come to.

    `data` reaches up to and including the final frame, if there was one: what follows an ending is
    never forwarded. `sight` is the weightiest of the frames before it, `final` END, ERROR or None.
    `event` is False if none of them is an event: all are IDLE, or pieces of one too large to be held.
    """

    data: bytes
    sight: Sight
    final: Sight | None
    event: bool = True


def look_through(
    stream: DialectStream, frames: bytes, *, head: bytes = b"", unfinished: bool = False
) -> Seen:
    """Look at whole frames one by one, as far as the first that ends the stream.

    Behind output only those that may tell something are decoded, as on the hot path.

    An error that a final one is expected to follow ends it only if that one is not among them.
    `head` is how the first one began, if it was too large to be held, and `unfinished` says that
    the last is a piece of such a one: pieces are output, and what began is judged when it ends.
    """
    sight = Sight.IDLE
    taken = error_end = 0
    pieces = split_frames(frames)
    if unfinished:
        pieces.pop()
    for frame in pieces:
        taken += len(frame)
        if not head and frame[:1] == b":" and frame.find(b"\n") == len(frame) - 2:
            continue  # a comment and nothing else: thousands of them fit into one read
        if sight is Sight.OUTPUT and not head and stream.skim(frame):
            continue
        match seen := stream.look(head + b"\n\n" if head else frame):
            case Sight.ERROR:
                error_end = taken
                if not stream.awaits_failed:
                    break
            case Sight.END if not error_end:
                return Seen(frames[:taken], sight, seen)
            case Sight.OUTPUT if not error_end:
                sight = seen
            case Sight.PRELUDE if sight is Sight.IDLE:
                sight = seen
            case _:
                pass
        head = b""
    if error_end:
        return Seen(frames[:error_end], sight, Sight.ERROR)
    weight = Sight.OUTPUT if unfinished else sight
    return Seen(frames, weight, None, event=sight is not Sight.IDLE)
