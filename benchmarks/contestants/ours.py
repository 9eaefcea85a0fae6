"""This project, from the checkout the benchmark stands in, with its default settings.

One line is written per request at the level `info`, as access logs are elsewhere; those are off, too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from trio_sse_proxy.version import __version__

from .contestant import Contestant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .contestant import Place


def command(place: Place, *flags: str) -> Sequence[str]:
    """As a user starts it."""
    upstream = f"http://127.0.0.1:{place.upstream}"
    return (
        *(sys.executable, "-m", "trio_sse_proxy", "serve", "--upstream", upstream),
        *("--bind", f"127.0.0.1:{place.port}", "--log-level", "warning", *flags),
    )


TRANSLATING = """
[[upstreams]]
name = "upstream"
base_url = "http://127.0.0.1:{upstream}"
dialects = ["chat"]
"""


def translating(place: Place) -> Sequence[str]:
    """With an upstream that is said to speak Chat alone."""
    config = place.scratch / "settings.toml"
    config.write_text(TRANSLATING.format(upstream=place.upstream))
    return (
        *(sys.executable, "-m", "trio_sse_proxy", "serve", "--config", str(config)),
        *("--bind", f"127.0.0.1:{place.port}", "--log-level", "warning"),
    )


CONTESTANT = Contestant(
    name="trio-sse-proxy",
    title="trio-sse-proxy",
    install=lambda cache: __version__,
    command=command,
    translates=frozenset({"responses", "messages"}),
    translating=translating,
)
