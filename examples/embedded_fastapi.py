"""The proxy behind a FastAPI application that knows its users.

    python examples/embedded_fastapi.py [HOST:PORT]
    curl -N http://127.0.0.1:8000/llm/v1/messages -H 'x-api-key: alice' \
        -H 'content-type: application/json' \
        -d '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'

FastAPI's dependencies do not reach a mounted application. A small ASGI application in front of the
proxy does, and costs a stream nothing: it looks at the request once and then steps aside.
(A middleware made with `BaseHTTPMiddleware` would put a queue into every stream: do not use one.)
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from serving import run
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from trio_sse_proxy import Proxy, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp, Receive, Scope, Send

USERS = {"alice": "Alice", "bob": "Bob"}  # by key; in earnest, from a database


class UsersOnly:
    """Lets those through whose key we know."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http" and Headers(scope=scope).get("x-api-key") not in USERS:
            await PlainTextResponse("who are you?\n", 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)


proxy = Proxy(Settings())


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """What the application opens for itself goes here too."""
    async with proxy.running():
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/users")
def list_users() -> list[str]:
    """Whatever else the application does."""
    return sorted(USERS.values())


app.mount("/llm", UsersOnly(proxy))

if __name__ == "__main__":
    run(app, *sys.argv[1:])
