"""The chart of a soak, where matplotlib is installed: python benchmarks/soak/chart.py SOAK.json OUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

plt.switch_backend("Agg")  # no display needed
COLOUR = "#1f6f8b"
PANELS = (
    ("streams", 1, "streams running"),
    ("descriptors", 1, "descriptors"),
    ("tasks", 1, "tasks"),
    ("memory", 1 / 2**20, "memory (Pss), MB"),
)


def main(source: str, output: str) -> None:
    samples = json.loads(Path(source).read_text())["samples"]
    minutes = [sample["at"] / 60 for sample in samples]
    chart, axes = plt.subplots(2, 2, figsize=(11, 5), layout="constrained", sharex=True)
    for place, (name, scale, title) in zip(axes.flat, PANELS, strict=True):
        place.plot(minutes, [scale * sample[name] for sample in samples], color=COLOUR, lw=1)
        place.set_ylim(bottom=0)
        place.set_title(title, fontsize=10, loc="left")
        place.spines[["top", "right"]].set_visible(False)
        place.tick_params(labelsize=8)
    for place in axes[1]:
        place.set_xlabel("minutes", fontsize=8)
    chart.savefig(output, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
