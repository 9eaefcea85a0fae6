"""An answer of our own to a request that was not, or not successfully, forwarded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .core.failure import Cause
from .dialects import CHAT

if TYPE_CHECKING:
    from .core.failure import Failure
    from .core.headers import Headers
    from .dialects.base import Dialect


def refusal(dialect: Dialect | None, failure: Failure) -> tuple[int, Headers, bytes]:
    """Status, headers and body that tell of `failure` in the client's dialect, or else in Chat's.

    While shutting down the connection is closed too, so that the client's next request goes elsewhere;
    and after a request that cannot be trusted, so that nothing is read from what follows it (RFC 9112,
    section 6.1, on a message with two lengths).
    """
    speaker = dialect or CHAT
    body = speaker.error_body(failure)
    headers: Headers = (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    )
    if failure.retry_after is not None:
        headers = (*headers, (b"retry-after", str(math.ceil(failure.retry_after)).encode()))
    if failure.cause in {Cause.SHUTDOWN, Cause.INVALID_REQUEST}:
        headers = (*headers, (b"connection", b"close"))
    return speaker.http_status(failure), headers, body
