"""Frames as upstreams send them, and requests as clients do."""

from __future__ import annotations

import json

BEAT = b": hb\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
DONE = b"data: [DONE]\n\n"


def unnamed(value) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def named(kind: str, **more) -> bytes:
    body = json.dumps({"type": kind, **more}, separators=(",", ":"))
    return f"event: {kind}\ndata: {body}\n\n".encode()


def chunk(delta, finish=None, **more) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return unnamed({"id": "c1", "object": "chat.completion.chunk", "choices": choices, **more})


ROLE = chunk({"role": "assistant", "content": ""})
FINISH = chunk({}, "stop")
CHAT_ERROR = unnamed({"error": {"message": "try later", "type": "server_error", "code": 503}})


def text(words: str) -> bytes:
    return chunk({"content": words})


def usage(**counts) -> bytes:
    return unnamed({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": counts})


HELLO = text("hello")
WHOLE = (ROLE, HELLO, FINISH, DONE)
"""A complete Chat stream."""

CREATED = named("response.created", sequence_number=0, response={"id": "r1", "output": []})
DELTA = named("response.output_text.delta", sequence_number=1, delta="hello")
FAILED = named(
    "response.failed",
    sequence_number=3,
    response={"id": "r1", "status": "failed", "error": {"code": "server_error", "message": "no"}},
)
RESPONSES_ERROR = named(
    "error",
    sequence_number=2,
    error={"type": "server_error", "code": "server_error", "message": "no"},
)
COMPLETED = named("response.completed", sequence_number=2, response={"id": "r1", "usage": None})

MESSAGE_START = named("message_start", message={"id": "m1", "usage": {"input_tokens": 7}})
BLOCK_START = named("content_block_start", index=0, content_block={"type": "text", "text": ""})
BLOCK_DELTA = named("content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"})
BLOCK_STOP = named("content_block_stop", index=0)
MESSAGE_DELTA = named(
    "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5}
)
MESSAGE_STOP = named("message_stop")
OVERLOADED = named("error", error={"type": "overloaded_error", "message": "busy"})

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def wish(**more) -> bytes:
    """A request body that asks for a stream."""
    return json.dumps({"model": "m", "stream": True, **more}).encode()


def json_in(frame: bytes):
    """The JSON of one frame's data line."""
    line = next(line for line in frame.split(b"\n") if line.startswith(b"data: "))
    return json.loads(line.removeprefix(b"data: "))


def events_in(body: bytes) -> list:
    """The JSON of every data frame of a body, in order; comments and [DONE] left out."""
    found = []
    for frame in body.split(b"\n\n"):
        lines = [line for line in frame.split(b"\n") if line.startswith(b"data: {")]
        found += [json.loads(line.removeprefix(b"data: ")) for line in lines]
    return found
