"""Writing the blocks of a Messages stream: one is open at a time, the others wait their turn.

Claude Code runs a tool as soon as its block is closed, whatever follows, so a call's block is closed
only when its arguments are complete; and a stream can have but one block open. Upstreams know no such
order: they may send two calls in turns, or a text between the pieces of one. So what has come stands in
a queue. Its head is open; what comes for it is written at once, and what comes for others is kept.
Text and thinking end when something else has begun, a call when its arguments are an object and
something else has begun, and everything when the answer does.

What a vendor wants back with a call goes into the signature of a thinking block, which clients return
unchanged: the block before the call, or, where there is none, one without any thinking.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ..wire import dumps, named
from .carried import Carried
from .chat_calls import NAMELESS, Call, Calls
from .chat_delta import add_details, extras_of

if TYPE_CHECKING:
    from .tools import ToolBook

Json = dict[str, Any]

_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"%b","%b":%b}}\n\n'
)
_DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}


class _Block:
    """One block that is open or waits: what has come of it and was not written yet."""

    __slots__ = ("call", "held", "kind")

    def __init__(self, kind: str, call: Call | None = None) -> None:
        self.kind = kind
        self.call = call
        self.held: list[str] = []

    @property
    def may_open(self) -> bool:
        return self.call is None or bool(self.call.name)

    @property
    def may_close(self) -> bool:
        return self.call is None or self.call.complete


class Blocks:
    """The blocks of one answer. Every method gives the frames to be written now."""

    def __init__(self, key: str, book: ToolBook) -> None:
        """`key` makes ids unique that the upstream left out; `book` knows the client's names."""
        self._book = book
        self._queue: deque[_Block] = deque()
        self._is_open = False  # the head of the queue
        self._index = 0
        self._calls = Calls(key)
        self._unsigned = Carried()
        self._of_call: dict[str, _Block] = {}
        self._has_text = False
        self.called = False
        """True once a call was told."""

    @property
    def begun(self) -> bool:
        """True once a block was told."""
        return self._is_open or self._index > 0

    @property
    def are_sound(self) -> bool:
        """True if there is something to act on, and nothing of it is half told."""
        calls = self._calls.all
        return bool(calls or self._has_text) and all(call.complete for call in calls)

    def say(self, kind: str, delta: str) -> bytes:
        """A piece of `text` or `thinking`, not empty. This is the hot path."""
        queue = self._queue
        if len(queue) == 1 and queue[0].kind == kind:
            return self._delta(kind, delta)
        if kind == "text":
            self._has_text = True
        if not queue or queue[-1].kind != kind:
            queue.append(_Block(kind))
        queue[-1].held.append(delta)
        return self._advance()

    def call(self, delta: Json) -> bytes:
        """A piece of a tool call."""
        call = self._calls.of(delta)
        block = self._of_call.get(call.id)
        if block is None:
            block = self._of_call[call.id] = _Block("tool_use", call)
            self._queue.append(block)
        if piece := call.take(delta):
            block.held.append(piece)
        if extras := extras_of(delta):
            known = self._unsigned.extras.setdefault(call.id, {})
            known |= extras
        return self._advance()

    def details(self, details: list[Json]) -> None:
        """Marks of a vendor on its reasoning, which it wants back."""
        add_details(self._unsigned.details, details)

    def close(self) -> bytes:
        """The end of every block, complete or not."""
        frames = self._advance(to_the_end=True)
        return frames + self._signed_alone() if self._unsigned else frames

    def _advance(self, *, to_the_end: bool = False) -> bytes:
        frames: list[bytes] = []
        queue = self._queue
        while queue:
            head = queue[0]
            if not self._is_open:
                if to_the_end and head.call and not head.may_open and not head.call.begun:
                    queue.popleft()  # a call without a name or arguments is none
                    continue
                if not (head.may_open or to_the_end):
                    break
                frames.append(self._start(head))
            if head.held:
                frames.append(self._delta(head.kind, "".join(head.held)))
                head.held.clear()
            if not to_the_end and (len(queue) == 1 or not head.may_close):
                break
            frames.append(self._stop(head.kind))
            queue.popleft()
        return b"".join(frames)

    def _start(self, block: _Block) -> bytes:
        before = b""
        content: Json = {"type": block.kind}
        if (call := block.call) is not None:
            if self._unsigned:
                before = self._signed_alone()
            self.called = True
            name = self._book.find(call.name or NAMELESS).name
            content |= {"id": call.id, "name": name, "input": {}}
        elif block.kind == "thinking":
            content |= {"thinking": "", "signature": ""}
        else:
            content |= {"text": ""}
        self._is_open = True
        return before + _event("content_block_start", index=self._index, content_block=content)

    def _stop(self, kind: str) -> bytes:
        signature = self._signature() if kind == "thinking" else b""
        frame = _event("content_block_stop", index=self._index)
        self._is_open = False
        self._index += 1
        return signature + frame

    def _delta(self, kind: str, delta: str) -> bytes:
        name, field = _DELTAS[kind]
        return _DELTA % (self._index, name, field, dumps(delta))

    def _signature(self) -> bytes:
        delta = {"type": "signature_delta", "signature": self._unsigned.pack()}
        self._unsigned = Carried()
        return _event("content_block_delta", index=self._index, delta=delta)

    def _signed_alone(self) -> bytes:
        """A thinking block that holds nothing but a signature."""
        return self._start(_Block("thinking")) + self._stop("thinking")


def _event(kind: str, **told: Any) -> bytes:
    return named(kind, {"type": kind} | told)
