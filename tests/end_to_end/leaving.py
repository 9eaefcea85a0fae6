"""A client leaves: how long until the upstream notices?

Used by a test, which asks that it does at all, where nothing else would let it go, and by
`benchmarks/leaving.py`, which prints how soon.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patience import NEVER, PATIENCE

from .wire import WireClient

if TYPE_CHECKING:
    from scripted import ScriptedUpstream

    from .proxy import ServedProxy

PHASES = {
    "before headers": "hang-before-headers",
    "headers sent and silent": "hang-after-headers",
    "after the prelude": "hang-after-prelude",
    "mid-tokens": "endless-tokens",
    "in the retry sleep": "status-429-5s",
    "after a heartbeat": "hang-before-headers",
}
# One heartbeat at the most, with the commit: writing to a client that left tells that it did, too.
FLAGS = ("--heartbeat", str(NEVER), "--json-heartbeat")
BEATING = (*FLAGS, "--commit-after", "0.5")  # for the last phase


@dataclass(frozen=True, slots=True)
class Row:
    phase: str
    how: str
    stream: bool

    def __str__(self) -> str:
        return f"{self.phase}, {self.how}, {'streaming' if self.stream else 'JSON'}"


ROWS = tuple(
    Row(phase, how, stream)
    for phase in PHASES
    for how in ("fin", "reset")
    for stream in (True, False)
)


def measure(upstream: ScriptedUpstream, proxy: ServedProxy, row: Row, after: float) -> float:
    """Seconds from the client's leaving, `after` seconds into the request, to its being noticed.

    `proxy` was started with FLAGS, or with BEATING for "after a heartbeat". Raises TimeoutError.
    """
    model = upstream.model(PHASES[row.phase])
    with WireClient(proxy.port) as client:
        client.ask(model, stream=row.stream)
        visit = upstream.wait_for_visit(model)
        if row.phase == "after a heartbeat":
            client.read_until(b"\r\n\r\n")
        client.read_for(after)
        left = client.leave(row.how)
    if row.phase == "in the retry sleep":
        forgotten = wait_until_forgotten(proxy, model)
        if len(upstream.visits(model)) > 1:
            raise TimeoutError(f"{model} was asked for once more")
        return forgotten - left
    return visit.wait_for_left(PATIENCE) - left


def wait_until_forgotten(proxy: ServedProxy, model: str) -> float:
    """When the proxy had no such stream any more: during the sleep no upstream could notice."""
    deadline = time.monotonic() + PATIENCE
    while any(stream.get("model") == model for stream in proxy.streams()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{model} is still running")
        time.sleep(0.002)
    return time.monotonic()
