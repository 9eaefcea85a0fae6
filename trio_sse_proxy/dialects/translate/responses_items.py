"""The output items of a Responses stream, each from its first event to its last.

An item is told three times: when it begins, in pieces, and whole when it is done; and once more in the
response that ends the stream. Codex acts on the `done` of an item, before the stream ends and also if it
fails later: so `done` is asked for only when the upstream has told its own end, or has gone on to
something else.

Ids have a prefix that says what they are ids of: Codex drops others.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from ..wire import dumps, fields, loads, named
from .tools import Kind

if TYPE_CHECKING:
    from .carried import Carried
    from .chat_calls import Call
    from .tools import Tool

Json = dict[str, Any]


class Events:
    """Writes events and numbers them; `following` is the number of the next one."""

    __slots__ = ("following",)

    def __init__(self, following: int = 0) -> None:
        self.following = following

    def write(self, kind: str, **told: Any) -> bytes:
        """One event."""
        event = {"type": kind, "sequence_number": self.following} | told
        self.following += 1
        return named(kind, event)

    def write_delta(self, form: DeltaForm, delta: str) -> bytes:
        """One event of which there are thousands."""
        number = self.following
        self.following += 1
        return b"%b%d%b%b}\n\n" % (form.head, number, form.place, dumps(delta))


class DeltaForm:
    """What is the same in all deltas of an item, encoded once."""

    __slots__ = ("head", "place")

    def __init__(self, kind: str, place: Json) -> None:
        name = kind.encode()
        self.head = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)
        self.place = b",%b," % dumps(place)[1:-1] + b'"delta":'


class TextItem:
    """A message with one part: a text, or a refusal."""

    __slots__ = ("_delta", "_events", "_grown", "_head", "_index", "_kind", "_place")

    def __init__(self, events: Events, index: int, key: str, *, refusal: bool) -> None:
        self._events = events
        self._index = index
        self._kind = "refusal" if refusal else "output_text"
        self._head: Json = {"id": f"msg_{key}", "type": "message", "role": "assistant"}
        self._place: Json = {"item_id": f"msg_{key}", "output_index": index, "content_index": 0}
        more: Json = {} if refusal else {"logprobs": []}
        self._delta = DeltaForm(f"response.{self._kind}.delta", self._place | more)
        self._grown = StringIO()

    def begin(self) -> bytes:
        """The item and its part, still empty."""
        item: Json = self._head | {"status": "in_progress", "content": []}
        added = self._events.write(
            "response.output_item.added", output_index=self._index, item=item
        )
        part = self._part("")
        return added + self._events.write("response.content_part.added", **self._place, part=part)

    def grow(self, delta: str) -> bytes:
        """A piece of the text."""
        self._grown.write(delta)
        return self._events.write_delta(self._delta, delta)

    def end(self, status: str) -> tuple[bytes, Json]:
        """The last events, and the item."""
        text = self._grown.getvalue()
        part = self._part(text)
        item = self._head | {"status": status, "content": [part]}
        told: Json = (
            {"refusal": text} if self._kind == "refusal" else {"text": text, "logprobs": []}
        )
        write = self._events.write
        frames = write(f"response.{self._kind}.done", **self._place, **told)
        frames += write("response.content_part.done", **self._place, part=part)
        return frames + write(
            "response.output_item.done", output_index=self._index, item=item
        ), item

    def _part(self, text: str) -> Json:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class ReasoningItem:
    """Reasoning: shown as a summary to a client that wants one, and handed to all to bring back.

    Who does not ask for that (`include`) counts on the server to keep it, which we do not.
    """

    __slots__ = ("_delta", "_events", "_grown", "_head", "_index", "_place", "_shown")

    def __init__(self, events: Events, index: int, key: str, *, summary: bool) -> None:
        self._events = events
        self._index = index
        self._shown = summary
        self._head: Json = {"type": "reasoning", "id": f"rs_{key}"}
        self._place: Json = {"item_id": f"rs_{key}", "output_index": index, "summary_index": 0}
        self._delta = DeltaForm("response.reasoning_summary_text.delta", self._place)
        self._grown = StringIO()

    def begin(self) -> bytes:
        """The item, and the part that shows it, if it is shown."""
        item: Json = self._head | {"summary": []}
        added = self._events.write(
            "response.output_item.added", output_index=self._index, item=item
        )
        if not self._shown:
            return added
        return added + self._events.write(
            "response.reasoning_summary_part.added", **self._place, part=_summary("")
        )

    def grow(self, delta: str) -> bytes:
        """A piece of the reasoning; nothing if it is not shown."""
        self._grown.write(delta)
        return self._events.write_delta(self._delta, delta) if self._shown else b""

    def end(self, carried: Carried) -> tuple[bytes, Json]:
        """The last events, and the item. `carried` is what shall return, less the text itself."""
        text = self._grown.getvalue()
        carried.reasoning = text
        item = self._head | {"summary": [_summary(text)] if self._shown else []}
        item["encrypted_content"] = carried.pack()
        write, place = self._events.write, self._place
        frames = b""
        if self._shown:
            frames = write("response.reasoning_summary_text.done", **place, text=text)
            frames += write("response.reasoning_summary_part.done", **place, part=_summary(text))
        return frames + write(
            "response.output_item.done", output_index=self._index, item=item
        ), item


class CallItem:
    """A call, told as one of the kind of tool that the client has under that name."""

    __slots__ = ("_call", "_delta", "_events", "_id", "_index", "_place", "_tool")

    def __init__(self, events: Events, index: int, key: str, call: Call, tool: Tool) -> None:
        self._events = events
        self._index = index
        self._call = call
        self._tool = tool
        self._id = f"{_PREFIXES[tool.kind]}_{key}"
        self._place: Json = {"item_id": self._id, "output_index": index}
        self._delta = DeltaForm("response.function_call_arguments.delta", self._place)

    def begin(self) -> bytes:
        """The item; its arguments so far follow."""
        match self._tool.kind:
            case Kind.FUNCTION:
                item = self._item(arguments="", status="in_progress")
            case Kind.CUSTOM:
                item = self._item(input="")
            case Kind.SEARCH:
                item = self._item(execution="client", arguments={}, status="in_progress")
        added = self._events.write(
            "response.output_item.added", output_index=self._index, item=item
        )
        return added + self.grow(self._call.arguments)

    def grow(self, piece: str) -> bytes:
        """A piece of the arguments. Free text cannot be told in pieces: here it is a JSON string."""
        if self._tool.kind is not Kind.FUNCTION or not piece:
            return b""
        return self._events.write_delta(self._delta, piece)

    def end(self) -> tuple[bytes, Json]:
        """The last events, and the item."""
        match self._tool.kind:
            case Kind.FUNCTION:
                frames, item = self._end_function()
            case Kind.CUSTOM:
                frames, item = self._end_custom()
            case Kind.SEARCH:
                arguments = fields(loads(self._call.arguments.encode("utf-8", "replace")))
                item = self._item(execution="client", arguments=arguments, status="completed")
                frames = b""
        done = self._events.write("response.output_item.done", output_index=self._index, item=item)
        return frames + done, item

    def _end_function(self) -> tuple[bytes, Json]:
        arguments, frames = self._call.arguments, b""
        if not arguments.strip():  # some models say nothing where there is nothing to say
            arguments += "{}"
            frames = self.grow("{}")
        frames += self._events.write(
            "response.function_call_arguments.done",
            **self._place,
            name=self._tool.name,
            arguments=arguments,
        )
        return frames, self._item(arguments=arguments, status="completed")

    def _end_custom(self) -> tuple[bytes, Json]:
        raw = free_text(self._call.arguments)
        frames = b""
        if raw:
            frames = self._events.write(
                "response.custom_tool_call_input.delta", **self._place, delta=raw
            )
        frames += self._events.write(
            "response.custom_tool_call_input.done", **self._place, input=raw
        )
        return frames, self._item(input=raw)

    def _item(self, **told: Any) -> Json:
        head: Json = {"type": _TYPES[self._tool.kind], "id": self._id, "call_id": self._call.id}
        if self._tool.kind is not Kind.SEARCH:
            head["name"] = self._tool.name
        if self._tool.namespace is not None:
            head["namespace"] = self._tool.namespace
        return head | told


_PREFIXES = {Kind.FUNCTION: "fc", Kind.CUSTOM: "ctc", Kind.SEARCH: "tsc"}
_TYPES = {
    Kind.FUNCTION: "function_call",
    Kind.CUSTOM: "custom_tool_call",
    Kind.SEARCH: "tool_search_call",
}


def free_text(arguments: str) -> str:
    """The input of a tool that takes free text, out of the arguments of the function it became.

    Models that know the tool may ignore the wrapping, or name its one property otherwise.
    """
    told = fields(loads(arguments.encode("utf-8", "replace")))
    values = [told["input"]] if "input" in told else [*told.values()]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else arguments


def _summary(text: str) -> Json:
    return {"type": "summary_text", "text": text}
