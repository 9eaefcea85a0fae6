"""The bytes of a request head, and how its body is framed (RFC 9112, sections 3, 5 and 6). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_DIGITS = re.compile(rb"[0-9]{1,18}")
# One pass over the joined fields, which costs less than looking at each.
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\x00\r\n]*\r\n)*")

_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """Method, target and header fields as they shall go out; framing fields may be missing."""

    method: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """A head ready to be sent.

    `length` is the body's length in bytes; None: it is chunked. `to_head`: the method is HEAD.
    """

    data: bytes
    length: int | None
    to_head: bool


def frame(head: RequestHead, body_length: int | None) -> Framed:
    """The bytes of `head`, with the framing fields its body needs added if they are missing.

    `body_length` is None if only reading the body to its end will tell. Raises BadRequest for what
    must not go out: CONNECT, illegal characters, framing that contradicts itself or the body.
    """
    _check_line(head)
    length, chunked = _framing(head.headers)
    added = b""
    if length is None and not chunked:
        length = body_length
        if length is None:
            chunked, added = True, b"Transfer-Encoding: chunked\r\n"
        elif length or head.method in _WITH_BODY:
            added = b"Content-Length: %d\r\n" % length
    if not chunked and body_length is not None and length != body_length:
        raise BadRequest(f"Content-Length says {length}, but the body has {body_length} bytes")
    fields = b"".join([b"%b: %b\r\n" % field for field in head.headers])
    # The count finds a line break that is followed by what looks like one more field.
    if fields.count(b"\n") != len(head.headers) or _FIELDS.fullmatch(fields) is None:
        raise BadRequest("illegal characters in a header field")
    data = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (head.method, head.target, fields, added)
    return Framed(data=data, length=None if chunked else length, to_head=head.method == b"HEAD")


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of the chunked coding; it must not be empty, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def _check_line(head: RequestHead) -> None:
    if _METHOD.fullmatch(head.method) is None or head.method == b"CONNECT":
        raise BadRequest(f"method {head.method!r} cannot be sent")
    if _TARGET.fullmatch(head.target) is None:
        raise BadRequest("illegal characters in the request target")


def _framing(headers: Sequence[tuple[bytes, bytes]]) -> tuple[int | None, bool]:
    """The body's length and whether it is chunked, as far as `headers` say."""
    length: int | None = None
    chunked = False
    for name, value in headers:
        if len(name) == 14 and name.lower() == b"content-length":
            if length is not None or _DIGITS.fullmatch(value) is None:
                raise BadRequest("Content-Length must be one number")
            length = int(value)
        elif len(name) == 17 and name.lower() == b"transfer-encoding":
            if value.strip().lower() != b"chunked" or chunked:
                raise BadRequest("the only transfer coding that can be sent is chunked")
            chunked = True
    if chunked and length is not None:
        raise BadRequest("Content-Length and Transfer-Encoding exclude each other")
    return length, chunked
