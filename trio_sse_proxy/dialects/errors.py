"""What an upstream's error means: HTTP error bodies and error objects on a stream, into `Failure`.

Everybody's errors look alike and nobody's are the same. What counts, in this order: the HTTP
status, or the one an error object names (OpenRouter, llama.cpp and Google put it into `code`); the
words in `code`, `type` and `status`, which may refine it; and the message, for the two things that
are often told nowhere else: a context that is too long, and a quota that is spent.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from ..core.failure import Cause, Failure
from .causes import TABLE
from .wire import fields, items, loads, text

MAX_MESSAGE = 4_000
"""Characters of an upstream's message that are told on: enough for any, and a bound."""

_WORDS = {
    Cause.INVALID_REQUEST: "invalid_request_error invalid_request invalid_prompt bad_request "
    "bad_request_error invalid_argument failed_precondition unsupported_parameter validation_error "
    "unprocessable_entity unprocessable_entity_error not_supported_error content_policy_violation",
    Cause.AUTHENTICATION: "authentication_error invalid_api_key incorrect_api_key unauthenticated "
    "unauthorized account_deactivated",
    Cause.NO_CREDIT: "insufficient_quota insufficient_credits insufficient_balance billing_error "
    "billing_hard_limit_reached billing_not_active payment_required",
    Cause.FORBIDDEN: "permission_error permission_denied permission_denied_error forbidden "
    "usage_not_included unsupported_country_region_territory",
    Cause.NOT_FOUND: "not_found_error not_found model_not_found deployment_not_found",
    Cause.TOO_LARGE: "request_too_large payload_too_large",
    Cause.CONTEXT_EXCEEDED: "context_length_exceeded exceed_context_size_error "
    "model_context_window_exceeded",
    Cause.RATE_LIMITED: "rate_limit_error rate_limit_exceeded rate_limit_reached rate_limited "
    "too_many_requests resource_exhausted throttling_exception",
    Cause.OVERLOADED: "overloaded overloaded_error engine_overloaded engine_overloaded_error "
    "model_overloaded server_is_overloaded slow_down service_unavailable service_unavailable_error "
    "unavailable unavailable_error proxy_shutting_down",
    Cause.TIMEOUT: "timeout timeout_error request_timeout gateway_timeout deadline_exceeded "
    "upstream_timeout upstream_idle",
    Cause.SERVER_ERROR: "server_error api_error internal internal_error internal_server_error "
    "proxy_internal_error",
    # Another of our kind further up.
    Cause.UNREACHABLE: "upstream_unreachable",
    Cause.PROTOCOL: "upstream_protocol",
    Cause.TRUNCATED: "upstream_truncated",
    Cause.CANCELLED: "cancelled_by_operator",
}

_STATUSES = {
    401: Cause.AUTHENTICATION,
    402: Cause.NO_CREDIT,
    403: Cause.FORBIDDEN,
    404: Cause.NOT_FOUND,
    # Retried like a 5xx: the upstream says it did not get, or did not finish, the request.
    408: Cause.SERVER_ERROR,
    413: Cause.TOO_LARGE,
    429: Cause.RATE_LIMITED,
    501: Cause.INVALID_REQUEST,
    503: Cause.OVERLOADED,
    529: Cause.OVERLOADED,
}

_REFINES = {
    # What a status means, and what words may make of it. A 400 never becomes something retried.
    Cause.INVALID_REQUEST: {
        Cause.AUTHENTICATION,
        Cause.NO_CREDIT,
        Cause.FORBIDDEN,
        Cause.NOT_FOUND,
        Cause.TOO_LARGE,
    },
    Cause.AUTHENTICATION: {Cause.NO_CREDIT},
    Cause.FORBIDDEN: {Cause.NO_CREDIT, Cause.AUTHENTICATION},
    Cause.RATE_LIMITED: {Cause.NO_CREDIT, Cause.OVERLOADED},
    Cause.SERVER_ERROR: {Cause.OVERLOADED, Cause.RATE_LIMITED},
    Cause.OVERLOADED: {Cause.RATE_LIMITED},
}

_GENERAL = {Cause.INVALID_REQUEST, Cause.SERVER_ERROR}
"""Causes whose words upstreams use for everything: a more special word beside them wins."""

_MAY_MEAN_CONTEXT = {None, Cause.INVALID_REQUEST, Cause.TOO_LARGE, Cause.SERVER_ERROR}
_MAY_MEAN_SPENT = {
    None,
    Cause.INVALID_REQUEST,
    Cause.AUTHENTICATION,
    Cause.FORBIDDEN,
    Cause.RATE_LIMITED,
}

_CONTEXT = re.compile(
    r"maximum context length"
    r"|context (?:window|length)[^\n]{0,200}?(?:exceed|too long|too large)"
    r"|exceed[^\n]{0,80}?context (?:window|length|size)"
    r"|prompt is too long"
    r"|input length[^\n]{0,200}?exceed"
    r"|(?:上下文|输入)[^\n]{0,200}?(?:超|过长)",
    re.IGNORECASE,
)

# How one of our kind further up says it where a dialect has no field for it.
_OUR_CODE = re.compile(r"((?:upstream|proxy|cancelled)_[a-z_]+): ")

# Conservative: "quota" alone is also what a limit per minute is called.
_SPENT = re.compile(
    r"insufficient[ _](?:quota|credit|balance|funds)"
    r"|exceeded your current quota"
    r"|credit balance|out of credits|billing hard limit"
    r"|quota (?:is |has been )?(?:exhausted|used up|spent)"
    r"|余额不足|欠费",
    re.IGNORECASE,
)

_TRY_AGAIN = re.compile(
    r"(?:try again|retry) (?:in|after) ((?:\d{1,9}(?:\.\d{1,9})?\s?(?:ms|[dhms])[a-z]*\s*)+)",
    re.IGNORECASE | re.ASCII,  # or the long s of old prints would be an s
)
_DURATION = re.compile(r"([\d.]+)\s?(ms|[dhms])", re.IGNORECASE | re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _bare(word: str) -> str:
    """`BadRequestError`, `bad_request_error` and `BAD-REQUEST-ERROR` are one word."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


_CAUSE_OF = {_bare(word): cause for cause, words in _WORDS.items() for word in words.split()}


def is_retryable(cause: Cause) -> bool:
    """True if another attempt at the same upstream may mend it, as long as nothing was output."""
    return TABLE[cause].again


_CALLERS_OWN = frozenset(
    {
        Cause.INVALID_REQUEST,
        Cause.AUTHENTICATION,
        Cause.FORBIDDEN,
        Cause.NOT_FOUND,
        Cause.TOO_LARGE,
        Cause.CONTEXT_EXCEEDED,
    }
)
_UPSTREAMS_OWN = frozenset(
    {Cause.OVERLOADED, Cause.UNREACHABLE, Cause.TIMEOUT, Cause.SERVER_ERROR, Cause.PROTOCOL}
)


def may_go_elsewhere(cause: Cause) -> bool:
    """True if another upstream may mend it: it is not of the caller's own making."""
    return cause not in _CALLERS_OWN


def is_upstreams_fault(cause: Cause) -> bool:
    """True if it speaks against the upstream. A rate limit or spent credit is between it and us."""
    return cause in _UPSTREAMS_OWN


def failure_of_status(status: int, body: bytes, retry_after: float | None) -> Failure:
    """What an upstream's HTTP answer means that is no stream.

    `retry_after` is what its header says, in seconds. A status that is no error is one only if the
    body says so; else the answer is of a kind nobody asked for.
    """
    error = loads(body)
    said = _Said(error)
    if status < 400:
        if fields(error).get("error"):
            return failure_of_error(error)
        message = f"the upstream answered {_phrase(status)} where an event stream was expected"
        return Failure(cause=Cause.PROTOCOL, message=message, status=status)
    message = said.message or _plain_text(error, body) or f"the upstream answered {_phrase(status)}"
    return Failure(
        cause=_judge(status, said, message),
        message=_clip(message),
        status=status,
        retry_after=_hint(message) if retry_after is None else retry_after,
    )


def failure_of_error(error: object) -> Failure:
    """What an error object on a stream means: the object, or the event around it, or a string."""
    said = _Said(error)
    message = said.message or "the upstream reported an error" + said.in_brackets
    return Failure(
        cause=_judge(said.status, said, message),
        message=_clip(message),
        status=said.status,
        retry_after=_hint(message),
    )


class _Said:
    """What an error of whatever shape says: its message, its words, and the status it names."""

    def __init__(self, error: object) -> None:
        outer = items(error)[:1] or [error]  # Google wraps the object into an array
        whole = fields(outer[0])
        inner = whole.get("error")
        told = fields(inner) or whole
        self.message = _message(told) or text(inner) or text(outer[0])
        metadata = fields(told.get("metadata"))
        # OpenRouter says "Provider returned error" and hides what the provider said in here.
        self.hidden = text(metadata.get("raw"))
        spoken = (told.get("code"), told.get("type"), told.get("status"))
        also = (whole.get("error_type"), metadata.get("error_type"))
        alone = text(inner) or text(outer[0])  # "error": "overloaded_error"
        led = _OUR_CODE.match(self.message)
        places = (*spoken, *also, alone, led and led.group(1))
        self.words = [word for word in places if isinstance(word, str) and word]
        numbers = (told.get("code"), told.get("status"), told.get("status_code"))
        self.status = next(filter(None, map(_as_status, numbers)), None)

    @property
    def cause(self) -> Cause | None:
        known = [cause for word in self.words if (cause := _cause_of(word))]
        special = [cause for cause in known if cause not in _GENERAL]
        return next(iter(special or known), None)

    @property
    def in_brackets(self) -> str:
        return f" ({self.words[0]})" if self.words else ""


def _judge(status: int | None, said: _Said, message: str) -> Cause:
    spoken = said.cause
    cause = spoken if status is None else _cause_of_status(status)
    evidence = f"{message}\n{said.hidden}"[: 2 * MAX_MESSAGE]
    if status in (None, 400, 413, 422) and (
        spoken is Cause.CONTEXT_EXCEEDED
        or (cause in _MAY_MEAN_CONTEXT and _CONTEXT.search(evidence))
    ):
        return Cause.CONTEXT_EXCEEDED
    # One who says when to come back has not spent all: Google says "quota" for a limit per minute.
    if cause in _MAY_MEAN_SPENT and _SPENT.search(evidence) and _hint(message) is None:
        return Cause.NO_CREDIT
    if cause is not None and spoken is not None and spoken in _REFINES.get(cause, ()):
        return spoken
    return cause or Cause.SERVER_ERROR


def _cause_of(word: str) -> Cause | None:
    known = _CAUSE_OF.get(_bare(word))
    if known is None and re.match(r"(?:invalid|unsupported|image)_|\w+_policy$", word):
        return Cause.INVALID_REQUEST  # the long tail of codes on Responses
    return known


def _cause_of_status(status: int) -> Cause:
    return _STATUSES.get(status, Cause.INVALID_REQUEST if status < 500 else Cause.SERVER_ERROR)


def _as_status(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value, re.ASCII):
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def _message(told: dict[str, Any]) -> str:
    for key in ("message", "detail", "msg", "error_description"):
        if found := text(told.get(key)).strip():
            return found
    # FastAPI lists what it found wrong with a request.
    return "; ".join(filter(None, (text(fields(i).get("msg")) for i in items(told.get("detail")))))


def _plain_text(error: object, body: bytes) -> str:
    """The body as a message, if it is a line or two of plain text and not, say, a page of HTML."""
    if error is not None or len(body) > 2_000:
        return ""
    found = body.decode("utf-8", "replace").strip()
    return "" if found.startswith(("<", "{", "[")) else found


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _clip(message: str) -> str:
    clean = message.encode("utf-8", "replace").decode()  # no unpaired surrogates
    return clean if len(clean) <= MAX_MESSAGE else clean[: MAX_MESSAGE - 1] + "…"


def _hint(message: str) -> float | None:
    """Seconds until the upstream wants to be asked again, if its message says so."""
    found = _TRY_AGAIN.search(message[:MAX_MESSAGE])
    if found is None:
        return None
    parts = _DURATION.findall(found.group(1))
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)
