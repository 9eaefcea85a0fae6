"""What is printed of a seed that breaks a rule."""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, fields, is_dataclass
from math import inf
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
    return "\n".join((*lines, shown(small), *play(small).log.lines))


def shown(one, indent: str = "") -> str:
    """A part of a history as the code that makes it, without what is as it is by default."""
    if isinstance(one, tuple) and any(map(is_dataclass, one)):
        inner = indent + "    "
        parts = "".join(f"\n{inner}{shown(part, inner)}," for part in one)
        return f"({parts}\n{indent})"
    if not is_dataclass(one):
        return "inf" if one == inf else repr(one)
    named = [
        f"{field.name}={shown(getattr(one, field.name), indent)}"
        for field in fields(one)
        if getattr(one, field.name) != _default(field)
    ]
    return f"{type(one).__name__}({', '.join(named)})"


def _default(field):
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def digest(seeds: Iterable[int]) -> str:
    """One hash over the logs of these seeds."""
    logs = ("\n".join(play(history(str(seed))).log.lines) for seed in seeds)
    return hashlib.sha256("\n".join(logs).encode()).hexdigest()
