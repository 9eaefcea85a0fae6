"""The conversation of a Messages request, entered into the history that Chat is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..wire import fields, items, text
from .carried import Carried, unpack
from .history import History
from .messages_content import blocks_of, part_of_block, parts_of_result, text_of_blocks
from .refusals import Declined

if TYPE_CHECKING:
    from .messages_dropped import Dropped
    from .profile import Profile
    from .tools import ToolBook

Json = dict[str, Any]

_BILLING = "x-anthropic-billing-header:"  # Claude Code tells its own server about itself here


class Conversation:
    """Reads system and messages into a History. Raises Declined for what cannot be told."""

    def __init__(self, profile: Profile, book: ToolBook, dropped: Dropped) -> None:
        self._profile = profile
        self._book = book
        self._dropped = dropped
        self._history = History(profile)

    def read(self, system: object, messages: object) -> list[Json]:
        """The conversation as Chat messages."""
        self._system(system)
        if not items(messages):
            raise Declined("messages: at least one message is required", param="messages")
        for message in map(fields, items(messages)):
            self._message(message)
        return self._history.messages()

    def _message(self, message: Json) -> None:
        content = message.get("content")
        if not isinstance(content, (str, list)):
            raise Declined("messages: content must be a string or a list", param="messages")
        match message.get("role"):
            case "user":
                self._user(blocks_of(message["content"]))
            case "assistant":
                for block in blocks_of(message["content"]):
                    self._assistant(block)
            case "system":
                self._system(message["content"])
            case other:
                raise Declined(f"messages: unknown role {other!r}", param="messages")

    def _system(self, content: object) -> None:
        texts = text_of_blocks(content, self._dropped)
        told = [told for told in texts if not told.startswith(_BILLING)]
        self._history.system("\n\n".join(told))

    def _user(self, blocks: list[Json]) -> None:
        """Results first, wherever they stand: on Chat nothing comes between a call and its output."""
        for block in blocks:
            if block.get("type") == "tool_result":
                parts = parts_of_result(block, self._profile, self._dropped)
                self._history.output(text(block.get("tool_use_id")), parts)
        said: list[Json] = []
        for block in blocks:
            if block.get("type") != "tool_result":
                said += part_of_block(block, self._profile, self._dropped)
        self._history.user(said)

    def _assistant(self, block: Json) -> None:
        match block.get("type"):
            case "text":
                self._history.text(text(block.get("text")))
            case "thinking":
                self._history.reasoning(_carried(block))
            case "tool_use":
                name = self._book.flat(None, text(block.get("name")))
                self._history.call(text(block.get("id")), name, block.get("input") or {})
            case _:
                self._dropped.block(block)


def _carried(block: Json) -> Carried:
    """The thinking as the client has it, and what our signature holds beside; others' say nothing."""
    carried = unpack(block.get("signature")) or Carried()
    carried.reasoning = text(block.get("thinking")) or carried.reasoning
    return carried
