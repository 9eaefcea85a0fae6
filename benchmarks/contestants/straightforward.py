"""A proxy as one writes it with trio, httpx and hypercorn: a client, a stream, a loop.

python straightforward.py UPSTREAM_URL PORT
"""

import sys

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

DROP = {b"host", b"connection", b"keep-alive", b"te", b"upgrade", b"transfer-encoding"}


class Proxy:
    def __init__(self, base_url):
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
        self.client = httpx.AsyncClient(base_url=base_url, timeout=None, limits=limits)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        headers = [field for field in scope["headers"] if field[0] not in DROP]
        url = httpx.URL(path=scope["path"], query=scope["query_string"])
        async with self.client.stream(
            scope["method"], url, headers=headers, content=body
        ) as response:
            headers = [(n.lower(), v) for n, v in response.headers.raw if n.lower() not in DROP]
            start = {"status": response.status_code, "headers": headers}
            await send({"type": "http.response.start", **start})
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    config = Config()
    config.bind, config.backlog, config.accesslog = [f"127.0.0.1:{sys.argv[2]}"], 4096, None
    trio.run(serve, Proxy(sys.argv[1]), config)
