"""A client on a bare socket: it sees bytes, and leaves when and how the test says."""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Self

import h11
from patience import PATIENCE
from scripted.server import HEADER
from scripted.talk import PATHS

RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Reply:
    """`ending` is "complete" (the body ended as HTTP wants it), "cut" or "reset"."""

    status: int
    headers: dict[str, str]
    body: bytes
    ending: str
    seconds: float


class WireClient:
    """One request on one connection."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, model: str, **how: Any) -> Self:
        """See `request`."""
        self.socket.sendall(request(model, **how))
        return self

    def reply(self) -> Reply:
        """Everything up to the end of the body; raises TimeoutError when that does not come."""
        return self.reader().read_all_of(self.socket)

    def reader(self) -> Reader:
        return Reader(self.began)

    def read_until(self, mark: bytes) -> bytes:
        """Raw bytes up to the read that brought `mark`."""
        got = b""
        while mark not in got:
            data = self.socket.recv(65536)
            assert data, f"the connection ended before {mark!r}: {got[-500:]!r}"
            got += data
        return got

    def read_for(self, seconds: float) -> bytes:
        """Raw bytes of the next `seconds`; nothing stays unread."""
        deadline, got = time.monotonic() + seconds, b""
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                got += self.socket.recv(65536)
            except TimeoutError:
                break
        return got

    def leave(self, how: str) -> float:
        """Close the connection by "fin" or "reset"; the instant (time.monotonic)."""
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        now = time.monotonic()
        self.socket.close()
        return now


class Reader:
    """Bytes in, a reply out. No socket in here, so that threads and trio tests share it."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._http = h11.Connection(h11.CLIENT)
        self._http.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        self._http.send(h11.EndOfMessage())
        self._status, self._headers = 0, {}
        self._body = bytearray()

    def read_all_of(self, connection: socket.socket) -> Reply:
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                return self.result("reset")
            if reply := self.receive(data):
                return reply

    def receive(self, data: bytes) -> Reply | None:
        """The reply, once its body has ended one way or the other."""
        self._http.receive_data(data)
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                return self.result("cut")
            match event:
                case h11.Response():
                    self._status = event.status_code
                    self._headers = {k.decode(): v.decode("latin-1") for k, v in event.headers}
                case h11.Data():
                    self._body += event.data
                case h11.EndOfMessage():
                    return self.result("complete")
                case h11.ConnectionClosed():
                    return self.result("cut")
                case h11.NEED_DATA | h11.PAUSED:
                    return None

    def result(self, ending: str) -> Reply:
        seconds = time.monotonic() - self._began
        return Reply(self._status, self._headers, bytes(self._body), ending, seconds)


def request(
    model: str,
    *,
    dialect: str = "chat",
    stream: bool = True,
    scenario: str | None = None,
    **members: object,
) -> bytes:
    """A request for `model`, or for a scenario by the header, so that the model can choose a route."""
    wanted = {"model": model, "stream": stream, "max_tokens": 9} | members
    body = json.dumps(wanted).encode()
    header = "" if scenario is None else f"{HEADER}: {scenario}\r\n"
    head = (
        f"POST {PATHS[dialect]} HTTP/1.1\r\nhost: 127.0.0.1\r\n{header}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
