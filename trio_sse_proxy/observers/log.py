"""One log line per request, at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from ..core.endings import Ending

if TYPE_CHECKING:
    from ..core.failure import Cause
    from ..core.record import Record

log = structlog.get_logger("trio_sse_proxy")


class RequestLog:
    """An observer that writes the record of each request. Never a prompt, an answer or a key."""

    def began(self, record: Record) -> None:
        """The line comes at the end."""

    def retried(self, record: Record, cause: Cause) -> None:
        """For whoever watches closely."""
        log.debug("retry", id=record.id, cause=cause.value)

    def heartbeat(self, record: Record, kind: str) -> None:
        """Counted in the record."""

    def ended(self, record: Record) -> None:
        """Write it."""
        write = log.error if record.ending is Ending.INTERNAL else log.info
        write("request", **record.as_json())
