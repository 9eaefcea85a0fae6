"""What the benchmark has to know of a contestant."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHAT = "/v1/chat/completions"
NONE: frozenset[str] = frozenset()
PORT_FILE = "port"
"""Where, in `Place.scratch`, a contestant tells its port that chooses it itself."""


class NotHere(Exception):
    """It cannot take part; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it runs: ports on loopback, its installation, and a directory for its files."""

    port: int
    upstream: int
    cache: Path
    scratch: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """`command` starts it in the foreground, in `Place.scratch`, writing there what it needs.

    `install` gets the cache directory and raises NotHere; it returns the version. `rival` is true
    for Python proxies, which are what we compare our CPU with. `translates` names the dialects of
    clients that it serves from an upstream of Chat, and `translating` starts it for them.
    """

    name: str
    title: str
    install: Callable[[Path], str]
    command: Callable[[Place], Sequence[str | Path]] | None
    rival: bool = False
    path: str = CHAT
    model: str = "bench"
    headers: Callable[[Place], dict[str, str]] = lambda place: {}
    env: dict[str, str] = field(default_factory=dict)
    translates: frozenset[str] = NONE
    translating: Callable[[Place], Sequence[str | Path]] | None = None
    start_within: float = 15.0  # seconds


def virtual_environment(cache: Path, name: str, *requirements: str) -> Path:
    """The `bin` directory of a virtual environment with `requirements`, made if it is not there."""
    home = cache / name
    ready = home / "requirements"
    wanted = "\n".join(requirements)
    if not (ready.exists() and ready.read_text() == wanted):
        run(sys.executable, "-m", "venv", home)
        run(home / "bin" / "pip", "install", "--quiet", *requirements)
        ready.write_text(wanted)
    return home / "bin"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command says; NotHere with its last words if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    except OSError as error:
        raise NotHere(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no word why"]
        raise NotHere(f"{Path(command[0]).name} failed: {words[-1][:200]}")
    return done.stdout + done.stderr


def versions(bin_directory: Path, *packages: str) -> str:
    """`name 1.2, other 3.4`, as installed."""
    shown = run(bin_directory / "pip", "show", *packages)
    found = re.findall(r"^Name: (\S+)\nVersion: (\S+)", shown, re.MULTILINE)
    return ", ".join(" ".join(pair) for pair in found)
