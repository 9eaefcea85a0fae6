"""Which header fields pass, in both directions.

Hop-by-hop fields end here (RFC 9110, section 7.6.1); everything else is the peers' own business and
passes unchanged, unknown fields too. Names are in lower case throughout, as ASGI has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers = tuple[tuple[bytes, bytes], ...]
"""Header fields in the order they came, names in lower case, values as they were."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_NOT_TO_UPSTREAM = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
OF_THE_BYTES = (
    b"content-encoding",
    b"content-length",
    b"content-digest",
    b"repr-digest",
    b"digest",
    b"content-md5",
)
"""What speaks of a body's bytes, and is wrong once they are others."""

CREDENTIALS = (b"authorization", b"x-api-key", b"api-key")
_EVENT_STREAM = b"text/event-stream"


def get(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The value of the first field called `name`, or None."""
    for field, value in headers:
        if field == name:
            return value
    return None


def get_all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of all fields called `name`, in order."""
    return [value for field, value in headers if field == name]


def lowered(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The same fields with names in lower case: the very same objects where they were already."""
    return tuple(
        [field if field[0].islower() else (field[0].lower(), field[1]) for field in headers]
    )


def end_to_end(headers: Iterable[tuple[bytes, bytes]], drop: frozenset[bytes]) -> Headers:
    """Lower the names, and leave out `drop` and whatever Connection names."""
    headers = lowered(headers)
    connection = get(headers, b"connection")
    if connection is not None:
        listed = b",".join(get_all(headers, b"connection"))
        drop = drop | {token.strip().lower() for token in listed.split(b",")}
    return tuple([field for field in headers if field[0] not in drop])


def to_upstream(
    headers: Iterable[tuple[bytes, bytes]], *, drop: frozenset[bytes], identity: bool
) -> Headers:
    """A request's fields as they go on: no hop-by-hop, no framing (the transport sets its own).

    `identity` asks for an uncompressed answer, since frames can be told apart only there.
    """
    drop = _NOT_TO_UPSTREAM | drop
    if not identity:
        return end_to_end(headers, drop)
    return (*end_to_end(headers, drop | {b"accept-encoding"}), (b"accept-encoding", b"identity"))


def plain_answer(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """An answer's fields for a body that passes as it is, its length included."""
    return end_to_end(headers, HOP_BY_HOP)


def event_stream(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """An answer's fields for an event stream: of no known length, not to be cached or buffered."""
    drop = HOP_BY_HOP | {b"content-length", b"cache-control", b"x-accel-buffering"}
    return (*end_to_end(headers, drop), *NO_BUFFERING)


NO_BUFFERING: Headers = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
EARLY_EVENT_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *NO_BUFFERING,
)
EARLY_JSON: Headers = ((b"content-type", b"application/json"), *NO_BUFFERING)


def without(headers: Headers, *names: bytes) -> Headers:
    """All fields but the named ones."""
    return tuple([field for field in headers if field[0] not in names])


def is_event_stream(headers: Headers) -> bool:
    """True if the content is an event stream, whatever the media type's parameters."""
    return media_type(headers) == _EVENT_STREAM


def media_type(headers: Headers) -> bytes:
    """The media type without its parameters, in lower case; empty if there is none."""
    return (get(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
