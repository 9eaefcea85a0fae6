"""`python -m tests.fuzz [TARGET…] --minutes M`: each target for so long, one after the other.

With atheris (`pip install -e '.[fuzz]'`) the search is guided by coverage, and what reaches something
new is kept in `tests/fuzz/corpus`. Without it (it has no wheels for every Python) inputs are changed at
random.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import corpus, mutating, targets

MOST_KEPT = 22_000
"""Bytes of corpus a target."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(targets.NAMES))
    parser.add_argument("--minutes", type=float, default=3.0, help="of each target (default: 3)")
    parser.add_argument("--forget", action="store_true", help="leave the corpus as it is")
    options = parser.parse_args()
    unknown = set(options.targets) - set(targets.NAMES)
    if unknown:
        parser.error(
            f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(targets.NAMES)}"
        )
    guided = importlib.util.find_spec("atheris") is not None
    search = _guided if guided else _blind
    if not guided:
        print("atheris is not installed: inputs are changed at random, and none is kept")
    ended = [
        search(name, options.minutes * 60, keep=not options.forget)
        for name in options.targets or targets.NAMES
    ]
    return 0 if all(ended) else 1


def _guided(name: str, seconds: float, *, keep: bool) -> bool:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        command = [
            sys.executable,
            "-m",
            f"{__package__}.guided",
            name,
            str(folder),
            str(int(seconds)),
        ]
        told = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace"
        )
        failed = [path.read_bytes() for path in Path(place).glob(f"{name}.*")]
        if told.returncode or failed:
            return _finding(name, failed, told.stdout[-2000:] + told.stderr[-3000:])
        found = [path.read_bytes() for path in folder.glob("*")]
    print(f"{name}: nothing found; {_figures(told.stderr)}", flush=True)
    if keep:
        kept = corpus.smallest(targets.load(name).run, found, MOST_KEPT)
        corpus.keep(name, kept)
        print(f"    {len(found)} inputs, {len(kept)} kept, {sum(map(len, kept))} bytes", flush=True)
    return True


def _figures(report: str) -> str:
    figures = [
        line.split(":")[-1].strip()
        for line in report.splitlines()
        if "stat::number_of_exec" in line
    ]
    covered = [line for line in report.splitlines() if " cov: " in line]
    places = covered[-1].split(" cov: ")[1].split()[0] if covered else "?"
    return f"{figures[0] if figures else '?'} runs, {places} places in the code reached"


def _blind(name: str, seconds: float, *, keep: bool) -> bool:
    """A few generations of changes, from the corpus each time."""
    del keep
    target = targets.load(name)
    known, draw, runs = [*target.SEEDS, *corpus.inputs(name)], random.Random(time.time_ns()), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = draw.choice(known)
        for _ in range(draw.randrange(1, 9)):
            data = mutating.mutate(data, target.WORDS, draw.randrange(2**32), corpus.LARGEST)
        runs += 1
        try:
            target.run(data)
        except Exception as error:
            return _finding(name, [data], f"{type(error).__name__}: {error}")
    print(f"{name}: nothing found; {runs} runs", flush=True)
    return True


def _finding(name: str, failed: list[bytes], report: str) -> bool:
    print(f"{name}: FOUND\n{report}")
    for data in failed:
        place = Path(f"found-{name}-{time.time_ns()}")
        place.write_bytes(data)
        print(f"the input is in {place}: {data!r}")
    return False


if __name__ == "__main__":
    sys.exit(main())
