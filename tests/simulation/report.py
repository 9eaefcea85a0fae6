"""What is printed of a seed that breaks a rule."""

from __future__ import annotations

from pprint import pformat

from .history import history
from .oracles import findings
from .shrink import shrink
from .world import play


def story(seed: int) -> str | None:
    """What was wrong, and the smallest history in which it still is, with its log; None if nothing."""
    whole = history(str(seed))
    found = findings(play(whole))
    if not found:
        return None
    small, still = shrink(whole)
    lines = [f"seed {seed}:", *found, "the smallest history found:", *still]
    return "\n".join((*lines, pformat(small, width=100), *play(small).log.lines))
