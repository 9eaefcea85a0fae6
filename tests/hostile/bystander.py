"""What an attack costs: the proxy's memory and time on the CPU, and what others get meanwhile."""

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

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
WAIT = 30.0  # seconds after which a bystander that gets nothing has been shut out
AGAIN = 0.05  # seconds until one that was not let in tries again

_fork = multiprocessing.get_context("fork")


class Bystander:
    """A client, in a process of its own, that streams one proper answer after another.

    `pid` is the server's: what it worked while the client waited tells how much of that was its doing,
    on a machine that has other things to do as well.
    """

    def __init__(self, port: int, pid: int) -> None:
        self._ours, theirs = _fork.Pipe()
        self._process = _fork.Process(target=_stream_on, args=(port, pid, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def worst(self) -> tuple[float, float, int, int]:
        """Since it was last asked: the longest wait for a byte in seconds, the most that the server
        worked during one, how many streams have come to their end, and how many were refused."""
        self._ours.send(None)
        return self._ours.recv()


def _stream_on(port: int, pid: int, pipe: Any) -> None:
    body = json.dumps({"model": "paced", "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    waits: list[tuple[float, float]] = [(0.0, 0.0)]
    counts = {"whole": 0, "refused": 0, "cut": 0}
    while True:
        counts[_one_stream(port, pid, request, waits)] += 1
        if pipe.poll():
            pipe.recv()
            longest = [max(column) for column in zip(*waits, strict=True)]
            pipe.send((*longest, counts["whole"], counts["refused"]))
            waits, counts = [(0.0, 0.0)], dict.fromkeys(counts, 0)


def _one_stream(port: int, pid: int, request: bytes, waits: list[tuple[float, float]]) -> str:
    """What became of it; each wait for bytes goes into `waits`."""
    got, began, worked = b"", time.monotonic(), on_cpu(pid)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
            connection.sendall(request)
            while b"[DONE]" not in got:
                data = connection.recv(65536)
                now, works = time.monotonic(), on_cpu(pid)
                waits.append((now - began, works - worked))
                began, worked = now, works
                if not data:
                    return "cut"
                if not got and not data.startswith(b"HTTP/1.1 200"):
                    time.sleep(AGAIN)  # it would be kept waiting for what no one sends
                    return "refused"
                got = got[-10:] + data
    except OSError:
        waits.append((time.monotonic() - began, on_cpu(pid) - worked))
        time.sleep(AGAIN)
        return "cut"
    return "whole"


class Meter:
    """Samples one process: `peak` is its most resident memory in bytes, `cpu` what it used in s."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.peak = resident(pid)
        self._cpu = on_cpu(pid)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def cpu(self) -> float:
        return on_cpu(self._pid) - self._cpu

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, resident(self._pid))


def resident(pid: int) -> int:
    """Bytes of memory that a process has in RAM (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def used(pid: int) -> float:
    """Seconds that all threads of a process have run (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def on_cpu(pid: int) -> float:
    """Seconds that a process's first thread has run (Linux)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


assert sys.platform == "linux", "what a process costs is read from /proc"
