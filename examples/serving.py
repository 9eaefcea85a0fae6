"""What the other examples share: any ASGI application, served by Hypercorn under trio.

On the command line that would be `hypercorn -k trio MODULE:app`.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def run(app: ASGIApp, bind: str = "127.0.0.1:8000") -> None:
    """Serve `app` on `bind` until SIGINT or SIGTERM."""
    config = Config()
    config.bind = [bind]
    config.include_server_header = config.include_date_header = False  # those are the upstream's
    trio.run(serve_until_signalled, app, config)


async def serve_until_signalled(app: ASGIApp, config: Config) -> None:
    """Serve until somebody asks to stop, then let Hypercorn finish."""
    await serve(cast("Any", app), config, shutdown_trigger=wait_for_signal)


async def wait_for_signal() -> None:
    """Return once SIGINT or SIGTERM has come."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return
