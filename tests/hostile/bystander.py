"""What an attack costs: the proxy's memory and time on the CPU, and how long others wait meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
WAIT = 30.0  # seconds after which a bystander that gets nothing has been shut out

_fork = multiprocessing.get_context("fork")


class Bystander:
    """A client, in a process of its own, that streams one proper answer after another.

    `worst` is the longest it has waited for a byte, in seconds, since it was last asked.
    """

    def __init__(self, port: int) -> None:
        self._ours, theirs = _fork.Pipe()
        self._process = _fork.Process(target=_stream_on, args=(port, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def worst(self) -> tuple[float, int]:
        """The longest wait, and how many streams have come to their end."""
        self._ours.send(None)
        return self._ours.recv()


def _stream_on(port: int, pipe: Any) -> None:
    body = json.dumps({"model": "paced", "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}"
    worst, streams = 0.0, 0
    while True:
        waited, complete = _one_stream(port, head.encode() + b"\r\n\r\n" + body)
        worst, streams = max(worst, waited), streams + complete
        if pipe.poll():
            pipe.recv()
            pipe.send((worst, streams))
            worst, streams = 0.0, 0


def _one_stream(port: int, request: bytes) -> tuple[float, bool]:
    worst, got, last = 0.0, b"", time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
            connection.sendall(request)
            while b"[DONE]" not in got:
                data = connection.recv(65536)
                now = time.monotonic()
                worst, last = max(worst, now - last), now
                if not data:
                    return worst, False
                got = got[-10:] + data
    except OSError:
        time.sleep(0.05)
        return max(worst, time.monotonic() - last), False
    return worst, True


class Meter:
    """Samples one process: `peak` is its most resident memory in bytes, `cpu` what it used in s."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.peak = resident(pid)
        self._cpu = cpu(pid)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def cpu(self) -> float:
        return cpu(self._pid) - self._cpu

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, resident(self._pid))


def resident(pid: int) -> int:
    """Bytes of memory that a process has in RAM (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


assert sys.platform == "linux", "what a process costs is read from /proc"
