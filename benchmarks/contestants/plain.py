"""straightforward.py, in the environment of this project: what one has without this project."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .contestant import Contestant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .contestant import Place


def install(cache: Path) -> str:
    """All it needs we need, too."""
    return ", ".join(f"{name} {version(name)}" for name in ("trio", "httpx", "hypercorn"))


def command(place: Place) -> Sequence[str | Path]:
    """One process."""
    program = Path(__file__).with_name("straightforward.py")
    return sys.executable, program, f"http://127.0.0.1:{place.upstream}", str(place.port)


CONTESTANT = Contestant(
    name="straightforward",
    title="straightforward trio + httpx + hypercorn",
    install=install,
    command=command,
    rival=True,
)
