"""Log lines as JSON on standard error, which must never hold up or end a stream.

The reader of a log goes away (a collector is restarted) or falls behind (a full pipe would block the
whole process): then lines are dropped, and how many is said with the next one that goes out.
"""

from __future__ import annotations

import logging
import os
import select
from contextlib import suppress

import msgspec
import structlog


class Lossy:
    """A file to log to that neither raises nor, where the platform can tell, blocks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._dropped = 0
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Write one line, or count it as dropped."""
        if self._dropped:
            line = b'{"event":"log lines were dropped","dropped":%d}\n%b' % (self._dropped, line)
        if self._poll is not None and not self._poll.poll(0):
            self._dropped += 1
            return
        with suppress(OSError):
            os.write(self._descriptor, line)
        self._dropped = 0

    def flush(self) -> None:
        """Nothing is buffered."""


def log_as_json(level: str) -> None:
    """Configure structlog for a process of our own; an embedder configures it as it likes."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.BytesLoggerFactory(Lossy(2)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )


def _encode(value: object, **_: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=repr)
