"""Whether it was flat, and the words for it. Pure: samples in, findings and Markdown out."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .watch import Sample

MB = 2**20
SHARE = 0.1  # of its mean, that a figure may drift over the whole run: chance alone moves it
DRIFT = {"descriptors": 12.0, "tasks": 12.0, "memory": 4.0 * MB}  # at least this
IDLE = {"descriptors": 2.0, "tasks": 0.0, "memory": 6.0 * MB}  # above the idle figure of before
NAMES = {"descriptors": "descriptors", "tasks": "tasks", "memory": "memory (Pss), MB"}
FLAT = "Nothing grew by more than it may."


@dataclass(frozen=True)
class Soak:
    """One run. `before` and `after` are at rest: after the warm-up, and at the end."""

    before: Sample
    samples: Sequence[Sample]
    after: Sample
    outcomes: dict[str, int]
    wrong: dict[str, int]
    complaints: Sequence[str]
    reloads: int
    machine: str
    began: str

    @property
    def minutes(self) -> float:
        """How long the load lasted, without warm-up."""
        return (self.samples[-1].at - self.samples[0].at) / 60

    @property
    def cores(self) -> float:
        """The proxy's share of a core meanwhile."""
        used = self.samples[-1].cpu - self.samples[0].cpu
        return used / (60 * self.minutes)

    @property
    def took(self) -> float:
        """Seconds one of its own pages took, the median: whether the machine had time for it."""
        return median(sample.took for sample in self.samples)

    def findings(self) -> list[str]:
        """What is not as it must be."""
        found = [f"{count} of {name!r} went wrong" for name, count in self.wrong.items()]
        for name in DRIFT:
            drift, bound = self.drift(name), self.bound(name)
            if drift > bound:
                found.append(f"{NAMES[name]} grew by {_told(name, drift)}")
            if (rest := self.at_rest(name)) > IDLE[name]:
                found.append(f"{NAMES[name]} at rest: {_told(name, rest)} more than before")
        if self.after.streams:
            found.append(f"{self.after.streams} streams are still running")
        return found

    def mean(self, name: str) -> float:
        """Under load."""
        return mean(getattr(sample, name) for sample in self.samples)

    def drift(self, name: str) -> float:
        """How much it grew over the run, by the straight line that fits best."""
        times = [sample.at for sample in self.samples]
        values = [float(getattr(sample, name)) for sample in self.samples]
        return slope(times, values) * (times[-1] - times[0])

    def bound(self, name: str) -> float:
        """How much it may."""
        return max(DRIFT[name], SHARE * self.mean(name))

    def at_rest(self, name: str) -> float:
        """How much more it is at the end than it was before, both at rest."""
        return self._resting(self.after, name) - self._resting(self.before, name)

    def _resting(self, sample: Sample, name: str) -> float:
        value = float(getattr(sample, name))
        return value - sample.idle if name == "descriptors" else value

    def as_markdown(self) -> str:
        """The section of the documentation."""
        requests = sum(self.outcomes.values())
        kinds = ", ".join(f"{count:,} {name}" for name, count in _sorted(self.outcomes))
        rows = [self._row(name) for name in DRIFT]
        found = self.findings()
        return "\n".join([
            f"{self.began}: {self.minutes:.0f} minutes, {requests:,} requests ({kinds}), "
            f"{self.reloads} reloads, {self.mean('streams'):.0f} streams at a time, "
            f"{self.cores:.2f} of a core, {1000 * self.took:.0f} ms for a page of its own (median). "
            f"{self.machine}.",
            "",
            "| | at rest before | mean under load | drift over the run | allowed | at rest after |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Answers that were not as they had to be: {sum(self.wrong.values())} of {requests:,}. "
            + (f"**Not flat or not right: {'; '.join(found)}.**" if found else FLAT),
        ])  # fmt: skip

    def _row(self, name: str) -> str:
        figures = (
            self._resting(self.before, name), self.mean(name), self.drift(name),
            self.bound(name), self._resting(self.after, name),
        )  # fmt: skip
        cells = [_told(name, figure) for figure in figures]
        return f"| {NAMES[name]} | " + " | ".join(cells) + " |"


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Of the line with the least squares of deviations, in units a second."""
    middle, level = mean(times), mean(values)
    spread = sum((at - middle) ** 2 for at in times)
    rise = sum((at - middle) * (v - level) for at, v in zip(times, values, strict=True))
    return rise / spread if spread else 0.0


def _told(name: str, figure: float) -> str:
    return f"{figure / MB:.1f}" if name == "memory" else f"{figure:.0f}"


def _sorted(counts: dict[str, int]) -> list[tuple[str, Any]]:
    return sorted(counts.items(), key=lambda item: -item[1])
