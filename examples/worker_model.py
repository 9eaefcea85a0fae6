"""The model that `worker_in_subprocess.py` starts: no trio, no threads, one request at a time.

    python examples/worker_model.py LOG

It is told and tells in lines of JSON, and looks between two tokens whether there is an abort for it.
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from typing import Any

TOKENS = 10  # unless `max_tokens` says something else
GAP = 0.002  # seconds for one token


class Model:
    """A fake one. What it does stands in the file `log`, a line for each step."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("a", buffering=1)

    def run(self) -> None:
        """Do what is told until nobody can tell any more."""
        while (told := self._hear(None)) is not None:
            if "generate" in told:
                call = told["generate"]
                self._note("began", call)
                tokens = told["body"].get("max_tokens", TOKENS)
                made = self._generate(call, tokens)
                how = "finished" if made == tokens else "stopped"
                self._note(how, call)
                self._tell(call=call, end=how, tokens=made)

    def _generate(self, call: str, tokens: int) -> int:
        """How many tokens were made."""
        for number in range(tokens):
            told = self._hear(GAP)
            if told is not None and told.get("abort") == call:
                return number
            self._tell(call=call, token=f"token{number} ")
        return tokens

    def _hear(self, seconds: float | None) -> dict[str, Any] | None:
        """What is said within so many seconds."""
        if not select.select([0], [], [], seconds)[0]:
            return None
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := os.read(0, 1)):
                raise SystemExit(0)
            line += byte
        told: dict[str, Any] = json.loads(line)
        if "abort" in told:
            self._note("aborted", told["abort"])
        return told

    def _tell(self, **told: Any) -> None:
        os.write(1, json.dumps(told).encode() + b"\n")

    def _note(self, what: str, call: str) -> None:
        self._log.write(f"{what} {call}\n")


if __name__ == "__main__":
    Model(Path(sys.argv[1])).run()
