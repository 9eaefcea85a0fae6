"""Prometheus metrics of one proxy, in a registry of their own."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..core.endings import Ending
from ..core.record import Outcome
from .gauges import Gauges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..core.failure import Cause
    from ..core.record import Attempt, Record
    from ..core.usage import Usage
    from ..endpoint import Endpoint

PREFIX = "trio_sse_proxy"
NONE_YET = {outcome.value: 0 for outcome in Outcome}
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """An observer that counts. Labels take few values: never a model's or a client's name.

    `upstreams` are asked how they are whenever the metrics are read.
    """

    def __init__(self, upstreams: Callable[[], Iterable[Endpoint]] = tuple) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, words: str, *labels: str) -> Callable[..., Counter]:
            return cache(Counter(f"{PREFIX}_{name}", words, labels, registry=registry).labels)

        def seconds(name: str, words: str, label: str = "dialect") -> Callable[..., Histogram]:
            name = f"{PREFIX}_{name}_seconds"
            histogram = Histogram(name, words, [label], buckets=SECONDS, registry=registry)
            return cache(histogram.labels)

        # What is kept is each metric's `labels`, cached: a look-up there costs more than counting.
        self._running: dict[str, int] = defaultdict(int)
        self._requests = counter("requests", "Requests by how they ended", "dialect", "ending")
        self._headers = seconds("time_to_headers", "From forwarding to the upstream's headers")
        self._first_token = seconds("time_to_first_token", "From forwarding to the first output")
        self._duration = seconds("duration", "From the request being read to its end")
        self._heartbeats = counter("heartbeats", "Heartbeats sent", "dialect", "kind")
        self._retries = counter("retries", "Attempts after the first", "dialect", "cause")
        self._aborts = counter("aborts", "Upstream calls abandoned", "dialect", "ending")
        self._stalls = counter("write_stalls", "Clients that stopped reading", "dialect")
        self._bytes = counter("body_bytes", "Body bytes sent to clients", "dialect")
        self._frames = counter("frames", "Frames sent to clients", "dialect")
        self._tokens = counter("tokens", "Tokens, as upstreams told them", "dialect", "kind")
        self._attempts_metric = Counter(
            f"{PREFIX}_upstream_attempts",
            "Attempts by what became of them",
            ["upstream", "outcome", "cause"],
            registry=registry,
        )
        self._attempts = cache(self._attempts_metric.labels)
        self._abort_calls = counter(
            "upstream_aborts", "Abort messages by what came of them", "upstream", "result"
        )
        self._hedges = counter("upstream_hedges", "Attempts beside a slow one", "upstream", "won")
        self._fallbacks = counter("upstream_fallbacks", "Attempts in another's place", "upstream")
        self._queued = seconds("upstream_queue", "Waited for a turn, if at all", "upstream")
        registry.register(Gauges(PREFIX, upstreams, self._running))

    def exposition(self) -> tuple[bytes, str]:
        """The metrics as text, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def attempts(self) -> dict[str, dict[str, int]]:
        """How many attempts became of what, by upstream; of the requests that are over."""
        totals: dict[str, dict[str, int]] = {}
        for metric in self._attempts_metric.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    upstream, outcome = sample.labels["upstream"], sample.labels["outcome"]
                    of_one = totals.setdefault(upstream, dict(NONE_YET))
                    of_one[outcome] += int(sample.value)
        return totals

    def began(self, record: Record) -> None:
        """One more is running."""
        self._running[_dialect(record)] += 1

    def retried(self, record: Record, cause: Cause) -> None:
        """One more attempt."""
        self._retries(_dialect(record), cause.value).inc()

    def heartbeat(self, record: Record, kind: str) -> None:
        """One more heartbeat."""
        self._heartbeats(_dialect(record), kind).inc()

    def ended(self, record: Record) -> None:
        """Everything the record knows."""
        dialect = _dialect(record)
        ending = record.ending or Ending.INTERNAL
        self._running[dialect] -= 1
        self._requests(dialect, ending.value).inc()
        if record.time_to_headers is not None:
            self._headers(dialect).observe(record.time_to_headers)
        if record.time_to_first_token is not None:
            self._first_token(dialect).observe(record.time_to_first_token)
        if record.duration is not None:
            self._duration(dialect).observe(record.duration)
        if record.aborted:
            self._aborts(dialect, ending.value).inc()
        if ending is Ending.WRITE_STALLED:
            self._stalls(dialect).inc()
        self._bytes(dialect).inc(record.bytes)
        self._frames(dialect).inc(record.frames)
        before = None
        for attempt in record.attempts:
            self._count_attempt(attempt, before)
            self._count_tokens(dialect, attempt.usage)
            before = attempt

    def _count_attempt(self, attempt: Attempt, before: Attempt | None) -> None:
        upstream, outcome = attempt.upstream, attempt.outcome
        cause = attempt.cause if outcome is Outcome.FAILED else None
        self._attempts(upstream, outcome.value, cause or "").inc()
        if attempt.queued is not None:
            self._queued(upstream).observe(attempt.queued)
        if attempt.abort is not None:
            self._abort_calls(upstream, attempt.abort.value).inc()
        if attempt.hedge:
            self._hedges(upstream, "yes" if attempt.accepted else "no").inc()
        elif before is not None and before.upstream != upstream:
            self._fallbacks(upstream).inc()

    def _count_tokens(self, dialect: str, usage: Usage | None) -> None:
        if usage is None:
            return
        for kind, count in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cached", usage.cached_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if count:
                self._tokens(dialect, kind).inc(count)


def _dialect(record: Record) -> str:
    return record.dialect or "none"
