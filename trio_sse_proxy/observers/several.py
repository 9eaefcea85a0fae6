"""Several observers as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.failure import Cause
    from ..core.record import Record
    from ..ports import Observer


class Several:
    """Tells each of them, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def began(self, record: Record) -> None:
        """See ports.Observer."""
        for observer in self._observers:
            observer.began(record)

    def retried(self, record: Record, cause: Cause) -> None:
        """See ports.Observer."""
        for observer in self._observers:
            observer.retried(record, cause)

    def heartbeat(self, record: Record, kind: str) -> None:
        """See ports.Observer."""
        for observer in self._observers:
            observer.heartbeat(record, kind)

    def ended(self, record: Record) -> None:
        """See ports.Observer."""
        for observer in self._observers:
            observer.ended(record)
