"""A client in this very process: calls the proxy as an ASGI server would, and looks at what comes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..downstream import Message
    from ..wiring import Proxy

PATH = "/v1/chat/completions"


class Client:
    """One streaming Chat Completions request.

    `say` gets a few words for people about what came. Afterwards the counts tell what the client
    saw: `openings` are the frames that begin an answer, of which a client must see exactly one.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.heartbeats = 0
        self.openings = 0
        self.words = 0
        self.complete = False
        self._say = say
        self._waiting = b""
        self._body = b""
        self._left = trio.Event()

    async def ask(self, proxy: Proxy, prompt: str, *, leave_after: float | None = None) -> None:
        """Send `prompt` and wait for the end of the answer, or leave after so many seconds."""
        message = {"role": "user", "content": prompt}
        request = {"model": "demo", "stream": True, "messages": [message]}
        self._body = json.dumps(request).encode()
        async with trio.open_nursery() as nursery:
            if leave_after is not None:
                nursery.start_soon(self._leave, leave_after)
            await proxy(_scope(), self._receive, self._send)
            nursery.cancel_scope.cancel("the request is over")

    async def _leave(self, after: float) -> None:
        await trio.sleep(after)
        self._say("has had enough, and leaves")
        self._left.set()

    async def _receive(self) -> Message:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self._say(f"gets status {message['status']}")
        elif message["type"] == "http.response.body":
            *frames, self._waiting = (self._waiting + message.get("body", b"")).split(b"\n\n")
            for frame in frames:
                self._look(frame)

    def _look(self, frame: bytes) -> None:
        data = frame.removeprefix(b"data: ")
        if frame.startswith(b":"):
            self.heartbeats += 1
            self._say("gets a heartbeat, and keeps waiting")
        elif data == b"[DONE]":
            self.complete = True
            self._say(f"has the whole answer: {self.words} words, {self.openings} opening")
        else:
            self._read(json.loads(data))

    def _read(self, chunk: dict[str, Any]) -> None:
        for choice in cast("list[dict[str, Any]]", chunk["choices"]):
            delta = choice["delta"]
            self.openings += "role" in delta
            if delta.get("content"):
                self.words += 1
                if self.words == 1:
                    self._say(f"gets the first word: “{delta['content'].strip()} …”")


def _scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"demo"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
    }
