"""One seed for everything that trio, and the application, would leave to chance."""

from __future__ import annotations

import random
from contextlib import contextmanager

import trio._core._run as trio_run

from trio_sse_proxy import app
from trio_sse_proxy.upstreams import worker


class _Keys:
    """Takes the place of `secrets`."""

    def __init__(self, seed: str) -> None:
        self._draw = random.Random(f"keys {seed}")

    def token_hex(self, size: int) -> str:
        return self._draw.randbytes(size).hex()


class _Today:
    """Takes the place of `time`."""

    @staticmethod
    def time() -> float:
        return 1_700_000_000.0


@contextmanager
def fixed_order(seed: str):
    """Within, tasks that can run on one tick do so in an order that follows from `seed`.

    Sorted first: cancel scopes and events keep tasks in sets, whose order hangs on addresses in memory.
    The ids of requests and answers follow from the seed too.
    """
    changes = (
        (trio_run, "_r", random.Random(f"order {seed}")),
        (trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        (app, "random", random.Random(f"ids {seed}")),
        (worker, "secrets", _Keys(seed)),
        (worker, "time", _Today),
    )
    with replaced(changes):
        yield


@contextmanager
def replaced(changes):
    """Give names of modules other values for a while."""
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
