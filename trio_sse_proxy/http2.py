"""HTTP/2 on one connection: Hypercorn's classes, with what `server` asks for overridden."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import events
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.worker_context import EventWrapper
from hypercorn.typing import ConnectionState
from hypercorn.utils import filter_pseudo_headers
from priority.priority import MissingStreamError, PriorityTree

from .calls import Inbox, protocol_arguments, stream_arguments
from .core.calm import Calm
from .wire import CONNECTION, Written

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent

    from .connection import Connection
    from .core.headers import Headers

CUT_GRACE = 0.5  # seconds for what was written to leave before its HTTP/2 stream is reset
STUCK = 1.0  # seconds; a write that waits longer holds up every stream of its connection
MAX_STREAMS = 1000  # of one HTTP/2 connection
SLICE = 4096  # bytes of HTTP/2 frames handled in a row, which may be hundreds
GOAWAY = b"\0\0\x08\x07\0\0\0\0\0"  # its header (RFC 9113, sections 4.1 and 6.8)
UPLOADS = 4 * 2**20  # bytes of request bodies that may wait on one HTTP/2 connection


class H2Stream(HTTPStream):
    """One HTTP/2 request, and its ClientConnection: other streams' progress is not its own."""

    def __init__(self, protocol: H2, stream_id: int) -> None:
        super().__init__(*stream_arguments(protocol, stream_id))
        self._protocol = protocol
        self._given_up = False
        self.outbox = Outbox()

    def write_now(self, body: bytes) -> Written:
        """See ClientConnection; windows have to be looked at here."""
        return Written.NOTHING

    def begin_now(self, status: int, headers: Headers, *, followed: bool) -> bool:
        """See ClientConnection; a head here is compressed, in turn with all others."""
        return False

    def abort(self) -> None:
        """See ClientConnection."""
        self._protocol.link.abort()
        if self.state is ASGIHTTPState.RESPONSE and not (self._given_up or self.outbox.end_left):
            self._given_up = True
            self.outbox.give_up()
            self._protocol.link.start(partial(self._protocol.cut, self.stream_id))

    def progressed_at(self) -> float:
        """See ClientConnection."""
        return self._protocol.progressed_at(self.stream_id)

    def has_end(self) -> bool:
        """See ClientConnection."""
        outbox = self._protocol.stream_buffers.get(self.stream_id)
        return not isinstance(outbox, Outbox) or outbox.has_end

    def left_early(self) -> bool:
        """See ClientConnection."""
        return not (self._given_up or self.outbox.end_left)

    def is_gone(self) -> bool:
        """See ClientConnection."""
        return self.closed or self._protocol.link.is_gone()

    def open_inbox(self) -> Inbox:
        """For what the application will receive."""
        return Upload(self._protocol, self.stream_id)

    def make_call(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call the application, in a task of its own."""
        self._protocol.link.start(call)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """What the application calls to answer; None once it has returned."""
        if message is None:
            if self.state is ASGIHTTPState.RESPONSE and not (self.closed or self._given_up):
                await self._protocol.cut(self.stream_id)
        elif self.closed or self._given_up:
            await trio.lowlevel.checkpoint()
            return
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self.state is ASGIHTTPState.RESPONSE and self._is_last(message):
                self.outbox.ends_with_next = True
        await super().app_send(message)

    def _is_last(self, message: ASGISendEvent) -> bool:
        if message["type"] != "http.response.body" or message.get("more_body", False):
            return False
        return not self.response.get("trailers", False)

    async def _send_closed(self) -> None:
        """Say the end. It goes out whoever is cancelled meanwhile, if the window is open: who said it
        learns so, since the client takes what it has for the whole."""
        with trio.move_on_after(CUT_GRACE, shield=True):
            await self._wait_for_end()
        if self.state is not ASGIHTTPState.CLOSED:
            await self._wait_for_end()

    async def _wait_for_end(self) -> None:
        """Until the client has it; a stream that is given up meanwhile is yet to be cut."""
        await self.send(events.EndBody(stream_id=self.stream_id))
        if not self._given_up:
            await super()._send_closed()


class Upload(Inbox):
    """The inbox of an HTTP/2 request, in which nothing ever waits for room.

    Its reader is that of all streams. What bounds a body here is the window of its stream, which is
    given back only as the application takes the body.
    """

    def __init__(self, protocol: H2, stream_id: int) -> None:
        super().__init__(protocol.link.is_gone, protocol.link.evict, protocol.link.read_on)
        self._protocol = protocol
        self._stream_id = stream_id

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message."""
        self.add(message)

    async def receive(self) -> Any:
        """See Inbox."""
        message = await super().receive()
        await self._protocol.send_windows()
        return message

    def _done_with(self, size: int) -> None:
        self._protocol.give_back(size, self._stream_id)


class Outbox(StreamBuffer):
    """What one HTTP/2 stream has yet to send.

    Hypercorn's own lets a writer on whenever it looked for something to send, also when the window
    was shut and nothing left: a client that gives no window would have us hold all of the stream.
    """

    def __init__(self) -> None:
        super().__init__(EventWrapper)
        self.given_up = False
        self.end_left = False
        """The end has gone out."""
        self.ends_with_next = False
        """What is pushed next is the last: it comes together with the end, or not at all."""
        self.moved_at = -math.inf
        """When something last left; when there was nothing to leave, what came last."""
        self._has_room = trio.Event()
        self._emptied = trio.Event()
        self._sent = trio.Event()

    async def push(self, data: bytes) -> None:
        """Add `data`, then wait until less than two frames are left, and they get on."""
        if self._complete:
            return
        if not self.buffer:
            self.moved_at = trio.current_time()
        self.buffer.extend(data)
        if self.ends_with_next:
            self.set_complete()
            return
        # A shut window holds the writer up also when there is little to write, as heartbeats are:
        # the deadline for writes that get nowhere would never begin.
        while len(self.buffer) >= BUFFER_HIGH_WATER or self._is_late():
            self._has_room = trio.Event()
            await self._has_room.wait()

    @property
    def has_end(self) -> bool:
        """True once nothing more is to come."""
        return self._complete

    def _is_late(self) -> bool:
        return bool(self.buffer) and trio.current_time() - self.moved_at > STUCK

    async def pop(self, max_length: int) -> bytes:
        """Take up to `max_length` bytes."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if data:
            self.moved_at = trio.current_time()
        if len(self.buffer) < BUFFER_LOW_WATER:
            self._has_room.set()
        if not self.buffer:
            self._emptied.set()
        return data

    async def drain(self) -> None:
        """Wait until all is on the wire, the end of the stream included if that was said."""
        if self._complete:
            await self._sent.wait()
            return
        while self.buffer:
            self._emptied = trio.Event()
            await self._emptied.wait()

    async def close(self) -> None:
        """Drop everything and let everyone on."""
        self.give_up()

    def give_up(self) -> None:
        """The same. No end of the stream follows from that."""
        self.given_up = self._complete = True
        self.buffer = bytearray()
        for event in (self._has_room, self._emptied, self._sent):
            event.set()


# A request that was refused at once, and one that its client has taken back.
MAY_LEAVE_IDLE = (h2.events.RequestReceived, h2.events.StreamReset)


class H2(H2Protocol):
    """HTTP/2 on one connection."""

    held_back = False
    has_whole = True  # whoever reads goes on reading: each request is served in a task of its own
    has_room = True  # windows say what may be sent
    refused_early = False
    in_chunks = False  # but frames
    stream_buffers: dict[int, StreamBuffer]

    def __init__(self, link: Connection) -> None:
        super().__init__(*protocol_arguments(link))
        self.link = link
        # As Hypercorn sets it, without the offer of WebSockets (RFC 8441).
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: self.config.h2_max_concurrent_streams,
                codes.MAX_HEADER_LIST_SIZE: self.config.h2_max_header_list_size,
            },
        )
        listening = link.server.listening
        resets, frames = listening.max_resets, listening.max_control_frames
        self.calm = Calm(resets=resets, frames=frames, now=trio.current_time())
        # It counts its root, and streams that are over until their end has been written.
        self.priority = PriorityTree(maximum_streams=4 * MAX_STREAMS)

    async def initiate(
        self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        """Greet; with a window of the connection that one body that waits does not shut."""
        await super().initiate(headers, settings)
        usual = self.connection.inbound_flow_control_window
        self.connection.increment_flow_control_window(UPLOADS - usual)
        await self._flush()

    async def go_away(self) -> None:
        """Say that requests behind the last that came are not taken on.

        Written past h2, which would refuse to end the streams that are still to be ended.
        """
        last = self.connection.highest_inbound_stream_id
        await self.send(RawData(GOAWAY + struct.pack(">II", last, 0)))

    async def have_room(self) -> None:
        """There always is."""

    @property
    def may_be_reset(self) -> bool:
        """True if it is the connection that is stuck, and with it every stream."""
        return self.link.wire.stuck_for() > STUCK

    def progressed_at(self, stream_id: int) -> float:
        """See ClientConnection."""
        outbox = self.stream_buffers.get(stream_id)
        if not isinstance(outbox, Outbox) or not outbox.buffer:
            return self.link.progressed_at()
        with suppress(h2.exceptions.ProtocolError):  # reset meanwhile
            if self.connection.local_flow_control_window(stream_id) > 0:
                return max(outbox.moved_at, self.link.progressed_at())
        return outbox.moved_at

    def give_back(self, size: int, stream_id: int) -> None:
        """Let the client send that much again, as soon as the next window updates are sent."""
        with suppress(h2.exceptions.ProtocolError):
            self.connection.acknowledge_received_data(size, stream_id)

    async def send_windows(self) -> None:
        """Send what `give_back` prepared."""
        await self._flush()

    async def handle(self, event: Event) -> None:
        """Bytes from the client, or its end, which also lets on whoever waits for window."""
        if isinstance(event, RawData):
            await self._handle_slices(event.data)
            return
        await super().handle(event)
        if isinstance(event, Closed):
            for outbox in list(self.stream_buffers.values()):
                await outbox.close()

    async def _handle_slices(self, data: bytes) -> None:
        """Handle what one read brought, letting others on in between."""
        for at in range(0, len(data), SLICE):
            if at:
                await trio.lowlevel.cancel_shielded_checkpoint()
            piece = data[at : at + SLICE]
            if not self.calm.read(piece, trio.current_time()):
                await self._insist_on_calm()
            if self.closed:
                return
            await super().handle(RawData(piece))

    async def _insist_on_calm(self) -> None:
        """End the connection of a client that asks for too much (see core.calm)."""
        with suppress(h2.exceptions.ProtocolError):
            self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        await self._flush()
        await self.link.send(Closed())

    async def cut(self, stream_id: int) -> None:
        """Reset one stream, after what was written to it if the client takes that in time.

        But at once if its end was: it was waited for, and must not come after all.
        """
        outbox = self.stream_buffers.get(stream_id)
        if isinstance(outbox, Outbox) and not outbox.has_end:
            with trio.move_on_after(CUT_GRACE):
                await outbox.drain()
        with suppress(h2.exceptions.ProtocolError):  # the client was quicker
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        await self._flush()
        if outbox is not None:
            await outbox.close()
            await self._window_updated(stream_id)  # the sender looks at it, and forgets it

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.StreamReset) and not self.calm.reset(
                trio.current_time()
            ):
                await self._insist_on_calm()
                return
            if isinstance(event, h2.events.DataReceived):
                await self._take_data(event)
            elif not isinstance(event, h2.events.PriorityUpdated):  # deprecated, RFC 9113 5.3.2
                await super()._handle_events([event])
            if isinstance(event, h2.events.StreamReset):
                # The sender forgets what it comes to send, and may wait for a window till the end.
                await self._forget(event.stream_id)
            if isinstance(event, MAY_LEAVE_IDLE) and self.idle:
                await self.send(Updated(idle=True))  # which Hypercorn forgets
        await self._flush()

    async def _take_data(self, event: h2.events.DataReceived) -> None:
        """Pass it on. Padding counts as taken, and all of it if the stream was answered early."""
        stream, data = self.streams.get(event.stream_id), event.data or b""
        size = event.flow_controlled_length or 0
        if stream is not None:
            size -= len(data)
            await stream.handle(events.Body(stream_id=event.stream_id, data=data))
        self.give_back(size, event.stream_id)

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        await self._flush()  # the windows of what was dropped with it

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        stream_id = request.stream_id
        fields = dict(reversed(request.headers or []))
        method, path = fields.get(b":method", b""), fields.get(b":path", b"")
        if method == b"CONNECT" or not path or not (path + method).isascii():
            status = b"501" if method == b"CONNECT" else b"400"
            await self._refuse(stream_id, status)
            return
        if len(request.headers) > self.link.server.listening.max_header_fields:
            await self._refuse(stream_id, b"431")
            return
        stream = self.streams[stream_id] = H2Stream(self, stream_id)
        self.stream_buffers[stream_id] = stream.outbox
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        await stream.handle(
            events.Request(
                stream_id=stream_id,
                headers=filter_pseudo_headers(request.headers),
                http_version="2",
                method=method.decode("ascii").upper(),
                raw_path=path,
                state=ConnectionState({**self.connection_state, CONNECTION: stream}),
            )
        )

    async def _refuse(self, stream_id: int, status: bytes) -> None:
        headers = [(b":status", status), (b"content-length", b"0")]
        self.connection.send_headers(stream_id, headers, end_stream=True)
        await self._flush()

    async def _send_data(self, stream_id: int) -> None:
        """Send one frame of a stream; its end goes out with the last one."""
        outbox = self.stream_buffers.get(stream_id)
        if not isinstance(outbox, Outbox) or outbox.given_up:
            await self._forget(stream_id)
            return
        try:
            window = self.connection.local_flow_control_window(stream_id)
            size = min(window, self.connection.max_outbound_frame_size)
            data = await outbox.pop(max(0, size))
            ended = outbox.complete
            if data or ended:
                self.connection.send_data(stream_id, data, end_stream=ended)
                outbox.end_left = ended
                self.calm.sent_data()
                await self._flush()
            else:
                self.priority.block(stream_id)
        except h2.exceptions.ProtocolError:  # reset meanwhile
            ended = True
        if ended:
            await self._forget(stream_id)

    async def _forget(self, stream_id: int) -> None:
        with suppress(MissingStreamError):
            self.priority.remove_stream(stream_id)
        outbox = self.stream_buffers.pop(stream_id, None)
        if outbox is not None:
            await outbox.close()
