"""How each cause of a failure is told: the table of statuses, types and codes.

One row per cause. The upstream's own error body passes unchanged as long as no header was sent;
this is for what must be said by us: on a stream, or when there is no upstream's answer to pass on.

Two choices need their reasons here. Codex repeats a call up to six times on any `response.failed`
whose code it does not know, and gives up at once, showing the message, on `invalid_prompt`: so what
asking again cannot mend is told as that. And `server_is_overloaded` is final for it, although
overload passes: so overload is told as `server_error`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core.failure import Cause, Failure
from .wire import dumps


@dataclass(frozen=True, slots=True)
class Row:
    """How one cause is told in each dialect; `again` says whether another attempt may mend it."""

    status: int
    chat_type: str
    chat_code: str | None
    responses_code: str
    messages_type: str
    messages_status: int
    again: bool


_INVALID = "invalid_request_error"
_SERVER = "server_error"
_PROMPT = "invalid_prompt"
_QUOTA = "insufficient_quota"
_CONTEXT = "context_length_exceeded"
_RATE = "rate_limit_exceeded"

# fmt: off
TABLE: dict[Cause, Row] = {
    Cause.INVALID_REQUEST:  Row(400, _INVALID, None, _PROMPT, _INVALID, 400, False),
    Cause.AUTHENTICATION:   Row(401, "authentication_error", "invalid_api_key", _PROMPT,
                                "authentication_error", 401, False),
    Cause.NO_CREDIT:        Row(402, _QUOTA, _QUOTA, _QUOTA, "billing_error", 402, False),
    Cause.FORBIDDEN:        Row(403, "permission_error", None, _PROMPT,
                                "permission_error", 403, False),
    Cause.NOT_FOUND:        Row(404, _INVALID, "model_not_found", _PROMPT,
                                "not_found_error", 404, False),
    Cause.TOO_LARGE:        Row(413, _INVALID, None, _PROMPT, "request_too_large", 413, False),
    Cause.CONTEXT_EXCEEDED: Row(400, _INVALID, _CONTEXT, _CONTEXT, _INVALID, 400, False),
    Cause.RATE_LIMITED:     Row(429, "rate_limit_error", _RATE, _RATE,
                                "rate_limit_error", 429, True),
    Cause.OVERLOADED:       Row(503, _SERVER, "overloaded", _SERVER, "overloaded_error", 529, True),
    Cause.UNREACHABLE:      Row(502, _SERVER, "upstream_unreachable", _SERVER,
                                "api_error", 502, True),
    Cause.TIMEOUT:          Row(504, _SERVER, "upstream_timeout", _SERVER,
                                "timeout_error", 504, False),
    Cause.SERVER_ERROR:     Row(500, _SERVER, None, _SERVER, "api_error", 500, True),
    Cause.PROTOCOL:         Row(502, _SERVER, "upstream_protocol", _SERVER,
                                "api_error", 502, False),
    Cause.TRUNCATED:        Row(502, _SERVER, "upstream_truncated", _SERVER,
                                "api_error", 502, False),
    Cause.CANCELLED:        Row(500, _SERVER, "cancelled_by_operator", _SERVER,
                                "api_error", 500, False),
    Cause.SHUTDOWN:         Row(503, _SERVER, "proxy_shutting_down", _SERVER,
                                "overloaded_error", 503, False),
    Cause.INTERNAL:         Row(500, _SERVER, "proxy_internal_error", _SERVER,
                                "api_error", 500, False),
}
# fmt: on

OURS = frozenset(
    {
        Cause.UNREACHABLE,
        Cause.TIMEOUT,
        Cause.PROTOCOL,
        Cause.TRUNCATED,
        Cause.CANCELLED,
        Cause.SHUTDOWN,
        Cause.INTERNAL,
    }
)
"""What this proxy found out itself: its status is ours, and dialects without a field for our code
have it in the message."""


def upstream_status(failure: Failure) -> int | None:
    """The status the upstream gave, if it is one to pass on."""
    if failure.cause in OURS or failure.status is None or not 400 <= failure.status <= 599:
        return None
    return failure.status


def openai_status(failure: Failure) -> int:
    """The HTTP status on Chat and Responses."""
    return upstream_status(failure) or TABLE[failure.cause].status


def openai_error(failure: Failure) -> dict[str, str | None]:
    """The `error` object of Chat, in bodies and in chunks; Responses has it in bodies only."""
    row = TABLE[failure.cause]
    return {
        "message": failure.message,
        "type": row.chat_type,
        "param": None,
        "code": row.chat_code,
    }


def openai_body(failure: Failure) -> bytes:
    """The HTTP error body on Chat and Responses."""
    return dumps({"error": openai_error(failure)})


def message_with_code(failure: Failure) -> str:
    """The message, led by our own code where the dialect has no field for it."""
    code = TABLE[failure.cause].chat_code
    if failure.cause not in OURS or code is None or code in failure.message:
        return failure.message
    return f"{code}: {failure.message}"


def seconds(value: float | None) -> str | None:
    """A delay as people and Codex read it ("20", "1.5"); None where there is none to tell."""
    if value is None or not math.isfinite(value) or value < 0:
        return None
    return f"{value:.3f}".rstrip("0").rstrip(".")
