"""Plays one script onto one connection."""

from __future__ import annotations

import socket
import struct
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio

from .steps import (
    End,
    Fin,
    Frames,
    Hang,
    Headers,
    Pieces,
    Raw,
    Repeat,
    Reset,
    Script,
    Status,
    Step,
    Wait,
)

if TYPE_CHECKING:
    from .inbox import Inbox
    from .visit import Visit

PIECE_GAP = 0.0003  # seconds; enough for a reader to wake between two segments


class Player:
    """The sending half of a connection while one request is answered."""

    def __init__(self, stream: trio.SocketStream, visit: Visit) -> None:
        self._stream = stream
        self._visit = visit
        self._piece: int | None = None
        self._framing: str | int = "close"
        self._gzip: Any = None
        self.reusable = False

    async def play(self, script: Script, inbox: Inbox) -> str:
        """How it ended: "played", or "left" when the client closed the connection before."""
        with trio.CancelScope() as inbox.busy:
            if inbox.left is not None:
                return "left"
            try:
                for step in script:
                    await self._step(step)
            except trio.BrokenResourceError:
                # A reset; this write has used up the error, so the reader may see a mere end.
                inbox.was_reset = True
                await trio.sleep_forever()
            return "played"
        return "left"

    async def _step(self, step: Step) -> None:
        match step:
            case Wait(seconds):
                await trio.sleep(seconds)
            case Status():
                await self._status(step)
            case Headers():
                await self._headers(step)
            case Frames(frames, every):
                for frame in frames:
                    await self._body(frame)
                    if every:
                        await trio.sleep(every)
            case Repeat(frame, every, times):
                await self._repeat(frame, every, times)
            case Raw(data):
                await self._send(data)
            case Pieces(size):
                self._piece = size
            case End():
                await self._end()
            case Fin():
                await self._stream.aclose()
            case Reset():
                self._reset()
            case Hang():
                await trio.sleep_forever()

    async def _status(self, step: Status) -> None:
        fields = (("content-type", step.content_type), ("content-length", str(len(step.body))))
        await self._send(head(step.code, (*fields, *step.fields)) + step.body)
        self.reusable = True

    async def _headers(self, step: Headers) -> None:
        self._framing = step.framing
        fields = [("content-type", step.content_type), *step.fields]
        match step.framing:
            case "chunked":
                fields.append(("transfer-encoding", "chunked"))
            case "close":
                fields.append(("connection", "close"))
            case length:
                fields.append(("content-length", str(length)))
        if step.gzip:
            self._gzip = zlib.compressobj(wbits=31)
            fields.append(("content-encoding", "gzip"))
        await self._send(head(step.code, tuple(fields)))

    async def _repeat(self, frame: bytes, every: float, times: int | None) -> None:
        while times is None or times > 0:
            await self._body(frame)
            await trio.sleep(every)
            times = None if times is None else times - 1

    async def _body(self, data: bytes) -> None:
        if self._gzip:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        await self._framed(data)

    async def _framed(self, data: bytes) -> None:
        if data:
            chunked = self._framing == "chunked"
            await self._send(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)

    async def _end(self) -> None:
        if self._gzip:
            await self._framed(self._gzip.flush())
        if self._framing == "chunked":
            await self._send(b"0\r\n\r\n")
        self.reusable = self._framing != "close"

    async def _send(self, data: bytes) -> None:
        for piece in self._cut(data):
            await self._stream.send_all(piece)
            self._visit.bytes_sent += len(piece)
            if self._piece:
                await trio.sleep(PIECE_GAP)

    def _cut(self, data: bytes) -> list[bytes]:
        size = self._piece or 65536
        return [data[at : at + size] for at in range(0, len(data), size)]

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._stream.socket.close()


def head(code: int, fields: tuple[tuple[str, str], ...]) -> bytes:
    try:
        reason = HTTPStatus(code).phrase
    except ValueError:
        reason = "Overloaded"
    lines = [f"HTTP/1.1 {code} {reason}", *(f"{name}: {value}" for name, value in fields)]
    lines.append("x-request-id: scripted")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
