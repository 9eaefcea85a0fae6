"""`pytest --seed N` replays one simulated history and does nothing else (see simulation/)."""

from __future__ import annotations

from pathlib import Path

import hypothesis
from steady_time import keep_steady_time

# An example that takes long says something about the machine alone.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

REPLAY = Path(__file__).parent / "simulation" / "test_replay.py"


def pytest_addoption(parser):
    what = "replay the simulated history N, and make it smaller if it breaks a rule"
    parser.addoption("--seed", metavar="N", type=int, help=what)


def pytest_collection_modifyitems(items):
    keep_steady_time(items)


def pytest_ignore_collect(collection_path, config):
    if config.getoption("seed") is None:
        return collection_path == REPLAY or None
    return collection_path not in (REPLAY, *REPLAY.parents) or None
