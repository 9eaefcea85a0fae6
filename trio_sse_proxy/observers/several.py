"""Several observers as one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.failure import Cause
    from ..core.record import Record
    from ..ports import Observer

log = structlog.get_logger("trio_sse_proxy")


class Several:
    """Tells each of them, in order. What one of them raises is its own affair, and is logged."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def began(self, record: Record) -> None:
        """See ports.Observer."""
        self._each(lambda observer: observer.began(record))

    def retried(self, record: Record, cause: Cause) -> None:
        """See ports.Observer."""
        self._each(lambda observer: observer.retried(record, cause))

    def heartbeat(self, record: Record, kind: str) -> None:
        """See ports.Observer."""
        self._each(lambda observer: observer.heartbeat(record, kind))

    def ended(self, record: Record) -> None:
        """See ports.Observer."""
        self._each(lambda observer: observer.ended(record))

    def _each(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                tell(observer)
            except Exception:
                with suppress(Exception):  # the log may be what fails
                    log.exception("an observer failed", observer=type(observer).__name__)
