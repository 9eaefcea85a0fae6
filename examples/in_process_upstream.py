"""An upstream that is no server but a piece of this program: a model one calls in a task.

    python examples/in_process_upstream.py [HOST:PORT]
    curl -N http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \
        -d '{"model": "echo", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'

The proxy gives it what it gives any upstream: heartbeats while it thinks, one clean stream, and word,
by cancelling its task, that nobody wants the answer any more.
"""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from serving import run

from trio_sse_proxy import Call, Proxy, Settings, UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

THINKING = 1.0  # seconds
STEP = 0.05  # seconds for one word


class Echo:
    """Says the last message back, a word at a time (see ports.Upstream)."""

    name = "echo"

    @asynccontextmanager
    async def open(self, request: UpstreamRequest, call: Call) -> AsyncGenerator[EchoAnswer]:
        """A cancellation in here, or leaving early, means: stop, nobody listens any more."""
        answer = EchoAnswer(words_of(request))
        try:
            yield answer
        finally:
            answer.release()


class EchoAnswer:
    """One answer on its way (see ports.Answer)."""

    status = 200
    headers = ((b"content-type", b"text/event-stream"),)

    def __init__(self, words: list[str]) -> None:
        self._frames = [frame({"content": word + " "}) for word in words]
        self._frames += [frame({}, "stop"), b"data: [DONE]\n\n", b""]
        self._wait = THINKING
        self._released = False
        self._step = trio.CancelScope()

    async def receive(self) -> bytes:
        """The next frame; b"" at the end, and once nobody listens."""
        with trio.CancelScope() as self._step:
            if self._released:
                self._step.cancel()
            await trio.sleep(self._wait)
        self._wait = STEP
        return b"" if self._released else self._frames.pop(0)

    def release(self) -> None:
        """Stop working; this may come from any task, and more than once."""
        self._released = True
        self._step.cancel()


def words_of(request: UpstreamRequest) -> list[str]:
    """The words of the last message; it is a demonstration, so everything else is no words."""
    body: Any = json.loads(request.body) if isinstance(request.body, bytes) else {}
    return str(body["messages"][-1]["content"]).split() if body.get("messages") else []


def frame(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """One chunk of Chat Completions."""
    chunk = {
        "id": "chatcmpl-echo",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "echo",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


app = Proxy(Settings(heartbeat=1.0), upstream=Echo(), check_door=True)

if __name__ == "__main__":
    run(app, *sys.argv[1:])
