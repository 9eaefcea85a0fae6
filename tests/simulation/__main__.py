"""`python -m tests.simulation --streams N [--seed S]`: many histories, or the one of a seed."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog

from simulation.history import history
from simulation.oracles import findings
from simulation.report import story
from simulation.world import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--streams", type=int, default=1000, help="at least so many")
    parser.add_argument("--seed", type=int, default=0, help="the first; each history has the next")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    count, plays, endings = Counter(), Counter(), Counter()
    began, seed = time.process_time(), options.seed
    while count["streams"] < options.streams:
        run = play(history(str(seed)))
        if findings(run):
            print(story(seed))
            return 1
        count["histories"] += 1
        count["streams"] += len(run.clients)
        count["attempts"] += len(run.plays.played)
        count["clients that left or were given up"] += sum(not one.patient for one in run.clients)
        count["operators' orders"] += len(run.history.orders)
        plays.update(one.play.kind for one in run.plays.played)
        endings.update(record.ending.value for record in run.witness.records)
        seed += 1
    print(f"seeds {options.seed} to {seed - 1}: nothing found")
    for name, counts in (("", count), ("upstreams: ", plays), ("endings: ", endings)):
        print(name + ", ".join(f"{number} {what}" for what, number in counts.most_common()))
    print(f"{time.process_time() - began:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
