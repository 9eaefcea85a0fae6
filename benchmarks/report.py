"""Tables of results, for a terminal and for the documentation (Markdown suits both)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import bar
from .contestants import CONTESTANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from .runner import Results

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
SCALES = {"µs": 1e6, "ms": 1e3, "KB": 1 / 1024, "MB": 2**-20, "times": 1.0, "cores": 1.0, "%": 100}
UNKNOWN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table of figures."""

    title: str
    workload: str
    unit: str
    figure: Callable[[Results, str], float | None]


def _rows(results: Results) -> Iterable[Row]:
    for workload in results.rounds:
        kind = workload.partition(" ")[0]
        for title, unit, *path in FIGURES.get(kind, ()):
            yield Row(
                title=f"{workload}: {title}",
                workload=workload,
                unit=unit,
                figure=lambda r, name, w=workload, p=tuple(path): r.figure(w, name, *p),
            )
    if "latency" in results.rounds:
        for title, kind, percentile in ADDED:
            yield Row(
                title=f"latency: {title}",
                workload="latency",
                unit="ms",
                figure=lambda r, name, k=kind, p=percentile: bar.added(r, name, k, p),
            )


FIGURES: dict[str, tuple[tuple[str, ...], ...]] = {
    "paced": (("CPU per frame", "µs", "cpu_per_frame"), ("frames delivered", "%", "delivered")),
    "hose": (("CPU per frame", "µs", "cpu_per_frame"),),
    "short": (("CPU per stream", "ms", "cpu_per_stream"),),
    "waiting": (
        ("CPU per stream", "ms", "cpu_per_stream"),
        ("memory per stream", "KB", "memory_per_stream"),
        ("frame latency, p99", "ms", "frame_latency", "p99"),
    ),
    "heartbeats": (
        ("CPU", "cores", "cores"),
        ("CPU per heartbeat", "µs", "cpu_per_heartbeat"),
    ),
    "latency": (("part of a core used", "%", "load"),),
}
ADDED = (
    ("added per frame, p50", "frame_latency", "p50"),
    ("added per frame, p99", "frame_latency", "p99"),
    ("added to the first token, p50", "first_token", "p50"),
    ("added to the first token, p99", "first_token", "p99"),
    ("added to the first token on a kept connection, p50", "first_token_kept", "p50"),
    ("added to the first token on a kept connection, p99", "first_token_kept", "p99"),
)
DIRECT = (
    ("frame_latency", "p50"),
    ("frame_latency", "p99"),
    ("first_token", "p50"),
    ("first_token_kept", "p50"),
)


def render(results: Results) -> str:
    """Everything: the bar, the figures, who was left out, and where it was measured."""
    return "\n\n".join(
        part
        for part in (_heading(results), _bar(results), _figures(results), _notes(results))
        if part
    )


def _heading(results: Results) -> str:
    rounds = max((len(r) for by in results.rounds.values() for r in by.values()), default=0)
    return (
        f"Measured on {results.began}: {results.machine}. Median of {rounds} "
        f"round{'s' if rounds != 1 else ''}, {results.minutes:.0f} minutes; "
        f"load average before it {results.load_before:.2f}."
    )


def _bar(results: Results) -> str:
    lines = [("goal", "ours", "must", "", "aim", "")]
    for mark in bar.marks(results):
        unit = mark.goal.unit
        name = f"{mark.goal.name} ({mark.goal.context})" if mark.goal.context else mark.goal.name
        lines.append(
            (
                name,
                show(mark.value, unit, named=True),
                show(mark.must, unit),
                {True: "pass", False: "**FAIL**", None: UNKNOWN}[mark.passed],
                show(mark.aim, unit),
                {True: "reached", False: "not yet", None: UNKNOWN}[mark.reached],
            )
        )
    return _table(lines)


def _figures(results: Results) -> str:
    taking_part = [name for name in CONTESTANTS if name in results.versions and name != "direct"]
    lines = [("", *(CONTESTANTS[name].title for name in taking_part))]
    for row in _rows(results):
        cells = [_cell(results, row, name) for name in taking_part]
        lines.append((f"{row.title} ({row.unit})", *cells))
    return _table(lines) if len(lines) > 1 else ""


def _cell(results: Results, row: Row, name: str) -> str:
    if results.failed(row.workload, name):
        return "failed"
    shown = show(row.figure(results, name), row.unit)
    saturated = any(figures.get("saturated") for figures in results.of(row.workload, name))
    return shown + " ⁺" if saturated else shown


def _notes(results: Results) -> str:
    lines = []
    versions = (
        f"{CONTESTANTS[name].title}: {version}"
        for name, version in results.versions.items()
        if version
    )
    lines.append("Versions: " + "; ".join(versions) + ".")
    lines.append("⁺ could not keep up: fewer frames came out than were due.")
    direct = [show(results.figure("latency", "direct", *path), "ms") for path in DIRECT]
    if direct[0] != UNKNOWN:
        lines.append(
            "Latency with nobody in between, which is taken off: {} / {} ms a frame (p50 / p99), "
            "{} ms to the first token, {} on a kept connection (p50).".format(*direct)
        )
    for name, why in results.left_out.items():
        lines.append(f"{CONTESTANTS[name].title} was left out: {why}")
    for workload, by_name in results.rounds.items():
        for name in by_name:
            if why := results.failed(workload, name):
                lines.append(f"{CONTESTANTS[name].title} failed *{workload}*: {why}")
    return "\n".join(f"- {_one_line(line)}" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


def show(value: float | None, unit: str, *, named: bool = False) -> str:
    """`value`, in base units (seconds, bytes), in `unit` with about three digits."""
    if value is None:
        return UNKNOWN
    scaled = value * SCALES[unit]
    digits = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
    return f"{scaled:,.{digits}f}" + (f" {unit}" if named else "")


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    heads, *rest = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join((heads, rule, *rest))


def insert(page: Path, rendered: str) -> None:
    """Put `rendered` between the markers of `page`."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for figures: {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n{rendered}\n{end}{after}")
