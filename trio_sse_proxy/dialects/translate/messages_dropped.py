"""What of a request has no counterpart, and was left out: told in a header, and once in the log."""

from __future__ import annotations

from typing import Any

from ..wire import text


class Dropped:
    """Words like `field:container`, `block:server_tool_use`, `tool:web_search_20250305`, each once."""

    def __init__(self) -> None:
        self._words: dict[str, None] = {}

    @property
    def words(self) -> tuple[str, ...]:
        """In the order in which they were met."""
        return tuple(self._words)

    def field(self, name: str) -> None:
        """A field of the request, or of one of its parts."""
        self._words[f"field:{name}"] = None

    def block(self, block: dict[str, Any]) -> None:
        """A block of a message."""
        self._words[f"block:{text(block.get('type')) or '?'}"] = None

    def tool(self, tool: dict[str, Any]) -> None:
        """A tool that only Anthropic's servers have."""
        self._words[f"tool:{text(tool.get('type')) or text(tool.get('name')) or '?'}"] = None
