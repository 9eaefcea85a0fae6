"""`python -m tests.cancellation [--seeds N] [--every K] [scenario …]`: every point, in every way."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog

from cancellation.catalogue import CATALOGUE
from cancellation.judge import findings
from cancellation.play import WAYS, examine, perform


def main() -> int:
    names = [scenario.__name__ for scenario in CATALOGUE]
    parser = argparse.ArgumentParser(prog="python -m tests.cancellation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="so many orders of tasks")
    parser.add_argument("--every", type=int, default=1, help="every so manieth point only")
    parser.add_argument("scenario", nargs="*", choices=[*names, []], help="all, if none is named")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    began, points, cancelled, bad = time.process_time(), 0, 0, 0
    for scenario in CATALOGUE:
        if options.scenario and scenario.__name__ not in options.scenario:
            continue
        here = 0
        for seed in map(str, range(options.seeds)):
            reference = perform(scenario, seed)
            bad += tell(scenario, seed, None, 0, findings(reference, reference))
            here += len(range(1, reference.gaps.count + 1, options.every))
            for way in WAYS:
                for gap in range(1, reference.gaps.count + 1, options.every):
                    cancelled += 1
                    bad += tell(
                        scenario, seed, way, gap, examine(scenario, seed, way, gap, reference)
                    )
        points += here
        print(f"{scenario.__name__:28} {here:7} points", flush=True)
    took = time.process_time() - began
    print(f"{points} points, {cancelled} cancellations, {bad} findings, {took:.0f} s of CPU")
    return 1 if bad else 0


def tell(scenario, seed: str, way: str | None, gap: int, found: list[str]) -> int:
    """Print what is wrong; 1 if something is."""
    for each in found:
        print(f"{scenario.__name__} seed {seed}, {way} at {gap}: {each}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
