"""What the kernel has accounted to a process and its descendants."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # a second; processes are accounted to 10 ms
_GONE = (FileNotFoundError, ProcessLookupError)


def tree(pid: int) -> list[int]:
    """`pid` and all its living descendants."""
    found = [pid]
    for parent in found:
        with suppress(*_GONE):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                with suppress(*_GONE):
                    found += map(int, (thread / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time used by the tree of `pid`, in user and kernel mode, by ended descendants too."""
    return sum(map(_ticks, tree(pid))) / TICKS


def _ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except _GONE:
        return 0
    # The name, in brackets, may hold anything. Behind it utime, stime, cutime, cstime (proc(5));
    # the latter two are those of children that have ended, which `tree` no longer finds.
    return sum(map(int, stat.rpartition(")")[2].split()[11:15]))


def memory_bytes(pid: int) -> int:
    """Memory of the tree of `pid`, pages shared with others counted in part (Pss)."""
    return sum(map(_pss, tree(pid)))


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except _GONE:
        pass
    return 0
