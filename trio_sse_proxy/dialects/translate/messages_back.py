"""What the way back from Chat to Messages needs to know of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tools import ToolBook


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """`model` is the client's own word for it, and `book` knows the client's names of its tools."""

    model: str
    stream: bool
    book: ToolBook
    stop_sequences: frozenset[str] = frozenset()
    inline_think: bool = False
