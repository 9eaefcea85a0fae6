"""Active health checks: an upstream is asked at intervals whether it is well, and its breaker is told.

A check is a GET, and good is a 2xx within the timeout. It goes through an upstream of its own, made
like the one it speaks for but with connections that are neither kept nor counted: a connection of
the pool may have died unnoticed, which says nothing, and a check must not wait until a stream frees one.

Only the breaker decides what a check means for requests (see `core.breaker`). Streams that run are
never touched: a server may well finish what it has begun while it refuses more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from .core.call import Call
from .core.errors import ProxyError
from .ports import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .core.breaker import Breaker
    from .ports import Upstream

LATE = 1.0  # seconds that the end of a check which takes all its time may be late

log = structlog.get_logger("trio_sse_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check found. `at` is when it ended, by trio's clock."""

    at: float
    status: int | None = None
    """What the answer said; None if there was none."""
    problem: str | None = None
    """Why it was no good one, in words; None if it was."""

    @property
    def ok(self) -> bool:
        """True if the upstream is well."""
        return self.problem is None

    def as_json(self, now: float) -> dict[str, object]:
        """For people to read. `age` is in seconds."""
        return {
            "ok": self.ok,
            "status": self.status,
            "problem": self.problem,
            "age": round(now - self.at, 3),
        }


class Health:
    """The checks of one upstream.

    `target` is asked of `upstream` every `interval` seconds, counted from the end of one check to the
    beginning of the next; each may take `timeout` seconds. `breaker` is that of the upstream they are
    about.
    """

    def __init__(
        self,
        upstream: Upstream,
        target: str,
        breaker: Breaker,
        *,
        interval: float,
        timeout: float,
    ) -> None:
        self._upstream = upstream
        self._request = UpstreamRequest(
            method="GET", target=target.encode("ascii"), headers=(), body=b""
        )
        self._breaker = breaker
        self._interval = interval
        self._timeout = timeout
        self.last: Check | None = None
        """What the latest check found; None before the end of the first."""

    async def watch(self) -> None:
        """Check for as long as this is not cancelled, first of all now."""
        while True:
            self._take(await self.check())
            await trio.sleep(self._interval)

    async def check(self) -> Check:
        """Ask once, and tell nobody. Cancelled, it leaves nothing behind."""
        status, problem = None, f"no answer within {self._timeout:g} s"
        with trio.move_on_after(self._timeout):
            try:
                status = await self._ask()
                problem = "" if 200 <= status < 300 else f"it answers with status {status}"
            except ProxyError as error:
                problem = str(error) or type(error).__name__
        return Check(at=trio.current_time(), status=status, problem=problem or None)

    async def _ask(self) -> int:
        """The status of an answer; the rest of it is not of interest."""
        call = Call(id="health", stream_id="health", over=True)  # there is no work to end
        async with self._upstream.open(self._request, call) as answer:
            return answer.status

    def _take(self, check: Check) -> None:
        """Tell the breaker; tell the log if this is news. That all is well at first is none."""
        was_ok = self.last is None or self.last.ok
        self.last = check
        if check.ok:
            self._breaker.probe_succeeded(check.at)
        else:
            self._breaker.probe_failed(check.at, next_in=self._interval + self._timeout + LATE)
        if check.ok and not was_ok:
            log.info("upstream is well again", upstream=self._upstream.name)
        elif was_ok and not check.ok:
            log.warning("upstream is ill", upstream=self._upstream.name, problem=check.problem)


class Rounds:
    """Runs the checks of whichever upstreams there are; settings may be read again meanwhile."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._wanted: dict[Health, trio.CancelScope] = {}

    async def run(self) -> None:
        """Run them for as long as this is not cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                wanted, self._wanted = self._wanted, {}
                self.follow(wanted)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def follow(self, checks: Iterable[Health]) -> None:
        """Run these, and no others, from now on; those that run already go on. Does not wait."""
        before, self._wanted = self._wanted, {}
        for health in checks:
            known = before.pop(health, None)
            scope = self._wanted[health] = known or trio.CancelScope()
            if known is None and self._nursery is not None:
                self._nursery.start_soon(_watch, health, scope)
        for scope in before.values():
            scope.cancel("the upstream is no longer in the settings")


async def _watch(health: Health, scope: trio.CancelScope) -> None:
    with scope:
        await health.watch()
