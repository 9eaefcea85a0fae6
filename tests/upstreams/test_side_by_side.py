"""httpx's own transport and ours over the same scripted server: what users rely on is the same.

Not compared: a body that is not as long as declared. httpx 0.28 lets h11's own error out, ours is an
httpx.LocalProtocolError (test_transport.py). Where llhttp is stricter than h11 (bare line feeds,
folded fields, a length beside chunked) stands in test_reply.py.
"""

from __future__ import annotations

import httpx
import pytest
import trio
from patience import PATIENCE

from trio_sse_proxy.upstreams.transport import TrioTransport

from .servers import CHUNKED, Requests, answer, closed_port, reset, serving

pytestmark = [pytest.mark.slow, pytest.mark.steady]


def saying(*pieces, then=None):
    """After each request send `pieces`, then do `then(stream)` and stop."""

    async def script(stream):
        requests = Requests(stream)
        while await requests.whole() is not None:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.sleep(0.005)
            if then is not None:
                then(stream)
                return

    return script


def close(stream):
    stream.socket.close()


async def echo(stream):
    """Answers with the request line and the body it got, and how the body was framed."""
    requests = Requests(stream)
    while (request := await requests.whole()) is not None:
        head, body = request
        framing = b"chunked" if b"chunked" in head.lower() else b"length"
        line = head.split(b"\r\n")[0]
        await stream.send_all(answer(b"|".join([line, framing, body])))


async def redirect(stream):
    requests = Requests(stream)
    while (request := await requests.whole()) is not None:
        if request[0].startswith(b"GET /end"):
            await stream.send_all(answer(b"arrived"))
        else:
            await stream.send_all(answer(b"", status=b"302 Found", fields=b"Location: /end\r\n"))


async def silent(stream):
    await trio.sleep_forever()


async def pieces():
    for part in (b"one", b"two"):
        await trio.lowlevel.checkpoint()
        yield part


async def get(client, url):
    return await client.get(url)


async def head(client, url):
    return await client.head(url)


async def post(client, url):
    return await client.post(url, content=b"payload")


async def post_json(client, url):
    return await client.post(url, json={"a": [1, 2]})


async def post_pieces(client, url):
    return await client.post(url, content=pieces())


async def post_sized_pieces(client, url):
    return await client.post(url, content=pieces(), headers={"Content-Length": "6"})


async def post_large(client, url):
    return await client.post(url, content=b"x" * 3_000_000)


async def post_files(client, url):
    return await client.put(url, files={"f": b"data"}, headers={"Content-Type": BOUNDARY})


BOUNDARY = "multipart/form-data; boundary=xyz"


async def follow(client, url):
    return await client.get(url, follow_redirects=True)


async def impatient(client, url):
    return await client.get(url, timeout=httpx.Timeout(None, read=0.05))


async def injecting(client, url):
    return await client.get(url, headers=[(b"X", b"a\r\nb: c")])


async def raw_target(client, url):
    return await client.get(url, extensions={"target": b"/%7Ea//../b?x=%20"})


async def elsewhere(client, url):
    return await client.get(f"http://127.0.0.1:{closed_port()}/")


async def other_protocol(client, url):
    return await client.get("ftp://127.0.0.1/")


GZIPPED = bytes.fromhex("1f8b0800000000000003cb48cdc9c9070086a6103605000000")

CASES = {
    "get": (get, saying(answer())),
    "get twice on one connection": (get, echo),
    "chunked": (get, saying(CHUNKED, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n")),
    "until close": (get, saying(b"HTTP/1.1 200 OK\r\n\r\n", b"abc", then=close)),
    "http/1.0": (get, saying(b"HTTP/1.0 200 OK\r\n\r\nabc", then=close)),
    "no content": (get, saying(b"HTTP/1.1 204 No Content\r\n\r\n")),
    "not modified": (get, saying(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")),
    "head": (head, saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")),
    "interim": (get, saying(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer())),
    "duplicates": (get, saying(answer(fields=b"Set-Cookie: a=1\r\nX: y\r\nset-cookie: b=2\r\n"))),
    "latin-1 fields": (get, saying(answer(fields=b"X-Name: caf\xe9\r\nEmpty:\r\n"))),
    "gzip": (get, saying(answer(GZIPPED, fields=b"Content-Encoding: gzip\r\n"))),
    "server error": (get, saying(answer(b"oops", status=b"503 Odd Reason"))),
    "post": (post, echo),
    "post json": (post_json, echo),
    "post pieces": (post_pieces, echo),
    "post sized pieces": (post_sized_pieces, echo),
    "post large": (post_large, echo),
    "post files": (post_files, echo),
    "raw target": (raw_target, echo),
    "redirect": (follow, redirect),
    "connection refused": (elsewhere, echo),
    "other protocol": (other_protocol, echo),
    "closed before the answer": (get, saying(then=close)),
    "closed in the head": (get, saying(b"HTTP/1.1 200 OK\r\nX", then=close)),
    "closed in a sized body": (get, saying(answer()[:-2], then=close)),
    "closed in a chunked body": (get, saying(CHUNKED, b"3\r\nabc\r\n", then=close)),
    "reset before the answer": (get, saying(then=reset)),
    "reset in the body": (get, saying(CHUNKED, b"3\r\nabc\r\n", then=reset)),
    "not http": (get, saying(b"SSH-2.0-OpenSSH_9\r\n\r\n")),
    "bad chunk": (get, saying(CHUNKED, b"zz\r\n\r\n")),
    "unknown transfer coding": (
        get,
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", then=close),
    ),
    "read timeout before the head": (impatient, silent),
    "read timeout in the body": (impatient, saying(CHUNKED, b"3\r\nabc\r\n")),
    "header injection": (injecting, echo),
}


async def outcome(transport, ask, script):
    """Status, reason, version, headers and body of two requests in a row, or the error's type."""
    seen = []
    client = httpx.AsyncClient(transport=transport, timeout=PATIENCE)
    async with serving(script) as port, client:
        for _ in range(2):
            try:
                response = await ask(client, f"http://127.0.0.1:{port}/start")
            except httpx.HTTPError as error:
                seen.append((type(error), error.request.method))
            else:
                seen.append(
                    (
                        response.status_code,
                        response.reason_phrase,
                        response.http_version,
                        response.headers.raw,
                        response.content,
                        [each.status_code for each in response.history],
                    )
                )
    return seen


@pytest.mark.parametrize("name", CASES)
async def test_both_transports_tell_the_same(name):
    ask, script = CASES[name]
    with trio.fail_after(PATIENCE):
        ours = await outcome(TrioTransport(), ask, script)
        theirs = await outcome(httpx.AsyncHTTPTransport(), ask, script)
    assert ours == theirs


@pytest.mark.parametrize("make", [TrioTransport, httpx.AsyncHTTPTransport])
async def test_the_connect_and_pool_timeouts_are_httpx_own(make):
    async def queued(client, url):
        async with client.stream("GET", url):
            await client.get(url, timeout=httpx.Timeout(None, pool=0.05))

    limits = {"max_connections": 1}
    if make is httpx.AsyncHTTPTransport:
        limits = {"limits": httpx.Limits(max_connections=1)}
    async with (
        serving(saying(CHUNKED)) as port,
        httpx.AsyncClient(transport=make(**limits), timeout=PATIENCE) as client,
    ):
        with pytest.raises(httpx.PoolTimeout):
            await queued(client, f"http://127.0.0.1:{port}/")
