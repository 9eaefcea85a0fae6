"""Which tool call a piece belongs to.

Chat sends calls in pieces and numbers them, but some vendors leave out the number, or send 0 for each,
or repeat id and name with every piece, or send whole calls with neither number nor id.
"""

from __future__ import annotations

from typing import Any

from ..wire import count, fields, loads, text
from .chat_delta import arguments_of

Json = dict[str, Any]

NAMELESS = "unknown_tool"
"""For a call with arguments whose name never came: the client then tells the model so. An empty name
would be refused by strict upstreams for as long as it stands in the history."""


class Call:
    """One tool call as far as it has come."""

    __slots__ = ("_pieces", "id", "name", "theirs")

    def __init__(self, theirs: str, call_id: str) -> None:
        self.theirs = theirs
        """The upstream's id; "" while it told none."""
        self.id = call_id
        """The id for the client, unique within this answer."""
        self.name = ""
        self._pieces: list[str] = []

    @property
    def arguments(self) -> str:
        """All that has come of them."""
        return "".join(self._pieces)

    @property
    def begun(self) -> bool:
        """True once there are arguments."""
        return bool(self._pieces)

    @property
    def complete(self) -> bool:
        """True if the arguments are an object, to which nothing can be added."""
        # Parsed at the end of an object only: else it would cost the square of the size.
        if not self._pieces or not self._pieces[-1].rstrip().endswith("}"):
            return False
        return isinstance(loads(self.arguments.encode("utf-8", "replace")), dict)

    def take(self, delta: Json) -> str:
        """Add what a piece says; the arguments in it."""
        if not self.name:
            self.name = text(fields(delta.get("function")).get("name"))
        if piece := arguments_of(delta):
            self._pieces.append(piece)
        return piece


class Calls:
    """The calls of one answer, in the order in which they began."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._by_index: dict[int, Call] = {}
        self._by_id: dict[str, Call] = {}
        self._ids: set[str] = set()
        self.all: list[Call] = []

    def of(self, delta: Json) -> Call:
        """The call this piece belongs to, which may be a new one: then it is the last of `all`."""
        index, theirs = count(delta.get("index")), text(delta.get("id"))
        call = self._known(index, theirs)
        if call is None or _is_another(call, theirs, delta):
            call = self._begin(theirs)
        if index is not None:
            self._by_index[index] = call
        if theirs:
            call.theirs = call.theirs or theirs
            self._by_id[theirs] = call
        return call

    def _known(self, index: int | None, theirs: str) -> Call | None:
        if index is not None:
            return self._by_index.get(index)
        if theirs:
            return self._by_id.get(theirs)
        return self.all[-1] if self.all else None

    def _begin(self, theirs: str) -> Call:
        minted = f"call_{self._key}{len(self.all):x}"
        call = Call(theirs, theirs if theirs and theirs not in self._ids else minted)
        self._ids.add(call.id)
        self.all.append(call)
        return call


def _is_another(call: Call, theirs: str, delta: Json) -> bool:
    """True if a piece that seems to belong to `call` begins another one.

    Who names a call again, with another id, or with arguments behind complete ones, means another.
    """
    if not fields(delta.get("function")).get("name"):
        return False
    if theirs:
        return theirs != call.theirs and bool(call.theirs or call.begun)
    return bool(arguments_of(delta)) and call.complete
