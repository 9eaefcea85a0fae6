"""An ASGI client at virtual time: it uploads, reads, stops reading and leaves when it is told."""

from __future__ import annotations

from math import inf

import trio

from trio_sse_proxy.wire import CONNECTION, Written


class Client:
    """One request's client.

    `upload` are the pieces of the body with the seconds to wait before each. `leaves_at`: when it
    disconnects. `stuck_from`: from when on it reads nothing; a write then waits until it leaves or
    the connection is aborted, under a shield if `shielded`, as servers do. `slow`: seconds each
    write of a body takes.
    """

    def __init__(
        self,
        *upload,
        leaves_at=inf,
        leaves_on=None,
        stuck_from=inf,
        shielded=False,
        slow=0.0,
        headers=(),
    ) -> None:
        self._upload = [(0.0, piece) if isinstance(piece, bytes) else piece for piece in upload]
        self._leaves_at = leaves_at
        self._leaves_on = leaves_on
        self._stuck_from = stuck_from
        self._shielded = shielded
        self._slow = slow
        self.headers = tuple(headers)
        self.messages: list[tuple[float, dict]] = []
        self.uploaded = trio.Event()
        self.left = trio.Event()
        self.aborted_at: float | None = None
        self._gone = trio.Event()  # left, or aborted
        self.state = {CONNECTION: self}

    # What the application sees.

    async def receive(self):
        if self._upload:
            wait, piece = self._upload[0]
            if await self._gone_within(wait):
                return {"type": "http.disconnect"}
            self._upload.pop(0)
            if not self._upload:
                self.uploaded.set()
            return {"type": "http.request", "body": piece, "more_body": bool(self._upload)}
        await self._gone_within(inf)
        return {"type": "http.disconnect"}

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        if trio.current_time() >= self._stuck_from:
            with trio.CancelScope(shield=self._shielded):
                await self._gone.wait()
            return
        if self._gone.is_set():
            return
        if message["type"] == "http.response.start":
            assert not self.started, "a response begins once"
        else:
            assert self.started, "the body comes after the headers"
            assert not self.ended, "nothing follows the end of the body"
            if self._slow:
                await trio.sleep(self._slow)
        self.messages.append((trio.current_time(), message))
        if self._leaves_on is not None and self._leaves_on in message.get("body", b""):
            self.leave()

    def abort(self) -> None:
        """See wire.ClientConnection."""
        self.aborted_at = trio.current_time()
        self._gone.set()

    def begin_now(self, status, headers, *, followed):
        return False

    def write_now(self, body: bytes) -> Written:
        """This one is always asked to wait; see test_flow.py for the others."""
        return Written.NOTHING

    def progressed_at(self) -> float:
        return -inf

    def has_end(self) -> bool:
        return False

    def left_early(self) -> bool:
        return False

    def is_gone(self) -> bool:
        return self._gone.is_set() or trio.current_time() >= self._leaves_at

    # What the test does and sees.

    def leave(self) -> None:
        self.left.set()
        self._gone.set()

    async def _gone_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds), trio.CancelScope(deadline=self._leaves_at):
            await self._gone.wait()
        if trio.current_time() >= self._leaves_at:
            self.leave()
        return self._gone.is_set()

    @property
    def started(self) -> bool:
        return any(message["type"] == "http.response.start" for _, message in self.messages)

    @property
    def ended(self) -> bool:
        return any(message.get("more_body") is False for _, message in self.messages)

    @property
    def cut(self) -> bool:
        """True if the response began and was left without its end."""
        return self.started and not self.ended

    @property
    def status(self) -> int | None:
        return self._start()["status"] if self.started else None

    @property
    def response_headers(self) -> dict[bytes, bytes]:
        return dict(self._start()["headers"])

    @property
    def committed_at(self) -> float:
        return next(at for at, message in self.messages if message["type"].endswith("start"))

    @property
    def ended_at(self) -> float:
        return next(at for at, message in self.messages if message.get("more_body") is False)

    @property
    def pieces(self) -> list[tuple[float, bytes]]:
        """What came of the body, with its instants; empty writes left out."""
        return [(at, m["body"]) for at, m in self.messages if m.get("body")]

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def times_of(self, frame: bytes) -> list[float]:
        return [at for at, piece in self.pieces if piece == frame]

    def _start(self) -> dict:
        return next(message for _, message in self.messages if message["type"].endswith("start"))
