"""One measurement: what load is put on, and what is read off.

    python -m benchmarks.drive      takes an Order as JSON on standard input, prints figures as JSON

Runs as a process of its own, beside upstream and contestant.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .accounting import cpu_seconds, memory_bytes
from .board import Board
from .frames import Script
from .load import Client, Load, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .load import Client

Figures = dict[str, Any]

AHEAD = 64  # streams asked for whose requests have not reached the upstream yet
GIVE_UP = 15.0  # seconds without any progress
PROBE_EVERY = 0.04  # seconds between new streams where the first token is measured


@dataclass(slots=True, kw_only=True)
class Order:
    """What to measure, on whom: `pid` is the contestant's, 0 if there is none."""

    workload: str
    settings: dict[str, Any]
    board: str
    pid: int
    target: Target


class Bench:
    """The load, the board, and the contestant's accounts."""

    def __init__(self, order: Order) -> None:
        self.load = Load(order.target)
        self.board = Board(Path(order.board))
        self.pid = order.pid

    def fill(self, scripts: list[Script]) -> None:
        """Open streams, as fast as the contestant brings their requests to the upstream."""
        load, board = self.load, self.board
        before = board.arrived
        for number, script in enumerate(scripts):
            load.open(script)
            give_up = time.monotonic() + GIVE_UP
            while number - (board.arrived - before) - load.errors.total() >= AHEAD:
                load.turn(0.001)
                if time.monotonic() > give_up:
                    return
        load.run(
            time.monotonic() + GIVE_UP,
            lambda: board.arrived - before + load.errors.total() >= len(scripts),
        )

    def open_gate(self, at: float, spread: float) -> None:
        """Let gated streams go on from the instant `at`, spread over so many seconds."""
        self.board.spread = int(spread * 1e9)
        self.board.gate = int(at * 1e9)

    def memory(self) -> int:
        """Of the contestant, in bytes."""
        return memory_bytes(self.pid) if self.pid else 0

    def cpu(self) -> float:
        """Used by the contestant so far, in seconds."""
        return cpu_seconds(self.pid) if self.pid else 0.0

    @contextmanager
    def window(self, figures: Figures) -> Iterator[None]:
        """Note what passes meanwhile: `cpu` and `wall` in seconds, `frames`, `streams`."""
        load = self.load
        frames, ended = load.frames, load.ended
        load.sampling = True
        cpu, began = self.cpu(), time.monotonic()
        yield
        figures["cpu"] = self.cpu() - cpu
        figures["wall"] = time.monotonic() - began
        figures["frames"] = load.frames - frames
        figures["streams"] = load.ended - ended
        load.sampling = False


def warm_up(bench: Bench, streams: int = 60) -> None:
    """Let caches fill and lazy imports happen before anything counts."""
    load = bench.load
    for first in range(0, streams, 10):
        for _ in range(first, min(first + 10, streams)):
            load.open(Script(frames=20))
        load.run(time.monotonic() + GIVE_UP, lambda: not load.clients)
    load.fail_rest("slow warm-up")


def steady_scripts(
    streams: int, rate: float, seconds: float, *, in_step: bool = False
) -> list[Script]:
    """Streams whose frames are spread evenly over time, or all come at the same instants."""
    frames, interval = int(rate * seconds), 1 / rate
    return [
        Script(
            frames=frames,
            interval=interval,
            phase=interval * (0.5 + (0 if in_step else n / streams)),
        )
        for n in range(streams)
    ]


def paced(
    bench: Bench,
    *,
    streams: int,
    rate: float,
    warm: float,
    window: float,
    in_step: bool = False,
) -> Figures:
    """Streams at a model's pace. CPU per frame."""
    figures: Figures = {}
    seconds = window + warm + 3 * GIVE_UP
    bench.fill(steady_scripts(streams, rate, seconds, in_step=in_step))
    bench.load.run(time.monotonic() + warm)
    choked = bench.board.choked
    with bench.window(figures):
        bench.load.run(time.monotonic() + window)
    expected = streams * rate * figures["wall"]
    figures["delivered"] = figures["frames"] / expected
    figures["saturated"] = bench.board.choked > choked or figures["delivered"] < 0.95
    figures["cpu_per_frame"] = _per(figures["cpu"], figures["frames"])
    figures["frame_latency"] = percentiles(bench.load.latencies)
    return figures


def hose(bench: Bench, *, at_once: int, warm: float, window: float) -> Figures:
    """One stream, as fast as it goes, `at_once` frames to a write. CPU per frame."""
    figures: Figures = {}
    bench.load.open(Script(hose=at_once, phase=warm + window + 2))
    bench.load.run(time.monotonic() + warm)
    with bench.window(figures):
        bench.load.run(time.monotonic() + window)
    figures["cpu_per_frame"] = _per(figures["cpu"], figures["frames"])
    figures["frames_per_second"] = figures["frames"] / figures["wall"]
    return figures


def short(bench: Bench, *, concurrency: int, frames: int, window: float) -> Figures:
    """Streams one after another, each on a new connection. CPU per stream."""
    load, figures, open_to = bench.load, Figures(), [True]
    script = Script(frames=frames)

    def again(_: Client) -> None:
        if open_to[0]:
            load.open(script, again)

    for _ in range(concurrency):
        load.open(script, again)
    load.run(time.monotonic() + 0.5)
    with bench.window(figures):
        load.run(time.monotonic() + window)
    open_to[0] = False
    load.run(time.monotonic() + GIVE_UP, lambda: not load.clients)
    load.fail_rest("never ended")
    figures["cpu_per_stream"] = _per(figures["cpu"], figures["streams"])
    return figures


def waiting(bench: Bench, *, streams: int, silence: float, frames: int) -> Figures:
    """Streams that are silent for a while, all at the same time. CPU and memory per stream."""
    load, figures = bench.load, Figures()
    memory = bench.memory()
    bench.board.gate = 0
    with bench.window(figures):
        began = time.monotonic()
        bench.fill(_gated(streams, frames))
        figures["ramp"] = time.monotonic() - began
        spread = max(1.0, figures["ramp"])  # they go on as they came, not all at once
        gate = time.monotonic() + silence
        bench.open_gate(gate, spread)
        load.run(gate - silence / 4)
        figures["memory_per_stream"] = (bench.memory() - memory) / streams
        load.run(gate + spread + frames + GIVE_UP, lambda: not load.clients)
        load.fail_rest("never ended")
    figures["cpu_per_stream"] = _per(figures["cpu"], figures["streams"])
    figures["frame_latency"] = percentiles(load.latencies)
    return figures


def heartbeats(bench: Bench, *, streams: int, every: float, window: float) -> Figures:
    """Silent streams that are kept company. CPU per second, and whether everyone was served."""
    load, figures = bench.load, Figures()
    bench.board.gate = 0
    began = time.monotonic()
    bench.fill(_gated(streams, 1))
    figures["ramp"] = time.monotonic() - began
    load.run(time.monotonic() + 1.5 * every)  # the last one has had its first
    before = load.heartbeats
    for client in load.clients:
        client.gap = 0
    with bench.window(figures):
        load.run(time.monotonic() + window)
    now = time.monotonic_ns()
    gaps = [max(client.gap, now - client.heard) for client in load.clients]
    figures["heartbeats"] = load.heartbeats - before
    figures["longest_silence"] = max(gaps, default=0) / 1e9
    figures["cores"] = figures["cpu"] / figures["wall"]
    figures["cpu_per_heartbeat"] = _per(figures["cpu"], figures["heartbeats"])
    spread = max(1.0, figures["ramp"])
    bench.open_gate(time.monotonic(), spread)
    load.run(time.monotonic() + spread + GIVE_UP, lambda: not load.clients)
    load.fail_rest("never ended")
    figures["served"] = load.errors.total() == 0 and figures["longest_silence"] < 1.5 * every
    return figures


def latency(
    bench: Bench, *, rate: float, share: float, most: int, warm: float, window: float
) -> Figures:
    """Frames' and first tokens' latency while the contestant uses about `share` of its core."""
    load = bench.load
    streams = most
    if bench.pid:
        # What a frame costs depends on the load, so ask again at what the answer leads to; from below,
        # since some contestants go on with what a client has left.
        streams = min(most, 3)
        for _ in range(3):
            figures = paced(bench, streams=streams, rate=rate, warm=0.5, window=warm)
            load.close()
            load.run(time.monotonic() + 0.3)
            cost = figures["cpu_per_frame"]
            wanted = round(share / (rate * cost)) if cost else most
            streams = max(1, min(most, wanted, 8 * streams))
    del load.latencies[:]
    bench.fill(steady_scripts(streams, rate, window + 4 * GIVE_UP))
    load.run(time.monotonic() + warm)
    figures = {"background": streams}
    first: dict[bool, list[int]] = {False: [], True: []}
    with bench.window(figures):
        _probe(load, time.monotonic() + window, first)
    figures["load"] = figures["cpu"] / figures["wall"]
    figures["frame_latency"] = percentiles(load.latencies)
    figures["first_token"] = percentiles(first[False])
    figures["first_token_kept"] = percentiles(first[True])
    return figures


def _probe(load: Load, until: float, first: dict[bool, list[int]]) -> None:
    """Open a stream of one frame every now and then, and note when its frame comes.

    Every other one on a connection that is `kept`, which is what `first` goes by.
    """
    for kept in itertools.cycle((False, True)):
        if time.monotonic() >= until:
            return

        def note(client: Client, seen: list[int] = first[kept]) -> None:
            seen.append(client.first - client.opened)

        load.open(Script(frames=1), on_end=note, kept=kept)
        load.run(min(until, time.monotonic() + PROBE_EVERY))


def _gated(streams: int, frames: int) -> list[Script]:
    """Streams that wait for the gate, and then have a frame a second."""
    return [
        Script(frames=frames, interval=1.0, phase=n / streams, gated=True) for n in range(streams)
    ]


def percentiles(nanoseconds: Any) -> dict[str, float] | None:
    """Median and the like, in seconds."""
    if not nanoseconds:
        return None
    ordered = sorted(nanoseconds)
    return {
        f"p{percent}": ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1e9
        for percent in (50, 90, 99)
    }


def _per(spent: float, count: int) -> float | None:
    return spent / count if count else None


WORKLOADS: dict[str, Callable[..., Figures]] = {
    function.__name__: function for function in (paced, hose, short, waiting, heartbeats, latency)
}


def main() -> None:
    """See the module."""
    told = json.load(sys.stdin)
    order = Order(**{**told, "target": Target(**told["target"])})
    gc.disable()
    bench = Bench(order)
    warm_up(bench)
    del bench.load.latencies[:]
    figures = WORKLOADS[order.workload](bench, **order.settings)
    bench.load.close()
    print(json.dumps({**figures, "errors": dict(+bench.load.errors)}))


if __name__ == "__main__":
    main()
