"""The chart of the documentation, from results as JSON.

    python benchmarks/chart.py RESULTS.json OUTPUT...      where matplotlib is installed

A program of its own, so that matplotlib is needed in the benchmark's cache only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

plt.switch_backend("Agg")  # no display needed
mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures give the same file

OURS = "trio-sse-proxy"
COLOUR, OTHER = "#1f6f8b", "#b8c4c9"
OTHERS = ("#8c8c8c", "#e08e45", "#b5525c", "#8e6bb0", "#7a9e4f", "#c9a227", "#5b5b8c")
BARS = (
    ("paced", "cpu_per_frame", 1e6, "paced: µs of CPU per frame"),
    ("hose", "cpu_per_frame", 1e6, "hose: µs of CPU per frame"),
    ("short", "cpu_per_stream", 1e3, "short: ms of CPU per stream"),
)
LINES = (
    ("cpu_per_stream", 1e3, "waiting: ms of CPU per stream"),
    ("memory_per_stream", 1 / 1024, "waiting: KB of memory per stream"),
)


def figure(results, workload, name, key, scale):
    """The median over the rounds; None if it was not measured or failed."""
    rounds = results["rounds"].get(workload, {}).get(name, [])
    if any(r.get("failed") or sum(r["errors"].values()) for r in rounds):
        return None
    values = [r[key] for r in rounds if r.get(key) is not None]
    return scale * median(values) if values else None


def draw_bars(axes, results, names, workload, key, scale, title):
    found = [(name, figure(results, workload, name, key, scale)) for name in names]
    found = sorted(((n, v) for n, v in found if v), key=lambda pair: -pair[1])
    if not found:
        axes.set_axis_off()
        return
    labels, values = zip(*found, strict=True)
    bars = axes.barh(labels, values, color=[COLOUR if n == OURS else OTHER for n in labels])
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 3)
    axes.set_xticks([])
    axes.set_xlabel("logarithmic scale, less is better", fontsize=8)
    axes.minorticks_off()
    axes.set_title(title, fontsize=10, loc="left")


def draw_lines(axes, results, names, key, scale, title):
    sizes = sorted(int(w.split()[1]) for w in results["rounds"] if w.startswith("waiting"))
    for number, name in enumerate(names):
        values = [figure(results, f"waiting {size}", name, key, scale) for size in sizes]
        points = [(s, v) for s, v in zip(sizes, values, strict=True) if v]
        if points:
            ours = name == OURS
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=4,
                label=name,
                color=COLOUR if ours else OTHERS[number % len(OTHERS)],
                linewidth=2.5 if ours else 1.2,
                zorder=3 if ours else 2,
            )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_yscale("log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("streams that wait at the same time; a line ends where it fails", fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")


def main(source, *outputs):
    results = json.loads(Path(source).read_text())
    names = [name for name in results["versions"] if name != "direct"]
    chart, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    for place, (workload, key, scale, title) in zip(axes[0], BARS, strict=True):
        draw_bars(place, results, names, workload, key, scale, title)
    for place, (key, scale, title) in zip(axes[1], LINES, strict=False):
        draw_lines(place, results, names, key, scale, title)
    legend = axes[1][2]
    legend.set_axis_off()
    legend.legend(*axes[1][0].get_legend_handles_labels(), loc="upper left", frameon=False)
    legend.text(0, 0, results["machine"], fontsize=8, transform=legend.transAxes)
    for place in axes.flat:
        place.spines[["top", "right"]].set_visible(False)
        place.tick_params(labelsize=8)
    for output in outputs:
        stamp = {"Date": None} if output.endswith(".svg") else None
        chart.savefig(output, dpi=130, metadata=stamp)


if __name__ == "__main__":
    main(*sys.argv[1:])
