"""A Chat answer told as a Messages stream.

The ids are ours and the model is the client's own word for it: Claude Code drops its signed thinking
from the history where the model differs. Calls run at the end of their block, and a finished block is
taken for a finished answer: so none is closed before an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..chat import CHAT
from ..messages import MESSAGES
from ..wire import named
from .messages_blocks import Blocks
from .messages_stop import stop_of_choice, usage_of

if TYPE_CHECKING:
    from ...core.failure import Failure
    from ...core.usage import Usage
    from .messages_back import WayBack

Json = dict[str, Any]


class ToMessages:
    """A Teller; see `chat_stream`."""

    def __init__(self, back: WayBack, key: str) -> None:
        """`key` makes the ids unique: letters and digits."""
        self._back = back
        self._key = key
        self._blocks = Blocks(key, back.book)
        self._usage: Usage | None = None
        self.call = self._blocks.call
        self.details = self._blocks.details

    @property
    def begun(self) -> bool:
        """True once a block was told."""
        return self._blocks.begun

    @property
    def is_sound(self) -> bool:
        """True if there is something to act on, and nothing of it is half told."""
        return self._blocks.are_sound

    def opening(self) -> bytes:
        """`message_start` and a `ping`; the model is exactly what the client asked for."""
        message: Json = {
            "id": f"msg_{self._key}",
            "type": "message",
            "role": "assistant",
            "model": self._back.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        start = named("message_start", {"type": "message_start", "message": message})
        return start + MESSAGES.open_stream().byte_heartbeat()

    def say(self, kind: str, piece: str) -> bytes:
        """A refusal is a text."""
        return self._blocks.say("text" if kind == "refusal" else kind, piece)

    def counts(self, data: bytes) -> None:
        """Token counts."""
        self._usage = CHAT.answer_usage(data) or self._usage

    def closing(self, choice: Json) -> bytes:
        """The end of all blocks, `message_delta` with all counts, `message_stop`."""
        blocks = self._blocks.close()
        reason, sequence = stop_of_choice(
            choice, called=self._blocks.called, stop_sequences=self._back.stop_sequences
        )
        told = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": usage_of(self._usage),
        }
        stop = named("message_stop", {"type": "message_stop"})
        return blocks + named("message_delta", told) + stop

    def error(self, failure: Failure) -> bytes:
        """One `error` event behind whatever is open."""
        return MESSAGES.open_stream().error_frames(failure)

    def skip(self, count: int, held: bytes) -> bytes:
        """Events of this dialect bear no numbers."""
        return held
