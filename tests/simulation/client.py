"""Clients as the application sees them over ASGI: they upload, read, get stuck, and leave anywhere."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

import trio

from trio_sse_proxy.wire import CONNECTION, Written

from .words import PATHS

if TYPE_CHECKING:
    from .history import Person


class Client:
    """One request of a `Person`."""

    def __init__(self, person: Person, stall: float, log) -> None:
        """`stall`: after so many seconds its server gives up a write by itself."""
        self.person = person
        self._stall = stall
        self._log = log
        self.began = trio.current_time()
        body = json.dumps({"model": f"c{person.number}", "stream": person.stream}).encode()
        size = len(body) // len(person.upload) + 1
        pieces = [body[n * size : (n + 1) * size] for n in range(len(person.upload))]
        self._upload = list(zip(person.upload, pieces, strict=True))
        self._gone = trio.Event()
        self._rest = b""
        self.uploaded_at: float | None = None
        self.left_at: float | None = None
        self.aborted_at: float | None = None
        self.over_at = inf
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[tuple[float, bytes]] = []
        self.ended = False
        self.faults: list[str] = []
        self.stuck = False
        """A write has been stuck."""

    @property
    def scope(self) -> dict:
        path = PATHS[self.person.dialect]
        return {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
            "state": {CONNECTION: self},
        }

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    @property
    def patient(self) -> bool:
        """It was there to the end, and got what was written."""
        return self.left_at is None and self.aborted_at is None and not self._gone.is_set()

    async def receive(self) -> dict:
        if self._upload:
            wait, piece = self._upload[0]
            if await self._is_gone_within(wait):
                return {"type": "http.disconnect"}
            self._upload.pop(0)
            if not self._upload:
                self.uploaded_at = trio.current_time()
            return {"type": "http.request", "body": piece, "more_body": bool(self._upload)}
        await self._is_gone_within(inf)
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        await trio.lowlevel.checkpoint()
        await self._while_stuck()
        if self._gone.is_set():
            return
        if message["type"] == "http.response.start":
            self._start(message)
            return
        if self.person.slow:
            await trio.sleep(self.person.slow)
        if self.status is None or self.ended:
            self.faults.append("R6: a piece of a body outside of a response")
        rest, self._rest = self._rest, b""
        self._take(rest + message.get("body", b""))
        if not message.get("more_body", False) and not self._gone.is_set():
            self.ended = True
            self._log(f"c{self.person.number} has the end")

    def begin_now(self, status, headers, *, followed):
        return False

    def write_now(self, body: bytes) -> Written:
        if not self.person.quick or self._is_stuck or self._gone.is_set() or self.person.slow:
            return Written.NOTHING
        if len(body) % 5 == 0:
            self._rest += body[3:]
            self._take(body[:3])
            return Written.PARTLY
        self._take(body)
        return Written.WHOLLY

    def abort(self) -> None:
        if self.aborted_at is None:
            self.aborted_at = trio.current_time()
        self._gone.set()

    def progressed_at(self) -> float:
        return -inf

    def is_gone(self) -> bool:
        return self._gone.is_set()

    def _start(self, message) -> None:
        if self.status is not None:
            self.faults.append("R6: two responses to one request")
        self.status = message["status"]
        self.headers = dict(message["headers"])
        self._log(f"c{self.person.number} gets status {self.status}")

    def _take(self, data: bytes) -> None:
        room = self.person.leaves_after - sum(len(piece) for _, piece in self.pieces)
        if len(data) >= room:
            data = data[: int(room)]
            self._leave()
        if data:
            self.pieces.append((trio.current_time(), data))
            self._log(f"c{self.person.number} gets {data!r}")

    @property
    def _is_stuck(self) -> bool:
        begin = self.began + self.person.stuck_from
        return begin <= trio.current_time() < begin + self.person.stuck_for

    async def _while_stuck(self) -> None:
        if self._is_stuck:
            self.stuck = True
            until = self.began + self.person.stuck_from + self.person.stuck_for
            given_up_at = trio.current_time() + self._stall
            with trio.CancelScope(shield=self.person.shielded, deadline=min(until, given_up_at)):
                await self._gone.wait()
            if trio.current_time() >= given_up_at:
                self.abort()

    def _leave(self) -> None:
        if self.left_at is None and not self._gone.is_set():
            self.left_at = trio.current_time()
            self._log(f"c{self.person.number} leaves")
        self._gone.set()

    async def _is_gone_within(self, seconds: float) -> bool:
        leaves_at = self.began + self.person.leaves_at
        with trio.move_on_after(seconds), trio.CancelScope(deadline=leaves_at):
            await self._gone.wait()
        if trio.current_time() >= leaves_at:
            self._leave()
        return self._gone.is_set()
