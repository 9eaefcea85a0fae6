"""What a scripted answer is made of: a handful of steps, played one after the other.

A script is a tuple of steps and ends with one that says what becomes of the connection: `End`,
`Fin`, `Reset`, `Hang` or `Status`.
"""

from __future__ import annotations

from dataclasses import dataclass

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Say nothing for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """A whole answer by Content-Length; the connection stays usable."""

    code: int
    body: bytes = b""
    content_type: str = "application/json"
    fields: Fields = ()


@dataclass(frozen=True, slots=True)
class Headers:
    """The head of an answer whose body follows in `Frames`.

    `framing` says how the body's end will be known: "chunked", "close" (at the end of the
    connection), or a number of bytes (Content-Length). With `gzip` the body is compressed, each
    `Frames` entry flushed so that it can be read at once.
    """

    framing: str | int = "chunked"
    content_type: str = "text/event-stream; charset=utf-8"
    gzip: bool = False
    code: int = 200
    fields: Fields = ()


@dataclass(frozen=True, slots=True)
class Frames:
    """Pieces of the body, each in a write (and HTTP chunk) of its own, `every` seconds apart."""

    frames: tuple[bytes, ...]
    every: float = 0.0


@dataclass(frozen=True, slots=True)
class Repeat:
    """One piece of the body over and over, until the client leaves or `times` are over."""

    frame: bytes
    every: float = 0.0
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes straight onto the socket, no framing."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pieces:
    """From here on every write goes out in TCP segments of at most `size` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class End:
    """The proper end of the body; the connection stays usable (unless its end is the body's)."""


@dataclass(frozen=True, slots=True)
class Fin:
    """Close the connection politely, whatever the framing had promised."""


@dataclass(frozen=True, slots=True)
class Reset:
    """A real RST: close with SO_LINGER 0."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more until the client leaves."""


Step = Wait | Status | Headers | Frames | Repeat | Raw | Pieces | End | Fin | Reset | Hang
Script = tuple[Step, ...]
CLOSING = (End, Fin, Reset, Hang, Status)
