"""One target under atheris: `python -m tests.fuzz.guided TARGET FOLDER SECONDS`. It ends at a finding.

What it finds worth keeping goes into FOLDER, and an input that fails into `FOLDER.crash-…`. Atheris is
built on libFuzzer, which ends the process it runs in; so each target has a process of its own.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris


def main() -> None:
    _, name, folder, seconds = sys.argv
    with atheris.instrument_imports(include=["trio_sse_proxy"]):
        from . import corpus, mutating, targets

        target = targets.load(name)

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        if seed % 2:
            return atheris.Mutate(data, limit)
        return mutating.mutate(data, target.WORDS, seed, limit)

    def cross(one: bytes, other: bytes, limit: int, seed: int) -> bytes:
        draw = random.Random(seed)
        return (one[: draw.randrange(len(one) + 1)] + other[draw.randrange(len(other) + 1) :])[
            :limit
        ]

    found = Path(folder)
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate((*target.SEEDS, *corpus.inputs(name))):
        (found / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            name,
            f"-max_total_time={seconds}",
            f"-max_len={corpus.LARGEST}",
            f"-artifact_prefix={folder}.",
            "-timeout=20",
            "-rss_limit_mb=1500",
            "-print_final_stats=1",
            folder,
        ],
        target.run,
        custom_mutator=mutate,
        custom_crossover=cross,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
