"""The dialects that a Chat upstream can be made to speak, each with its way there and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ..errors import failure_of_status
from ..messages import MESSAGES
from ..responses import RESPONSES
from ..wire import dumps
from . import messages_answer, messages_request, responses_request, responses_stream
from .messages_stream import ToMessages
from .responses_stream import ToResponses

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...core.failure import Failure
    from ..base import Dialect
    from .profile import Profile


class Translator(Protocol):
    """One attempt's Chat stream, told in another dialect; see ToResponses and ToMessages."""

    failure: Failure | None
    """Why this attempt cannot be told to its end."""
    done: bool
    """Everything up to the terminator was given."""

    @property
    def finished(self) -> bool:
        """A finish_reason came: `end` may be called, and only counts and `[DONE]` follow."""
        ...

    def opening(self) -> bytes:
        """What goes out before anything has come."""
        ...

    def feed(self, frames: bytes) -> bytes:
        """What some whole frames come to."""
        ...

    def whole(self, body: bytes) -> bytes:
        """The same of a JSON document."""
        ...

    def end(self) -> bytes:
        """The body is over."""
        ...

    def fail(self, failure: Failure) -> bytes:
        """The frames that tell of `failure`, behind whatever was given."""
        ...

    def byte_heartbeat(self) -> bytes:
        """A frame that is no event to the client."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """One request in Chat, and how its answer is told.

    `dropped` says what of the request has no counterpart. `failure` is what an HTTP error (status,
    body) means to a client of `dialect`. `whole` raises Refused where the answer tells of a failure.
    """

    dialect: Dialect
    body: bytes
    dropped: tuple[str, ...]
    stream: bool
    open: Callable[[], Translator]
    whole: Callable[[bytes], bytes]
    failure: Callable[[int, bytes], Failure]


def _from_responses(body: bytes, profile: Profile, key: str, created: int) -> Translation:
    asked = responses_request.translate_request(body, profile)
    back = asked.back
    return Translation(
        dialect=RESPONSES,
        body=dumps(asked.body),
        dropped=asked.dropped,
        stream=back.stream,
        open=partial(ToResponses, back, key, created),
        whole=lambda told: responses_stream.translate_answer(told, back, key, created),
        failure=lambda status, told: failure_of_status(status, told, None),
    )


def _from_messages(body: bytes, profile: Profile, key: str, _: int) -> Translation:
    asked = messages_request.translate_request(body, profile)
    back = asked.back
    return Translation(
        dialect=MESSAGES,
        body=dumps(asked.body),
        dropped=asked.dropped,
        stream=back.stream,
        open=partial(ToMessages, back, key),
        whole=lambda told: messages_answer.translate_answer(told, back, key),
        failure=messages_answer.failure_of_answer,
    )


WAYS: dict[str, Callable[[bytes, Profile, str, int], Translation]] = {
    "responses": _from_responses,
    "messages": _from_messages,
}
"""By the client's dialect: from a request's body, a profile, a key that makes ids unique (24 letters
and digits) and the seconds since 1970, to a Translation. They raise Declined."""

DIALECTS: dict[str, Dialect] = {"responses": RESPONSES, "messages": MESSAGES}
