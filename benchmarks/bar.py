"""What we want to reach, and whether we do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .contestants import CONTESTANTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .runner import Results

OURS = "trio-sse-proxy"
RIVALS = tuple(contestant.name for contestant in CONTESTANTS.values() if contestant.rival)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One line of the bar. `value` gives ours, `must` and `aim` the most it may be; None: unknown."""

    name: str
    unit: str
    value: Callable[[Results], float | None]
    must: Callable[[Results], float | None]
    aim: Callable[[Results], float | None]
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A goal held against results. `passed` and `reached` are None where nothing was measured."""

    goal: Goal
    value: float | None
    must: float | None
    aim: float | None

    @property
    def passed(self) -> bool | None:
        """True if the "must" holds."""
        return _at_most(self.value, self.must)

    @property
    def reached(self) -> bool | None:
        """True if the aim is reached."""
        return _at_most(self.value, self.aim)


def marks(results: Results) -> list[Mark]:
    """Every goal, held against `results`."""
    return [
        Mark(goal=goal, value=goal.value(results), must=goal.must(results), aim=goal.aim(results))
        for goal in GOALS
    ]


def _at_most(value: float | None, limit: float | None) -> bool | None:
    return None if value is None or limit is None else value <= limit


def _fixed(limit: float) -> Callable[[Results], float | None]:
    return lambda results: limit


def _ours(workload: str, *path: str) -> Callable[[Results], float | None]:
    return lambda results: results.figure(workload, OURS, *path)


def best_rival(results: Results, workload: str, *path: str) -> float | None:
    """The least of the Python rivals that carried the load."""
    figures = (results.figure(workload, rival, *path) for rival in RIVALS)
    return min((figure for figure in figures if figure is not None), default=None)


def _times(factor: float, base: Callable[[Results], float | None]) -> Callable[..., float | None]:
    def limit(results: Results) -> float | None:
        found = base(results)
        return None if found is None else factor * found

    return limit


def _least(*limits: Callable[[Results], float | None]) -> Callable[[Results], float | None]:
    def least(results: Results) -> float | None:
        found = [limit(results) for limit in limits]
        return min((limit for limit in found if limit is not None), default=None)

    return least


def _translating(dialect: str) -> Callable[[Results], float | None]:
    """What a frame costs more than one that is passed through, in the same run."""

    def more(results: Results) -> float | None:
        translated = results.figure(f"paced {dialect} on chat", OURS, "cpu_per_frame")
        passed = results.figure("paced", OURS, "cpu_per_frame")
        return None if translated is None or passed is None else translated - passed

    return more


def _growth(results: Results) -> float | None:
    many = results.figure("waiting 4000", OURS, "cpu_per_stream")
    few = results.figure("waiting 500", OURS, "cpu_per_stream")
    return many / few if many and few else None


def added(results: Results, contestant: str, kind: str, percentile: str) -> float | None:
    """Latency less what upstream and load have by themselves."""
    whole = results.figure("latency", contestant, kind, percentile)
    direct = results.figure("latency", "direct", kind, percentile)
    return None if whole is None or direct is None else whole - direct


def _added(kind: str, percentile: str) -> Callable[[Results], float | None]:
    return lambda results: added(results, OURS, kind, percentile)


def _crowd(results: Results) -> float | None:
    """Cores for 8,000 streams, or no bound at all if one of them was not served."""
    rounds = results.of("heartbeats 8000/5 s", OURS)
    if not rounds:
        return None
    if not all(figures.get("served") for figures in rounds):
        return float("inf")
    return results.figure("heartbeats 8000/5 s", OURS, "cores")


def _nginx(workload: str) -> Callable[[Results], float | None]:
    return lambda results: results.figure(workload, "nginx", "cpu_per_frame")


def _rival(workload: str) -> Callable[[Results], float | None]:
    return lambda results: best_rival(results, workload, "cpu_per_frame")


GOALS = [
    Goal(
        name="paced, CPU per frame",
        unit="µs",
        value=_ours("paced", "cpu_per_frame"),
        must=_times(0.55, _rival("paced")),
        aim=_least(_times(0.4, _rival("paced")), _times(4, _nginx("paced"))),
        context="must: 0.55 of the best Python rival; aim: 0.4 of it, and 4 times nginx",
    ),
    Goal(
        name="paced, Responses on Chat, CPU per frame above pass-through",
        unit="µs",
        value=_translating("responses"),
        must=_fixed(60e-6),
        aim=_fixed(20e-6),
    ),
    Goal(
        name="paced, Messages on Chat, CPU per frame above pass-through",
        unit="µs",
        value=_translating("messages"),
        must=_fixed(60e-6),
        aim=_fixed(20e-6),
    ),
    Goal(
        name="hose, CPU per frame",
        unit="µs",
        value=_ours("hose", "cpu_per_frame"),
        must=_least(_fixed(2e-6), _nginx("hose")),
        aim=_fixed(1e-6),
        context="must: 2 µs, and no more than nginx",
    ),
    Goal(
        name="short, CPU per stream",
        unit="ms",
        value=_ours("short", "cpu_per_stream"),
        must=_fixed(1.2e-3),
        aim=_fixed(0.8e-3),
    ),
    Goal(
        name="waiting, CPU per stream, 4,000 against 500",
        unit="times",
        value=_growth,
        must=_fixed(1.3),
        aim=_fixed(1.1),
    ),
    Goal(
        name="waiting, memory per stream at 8,000",
        unit="KB",
        value=_ours("waiting 8000", "memory_per_stream"),
        must=_fixed(32 * 1024),
        aim=_fixed(20 * 1024),
    ),
    Goal(
        name="added latency per frame, p50",
        unit="ms",
        value=_added("frame_latency", "p50"),
        must=_fixed(0.3e-3),
        aim=_fixed(0.15e-3),
        context="at 20 % of a core",
    ),
    Goal(
        name="added latency per frame, p99",
        unit="ms",
        value=_added("frame_latency", "p99"),
        must=_fixed(3e-3),
        aim=_fixed(1e-3),
        context="at 20 % of a core",
    ),
    Goal(
        name="added latency to the first token, p50",
        unit="ms",
        value=_added("first_token", "p50"),
        must=_fixed(0.5e-3),
        aim=_fixed(0.25e-3),
        context="at 20 % of a core, on a new connection",
    ),
    Goal(
        name="8,000 silent streams with 5 s heartbeats",
        unit="cores",
        value=_crowd,
        must=_fixed(1.0),
        aim=_fixed(0.5),
        context="all served",
    ),
]
