"""What is printed of a seed that breaks a rule."""

from __future__ import annotations

import hashlib
from pprint import pformat
from typing import TYPE_CHECKING

from .history import history
from .oracles import findings
from .shrink import TRIES, shrink
from .world import play

if TYPE_CHECKING:
    from collections.abc import Iterable


def story(seed: int, tries: int = TRIES) -> str | None:
    """What was wrong, and the smallest history in which it still is, with its log; None if nothing."""
    whole = history(str(seed))
    found = findings(play(whole))
    if not found:
        return None
    small, still = shrink(whole, tries)
    lines = [f"seed {seed}:", *found, "the smallest history found:", *still]
    return "\n".join((*lines, pformat(small, width=100), *play(small).log.lines))


def digest(seeds: Iterable[int]) -> str:
    """One hash over the logs of these seeds."""
    logs = ("\n".join(play(history(str(seed))).log.lines) for seed in seeds)
    return hashlib.sha256("\n".join(logs).encode()).hexdigest()
