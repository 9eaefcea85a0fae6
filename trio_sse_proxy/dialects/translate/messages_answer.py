"""A whole Chat answer, or an upstream's HTTP error, as a client of Messages gets it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...core.failure import Cause, Failure, Refused
from ..chat import CHAT
from ..errors import failure_of_error, failure_of_status
from ..wire import dumps, fields, loads
from .carried import Carried
from .chat_calls import NAMELESS, Call, Calls
from .chat_delta import (
    add_details,
    calls_of,
    details_of,
    extras_of,
    failure_of_choice,
    first_choice,
    reasoning_of,
    refusal_of,
    text_of,
)
from .chat_think import ThinkSplitter
from .messages_stop import stop_of_choice, usage_of
from .tools import sound_arguments

if TYPE_CHECKING:
    from .messages_back import WayBack
    from .tools import ToolBook

Json = dict[str, Any]


def translate_answer(body: bytes, back: WayBack, key: str) -> bytes:
    """The message for a completion. `key` makes the ids unique: letters and digits.

    Raises Refused with what the upstream's answer means where it is none.
    """
    told = fields(loads(body))
    if told.get("error"):
        raise Refused(failure_of_error(told))
    choice = first_choice(told.get("choices"))
    if not choice:
        raise Refused(Failure(cause=Cause.PROTOCOL, message="the upstream's answer has no choices"))
    if failure := failure_of_choice(choice):
        raise Refused(failure)
    content = _Content(fields(choice.get("message")), back, key)
    reason, sequence = stop_of_choice(
        choice, called=bool(content.calls), stop_sequences=back.stop_sequences
    )
    return dumps(
        {
            "id": f"msg_{key}",
            "type": "message",
            "role": "assistant",
            "model": back.model,
            "content": content.blocks(back.book),
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage_of(CHAT.answer_usage(body)),
        }
    )


def failure_of_answer(status: int, body: bytes, retry_after: float | None = None) -> Failure:
    """What an upstream's HTTP error means to a client of Messages.

    The statuses are those of Messages then, since clients act on them: Claude Code compacts the
    conversation on a 400 only, whichever status the upstream has for a context that is too long.
    """
    failure = failure_of_status(status, body, retry_after)
    return failure if failure.cause is Cause.SERVER_ERROR else replace(failure, status=None)


class _Content:
    """What a message of Chat holds."""

    def __init__(self, message: Json, back: WayBack, key: str) -> None:
        self._thinking = reasoning_of(message)
        self._text = text_of(message) + refusal_of(message)
        if back.inline_think:
            self._split()
        self._carried = Carried()
        add_details(self._carried.details, details_of(message))
        calls = Calls(key)
        for piece in calls_of(message):
            call = calls.of(piece)
            call.take(piece)
            if extras := extras_of(piece):
                self._carried.extras[call.id] = extras
        self.calls: list[Call] = [call for call in calls.all if call.name or call.begun]

    def _split(self) -> None:
        splitter = ThinkSplitter()
        said = splitter.feed(self._text) + splitter.flush()
        thought = "".join(piece for kind, piece in said if kind == "thinking")
        self._thinking = "\n\n".join(filter(None, (self._thinking, thought)))
        self._text = "".join(piece for kind, piece in said if kind == "text")

    def blocks(self, book: ToolBook) -> list[Json]:
        """Thinking, text, calls: the order in which a model has them."""
        blocks: list[Json] = []
        if self._thinking or self._carried:
            signature = self._carried.pack()
            thinking = {"type": "thinking", "thinking": self._thinking, "signature": signature}
            blocks.append(thinking)
        if self._text:
            blocks.append({"type": "text", "text": self._text})
        for call in self.calls:
            name = book.find(call.name or NAMELESS).name
            arguments = loads(sound_arguments(call.arguments).encode())
            blocks.append({"type": "tool_use", "id": call.id, "name": name, "input": arguments})
        return blocks
