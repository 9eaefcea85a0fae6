"""The agents themselves: installed from npm into `.cache` beside this file, once per release.

Their binaries are npm packages of their own, one per platform, so that an install is a download and
nothing else: about nine seconds and 700 MB.
"""

from __future__ import annotations

import fcntl
import functools
import json
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
PACKAGES: dict[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
TIMEOUT = 600.0  # seconds


@functools.cache
def installed() -> Path:
    """The directory with `codex`, `claude` and `reasonix`; installs what is not there yet.

    Raises RuntimeError with npm's own words if that fails.
    """
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # several pytest workers come here at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(_is_there(*package) for package in PACKAGES.items()):
            _install()
    return CACHE / "node_modules" / ".bin"


def _is_there(name: str, version: str) -> bool:
    about = CACHE / "node_modules" / name / "package.json"
    return about.exists() and json.loads(about.read_text())["version"] == version


def _install() -> None:
    shutil.copy(HERE / "package.json", CACHE)
    # Their own install steps only copy the binary to a shorter path, and newer npm asks before them.
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    done = subprocess.run(
        command, cwd=CACHE, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"npm could not install the agents:\n{done.stderr or done.stdout}")


if __name__ == "__main__":
    print(installed())
