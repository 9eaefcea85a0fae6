"""python -m benchmarks: measure, print the table, write it into the documentation, draw the chart."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from . import report, workloads
from .contestants import CONTESTANTS, NotHere
from .contestants.contestant import run as run_command
from .contestants.contestant import virtual_environment
from .runner import ROOT, Results, run

CACHE = ROOT / "benchmarks" / ".cache"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = "![CPU and memory of streaming proxies](benchmarks.png)"
CHARTS = (ROOT / "docs" / "benchmarks.png", ROOT / "docs" / "benchmarks.svg")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if a "must" of the bar was measured and does not hold."""
    wish = _parser().parse_args(arguments)
    cache = wish.cache.resolve()
    saved = cache / "results.json"
    if wish.report_only:
        results = Results(**json.loads(saved.read_text()))
    else:
        results = _measure(wish, cache, saved)
    print(report.render(results))
    if wish.write:
        _draw(cache, saved)
        report.insert(PAGE, f"{PICTURE}\n\n{report.render(results)}")
    return int(any(mark.passed is False for mark in report.bar.marks(results)))


def _measure(wish: argparse.Namespace, cache: Path, saved: Path) -> Results:
    def say(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    def keep(results: Results) -> None:
        saved.write_text(json.dumps(asdict(results), indent=1))

    chosen = workloads.quick() if wish.quick else workloads.full()
    if wish.workloads:
        chosen = [workload for workload in chosen if _is_named(workload, wish.workloads)]
    names = wish.contestants or list(CONTESTANTS)
    if any(workload.kind == "latency" for workload in chosen) and "direct" not in names:
        names = ["direct", *names]  # what is added is the difference to it
    rounds = wish.rounds or (1 if wish.quick else 3)
    contestants = [CONTESTANTS[name] for name in CONTESTANTS if name in names]
    return run(chosen, contestants, rounds, cache, say, keep)


def _is_named(workload: workloads.Workload, names: list[str]) -> bool:
    return workload.name in names or workload.name.partition(" ")[0] in names


def _draw(cache: Path, saved: Path) -> None:
    try:
        programs = virtual_environment(cache, "charts", "matplotlib")
        with tempfile.TemporaryDirectory() as home:
            chart = Path(__file__).with_name("chart.py")
            run_command("env", f"MPLCONFIGDIR={home}", programs / "python", chart, saved, *CHARTS)
    except NotHere as why:
        print(f"no chart: {why}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    kinds = sorted({workload.name.partition(" ")[0] for workload in workloads.full()})
    parser.add_argument(
        "--workloads", nargs="+", metavar="NAME", help=f"only these: {', '.join(kinds)}"
    )
    parser.add_argument(
        "--contestants", nargs="+", choices=list(CONTESTANTS), metavar="NAME",
        help=f"only these: {', '.join(CONTESTANTS)}",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="how often each is measured; default: 3")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that everything works")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where rivals are installed")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md and charts")
    parser.add_argument(
        "--report-only", action="store_true", help="show the last results again, without measuring"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
