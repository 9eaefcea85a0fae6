"""A Chat stream told as a Responses stream.

The opening goes out with the headers, before any upstream has answered: the ids are ours. So attempts
may fail and be replaced as long as `feed` has given nothing.

Items end when the next one begins; the last one, and all calls, only when the upstream has told its
end: Codex runs a call at its `output_item.done`, and an error may follow the finish_reason. A failure
leaves open what is open, so that nothing half told is taken for whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...core.failure import Cause, Failure, Refused
from ...core.sse import last_frame, parse, split_frames
from ..errors import failure_of_error
from ..responses import RESPONSES
from ..wire import dumps, fields, loads, read
from .carried import Carried
from .chat_calls import NAMELESS, Call, Calls
from .chat_delta import (
    add_details,
    calls_of,
    details_of,
    extras_of,
    first_choice,
    reasoning_of,
    text_of,
)
from .chat_think import ThinkSplitter
from .messages_stop import failure_of_choice
from .responses_end import is_cut, usage_in, why_incomplete
from .responses_items import CallItem, Events, ReasoningItem, TextItem

if TYPE_CHECKING:
    from ...core.usage import Usage
    from .responses_request import WayBack

Json = dict[str, Any]


class _Chunk(msgspec.Struct):
    choices: Any = None
    usage: Any = None
    error: Any = None
    object: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ToResponses:
    """One attempt's Chat stream, told as Responses.

    `failure` says why this attempt cannot be told to its end: then the relay tries another one (of
    which `another` is the translator) as long as nothing was given, or writes `fail(failure)`.
    `done` is True once everything up to the terminal event was given.
    """

    def __init__(self, back: WayBack, key: str, created: int, *, opened: bool = False) -> None:
        """`key` makes the ids unique: letters and digits, 24 of them to look like OpenAI's.

        `created` is in seconds since 1970. `opened`: the opening has gone out.
        """
        self._back = back
        self._key = key
        self._created = created
        self._opened = False
        self._events = Events()
        self._calls = Calls(key)
        self._call_items: dict[str, CallItem] = {}
        self._call_places: dict[str, int] = {}
        self._active: TextItem | ReasoningItem | None = None
        self._active_kind = ""  # "text", "refusal" or "thinking"
        self._begun = 0  # items
        self._done_items: dict[int, Json] = {}  # by output_index
        self._carried = Carried()  # since the last reasoning item
        self._think = ThinkSplitter() if back.profile.inline_think else None
        self._said = False  # text
        self._finish: object = None
        self._usage_told: Json | None = None
        self._last = b""  # given
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.done = False
        self.response: Json = {}
        """As the terminal event told it."""
        if opened:
            self.opening()

    def opening(self) -> bytes:
        """`response.created` and `response.in_progress`."""
        self._opened = True
        response = self.snapshot("in_progress")
        created = self._events.write("response.created", response=response)
        in_progress = self._events.write("response.in_progress", response=response)
        return self._give(created + in_progress)

    def another(self) -> ToResponses:
        """The translator of the next attempt: same ids, and the opening is not written again."""
        return ToResponses(self._back, self._key, self._created, opened=self._opened)

    def feed(self, frames: bytes) -> bytes:
        """What some whole frames of the upstream come to. Never raises; see `failure`.

        After the first bytes given a client may have shown something.
        """
        if frames.count(b"\n\n") == 1 and frames.endswith(b"\n\n"):
            given = self._frame(frames)
        else:
            given = b"".join(map(self._frame, split_frames(frames)))
        return self._give(given)

    def whole(self, body: bytes) -> bytes:
        """The same for an upstream that answers the streaming request with a JSON document."""
        given = self._chunk(body)
        if not (self.failure or self._finish or self._is_sound):
            message = "the upstream's answer is no completion"
            self.failure = Failure(cause=Cause.PROTOCOL, message=message)
        return self._give(given + self.end(terminated=True))

    def end(self, *, terminated: bool = False) -> bytes:
        """The upstream's body is over, or (`terminated`) it said `[DONE]`.

        Complete is what has a finish_reason; and what was terminated, if there is a text or a call,
        and no call is half told. Anything else is a failure.
        """
        if self.done or self.failure:
            return b""
        if self._finish or (terminated and self._is_sound):
            return self._give(self._closing())
        cause = Cause.TRUNCATED if self._begun else Cause.UNREACHABLE
        message = "the upstream ended its answer before it was complete"
        self.failure = Failure(cause=cause, message=message)
        return b""

    def fail(self, failure: Failure) -> bytes:
        """`error` and `response.failed`, behind whatever is open; the body ends right after them."""
        if self.done:
            return b""
        self.done = True
        told = RESPONSES.open_stream()
        told.forwarded = self._opened
        if self._opened:
            # What the client knows: the response's id, from the opening; and the last number.
            told.look(Events().write("response.created", response=self.snapshot("in_progress")))
            told.look(last_frame(self._last))
        return told.error_frames(failure)

    def byte_heartbeat(self) -> bytes:
        """A comment."""
        return b": hb\n\n"

    def event_heartbeat(self, agent: str) -> bytes | None:
        """A sign of life, numbered like any event; None where none is safe.

        Before the first item `response.in_progress` is an ordinary event. Repeated after text it
        breaks the stream helper of openai-node, where `keepalive`, which OpenAI sends too, passes.
        """
        if self.done:
            return None
        if not self._opened:
            return RESPONSES.open_stream().event_heartbeat(agent)
        if self._begun:
            return self._give(self._events.write("keepalive"))
        response = self.snapshot("in_progress")
        return self._give(self._events.write("response.in_progress", response=response))

    @property
    def finished(self) -> bool:
        """True once a finish_reason came: `end` may be called, and only counts and `[DONE]` follow."""
        return bool(self._finish)

    def snapshot(self, status: str) -> Json:
        """The response as it stands: every item that is done, in the order of their beginnings."""
        reason = why_incomplete(self._finish, self._back.profile)
        incomplete = status == "incomplete" and reason
        return {
            "id": f"resp_{self._key}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._back.model,
            "output": [item for _, item in sorted(self._done_items.items())],
            "error": None,
            "incomplete_details": {"reason": reason} if incomplete else None,
            **self._back.echo,
            "usage": self._usage_told if status != "in_progress" else None,
        }

    def _give(self, frames: bytes) -> bytes:
        if frames:
            self._last = frames
        return frames

    def _frame(self, frame: bytes) -> bytes:
        event = parse(frame)
        data = event.data.strip() if event else b""
        if not data or self.done or self.failure:
            return b""
        if data.startswith(b"[DONE]"):
            return self.end(terminated=True)
        return self._chunk(data)

    def _chunk(self, data: bytes) -> bytes:
        chunk = read(_CHUNK, data)
        if chunk is None:
            message = "the upstream sent what is no JSON object"
            self.failure = Failure(cause=Cause.PROTOCOL, message=message)
            return b""
        if chunk.error or chunk.object == "error":
            self.failure = failure_of_error(loads(data))
            return b""
        choice = first_choice(chunk.choices)
        if chunk.usage or choice.get("usage"):
            self._note_usage(data)
        if not choice:
            # The counts come last where they come alone: nothing but [DONE] is missing.
            return self._closing() if chunk.usage and self._finish else b""
        return self._choice(choice)

    def _note_usage(self, data: bytes) -> None:
        if counts := usage_in(data):
            self.usage, self._usage_told = counts

    def _choice(self, choice: Json) -> bytes:
        if choice.get("finish_reason"):
            self.failure = failure_of_choice(choice)
            if self.failure:
                return b""
            self._finish = choice["finish_reason"]
        delta = fields(choice.get("delta") or choice.get("message"))
        frames = b""
        if details := details_of(delta):
            add_details(self._carried.details, details)
        if reasoning := reasoning_of(delta):
            frames = self._say("thinking", reasoning)
        if delta.get("refusal") and not self._back.profile.refusal_as_text:
            frames += self._text(text_of(delta | {"refusal": None}))
            frames += self._say("refusal", text_of({"refusal": delta["refusal"]}))
        elif text := text_of(delta):
            frames += self._text(text)
        for call in calls_of(delta):
            frames += self._call(call)
        return frames

    def _text(self, text: str) -> bytes:
        if self._think is None:
            return self._say("text", text)
        return b"".join([self._say(kind, piece) for kind, piece in self._think.feed(text)])

    def _say(self, kind: str, piece: str) -> bytes:
        """A piece of reasoning, text or refusal; the first one of its kind begins an item."""
        if not piece:
            return b""
        if self._active_kind == kind and self._active:
            return self._active.grow(piece)
        frames = self._close_active()
        index, key = self._next_item()
        if kind == "thinking":
            self._active = self._new_reasoning(index, key)
        else:
            self._said = True
            self._active = TextItem(self._events, index, key, refusal=kind == "refusal")
        self._active_kind = kind
        return frames + self._active.begin() + self._active.grow(piece)

    def _call(self, delta: Json) -> bytes:
        call = self._calls.of(delta)
        piece = call.take(delta)
        if extras := extras_of(delta):
            self._carried.extras.setdefault(call.id, {}).update(extras)
        if known := self._call_items.get(call.id):
            return known.grow(piece)
        return self._begin_call(call) if call.name else b""

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
        back = self._back
        summary = back.summary and shown
        return ReasoningItem(self._events, index, key, summary=summary, carry=back.carry)

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
        if not self._carried or not self._back.carry:
            return b""
        index, key = self._next_item()
        item = self._new_reasoning(index, key, shown=False)
        frames = item.begin()
        ending, self._done_items[index] = item.end(self._carried)
        self._carried = Carried()
        return frames + ending

    @property
    def _is_sound(self) -> bool:
        """True if there is something, and all of it may be whole."""
        calls = self._calls.all
        return (self._said or bool(calls)) and all(call.name and _is_json(call) for call in calls)

    def _closing(self) -> bytes:
        self.done = True
        held = self._think.flush() if self._think else []
        frames = [self._say(kind, piece) for kind, piece in held]
        reason = why_incomplete(self._finish, self._back.profile)
        status = "incomplete" if reason else "completed"
        frames.append(self._close_active(status))
        frames += [
            self._begin_call(call)
            for call in self._calls.all
            if call.begun and call.id not in self._call_items
        ]
        frames.append(self._carry_rest())
        frames += map(self._end_call, self._calls.all)
        self.response = self.snapshot(status)
        frames.append(self._events.write(f"response.{status}", response=self.response))
        return b"".join(frames)

    def _end_call(self, call: Call) -> bytes:
        item = self._call_items.get(call.id)
        if item is None or (is_cut(self._finish) and not _is_json(call)):
            return b""
        frames, self._done_items[self._call_places[call.id]] = item.end()
        return frames


def translate_answer(body: bytes, back: WayBack, key: str, created: int) -> bytes:
    """A whole Chat completion as a whole response. Raises Refused if it tells of a failure."""
    told = ToResponses(back, key, created)
    told.whole(body)
    if told.failure:
        raise Refused(told.failure)
    return dumps(told.response)


def _is_json(call: Call) -> bool:
    """True if the arguments are whole: a JSON object."""
    return isinstance(loads(call.arguments.encode("utf-8", "replace")), dict)
