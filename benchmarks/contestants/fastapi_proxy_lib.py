"""fastapi-proxy-lib on uvicorn with uvloop and httptools: the fastest Python stack in common use.

httpx's limits are lifted (it would refuse the hundredth stream, and a silence of five seconds).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contestant import Contestant, versions, virtual_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .contestant import Place

PROGRAM = """
import os

import httpx
from fastapi_proxy_lib.fastapi.app import reverse_http_app

client = httpx.AsyncClient(
    timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=1000)
)
app = reverse_http_app(client=client, base_url=os.environ["UPSTREAM"])
"""
NEEDS = ("fastapi-proxy-lib", "uvicorn", "uvloop", "httptools", "fastapi")


def install(cache: Path) -> str:
    """In a virtual environment of its own."""
    return versions(virtual_environment(cache, "python", *NEEDS), *NEEDS[:3])


def command(place: Place) -> Sequence[str]:
    """One worker."""
    (place.scratch / "app.py").write_text(PROGRAM)
    return (
        *("env", f"UPSTREAM=http://127.0.0.1:{place.upstream}/"),
        *(str(place.cache / "python" / "bin" / "uvicorn"), "app:app", "--loop", "uvloop"),
        *("--http", "httptools", "--host", "127.0.0.1", "--port", str(place.port)),
        *("--no-access-log", "--log-level", "warning", "--backlog", "4096"),
    )


CONTESTANT = Contestant(
    name="fastapi-proxy-lib",
    title="fastapi-proxy-lib (uvicorn, uvloop)",
    install=install,
    command=command,
    rival=True,
)
