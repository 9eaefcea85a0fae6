"""Answers in one piece that we make ourselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ..core.errors import Broken

if TYPE_CHECKING:
    from ..core.failure import Failure
    from ..core.headers import Headers
    from ..dialects import Dialect


class Document:
    """A JSON document as an answer (see ports.Answer); `more` are fields beside type and length."""

    __slots__ = ("_body", "headers", "status")

    def __init__(self, status: int, body: bytes, more: Headers = ()) -> None:
        self.status = status
        self.headers: Headers = (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *more,
        )
        self._body: bytes | None = body

    async def receive(self) -> bytes:
        """See ports.Answer."""
        await trio.lowlevel.checkpoint()
        if self._body is None:
            raise Broken("the answer was let go", responded=True)
        body, self._body = self._body, b""
        return body

    def release(self) -> None:
        """See ports.Answer."""
        self._body = None


def refuse(dialect: Dialect, failure: Failure, more: Headers = ()) -> Document:
    """`failure` as a client of `dialect` is told of it, and when to come back unless `more` says so."""
    if failure.retry_after is not None and not any(name == b"retry-after" for name, _ in more):
        more = (*more, (b"retry-after", b"%d" % math.ceil(failure.retry_after)))
    return Document(dialect.http_status(failure), dialect.error_body(failure), more)
