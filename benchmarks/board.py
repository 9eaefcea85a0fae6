"""A page of memory that upstream and load share, for what must not pass through a contestant."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SIZE = 4096


class Board:
    """Four numbers, each written by one side only."""

    def __init__(self, path: Path) -> None:
        """Attach to `path`, creating it if need be."""
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("q")

    @property
    def arrived(self) -> int:
        """How many requests the upstream has received."""
        return self._cells[0]

    @arrived.setter
    def arrived(self, count: int) -> None:
        self._cells[0] = count

    @property
    def gate(self) -> int:
        """When gated streams go on, in nanoseconds of the monotonic clock; 0 while that is open."""
        return self._cells[1]

    @gate.setter
    def gate(self, instant: int) -> None:
        self._cells[1] = instant

    @property
    def spread(self) -> int:
        """Over how many nanoseconds gated streams are spread when they go on."""
        return self._cells[3]

    @spread.setter
    def spread(self, nanoseconds: int) -> None:
        self._cells[3] = nanoseconds

    @property
    def choked(self) -> int:
        """How many frames the upstream could not write in time: whoever reads them is too slow."""
        return self._cells[2]

    @choked.setter
    def choked(self, count: int) -> None:
        self._cells[2] = count
