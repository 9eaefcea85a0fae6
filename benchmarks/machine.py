"""The machine the numbers come from: cores, limits, and how processes are started on it."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

OPEN_FILES = 40_000  # two descriptors a stream in a proxy, and room
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def cores() -> tuple[set[int], set[int]]:
    """Those of the contestant, and those of upstream and load; the same one if there is but one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


def start(
    command: Sequence[str | Path], on: set[int], *, env: dict[str, str] | None = None, **how: Any
) -> subprocess.Popen[bytes]:
    """Start a process on the cores `on`, in a group of its own, which dies if we do."""

    def prepare() -> None:
        os.sched_setaffinity(0, on)
        raise_file_limit()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        list(map(str, command)),
        preexec_fn=prepare,
        start_new_session=True,
        env={**os.environ, **(env or {})},
        **how,
    )


def stop(process: subprocess.Popen[bytes], patience: float = 3.0) -> None:
    """End a process that `start` has started, and what it has started itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            break
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def raise_file_limit() -> None:
    """Allow as many open files as are needed, or as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, max(hard, OPEN_FILES)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def describe() -> str:
    """One line for the head of a report."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    model = names[0] if names else platform.machine()
    count = len(os.sched_getaffinity(0))
    release = ".".join(platform.release().split(".")[:2])
    return f"{count} cores ({model}), Linux {release}, Python {platform.python_version()}"


def load_average() -> float:
    """Processes that wanted to run during the last minute, on average."""
    return os.getloadavg()[0]
