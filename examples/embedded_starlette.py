"""The proxy as part of a Starlette application, below a prefix of its own.

    python examples/embedded_starlette.py [HOST:PORT]
    curl -N http://127.0.0.1:8000/llm/v1/chat/completions -H 'content-type: application/json' \
        -d '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'

Starlette does not run the lifespan of a mounted application, so its own is told to run the proxy's.
Host, Origin and client keys are the application's business here: the proxy does not check them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from serving import run
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trio_sse_proxy import Proxy, Settings

if TYPE_CHECKING:
    from starlette.requests import Request

# In earnest: Settings(upstreams=[Upstream(base_url="https://api.deepseek.com")]).
# Without an upstream the built-in demo answers.
proxy = Proxy(Settings(heartbeat=2.0))


async def greet(_: Request) -> PlainTextResponse:
    """Whatever else the application does."""
    return PlainTextResponse("POST to /llm/v1/chat/completions\n")


app = Starlette(
    routes=[Route("/", greet), Mount("/llm", proxy)],
    lifespan=proxy.lifespan,
)

if __name__ == "__main__":
    run(app, *sys.argv[1:])
