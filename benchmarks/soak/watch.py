"""What the proxy's process holds, sample by sample."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from dataclasses import asdict, dataclass

from ..accounting import cpu_seconds, memory_bytes

METRIC = re.compile(r"^trio_sse_proxy_(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """`at` is in seconds since the first one, `memory` in bytes (Pss), `cpu` in seconds so far.

    `idle` are pooled connections that wait for a request: of the descriptors, these may stay. `took`
    is how many seconds the metrics took: much more than a hundredth, if the machine is too busy.
    """

    at: float
    descriptors: int
    memory: int
    tasks: int
    streams: int
    idle: int
    cpu: float
    took: float = 0.0

    def as_json(self) -> dict[str, float]:
        """For the file the chart is drawn from."""
        return asdict(self)


class Watch:
    """Takes samples of the process `pid` that listens on `port`."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port = pid, port
        self._began = time.monotonic()

    def look(self) -> Sample:
        """A sample; it costs the proxy one request of its own pages, which is in the figures."""
        asked = time.monotonic()
        figures = self._metrics()
        took = time.monotonic() - asked
        return Sample(
            at=round(time.monotonic() - self._began, 1),
            descriptors=len(os.listdir(f"/proc/{self._pid}/fd")),
            memory=memory_bytes(self._pid),
            tasks=round(figures["tasks"]),
            streams=round(figures["requests_running"]),
            idle=round(figures["upstream_connections idle"]),
            cpu=round(cpu_seconds(self._pid), 2),
            took=round(took, 3),
        )

    def _metrics(self) -> dict[str, float]:
        url = f"http://127.0.0.1:{self._port}/-/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
        figures = dict.fromkeys(("tasks", "requests_running", "upstream_connections idle"), 0.0)
        for name, labels, value in METRIC.findall(text):
            key = f"{name} idle" if 'state="idle"' in labels else name
            if key in figures:
                figures[key] += float(value)
        return figures
