"""Clients as the application sees them over ASGI: they upload, read, get stuck, and leave anywhere."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from trio_sse_proxy.wire import CONNECTION, Written

from .words import PATHS, ask

if TYPE_CHECKING:
    from .history import Person


class Request:
    """One request of a `Person`, and what came of it, whichever way it goes in."""

    def __init__(self, person: Person, log) -> None:
        self.person = person
        self.log = log
        self.name = f"c{person.number}"
        self.body_sent = ask(
            person.dialect, person.number, stream=person.stream, prompt=person.prompt
        )
        self.behind: Request | None = None
        """Whose answer has to end on its connection before its own can begin."""
        self.began = trio.current_time()
        self.record = None
        self.limits = None
        """Those it was taken on with."""
        self.called_at: float | None = None
        """When the application got it."""
        self.uploaded_at: float | None = None
        self.left_at: float | None = None
        self.aborted_at: float | None = None
        self.let_go_at = inf
        """When its answer had come to an end, or was cut off: over HTTP/2."""
        self.over = trio.Event()
        self.over_at = inf
        """When the application was done with it."""
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[tuple[float, bytes]] = []
        self.got = 0
        """Bytes of the body."""
        self.ended = False
        self.faults: list[str] = []
        self.stuck_at: float | None = None
        """When a write was stuck for the first time."""

    @property
    def read_at(self) -> float | None:
        """When the application had read it to its end."""
        if self.uploaded_at is None or self.called_at is None:
            return None
        return max(self.uploaded_at, self.called_at)

    @property
    def stuck(self) -> bool:
        """A write has been stuck."""
        return self.stuck_at is not None

    def get_stuck(self) -> None:
        if self.stuck_at is None:
            self.stuck_at = trio.current_time()

    @property
    def gone_at(self) -> float:
        """From when on nobody is there; inf if it stayed."""
        return min(at for at in (self.left_at, self.aborted_at, inf) if at is not None)

    @property
    def patient(self) -> bool:
        """It was there to the end, and got what was written."""
        return self.gone_at == inf

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def upload(self) -> list[tuple[float, bytes]]:
        """The pieces of its body, with the seconds before each."""
        size = len(self.body_sent) // len(self.person.upload) + 1
        starts = range(0, len(self.person.upload) * size, size)
        pieces = [self.body_sent[at : at + size] for at in starts]
        return list(zip(self.person.upload, pieces, strict=True))

    def start(self, status: int, headers) -> None:
        """Status and headers have come."""
        if self.status is not None:
            self.faults.append("R6: two responses to one request")
        self.status = status
        self.headers = dict(headers)
        self.log(self.name, "gets status", status)

    def take(self, data: bytes) -> None:
        """A piece of the body has come."""
        if self.status is None or self.ended:
            self.faults.append("R6: a piece of a body outside of a response")
        if data:
            self.pieces.append((trio.current_time(), data))
            self.got += len(data)
            self.log(self.name, "gets", data)

    def end(self) -> None:
        """The end of the body has come."""
        self.ended = True
        self.log(self.name, "has the end")

    def leave(self) -> None:
        """It goes."""
        self.left_at = trio.current_time()
        self.log(self.name, "leaves")

    def cut_off(self) -> None:
        """The proxy has reset it."""
        if self.patient:
            self.aborted_at = trio.current_time()
            if not (self.stuck or self.person.slow or self.ended):
                self.faults.append(f"R6: {self.name} was reset while it read")


class Client(Request):
    """A request over ASGI."""

    def __init__(self, person: Person, stall: float, log) -> None:
        """`stall`: after so many seconds its server gives up a write by itself."""
        super().__init__(person, log)
        self._stall = stall
        self._upload = self.upload()
        self._gone = trio.Event()
        self._rest = b""
        self._room = person.leaves_after

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
            "headers": [
                (b"content-type", b"application/json"),
                (b"user-agent", self.person.agent.encode()),
            ],
            "state": {CONNECTION: self},
        }

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
            self.start(message["status"], message["headers"])
            return
        if self.person.slow:
            await trio.sleep(self.person.slow)
        rest, self._rest = self._rest, b""
        self._swallow(rest + message.get("body", b""))
        if not message.get("more_body", False) and not self._gone.is_set():
            self.end()

    def begin_now(self, status, headers, *, followed):
        return False

    def write_now(self, body: bytes) -> Written:
        if not self.person.quick or self._is_stuck or self._gone.is_set() or self.person.slow:
            return Written.NOTHING
        if len(body) % 5 == 0:
            self._rest += body[3:]
            self._swallow(body[:3])
            return Written.PARTLY
        self._swallow(body)
        return Written.WHOLLY

    def abort(self) -> None:
        self.cut_off()
        self._gone.set()

    def progressed_at(self) -> float:
        return -inf

    def has_end(self) -> bool:
        return False

    def left_early(self) -> bool:
        return False

    def is_gone(self) -> bool:
        return self._gone.is_set()

    def _swallow(self, data: bytes) -> None:
        if len(data) >= self._room:
            data = data[: int(self._room)]
            self._leave()
        self._room -= len(data)
        self.take(data)

    @property
    def _is_stuck(self) -> bool:
        begin = self.began + self.person.stuck_from
        return begin <= trio.current_time() < begin + self.person.stuck_for

    async def _while_stuck(self) -> None:
        if self._is_stuck:
            self.get_stuck()
            until = self.began + self.person.stuck_from + self.person.stuck_for
            given_up_at = trio.current_time() + self._stall
            with trio.CancelScope(shield=self.person.shielded, deadline=min(until, given_up_at)):
                await self._gone.wait()
            if trio.current_time() >= given_up_at:
                self.abort()

    def _leave(self) -> None:
        if self.left_at is None and not self._gone.is_set():
            self.leave()
        self._gone.set()

    async def _is_gone_within(self, seconds: float) -> bool:
        leaves_at = self.began + self.person.leaves_at
        if seconds < inf or leaves_at < inf:
            with trio.move_on_after(seconds), trio.CancelScope(deadline=leaves_at):
                await self._gone.wait()
        else:
            await self._gone.wait()
        if trio.current_time() >= leaves_at:
            self._leave()
        return self._gone.is_set()
