"""Answers that no upstream should give; each is what one request for its name gets."""

from __future__ import annotations

import json
import zlib

from scripted.scenarios import SCENARIOS
from scripted.steps import End, Fin, Frames, Hang, Headers, Raw, Repeat, Script

OK = b"HTTP/1.1 200 OK\r\n"
STREAM = OK + b"content-type: text/event-stream\r\n"
CHUNKED = STREAM + b"transfer-encoding: chunked\r\n\r\n"
JSON = OK + b"content-type: application/json\r\n"


def token(text: str) -> bytes:
    """One frame of output."""
    delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps({"object": "chat.completion.chunk"} | delta).encode() + b"\n\n"


TOKEN = token("hello ")
MIB = 2**20


def bomb(times: int) -> bytes:
    """A gzip body of `times` MiB of zeros."""
    engine, piece = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(MIB)
    return b"".join(engine.compress(piece) for _ in range(times)) + engine.flush()


def exploding(head: bytes, times: int) -> Script:
    """An answer that decodes to so many MiB: one frame without an end, or no JSON."""
    return (Raw(head + b"content-encoding: gzip\r\nconnection: close\r\n\r\n" + bomb(times)), Fin())


def after_output(*steps: object) -> Script:
    """A stream that has begun well."""
    return (Headers(), Frames((TOKEN,)), *steps)  # type: ignore[return-value]


SCRIPTS: dict[str, Script] = {
    "endless headers": (Raw(OK), Repeat(b"x-%b: y\r\n" % (b"n" * 60) * 500), Hang()),
    "endless header line": (Raw(OK + b"x: "), Repeat(b"y" * 65536), Hang()),
    "endless status line": (Raw(b"HTTP/1.1 200 "), Repeat(b"O" * 65536), Hang()),
    "garbage status line": (Raw(b"HTTP/9.9 two-hundred\x00\r\n\r\n"), Hang()),
    "1xx flood": (Repeat(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100), Hang()),
    "endless chunk extension": (Raw(CHUNKED + b"5;"), Repeat(b"e" * 65536), Hang()),
    "endless comments": (Headers(), Repeat(b": x\n\n" * 10_000), Hang()),
    "endless comments after output": after_output(Repeat(b": x\n\n" * 10_000), Hang()),
    "frame without end": after_output(Frames((b"data: ",)), Repeat(b"x" * 65536), Hang()),
    "frame without end at once": (Headers(), Frames((b"data: ",)), Repeat(b"x" * 65536), Hang()),
    "endless trailers": (
        Raw(CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(TOKEN), TOKEN)),
        Repeat(b"x-%b: y\r\n" % (b"n" * 60) * 500),
        Hang(),
    ),
    "length too long": (
        Raw(STREAM + b"content-length: 1000000\r\n\r\n" + TOKEN + b"data: [DONE]"),
        Fin(),
    ),
    "length too short": (
        Raw(STREAM + b"content-length: 20\r\n\r\n" + TOKEN + b"data: [DONE]\n\n"),
        Hang(),
    ),
    "two lengths": (Raw(JSON + b"content-length: 2\r\ncontent-length: 9\r\n\r\n{}"), Hang()),
    "negative length": (Raw(JSON + b"content-length: -1\r\n\r\n{}"), Hang()),
    "giant length": (Raw(JSON + b"content-length: %b\r\n\r\n{}" % (b"9" * 5000)), Hang()),
    "length beside chunks": (
        Raw(JSON + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        Hang(),
    ),
    "giant retry-after": (
        # Its end is a proper one; what hangs on a connection that is kept would be the next request.
        Raw(b"HTTP/1.1 429 No\r\nretry-after: %b\r\n" % (b"9" * 5000)),
        Raw(b"connection: close\r\ncontent-length: 2\r\n\r\n{}"),
        Hang(),
    ),
    "huge json": (Raw(JSON + b"connection: close\r\n\r\n"), Repeat(b'{"a": 1}' * 8192), Hang()),
    "huge error": (
        Raw(b"HTTP/1.1 500 No\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"),
        Repeat(b'{"a": 1}' * 8192),
        Hang(),
    ),
    "redirect to itself": (
        Raw(b"HTTP/1.1 302 Found\r\nlocation: /v1/chat/completions\r\ncontent-length: 0\r\n\r\n"),
        End(),
    ),
    "tiny chunks": (Raw(CHUNKED), Repeat(b"1\r\n:\r\n" * 10_000), Hang()),
    "tiny frames": after_output(Repeat(b"data:1\n\n" * 8_000), Hang()),
    "deep json": after_output(
        Frames((b'data: {"error": ' + b"[" * 500_000 + b"\n\n",)),
        Repeat(b": x\n\n", every=1.0),
        Hang(),
    ),
}
# name -> what one of so many MiB begins with; to make one takes a while
BOMBS = {"bomb of frames": STREAM, "bomb of json": JSON}


def teach() -> None:
    """Let a scripted upstream of this process play them by name."""
    bombs = {name: exploding(head, 256) for name, head in BOMBS.items()}
    for name, script in (SCRIPTS | bombs).items():
        SCENARIOS[name] = lambda answer, script=script: script
