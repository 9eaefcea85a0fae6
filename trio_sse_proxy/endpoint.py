"""One upstream as the requests of a route see it: who it is, whether it is well, how much it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.breaker import Breaker
    from .gate import Gate
    from .health import Health
    from .ports import Upstream


@dataclass(slots=True, kw_only=True, eq=False)
class Endpoint:
    """`breaker` and `gate` are None where there are none: an attempt passes them at no cost then."""

    upstream: Upstream
    breaker: Breaker | None = None
    gate: Gate | None = None
    weight: float = 1.0
    dialects: frozenset[str] | None = None
    """The dialects it speaks, by name; None for all."""
    inflight: int = 0
    """Attempts that are under way, those that wait for their turn included."""
    health: Health | None = None
    """Its health checks, if there are any."""

    @property
    def name(self) -> str:
        """As it stands in settings, records and metrics."""
        return self.upstream.name

    def speaks(self, dialect: str | None) -> bool:
        """True if a call in `dialect`, or in none, may be sent to it."""
        return dialect is None or self.dialects is None or dialect in self.dialects

    def admits(self, now: float) -> bool:
        """True if its breaker would let an attempt through."""
        return self.breaker is None or self.breaker.admits(now)

    def retry_after(self, now: float) -> float:
        """Seconds until its breaker may let somebody in."""
        return self.breaker.retry_after(now) if self.breaker is not None else 0.0

    @property
    def queued(self) -> int:
        """Attempts that wait for their turn."""
        return self.gate.queued if self.gate is not None else 0

    @property
    def connections(self) -> tuple[int, int] | None:
        """How many to it are busy and how many idle; None if it is none that keeps connections."""
        pool = getattr(getattr(self.upstream, "transport", None), "pool", None)
        return None if pool is None else (pool.busy_connections, pool.idle_connections)

    @property
    def has_room(self) -> bool:
        """True if one more attempt would not have to wait for its turn."""
        return self.gate is None or self.gate.has_room
