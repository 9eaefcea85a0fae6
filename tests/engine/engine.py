"""The engine as a process of its own, and what it says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from end_to_end.proxy import read

from .install import installed

START = 30.0  # seconds
COMPLAINT = re.compile(r"^[\d.]+ E .*", re.MULTILINE)
STOPPED = re.compile(r"stop processing: n_tokens = (\d+)")


class Engine:
    """A context manager. `url` is where it listens."""

    url = ""

    def __enter__(self) -> Self:
        python, model = installed()
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            ["nice", str(python), str(Path(__file__).with_name("serve.py")), str(model)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        deadline = time.monotonic() + START
        while not self.url and time.monotonic() < deadline and self._process.poll() is None:
            self.url = self._process.stdout.readline().strip()
        if not self.url:
            said = self.log()[-2000:]
            self.__exit__()
            raise RuntimeError(f"the engine does not listen:\n{said}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def log(self) -> str:
        return read(self._log)

    def complaints(self) -> list[str]:
        """What it calls errors, but for prompts that are too long. Warnings are of its own doings."""
        found = COMPLAINT.findall(self.log())
        return [line for line in found if "exceeds the available context size" not in line]

    def stopped(self) -> list[int]:
        """The length of every conversation it came to the end of, or was made to leave."""
        return [int(found) for found in STOPPED.findall(self.log())]

    def busy(self) -> bool:
        """True while it generates, or reads a prompt."""
        with urllib.request.urlopen(f"{self.url}/slots", timeout=10) as answer:
            slots: list[dict[str, Any]] = json.load(answer)
        return any(slot["is_processing"] for slot in slots)

    def wait_until_idle(self, seconds: float) -> float:
        """The seconds it took. Raises TimeoutError."""
        began = time.monotonic()
        while self.busy():
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"still generating after {seconds} s")
            time.sleep(0.01)
        return time.monotonic() - began
