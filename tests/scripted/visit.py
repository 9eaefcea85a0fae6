"""What the upstream noted about one request. Written by its thread, read by any other."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from enum import Enum

from patience import PATIENCE


class Left(Enum):
    """How the client closed the connection."""

    FIN = "fin"
    RESET = "reset"


@dataclass(slots=True)
class Visit:
    """`at`, `left_at` and `ended_at` are readings of `time.monotonic`.

    `ending` is "played" when the script came to its end, "left" when the client closed the
    connection before (at `left_at`, however silent the script was), "stopped" when the server did.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float
    key: str = ""
    scenario: str = ""
    attempt: int = 0
    connection: int = 0
    bytes_sent: int = 0
    ending: str | None = None
    ended_at: float | None = None
    left: Left | None = None
    left_at: float | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def json(self) -> dict[str, object]:
        """The body, or an empty object where it is none."""
        try:
            told = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    def end(self, ending: str, at: float) -> None:
        self.ending, self.ended_at = ending, at
        self._over.set()

    def wait_for_end(self, timeout: float = PATIENCE) -> str:
        """How it ended; raises TimeoutError when it did not in `timeout` seconds."""
        if not self._over.wait(timeout):
            raise TimeoutError(f"{self.key} still runs after {timeout} s")
        assert self.ending is not None
        return self.ending

    def wait_for_left(self, timeout: float = PATIENCE) -> float:
        """When the client was seen leaving; raises TimeoutError when it was not."""
        if self.wait_for_end(timeout) != "left" or self.left_at is None:
            raise TimeoutError(f"{self.key} was not left but {self.ending}")
        return self.left_at
