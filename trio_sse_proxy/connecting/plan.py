"""What an agent needs to know of the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..core.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class NotConnected(ProxyError):
    """Nothing was written: says why, in words for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`base_url` is the proxy's, without a version segment. `model` None: the agent's own choice.

    `key_variable` is the variable that holds the client's key; None: the proxy wants none.
    """

    base_url: str
    model: str | None = None
    key_variable: str | None = None


class Agent(Protocol):
    """What is known of one agent: a module."""

    @property
    def FILE(self) -> str:
        """The name of its file."""
        ...

    def folder(self, environ: Mapping[str, str], home: Path) -> Path:
        """Where that lies."""
        ...

    def snippet(self, plan: Plan) -> str:
        """The settings, to be put where they belong by hand."""
        ...

    def edited(self, before: str, plan: Plan) -> str:
        """The file with the settings in force. Raises NotConnected if it cannot be edited safely."""
        ...

    def changes(self, before: str, after: str) -> Iterator[str]:
        """What that changes, in lines for people; no line holds anybody's key."""
        ...
