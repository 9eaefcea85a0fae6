"""A model server with switches, over memory streams: it plays the servers that probes meet."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import trio
from upstreams.servers import Requests

HELLO = "OK."
_CALLED = {"type": "custom_tool_call", "call_id": "c", "name": "note", "input": ""}


@dataclass
class Player:
    """What it speaks, takes and tells. `asked` are the bodies it got, by path."""

    dialects: tuple = ("chat",)
    models: tuple = ("tiny-embed", "tiny")
    owner: str = "somebody"
    server: str = ""
    key: str = ""
    refuses: tuple = ()  # fields of Chat
    names_what_it_refuses: bool = True
    developer: bool = True
    usage: str = "asked"  # asked, always, never
    reasoning: str = ""  # the field it comes in, or "<think>"
    calls: int = 2
    ids: bool = True
    images: bool = True
    wants_reasoning_back: bool = False
    wants_content: bool = False
    wants_short_ids: bool = False
    custom_tools: str = "called"  # called, ignored, refused: on Responses
    system_first: bool = False  # on Messages
    hangs_up: bool = False  # behind each stream, without having said so
    terminator: bool = True
    metrics: str = ""  # the name of the count of what runs, or "slots"
    notices: bool = True  # that somebody left
    streams: bool = True
    everything: bytes = b""  # the one answer it has, whatever is asked
    silent: bool = False
    silent_after: int = 10_000  # so many requests
    status: int = 0  # of every POST, if it is one
    asked: list = field(default_factory=list)
    running: int = 0

    async def play(self, stream):
        """One connection."""
        requests = Requests(stream)
        while (got := await requests.whole()) is not None:
            head, body = got
            line, _, fields = head.decode().partition("\r\n")
            method, path, _ = line.split(" ")
            if self.silent or len(self.asked) >= self.silent_after:
                await trio.sleep_forever()
            self.asked.append((path, json.loads(body) if body else None, fields.lower()))
            await self._answer(stream, method, path, self.asked[-1][1], fields.lower())
            if self.hangs_up and body and json.loads(body).get("stream"):
                await (
                    requests.fill()
                )  # too late for whoever thought that the connection could be used
                return

    async def _answer(self, stream, method, path, body, fields):
        if self.everything:
            await self._send(stream, 200, self.everything, "text/html")
        elif path in ("/metrics", "/slots"):
            await self._count(stream, path)
        elif (
            self.key
            and f"bearer {self.key}" not in fields
            and f"x-api-key: {self.key}" not in fields
        ):
            await self._error(stream, 401, f"Incorrect API key in: {fields}")
        elif path == "/v1/models":
            listed = [{"id": name, "owned_by": self.owner} for name in self.models]
            await self._send(stream, 200 if listed else 404, json.dumps({"data": listed}).encode())
        elif self.status:
            await self._error(stream, self.status, "not now")
        elif path == "/v1/chat/completions" and "chat" in self.dialects:
            await self._chat(stream, body)
        elif path == "/v1/responses" and "responses" in self.dialects:
            await self._responses(stream, body)
        elif path == "/v1/messages" and "messages" in self.dialects:
            assert "anthropic-version" in fields
            roles = [message["role"] for message in body["messages"]]
            if self.system_first and "system" in roles:
                await self._error(stream, 400, "a system message comes first")
            else:
                await self._events(stream, [{"type": "message_start"}, {"type": "message_stop"}])
        else:
            await self._send(stream, 404, b'{"detail": "Not Found"}')

    async def _chat(self, stream, body):
        problem = self._problem(body)
        if problem:
            await self._error(stream, 400, problem)
        elif body["model"] not in self.models:
            await self._error(stream, 404, "no such model")
        elif not body.get("stream") or not self.streams:
            message = {"role": "assistant", "content": HELLO}
            told = {"choices": [{"index": 0, "message": message}], "usage": {"prompt_tokens": 1}}
            await self._send(stream, 200, json.dumps(told).encode())
        elif "500" in json.dumps(body["messages"]):
            await self._for_long(stream)
        else:
            await self._events(stream, self._chunks(body), done=self.terminator)

    async def _responses(self, stream, body):
        called = []
        if "tools" in body:
            if self.custom_tools == "refused":
                await self._error(stream, 400, "Cannot determine type of 'item'")
                return
            if self.custom_tools == "called":
                called = [{"type": "response.output_item.added", "item": _CALLED}]
        told = [{"type": "response.created"}, *called, {"type": "response.completed"}]
        await self._events(stream, told)

    def _problem(self, body):
        for name in self.refuses:
            if name in body:
                return f"Unsupported parameter: {name}" if self.names_what_it_refuses else "no"
        roles = [message["role"] for message in body["messages"]]
        if "developer" in roles and not self.developer:
            return "unknown role"
        if "image_url" in json.dumps(body["messages"]) and not self.images:
            return "this is no multimodal model"
        for message in body["messages"]:
            if message["role"] != "assistant":
                continue
            if self.wants_short_ids and len(message["tool_calls"][0]["id"]) != 9:
                return "Tool call id must be a-z, A-Z, 0-9, with a length of 9."
            if self.wants_reasoning_back and "reasoning_content" not in message:
                return "The `reasoning_content` must be passed back to the API."
            if self.wants_content and not isinstance(message.get("content"), str):
                return "content: field required"
        return ""

    def _chunks(self, body):
        deltas = [{"role": "assistant", "content": ""}]
        if self.reasoning == "<think>":
            deltas.append({"content": "<think>hm</think>"})
        elif self.reasoning:
            deltas.append({self.reasoning: "hm"})
        if "tools" in body and self.calls:
            for index in range(self.calls):
                call = {"index": index, "function": {"name": "get_weather", "arguments": "{"}}
                more = {"id": f"call_{index}", "type": "function"} if self.ids else {}
                deltas.append({"tool_calls": [call | more]})
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": "}"}}]})
        else:
            deltas.append({"content": HELLO})
        chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        asked = body.get("stream_options", {}).get("include_usage")
        if self.usage == "always" or (self.usage == "asked" and asked):
            chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
        return chunks

    async def _events(self, stream, events, *, done=False):
        told = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
        await self._send(stream, 200, told + b"data: [DONE]\n\n" * done, "text/event-stream")

    async def _for_long(self, stream):
        self.running += 1
        try:
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            )
            for _ in range(60):
                await stream.send_all(
                    b'data: {"choices":[{"index":0,"delta":{"content":"one "}}]}\n\n'
                )
                await trio.sleep(0.1)
        except trio.BrokenResourceError:
            pass
        if not self.notices:
            await trio.sleep(60)
        self.running -= 1

    async def _count(self, stream, path):
        if path == "/slots" and self.metrics == "slots":
            slots = [{"id": n, "is_processing": n < self.running} for n in range(2)]
            await self._send(stream, 200, json.dumps(slots).encode())
        elif path == "/metrics" and self.metrics not in ("", "slots"):
            told = f'# TYPE x gauge\n{self.metrics}{{engine="0"}} {self.running:.1f}\n'
            await self._send(stream, 200, told.encode(), "text/plain")
        else:
            await self._send(stream, 404, b"")

    async def _error(self, stream, status, message):
        told = {"error": {"message": message, "type": "invalid_request_error"}}
        await self._send(stream, status, json.dumps(told).encode())

    async def _send(self, stream, status, body, kind="application/json"):
        server = f"Server: {self.server}\r\n" if self.server else ""
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{server}Content-Length: {len(body)}"
        await stream.send_all(head.encode() + b"\r\n\r\n" + body)
