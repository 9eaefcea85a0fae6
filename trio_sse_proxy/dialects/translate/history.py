"""A conversation as Chat upstreams accept it, told in the order in which a client tells it.

Clients keep histories that strict upstreams reject: outputs in another order than their calls, calls
never answered because the user interrupted, ids used twice. What was said is entered here piece by
piece; pieces of one assistant turn gather until somebody else speaks; and `messages` writes it all
down, repaired:

1. ids used twice in one turn are told apart, on calls and outputs alike, paired by their order;
2. outputs stand directly behind their assistant message, in the order of the calls;
3. an output that no call asked for becomes a user message;
4. a call without output gets one that says so;
5. what stands for the text of an assistant that only called is the profile's choice;
6. ids are put into the shape a vendor demands, by a hash, so that both ends match.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

from .profile import (
    EmptyContent,
    ReasoningEcho,
    ReasoningField,
    SystemMode,
    ToolIdShape,
    ToolImages,
)
from .tools import sound_arguments

if TYPE_CHECKING:
    from .carried import Carried
    from .profile import Profile

Json = dict[str, Any]

NO_OUTPUT = "[no output recorded]"
IMAGE_FOLLOWS = "[image follows]"
IMAGE_DROPPED = "[image omitted]"
NO_VISION = "[image omitted: model has no vision]"

_NINE = re.compile(r"[A-Za-z0-9]{9}")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(slots=True)
class _Call:
    id: str  # as it goes upstream
    said: str  # as the client knows it
    name: str
    arguments: str
    output: list[Json] | None = None


@dataclass(slots=True)
class _Turn:
    reasoning: list[str] = field(default_factory=list[str])
    texts: list[str] = field(default_factory=list[str])
    calls: list[_Call] = field(default_factory=list[_Call])
    extras: dict[str, Json] = field(default_factory=dict[str, Json])
    details: list[Json] = field(default_factory=list[Json])
    ids: dict[str, int] = field(default_factory=dict[str, int])
    """Those of the calls, and how far each one's repetitions have been numbered."""

    def untaken(self, call_id: str) -> str:
        """`call_id`, with a number if it is taken, and no longer free."""
        taken = call_id
        if call_id in self.ids:
            number = self.ids[call_id]
            while taken in self.ids:
                number += 1
                taken = f"{call_id}_{number}"
            self.ids[call_id] = number
        self.ids[taken] = 1
        return taken


@dataclass(slots=True)
class _User:
    parts: list[Json]


@dataclass(slots=True)
class _System:
    text: str


def text_part(text: str) -> Json:
    """A part of a message's content."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: str | None = None) -> Json:
    """A part with an image, by its URL, which may be a data URL."""
    image = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image}


class History:
    """One conversation, entered from its beginning. Parts are Chat's content parts."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._leading: list[str] = []
        self._entries: list[_Turn | _User | _System] = []
        self._open: _Turn | None = None  # the assistant's turn that is being told
        # By the client's id: the turns, the latest last, with its calls that wait for an output.
        self._unanswered: dict[str, list[tuple[_Turn, deque[_Call]]]] = {}

    def system(self, text: str) -> None:
        """Instructions: the first ones together make the first message."""
        leading = not self._entries or self._profile.system_mode is SystemMode.LEADING
        if not text:
            return
        if leading:
            self._leading.append(text)
        else:
            self._say(_System(text))

    def user(self, parts: list[Json]) -> None:
        """What the user said. Without parts there is no message."""
        if parts:
            self._say(_User([self._visible(part) for part in parts]))

    def reasoning(self, carried: Carried) -> None:
        """What the assistant thought, and what must return with it."""
        turn = self._turn()
        if carried.reasoning:
            turn.reasoning.append(carried.reasoning)
        turn.extras.update(carried.extras)
        turn.details.extend(carried.details)

    def text(self, text: str) -> None:
        """What the assistant said."""
        turn = self._turn()
        if text:
            turn.texts.append(text)

    def call(self, call_id: str, name: str, arguments: object) -> None:
        """A tool the assistant called, by its flat name; `arguments` are repaired if need be."""
        turn = self._turn()
        call = _Call(turn.untaken(call_id), call_id, name, sound_arguments(arguments))
        turn.calls.append(call)
        waiting = self._unanswered.setdefault(call_id, [])
        if not waiting or waiting[-1][0] is not turn:
            waiting.append((turn, deque()))
        waiting[-1][1].append(call)

    def output(self, call_id: str, parts: list[Json]) -> None:
        """What a tool gave back: goes to the latest turn that waits for it, wherever this stands."""
        waiting = self._unanswered.get(call_id)
        if not waiting:
            self._say(_User(_orphan(call_id, [self._visible(part) for part in parts])))
            return
        turn, calls = waiting[-1]
        calls.popleft().output = [self._visible(part) for part in parts]
        if not calls:
            waiting.pop()
        if turn is self._open:
            self._open = None

    def messages(self) -> list[Json]:
        """The conversation as Chat messages, repaired."""
        told: list[Json] = []
        if self._leading:
            told.append({"role": self._system_role, "content": "\n\n".join(self._leading)})
        images: list[Json] = []  # that tools gave back, for the user message that is next
        for entry in self._entries:
            match entry:
                case _User():
                    told += _user_message(images + entry.parts)
                    images = []
                case _System():
                    told += [*_user_message(images), self._system_message(entry.text)]
                    images = []
                case _Turn():
                    told += _user_message(images)
                    told += self._assistant_message(entry)
                    told += [self._tool_message(call) for call in entry.calls]
                    images = self._images_of(entry)
                case _:
                    assert_never(entry)
        return told + _user_message(images)

    def _turn(self) -> _Turn:
        """The assistant's turn that is being told; a new one if somebody else spoke last."""
        if self._open is None:
            self._open = _Turn()
            self._entries.append(self._open)
        return self._open

    def _say(self, entry: _User | _System) -> None:
        """Somebody else speaks: what the assistant says next is another turn."""
        self._open = None
        self._entries.append(entry)

    def _visible(self, part: Json) -> Json:
        blind = not self._profile.vision and part.get("type") == "image_url"
        return text_part(NO_VISION) if blind else part

    @property
    def _system_role(self) -> str:
        return "developer" if self._profile.developer_role else "system"

    def _system_message(self, text: str) -> Json:
        if self._profile.system_mode is SystemMode.KEEP:
            return {"role": self._system_role, "content": text}
        return {"role": "user", "content": f"<system>{text}</system>"}

    def _assistant_message(self, turn: _Turn) -> list[Json]:
        """One message; none for a turn of which nothing is left to tell."""
        message: Json = {"role": "assistant"}
        reasoning = self._reasoning_of(turn)
        thought = reasoning and (turn.reasoning or turn.details)  # and not only a placeholder
        if not (turn.texts or turn.calls or thought):
            return []
        if turn.texts or not turn.calls:
            message["content"] = "\n\n".join(turn.texts)
        elif self._profile.empty_content is not EmptyContent.OMIT:
            empty = self._profile.empty_content is EmptyContent.EMPTY
            message["content"] = "" if empty else None
        message |= reasoning
        if turn.calls:
            message["tool_calls"] = [self._call(call, turn) for call in turn.calls]
        return [message]

    def _reasoning_of(self, turn: _Turn) -> Json:
        echo = self._profile.reasoning_echo
        if echo is ReasoningEcho.NEVER or (echo is ReasoningEcho.TOOL_TURNS and not turn.calls):
            return {}
        told: Json = {"reasoning_details": turn.details} if turn.details else {}
        reasoning = "\n\n".join(turn.reasoning) or self._profile.reasoning_placeholder
        if reasoning and self._profile.reasoning_field is not ReasoningField.NONE:
            told[self._profile.reasoning_field.value] = reasoning
        return told

    def _call(self, call: _Call, turn: _Turn) -> Json:
        function = {"name": call.name, "arguments": call.arguments}
        told: Json = {"id": self._shaped(call.id), "type": "function", "function": function}
        return turn.extras.get(call.said, {}) | told

    def _tool_message(self, call: _Call) -> Json:
        content = self._output_content(call.output)
        return {"role": "tool", "tool_call_id": self._shaped(call.id), "content": content}

    def _output_content(self, output: list[Json] | None) -> str | list[Json]:
        if output is None:
            return NO_OUTPUT
        has_image = any(part.get("type") != "text" for part in output)
        mode = self._profile.tool_images
        if has_image and mode is ToolImages.INLINE:
            return output
        texts = [part["text"] for part in output if part.get("type") == "text"]
        if has_image:
            texts.append(IMAGE_FOLLOWS if mode is ToolImages.USER_MESSAGE else IMAGE_DROPPED)
        return "\n".join(texts)

    def _images_of(self, turn: _Turn) -> list[Json]:
        if self._profile.tool_images is not ToolImages.USER_MESSAGE:
            return []
        told: list[Json] = []
        for call in turn.calls:
            images = [part for part in call.output or () if part.get("type") != "text"]
            if images:
                told += [text_part(f"Image from tool call {self._shaped(call.id)}:"), *images]
        return told

    def _shaped(self, call_id: str) -> str:
        if self._profile.tool_id_shape is ToolIdShape.MISTRAL9 and not _NINE.fullmatch(call_id):
            return _nine(call_id)
        return call_id


def _user_message(parts: list[Json]) -> list[Json]:
    """One message, its content a string if all is text; none if there is nothing to say."""
    if not parts:
        return []
    if all(part.get("type") == "text" for part in parts):
        return [{"role": "user", "content": "\n".join(part["text"] for part in parts)}]
    if not any(part.get("type") == "text" for part in parts):
        parts = [text_part(" "), *parts]  # MiMo rejects an image without a text beside it
    return [{"role": "user", "content": parts}]


def _orphan(call_id: str, parts: list[Json]) -> list[Json]:
    """The parts of an output that no call asked for, as a user may say them."""
    label = f"Tool result {call_id}: "
    if parts and parts[0].get("type") == "text":
        return [text_part(label + parts[0]["text"]), *parts[1:]]
    return [text_part(label), *parts]


def _nine(call_id: str) -> str:
    digest = hashlib.sha256(call_id.encode("utf-8", "replace")).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:9])
