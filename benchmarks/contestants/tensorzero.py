"""TensorZero's gateway (Rust), the one embedded in its Python package, without observability.

It listens on a port of its own choice inside a Python process that does nothing else; the port is
left in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contestant import PORT_FILE, Contestant, versions, virtual_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .contestant import Place

CONFIG = """
[gateway]
observability.enabled = false

[models.bench]
routing = ["upstream"]

[models.bench.providers.upstream]
type = "openai"
model_name = "bench"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
"""
PROGRAM = """
import pathlib
import signal
from urllib.parse import urlsplit

import tensorzero

gateway = tensorzero._start_http_gateway(
    config_file="tensorzero.toml",
    clickhouse_url=None,
    postgres_url=None,
    valkey_url=None,
    async_setup=False,
)
pathlib.Path("{port_file}").write_text(str(urlsplit(gateway.base_url).port))
signal.pause()
"""


def install(cache: Path) -> str:
    """In a virtual environment of its own."""
    return versions(virtual_environment(cache, "tensorzero", "tensorzero"), "tensorzero")


def command(place: Place) -> Sequence[str]:
    """The way `tensorzero.patch_openai_client` starts it."""
    (place.scratch / "tensorzero.toml").write_text(CONFIG.format(upstream=place.upstream))
    (place.scratch / "gateway.py").write_text(PROGRAM.format(port_file=PORT_FILE))
    return str(place.cache / "tensorzero" / "bin" / "python"), "gateway.py"


CONTESTANT = Contestant(
    name="tensorzero",
    title="TensorZero gateway (embedded, Rust)",
    install=install,
    command=command,
    path="/openai/v1/chat/completions",
    model="tensorzero::model_name::bench",
    env={"TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1"},
)
