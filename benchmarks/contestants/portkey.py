"""Portkey's gateway (Node.js), from npm."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from .contestant import Contestant, NotHere, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .contestant import Place

PACKAGE = "@portkey-ai/gateway"


def install(cache: Path) -> str:
    """Below the cache directory."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotHere("node or npm is not installed")
    home = cache / "portkey"
    if not _package(home).exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text("{}")
        run("npm", "install", "--no-audit", "--no-fund", PACKAGE, cwd=home)
    return str(json.loads((_package(home) / "package.json").read_text())["version"])


def command(place: Place) -> Sequence[str | Path]:
    """Without its console."""
    program = _package(place.cache / "portkey") / "build" / "start-server.js"
    return "node", program, f"--port={place.port}", "--headless"


def headers(place: Place) -> dict[str, str]:
    """It is told with each request where to send it."""
    return {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{place.upstream}/v1",
    }


def _package(home: Path) -> Path:
    return home / "node_modules" / PACKAGE


CONTESTANT = Contestant(
    name="portkey",
    title="Portkey gateway (Node.js)",
    install=install,
    command=command,
    headers=headers,
)
