"""`python -m tests.simulation --streams N [--jobs J] [--seed S]`: many histories, from seed S on.

What is run depends on N and S alone, not on J. Findings are named as they come, and listed at the end,
the first of them with the smallest history that shows it; `pytest --seed N` does the same for any seed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation.counting import Tally, spare_the_collector, tally
from simulation.report import story

BLOCK = 50  # seeds that a process runs before it tells of them
TELL_EVERY = 60.0  # seconds
MANY = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--streams", type=int, default=1000, help="at least so many")
    parser.add_argument("--jobs", type=int, default=1, help="processes to run them in")
    parser.add_argument("--seed", type=int, default=0, help="the first; each history has the next")
    options = parser.parse_args()
    seen, first = Tally(), options.seed
    try:
        for block, one in run(options):
            seen.add(one)
            last = block[-1]
            for seed, finding in one.found.items():
                print(f"seed {seed}: {finding[:300]}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted; so far:")
    print(f"seeds {first} to {last}: {len(seen.found) or 'nothing'} found")
    print(*seen.lines(), sep="\n")
    for seed, finding in itertools.islice(seen.found.items(), MANY):
        print(f"seed {seed}: {finding[:300]}")
    for seed in itertools.islice(seen.found, 1):
        print(story(seed))
    return 1 if seen.found else 0


def run(options):
    """(seeds, what was seen), block by block in the order of seeds, until there are enough streams."""
    starts = itertools.count(options.seed, BLOCK)
    streams, told_at = 0, time.monotonic()
    with ProcessPoolExecutor(
        options.jobs, mp_context=get_context("fork"), initializer=spare_the_collector
    ) as pool:
        waiting: deque = deque()
        while streams < options.streams:
            while len(waiting) < 2 * options.jobs:
                seeds = range(start := next(starts), start + BLOCK)
                waiting.append((seeds, pool.submit(tally, seeds)))
            seeds, future = waiting.popleft()
            one = future.result()
            streams += one.counts["streams"]
            yield seeds, one
            if time.monotonic() - told_at > TELL_EVERY:
                told_at = time.monotonic()
                print(f"{streams:,} streams, seeds up to {seeds[-1]}", file=sys.stderr, flush=True)
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
