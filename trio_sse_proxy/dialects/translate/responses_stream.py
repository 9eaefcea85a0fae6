"""A Chat answer told as a Responses stream.

Items end when the next one begins; the last one, and all calls, only at the end of the answer: Codex
runs a call at its `output_item.done`, and keeps it whatever follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.failure import Refused
from ..responses import RESPONSES
from ..wire import dumps, loads, renumbered
from .carried import Carried
from .chat_calls import NAMELESS, Call, Calls
from .chat_delta import add_details, extras_of
from .chat_stream import ChatStream
from .responses_end import is_cut, usage_in, why_incomplete
from .responses_items import CallItem, Events, ReasoningItem, TextItem

if TYPE_CHECKING:
    from ...core.failure import Failure
    from .responses_request import WayBack

Json = dict[str, Any]


class ToResponses:
    """A Teller; see `chat_stream`."""

    def __init__(self, back: WayBack, key: str, created: int) -> None:
        """`key` makes the ids unique: letters and digits, 24 of them to look like OpenAI's.

        `created` is in seconds since 1970.
        """
        self._back = back
        self._key = key
        self._created = created
        self._events = Events()
        self._calls = Calls(key)
        self._call_items: dict[str, CallItem] = {}
        self._call_places: dict[str, int] = {}
        self._active: TextItem | ReasoningItem | None = None
        self._active_kind = ""  # "text", "refusal" or "thinking"
        self._begun = 0  # items
        self._done_items: dict[int, Json] = {}  # by output_index
        self._carried = Carried()  # since the last reasoning item
        self._said = False  # text
        self._usage_told: Json | None = None
        self.response: Json = {}
        """As the terminal event told it."""

    @property
    def begun(self) -> bool:
        """True once an item was told."""
        return self._begun > 0

    @property
    def is_sound(self) -> bool:
        """True if there is something, and all of it may be whole."""
        calls = self._calls.all
        return (self._said or bool(calls)) and all(call.name and _is_json(call) for call in calls)

    def opening(self) -> bytes:
        """`response.created` and `response.in_progress`."""
        response = self._snapshot("in_progress")
        created = self._events.write("response.created", response=response)
        return created + self._events.write("response.in_progress", response=response)

    def say(self, kind: str, piece: str) -> bytes:
        """The first piece of its kind begins an item. This is the hot path."""
        if self._active_kind == kind and self._active:
            return self._active.grow(piece)
        if kind == "refusal" and self._back.profile.refusal_as_text:
            return self.say("text", piece)
        frames = self._close_active()
        index, key = self._next_item()
        if kind == "thinking":
            self._active = self._new_reasoning(index, key)
        else:
            self._said = True
            self._active = TextItem(self._events, index, key, refusal=kind == "refusal")
        self._active_kind = kind
        return frames + self._active.begin() + self._active.grow(piece)

    def call(self, delta: Json) -> bytes:
        """A call without a name waits for it."""
        call = self._calls.of(delta)
        piece = call.take(delta)
        if extras := extras_of(delta):
            self._carried.extras.setdefault(call.id, {}).update(extras)
        if known := self._call_items.get(call.id):
            return known.grow(piece)
        return self._begin_call(call) if call.name else b""

    def details(self, details: list[Json]) -> None:
        """They go with the reasoning."""
        add_details(self._carried.details, details)

    def counts(self, data: bytes) -> None:
        """Token counts."""
        self._usage_told = usage_in(data) or self._usage_told

    def closing(self, choice: Json) -> bytes:
        """The end of all items, and the response, complete or not."""
        finish = choice.get("finish_reason")
        reason = why_incomplete(finish, self._back.profile)
        status = "incomplete" if reason else "completed"
        frames = [self._close_active(status)]
        frames += [
            self._begin_call(call)
            for call in self._calls.all
            if call.begun and call.id not in self._call_items
        ]
        frames.append(self._carry_rest())
        frames += [self._end_call(call, cut=is_cut(finish)) for call in self._calls.all]
        self.response = self._snapshot(status, reason)
        frames.append(self._events.write(f"response.{status}", response=self.response))
        return b"".join(frames)

    def error(self, failure: Failure) -> bytes:
        """`error` and `response.failed`, behind whatever is open."""
        told = RESPONSES.open_stream()
        told.forwarded = True
        # What the client knows: the response, and the last number.
        last = Events(self._events.following - 1)
        told.look(last.write("response.in_progress", response=self._snapshot("in_progress")))
        return told.error_frames(failure)

    def skip(self, count: int, held: bytes) -> bytes:
        """See Teller."""
        self._events.following += count
        return renumbered(held, count)

    def _snapshot(self, status: str, reason: str | None = None) -> Json:
        """The response as it stands: every item that is done, in the order of their beginnings."""
        return {
            "id": f"resp_{self._key}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._back.model,
            "output": [item for _, item in sorted(self._done_items.items())],
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            **self._back.echo,
            "usage": self._usage_told if status != "in_progress" else None,
        }

    def _begin_call(self, call: Call) -> bytes:
        frames = self._close_active() + self._carry_rest()
        index, key = self._next_item()
        tool = self._back.book.find(call.name or NAMELESS)
        item = CallItem(self._events, index, key, call, tool)
        self._call_items[call.id] = item
        self._call_places[call.id] = index
        return frames + item.begin()

    def _next_item(self) -> tuple[int, str]:
        index = self._begun
        self._begun += 1
        return index, f"{self._key}{index:x}"

    def _new_reasoning(self, index: int, key: str, *, shown: bool = True) -> ReasoningItem:
        summary = self._back.summary and shown
        return ReasoningItem(self._events, index, key, summary=summary)

    def _close_active(self, status: str = "completed") -> bytes:
        """End the item that grows; reasoning takes along what must return with it."""
        match self._active:
            case None:
                return b""
            case TextItem() as item:
                frames, told = item.end(status)
            case ReasoningItem() as item:
                frames, told = item.end(self._carried)
                self._carried = Carried()
        self._active = None
        self._done_items[self._begun - 1] = told
        return frames

    def _carry_rest(self) -> bytes:
        """What must return and has no reasoning to go with: an item that shows nothing."""
        if not self._carried:
            return b""
        index, key = self._next_item()
        item = self._new_reasoning(index, key, shown=False)
        frames = item.begin()
        ending, self._done_items[index] = item.end(self._carried)
        self._carried = Carried()
        return frames + ending

    def _end_call(self, call: Call, *, cut: bool) -> bytes:
        item = self._call_items.get(call.id)
        if item is None or (cut and not _is_json(call)):
            return b""
        frames, self._done_items[self._call_places[call.id]] = item.end()
        return frames


def translate_answer(body: bytes, back: WayBack, key: str, created: int) -> bytes:
    """A whole Chat completion as a whole response. Raises Refused if it tells of a failure."""
    told = ToResponses(back, key, created)
    answer = ChatStream(told, inline_think=back.profile.inline_think)
    answer.whole(body)
    if answer.failure:
        raise Refused(answer.failure)
    return dumps(told.response)


def _is_json(call: Call) -> bool:
    """True if the arguments are whole: a JSON object."""
    return isinstance(loads(call.arguments.encode("utf-8", "replace")), dict)
