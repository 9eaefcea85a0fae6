"""The dialects that a Chat upstream can be made to speak, each with its way there and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import failure_of_status
from ..messages import MESSAGES
from ..responses import RESPONSES
from ..wire import dumps
from . import messages_answer, messages_request, responses_request, responses_stream
from .chat_stream import ChatStream
from .messages_stream import ToMessages
from .responses_stream import ToResponses

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...core.failure import Failure
    from ..base import Dialect
    from .profile import Profile


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
    open: Callable[[], ChatStream]
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
        open=lambda: ChatStream(
            ToResponses(back, key, created), inline_think=back.profile.inline_think
        ),
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
        open=lambda: ChatStream(ToMessages(back, key), inline_think=back.inline_think),
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
