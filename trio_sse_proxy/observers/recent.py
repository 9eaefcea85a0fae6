"""The latest records, in memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..core.failure import Cause
    from ..core.record import Record


class RecentRecords:
    """An observer that keeps the last `size` records."""

    def __init__(self, size: int) -> None:
        self._records: deque[Record] = deque(maxlen=size)

    def latest_first(self) -> Iterable[Record]:
        """The records, the latest first."""
        return reversed(self._records)

    def began(self, record: Record) -> None:
        """Nothing to keep yet."""

    def retried(self, record: Record, cause: Cause) -> None:
        """It will be in the record."""

    def heartbeat(self, record: Record, kind: str) -> None:
        """It will be in the record."""

    def ended(self, record: Record) -> None:
        """Keep it."""
        self._records.append(record)
