"""What is measured: the workloads in full, and small ones to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`drive.py`'s function `kind`, with its settings, on the contestants that `only` names (or all).

    `flags` are for our own command line. A contestant that failed `after` is spared this one. In a
    dialect other than Chat it is for those that translate it: the upstream speaks Chat.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    only: frozenset[str] | None = None
    flags: tuple[str, ...] = ()
    after: str | None = None
    dialect: str = "chat"


OURS = frozenset({"trio-sse-proxy"})
SIZES = (500, 1000, 2000, 4000, 8000)


def full() -> list[Workload]:
    """What the published table is made of."""
    steady = {"rate": 50.0, "warm": 1.5}
    return [
        *paced_of({**steady, "streams": 100, "window": 10.0}),
        *translated_of({**steady, "streams": 100, "window": 10.0}),
        *hose_of(warm=0.7, window=3.0),
        Workload(
            name="short", kind="short", settings={"concurrency": 20, "frames": 20, "window": 6.0}
        ),
        Workload(
            name="latency",
            kind="latency",
            settings={**steady, "share": 0.2, "most": 150, "window": 10.0},
        ),
        *waiting_of(SIZES, silence=5.0),
        heartbeats_of(4000, every=1, window=10.0),
        heartbeats_of(8000, every=5, window=15.0),
    ]


def quick() -> list[Workload]:
    """The same in small: figures of no worth, in seconds."""
    steady = {"rate": 50.0, "warm": 0.3}
    return [
        *paced_of({**steady, "streams": 20, "window": 1.0}),
        *translated_of({**steady, "streams": 20, "window": 1.0}),
        *hose_of(warm=0.2, window=0.5),
        Workload(
            name="short", kind="short", settings={"concurrency": 5, "frames": 20, "window": 0.5}
        ),
        Workload(
            name="latency",
            kind="latency",
            settings={**steady, "share": 0.2, "most": 20, "window": 1.0},
        ),
        *waiting_of((50, 100), silence=0.5),
        heartbeats_of(50, every=1, window=2.0),
    ]


def paced_of(settings: dict[str, Any]) -> list[Workload]:
    """All streams in step, as an engine decodes a batch, and each on its own."""
    return [
        Workload(name="paced", kind="paced", settings={**settings, "in_step": True}),
        Workload(name="paced scattered", kind="paced", settings={**settings, "in_step": False}),
    ]


def translated_of(settings: dict[str, Any]) -> list[Workload]:
    """The first of these again, for clients that speak something else than the upstream."""
    return [
        Workload(
            name=f"paced {dialect} on chat",
            kind="paced",
            settings={**settings, "in_step": True},
            dialect=dialect,
        )
        for dialect in ("responses", "messages")
    ]


def hose_of(**settings: float) -> list[Workload]:
    """So fast that the contestant is the limit; in small writes; and frame by frame."""
    sizes = {"hose": 300, "hose by twos": 2, "hose frame by frame": 1}
    return [
        Workload(name=name, kind="hose", settings={**settings, "at_once": size})
        for name, size in sizes.items()
    ]


def waiting_of(sizes: tuple[int, ...], *, silence: float) -> list[Workload]:
    """So many silent streams each; who cannot hold some is not asked to hold more."""
    names = [f"waiting {size}" for size in sizes]
    return [
        Workload(
            name=name,
            kind="waiting",
            settings={"streams": size, "silence": silence, "frames": 3},
            after=previous,
        )
        for name, size, previous in zip(names, sizes, [None, *names], strict=False)
    ]


def heartbeats_of(streams: int, *, every: int, window: float) -> Workload:
    """Only we have any."""
    return Workload(
        name=f"heartbeats {streams}/{every} s",
        kind="heartbeats",
        settings={"streams": streams, "every": float(every), "window": window},
        only=OURS,
        flags=("--heartbeat", str(every)),
    )
