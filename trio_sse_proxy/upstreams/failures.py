"""The upstream errors of `core/errors.py`, told apart as finely as httpx's own exceptions are.

The relay looks at the three roots only. The finer kinds exist because a plain httpx client catches
`ReadTimeout` or `PoolTimeout`, and the transport must know which one to raise.
"""

from __future__ import annotations

from ..core.errors import Broken, Unreachable


class ConnectTimedOut(Unreachable):
    """No connection within the connect timeout, TLS handshake included."""


class QueueTimedOut(Unreachable):
    """No connection became free within the pool timeout."""


class EndedEarly(Broken):
    """An orderly end of stream where the message was not over."""


class ReadTimedOut(Broken):
    """Nothing came within the read timeout."""


class WriteTimedOut(Broken):
    """Nothing could be written within the write timeout."""
