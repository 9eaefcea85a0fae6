"""A client's connection over HTTP/2, in clear text and by prior knowledge."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio

from .line import Line
from .words import PATHS

if TYPE_CHECKING:
    from .client import Request
    from .history import Person

CODES = h2.settings.SettingCodes
RST_STREAM = 3
CONFIG = h2.config.H2Configuration(header_encoding=None)


class Http2Line(Line):
    """A stream for each request, `apart` seconds one after another, all at once on the wire.

    A client that `shuts` its windows reads whatever comes: what is slow, or stuck, is how it lets more
    come. One that leaves `by_stream` takes its first request back, and stays for the others.
    """

    def __init__(self, person: Person, stall: float, log) -> None:
        super().__init__(person, stall, log)
        self._h2 = h2.connection.H2Connection(CONFIG)
        windows = {CODES.INITIAL_WINDOW_SIZE: person.window, CODES.ENABLE_PUSH: 0}
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=windows)
        self._h2.initiate_connection()
        self._outgoing = self._h2.data_to_send()
        self._said: list[Request] = []
        """Whose last byte is in there."""
        self._sent_away = False
        self._nursery: trio.Nursery | None = None
        self._over: set[Request] = set()

    # What the client does.

    async def live(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._ask)
            if self.person.by_stream:
                self._nursery.start_soon(self._take_back_in_time)
            await super().live()
            self._nursery.cancel_scope.cancel("it is over")

    @property
    def leaves_at(self) -> float:
        return inf if self.person.by_stream else super().leaves_at

    async def _ask(self) -> None:
        for request in self.requests:
            if self._sent_away:
                self._over.add(request)
                self._tell()
                continue
            self._h2.send_headers(_stream_of(self, request), _fields(request))
            self._nursery.start_soon(self._upload, request)
            await trio.sleep(self.person.apart)

    async def _upload(self, request: Request) -> None:
        *before, (wait, last) = request.upload()
        for pause, piece in before:
            await trio.sleep(pause)
            await self._send(request, piece, ended=False)
        await trio.sleep(wait)
        await self._send(request, last, ended=True)

    async def _send(self, request: Request, data: bytes, *, ended: bool) -> None:
        """As much of it at a time as the windows let through; nothing if the stream is over."""
        stream = _stream_of(self, request)
        while request not in self._over and not self._sent_away:
            try:
                room = self._h2.local_flow_control_window(stream)
            except h2.exceptions.StreamClosedError:
                return
            size = min(room, self._h2.max_outbound_frame_size, len(data))
            if size or not data:
                piece, data = data[:size], data[size:]
                self._h2.send_data(stream, piece, end_stream=ended and not data)
                if ended and not data:
                    self._said.append(request)
                self._flush()
            if not data:
                return
            await self._news.wait()

    async def _take_back_in_time(self) -> None:
        await trio.sleep_until(self.began + self.person.leaves_at)
        self._take_back()

    def _take_back(self) -> None:
        request = self.requests[0]
        if request not in self._over:
            self._over.add(request)
            request.leave()
            self._h2.reset_stream(_stream_of(self, request), h2.errors.ErrorCodes.CANCEL)
            self._flush()

    def _flush(self) -> None:
        self._outgoing += self._h2.data_to_send()
        self._tell()

    # What it reads.

    def read(self, data: bytes) -> None:
        for frame in _frames(data):
            if self._sent_away:
                self._read_on(frame)
            else:
                for event in self._h2.receive_data(frame):
                    self._heed(event)
        self._flush()

    def _read_on(self, frame: bytes) -> None:
        """What comes behind a GOAWAY. The library takes nothing then, nor do clients that are made with
        it: nothing may come but resets of streams that have no better end."""
        assert frame[3] == RST_STREAM, f"a frame behind GOAWAY: {frame!r}"
        self._cut(self.requests[int.from_bytes(frame[5:9], "big") // 2])

    def _heed(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                status, *headers = event.headers
                self._of(event).start(int(status[1]), headers)
            case h2.events.DataReceived():
                self._take(event)
            case h2.events.StreamEnded():
                self._of(event).end()
                self._let_go(self._of(event))
            case h2.events.StreamReset():
                self._cut(self._of(event))
            case h2.events.ConnectionTerminated():
                self._sent_away = True
            case _:
                pass

    def _take(self, event: h2.events.DataReceived) -> None:
        request, data = self._of(event), event.data
        if request in self._over:
            return  # it was taken back, and this was under way
        room = self.person.leaves_after - request.got
        takes_back = self.person.by_stream and request is self.requests[0] and len(data) >= room
        request.take(data[: int(room)] if takes_back else data)
        if takes_back:
            self._take_back()
        elif self.person.shuts and (self.person.slow or self._shut_until > -inf):
            if self._shut_until > -inf:
                request.get_stuck()
            self._nursery.start_soon(self._give_back_late, event)
        else:
            self._give_back(event)

    async def _give_back_late(self, event: h2.events.DataReceived) -> None:
        await trio.sleep(self.person.slow)
        await trio.sleep_until(self._shut_until)
        self._give_back(event)
        self._flush()

    def _give_back(self, event: h2.events.DataReceived) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _cut(self, request: Request) -> None:
        """The proxy resets a stream whose client does not read, and one that cannot end honestly."""
        if request not in self._over:
            self._let_go(request)
            if request.stuck or self.person.slow:
                request.cut_off()

    def _let_go(self, request: Request) -> None:
        self._over.add(request)
        request.let_go_at = trio.current_time()

    def _of(self, event) -> Request:
        return self.requests[event.stream_id // 2]

    @property
    def complete(self) -> bool:
        return len(self._over) == len(self.requests)

    # How it is seen.

    @property
    def slow(self) -> float:
        return 0.0 if self.person.shuts else super().slow

    @property
    def stuck_until(self) -> float:
        return -inf if self.person.shuts else super().stuck_until

    @property
    def _shut_until(self) -> float:
        return super().stuck_until

    def request_of(self, connection) -> Request:
        return self.requests[connection.stream_id // 2]

    def close(self) -> None:
        if not self.is_gone():
            for request in self.requests:
                if request not in self._over:
                    request.let_go_at = trio.current_time()
                    if request.stuck:
                        request.cut_off()
        super().close()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._outgoing or self.is_gone()):
            await self._news.wait()
        return self._take_outgoing()

    def receive_now(self) -> bytes:
        return self._take_outgoing() if self.person.quick else b""

    def _take_outgoing(self) -> bytes:
        """At most as many bytes as one read of its network brings."""
        if self.is_gone():
            return b""
        size = self.person.grain or len(self._outgoing)
        data, self._outgoing = self._outgoing[:size], self._outgoing[size:]
        if not self._outgoing:
            for request in self._said:
                request.uploaded_at = trio.current_time()
            self._said = []
        return data


def _frames(data: bytes):
    """The frames in it, the last as far as it is there (RFC 9113, section 4.1)."""
    while data:
        size = 9 + int.from_bytes(data[:3], "big")
        yield data[:size]
        data = data[size:]


def _stream_of(line: Http2Line, request: Request) -> int:
    return 2 * line.requests.index(request) + 1


def _fields(request: Request) -> list[tuple[str, str]]:
    agent = request.person.agent or "nobody"
    return [
        (":method", "POST"),
        (":path", PATHS[request.person.dialect]),
        (":scheme", "http"),
        (":authority", "proxy.test"),
        ("content-type", "application/json"),
        ("content-length", str(len(request.body_sent))),
        ("user-agent", agent),
    ]
