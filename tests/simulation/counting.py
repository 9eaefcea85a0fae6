"""Many seeds, one after another, and what there was in them, in numbers."""

from __future__ import annotations

import gc
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .history import history
from .oracles import findings
from .world import play

if TYPE_CHECKING:
    from .world import Run

LEFT = ("left at a time or a byte", "given up by the proxy")


@dataclass
class Tally:
    """What has been seen so far. `found` holds the seeds that broke a rule, and the first finding."""

    counts: Counter = field(default_factory=Counter)
    plays: Counter = field(default_factory=Counter)
    orders: Counter = field(default_factory=Counter)
    leaving: Counter = field(default_factory=Counter)
    endings: Counter = field(default_factory=Counter)
    found: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    """Of CPU."""

    def add(self, other: Tally) -> None:
        for name in ("counts", "plays", "orders", "leaving", "endings"):
            getattr(self, name).update(getattr(other, name))
        self.found |= other.found
        self.seconds += other.seconds

    def count(self, run: Run) -> None:
        """One more run."""
        called = [client for client in run.clients if client.called_at is not None]
        self.counts["histories"] += 1
        self.counts["streams"] += len(called)
        self.counts["streams through the server"] += len(called) if run.history.listening else 0
        http2 = sum(one.person.http2 for one in called)
        self.counts["streams over HTTP/2"] += http2 if run.history.listening else 0
        self.counts["attempts"] += sum(len(one.attempts) for one in run.witness.records)
        self.counts["heartbeats"] += sum(one.heartbeats for one in run.witness.records)
        self.counts["abort messages"] += len(run.plays.aborts)
        self.plays.update(one.play.kind for one in run.plays.played)
        self.orders.update(order.what for order in run.history.orders)
        self.leaving.update(LEFT[0] for client in called if client.left_at is not None)
        self.leaving.update(LEFT[1] for client in called if client.aborted_at is not None)
        self.endings.update(record.ending.value for record in run.witness.records)

    def lines(self):
        """For people to read."""
        yield _listed(self.counts)
        yield f"upstreams: {_listed(self.plays)}"
        yield f"clients: {_listed(self.leaving)}"
        yield f"orders of operators: {_listed(self.orders)}"
        yield f"endings: {_listed(self.endings)}"
        each = 1000 * self.seconds / max(1, self.counts["streams"])
        yield f"{self.seconds:.0f} s of CPU, {each:.2f} ms a stream"


def _listed(counts: Counter) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.most_common())


def tally(seeds: range) -> Tally:
    """Run the histories of these seeds."""
    seen, began = Tally(), time.process_time()
    for seed in seeds:
        run = play(history(str(seed)))
        if found := findings(run):
            seen.found[seed] = found[0]
        else:
            seen.count(run)
    seen.seconds = time.process_time() - began
    return seen


def spare_the_collector() -> None:
    """What is loaded stays, and runs leave little behind that lies in cycles: look for it rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
