"""What is on the wire: realistic frames, and orders to the upstream inside the prompt.

An output frame is a chat completion chunk of exactly 200 bytes whose content is `@` and the instant
of its writing. The `@` stands nowhere else in a stream: counting it in raw bytes counts frames,
however a proxy has cut or chunked them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FRAME_SIZE = 200  # bytes
MARK = b"@"
DIGITS = 16  # of CLOCK_MONOTONIC in nanoseconds: enough for a hundred days of uptime

_OPENING = (
    b'data: {"id":"chatcmpl-B9MBs8CjcvOU2j%s","object":"chat.completion.chunk",'
    b'"created":1741569952,"model":"bench","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}\n\n'
)
_FILL = b"Ln4n570S5qMJKcT0123456789"
_CONTENT = b'{"content":"@%s"}'
_BARE = len(_OPENING % (b"", _CONTENT % (b"0" * DIGITS), b"null"))
_ID = _FILL[: FRAME_SIZE - _BARE]
_BEFORE, _AFTER = (_OPENING % (_ID, _CONTENT % b"|", b"null")).split(b"|")

PRELUDE = _OPENING % (_ID, b'{"role":"assistant","content":""}', b"null")
FINISH = _OPENING % (_ID, b"{}", b'"stop"') + b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How clients of one dialect ask, and what they see of an answer.

    `done` stands in the last event. `times` is how often an answer tells its text: once in pieces,
    and in some dialects whole, again and again, when all is done.
    """

    path: str
    asks: Callable[[str, str], dict[str, Any]]
    done: bytes
    times: int = 1


def _asks_messages(system: str, user: str) -> dict[str, Any]:
    said = [{"role": "user", "content": user}]
    return {"max_tokens": 4096, "system": system, "messages": said}


WIRES = {
    "chat": Wire(
        path="/v1/chat/completions",
        asks=lambda system, user: {
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ]
        },
        done=b"[DONE]",
    ),
    "responses": Wire(
        path="/v1/responses",
        asks=lambda system, user: {"instructions": system, "input": user},
        done=b"response.completed",
        times=5,  # its deltas; the ends of text, part, item and response
    ),
    "messages": Wire(path="/v1/messages", asks=_asks_messages, done=b"message_stop"),
}


def output_frame(stamp: int) -> bytes:
    """One output frame, written at `stamp` nanoseconds."""
    return b"%b%016d%b" % (_BEFORE, stamp, _AFTER)


def chunked(data: bytes) -> bytes:
    """`data` as one chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the upstream is to do with one request.

    `frames` output frames, one each `interval` seconds, `phase` seconds behind the beat of a clock
    that all streams share. `gated`: once the gate on the board has opened, `phase` being the part of
    the board's `spread` at which it goes on; until then not a byte, headers included. An `interval`
    of 0 sends them in a row at
    once, each with a write of its own. `hose`: for `phase` seconds, or until the client leaves, as
    many frames as there is room for, so many of them with each write.
    """

    frames: int = 0
    interval: float = 0.0
    phase: float = 0.0
    gated: bool = False
    hose: int = 0

    def encode(self) -> str:
        """As a word of a prompt; no character in it is changed by JSON."""
        numbers = (self.frames, self.interval, self.phase, int(self.gated), self.hose)
        return "~" + ";".join(f"{number:.9g}" for number in numbers) + "~"


_SCRIPT = re.compile(rb"~([0-9.e;-]+)~")


def find_script(request: bytes) -> Script | None:
    """The orders in a request's bytes."""
    found = _SCRIPT.search(request)
    if found is None:
        return None
    frames, interval, phase, gated, hose = map(float, found[1].split(b";"))
    return Script(
        frames=int(frames), interval=interval, phase=phase, gated=bool(gated), hose=int(hose)
    )


_SYSTEM = (
    "You are a careful assistant inside an editor. Answer with what was asked for and nothing else. "
) * 8


def request(
    *,
    host: str,
    path: str,
    headers: dict[str, str],
    model: str,
    script: Script,
    dialect: str = "chat",
) -> bytes:
    """The bytes of a streaming request of about a kilobyte."""
    asked = WIRES[dialect].asks(_SYSTEM, script.encode())
    body = json.dumps({"model": model, "stream": True, **asked}).encode()
    fields = {
        "host": host,
        "user-agent": "benchmark",
        "accept": "text/event-stream",
        "authorization": "Bearer sk-benchmark",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
