"""How many connections there may be, and which has to go when one more comes.

A connection that has no request under way costs its client nothing to keep, and us a descriptor and some
memory. So when there are as many as there may be, the one of those that has been so for the longest
makes room. If all have requests under way, it is the newcomer that goes, and is told why.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    import socket

RESERVED = 64  # descriptors for what is neither a client nor an upstream
WITHOUT_LIMIT = 10_000  # connections, where the system does not tell how many there may be

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Evictable(Protocol):
    """What has a place in a `Crowd`."""

    def evict(self) -> None:
        """Go now, without waiting."""
        ...


class Crowd:
    """Those that are here: all of them, and those that wait for their next request, oldest first."""

    def __init__(self, most: int) -> None:
        self.most = most or most_by_descriptors()
        self.turned_away = 0
        self._here = 0
        self._resting: dict[Evictable, None] = {}

    def has_room(self) -> bool:
        """True if one more may come, perhaps since another had to go."""
        if self._here < self.most:
            return True
        longest = next(iter(self._resting), None)
        if longest is None:
            self.turned_away += 1
            return False
        del self._resting[longest]
        longest.evict()
        return True

    def enter(self, one: Evictable) -> None:
        """One more is here, at rest."""
        self._here += 1
        self._resting[one] = None

    def leave(self, one: Evictable) -> None:
        """It is gone."""
        self._here -= 1
        self._resting.pop(one, None)

    def rest(self, one: Evictable) -> None:
        """It has no request under way, from now on."""
        self._resting.pop(one, None)
        self._resting[one] = None

    def work(self, one: Evictable) -> None:
        """It has one."""
        self._resting.pop(one, None)


def turn_away(sock: socket.socket) -> None:
    """Say that there is no room, as far as that takes no waiting, and close."""
    with suppress(OSError):
        sock.setblocking(False)
        sock.send(FULL)
    sock.close()


def raise_limit() -> None:
    """Let this process have as many descriptors as the system allows; the usual 1,024 are few."""
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):  # macOS: "unlimited", and yet not for processes
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_by_descriptors() -> int:
    """Half of the descriptors: the other half is for upstreams, one for each client."""
    if sys.platform == "win32":
        return WITHOUT_LIMIT
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return WITHOUT_LIMIT
    return max(16, (soft - RESERVED) // 2)
