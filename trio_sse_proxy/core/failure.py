"""A failure as a client can be told of it: what happened, in words, and of which kind.

The kinds are the rows of the table in `docs/dialects.md`; each dialect maps them to its own error
types and codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .errors import ProxyError


class Cause(Enum):
    """Why a request failed, as far as a client can act on it."""

    INVALID_REQUEST = "invalid_request"
    AUTHENTICATION = "authentication"
    NO_CREDIT = "no_credit"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    CONTEXT_EXCEEDED = "context_exceeded"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    UNREACHABLE = "unreachable"  # connect, DNS, TLS, reset or end of stream before output
    TIMEOUT = "timeout"  # first token, idle, progress, total
    SERVER_ERROR = "server_error"
    PROTOCOL = "protocol"  # undecodable, or an answer of a kind nobody asked for
    TRUNCATED = "truncated"  # cut after output was forwarded
    CANCELLED = "cancelled"  # by an operator
    SHUTDOWN = "shutdown"  # this proxy is going away
    INTERNAL = "internal"  # a bug of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failure.

    `message` is for people. `status` is the HTTP status the upstream answered with, or the one it
    named inside an error frame; None when it said none. `retry_after` is in seconds.
    """

    cause: Cause
    message: str
    status: int | None = None
    retry_after: float | None = None


class Refused(ProxyError):
    """We answer this request ourselves, without asking anybody: `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
