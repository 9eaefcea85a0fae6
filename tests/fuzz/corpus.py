"""The inputs that are kept: few and small, and together they reach what the long runs have reached."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import trio_sse_proxy

KEPT = Path(__file__).parent / "corpus"
PRODUCT = str(Path(trio_sse_proxy.__file__).parent)
LARGEST = 4096
"""Bytes of an input, in the long runs and here."""


def inputs(name: str) -> list[bytes]:
    """What is kept for one target, in a fixed order."""
    return [path.read_bytes() for path in sorted((KEPT / name).glob("*"))]


def keep(name: str, found: list[bytes]) -> None:
    """Put `found` in the place of what was kept, but for findings, which stay for ever."""
    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*"):
        if not path.name.startswith("found-"):
            path.unlink()
    for data in found:
        (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


def smallest(run, candidates: list[bytes], limit: int) -> list[bytes]:
    """Of these a small set that reaches the same pairs of lines; at most `limit` bytes."""
    reached = {data: _reached(run, data) for data in set(candidates)}
    kept, known, size = [], set(), 0
    for data in sorted(reached, key=len):
        if new := reached[data] - known:
            kept.append((data, new))
            known |= new
    # A second look, the largest first: what others reach together is not needed.
    chosen, covered = [], set()
    for data, _ in sorted(kept, key=lambda one: (-len(reached[one[0]]), len(one[0]))):
        if reached[data] - covered and size + len(data) <= limit:
            chosen.append(data)
            covered |= reached[data]
            size += len(data)
    return chosen


def _reached(run, data: bytes) -> frozenset:
    """Pairs of lines of the product that ran one after the other."""
    pairs, last = set(), {}

    def trace(frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(PRODUCT):
            return None
        if event == "line":
            here = frame.f_lineno
            pairs.add((code.co_filename, last.get(code, 0), here))
            last[code] = here
        return trace

    sys.settrace(trace)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return frozenset(pairs)
