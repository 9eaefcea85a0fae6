"""Frames as upstreams send them, for the tests of all three dialects."""

from __future__ import annotations

import json


def data(value, *, event: str | None = None, separators=(",", ":")) -> bytes:
    name = f"event: {event}\n" if event else ""
    body = value if isinstance(value, str) else json.dumps(value, separators=separators)
    return f"{name}data: {body}\n\n".encode()


def chunk(*choices, **more) -> bytes:
    """A Chat chunk."""
    whole = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return data({**whole, "choices": list(choices), **more})


def choice(delta=None, finish=None, index=0, **more):
    return {"index": index, "delta": delta or {}, "finish_reason": finish, **more}


def event(kind: str, **more) -> bytes:
    """An event of Responses or Messages."""
    return data({"type": kind, **more}, event=kind)


def payloads(frames: bytes) -> list[tuple[str | None, dict]]:
    """Name and JSON of each frame, read by the plainest of parsers."""
    found = []
    for frame in frames.decode().removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.split("\n"))
        found.append((lines.get("event"), json.loads(lines["data"])))
    return found
