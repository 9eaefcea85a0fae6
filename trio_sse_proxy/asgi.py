"""For `hypercorn -k trio trio_sse_proxy.asgi:app`: settings from the environment and the file it names.

`trio-sse-proxy serve` does more: it drains by its own signals, ends writes that are stuck, and makes
cuts visible on HTTP/2. Behind another server the connection's own address decides what loopback is.
"""

from __future__ import annotations

import os

from .config import load
from .logs import log_as_json
from .settings_error import SettingsError
from .wiring import Proxy


def _build() -> Proxy:
    try:
        settings = load(None, {}, os.environ)
    except SettingsError as error:
        raise SystemExit(f"trio-sse-proxy: {error}") from None
    log_as_json(settings.log_level)
    return Proxy(settings, check_door=True)


app = _build()
