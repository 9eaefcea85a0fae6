"""A proxy over several upstreams: hosts in memory below real HTTP upstreams, and scripted ones."""

from __future__ import annotations

import json

import trio
from relay.frames import ROLE, WHOLE, text, wish
from relay.scripted_client import Client
from relay.scripted_upstream import ScriptedUpstream
from upstreams.servers import CHUNKED, MemoryUpstream, Requests, answer

from trio_sse_proxy.upstreams.transport import TrioTransport

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"


def scripted(name, *attempts):
    """An embedder's own upstream; see relay.scripted_upstream."""
    upstream = ScriptedUpstream(*attempts)
    upstream.name = name
    return upstream


async def ask(proxy, *, model="m", client=None, method="POST", path=CHAT, headers=(), query=b""):
    """One request to its end; the client."""
    client = client or Client(wish(model=model) if method == "POST" else b"", headers=headers)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": list(client.headers),
        "server": ("127.0.0.1", 80),
        "state": client.state,
    }
    await proxy(scope, client.receive, client.send)
    return client


def event_stream(*frames):
    """An answer that is one, over HTTP/1.1."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames)
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")
    return head + body + b"0\r\n\r\n"


def listed(*names, **more):
    """An answer to `GET /v1/models`."""
    return answer(json.dumps({"data": [{"id": name} for name in names], **more}).encode())


GOOD = event_stream(*WHOLE)


class Network:
    """Hosts by name. `hosts` holds what each answers: bytes, or a function of head and body.

    `got` are the requests: (host, head, body). `open` counts connections that are there.
    """

    def __init__(self, nursery, monkeypatch, **hosts):
        self.nursery = nursery
        self.hosts = hosts
        self.got = []
        self.open = dict.fromkeys(hosts, 0)
        self.made = []
        monkeypatch.setattr("trio_sse_proxy.making.open_transport", self._transport)

    def _transport(self, **options):
        self.made.append(options)
        return TrioTransport(connect=self._connect)

    async def _connect(self, origin, within):
        async def script(stream):
            self.open[origin.host] += 1
            try:
                await self._serve(origin.host, stream)
            finally:
                self.open[origin.host] -= 1

        return await MemoryUpstream(self.nursery, script).connect(origin, within)

    async def _serve(self, host, stream):
        requests = Requests(stream)
        while (whole := await requests.whole()) is not None:
            self.got.append((host, *whole))
            reply = self.hosts[host]
            if callable(reply):
                await reply(stream)
            else:
                await stream.send_all(reply)

    def heads_of(self, host):
        return [head.decode() for got, head, _ in self.got if got == host]

    def bodies_of(self, host):
        return [body for got, _, body in self.got if got == host]


def slow_stream(begun, finish):
    """A host's answer that begins, and ends when `finish` is set."""

    async def reply(stream):
        whole = event_stream(ROLE, text("first"), *WHOLE[2:])
        cut = whole.index(b"first") + 20
        cut = whole.index(b"\n\n", cut) + 2
        await stream.send_all(whole[:cut])
        begun.set()
        await finish.wait()
        await stream.send_all(whole[cut:])

    return reply


async def settled():
    await trio.testing.wait_all_tasks_blocked()
