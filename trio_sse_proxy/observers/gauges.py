"""How things are at the moment the metrics are read: requests, each upstream, the program's tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..core.breaker import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..endpoint import Endpoint

STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


class Gauges(Collector):
    """Asks the upstreams there are, and trio, so that nothing needs to be kept in step with them."""

    def __init__(
        self,
        prefix: str,
        upstreams: Callable[[], Iterable[Endpoint]],
        running: Mapping[str, int],
    ) -> None:
        """`running` is how many requests are, by dialect; somebody else counts them."""
        self._prefix = prefix
        self._upstreams = upstreams
        self._running = running

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All gauges, also those that none of the upstreams has a value of."""
        requests = GaugeMetricFamily(
            f"{self._prefix}_requests_running", "Requests running now", labels=["dialect"]
        )
        for dialect, count in self._running.items():
            requests.add_metric([dialect], count)
        running = self._gauge("running", "Attempts under way, those that wait not counted")
        queued = self._gauge("queued", "Attempts that wait for their turn")
        breaker = self._gauge("breaker_state", "0 closed, 1 half open, 2 open")
        healthy = self._gauge("healthy", "1 if the last health check was good, else 0")
        connections = self._gauge("connections", "Connections in the pool", "state")
        for one in self._upstreams():
            running.add_metric([one.name], one.inflight - one.queued)
            queued.add_metric([one.name], one.queued)
            if one.breaker is not None:
                breaker.add_metric([one.name], STATES[one.breaker.state(trio.current_time())])
            if one.health is not None and one.health.last is not None:
                healthy.add_metric([one.name], one.health.last.ok)
            if (figures := one.connections) is not None:
                for state, count in zip(("busy", "idle"), figures, strict=True):
                    connections.add_metric([one.name, state], count)
        tasks = GaugeMetricFamily(
            f"{self._prefix}_tasks", "Tasks of the program, trio's own among them"
        )
        if trio.lowlevel.in_trio_run():
            tasks.add_metric([], trio.lowlevel.current_statistics().tasks_living)
        return requests, running, queued, breaker, healthy, connections, tasks

    def _gauge(self, name: str, words: str, *labels: str) -> GaugeMetricFamily:
        name = f"{self._prefix}_upstream_{name}"
        return GaugeMetricFamily(name, words, labels=["upstream", *labels])
