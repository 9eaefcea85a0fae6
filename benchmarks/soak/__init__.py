"""Mixed load with faults on a real proxy, for as long as is wanted: does anything grow?

    python -m benchmarks.soak --minutes 30 --write

`cases` says what is asked for and what must come of it, `people` ask, `watch` takes samples of the
proxy's process, `verdict` judges and tells.
"""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
