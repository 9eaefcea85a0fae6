"""HTTP/1.1 on one connection: Hypercorn's classes, with what `server` asks for overridden."""

from __future__ import annotations

import string
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import h11
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import events
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.worker_context import EventWrapper
from hypercorn.utils import suppress_body

from .calls import protocol_arguments, stream_arguments
from .plain_http1 import Http1, chunk

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGISendEvent,
        H11SendableEvent,
        HTTPResponseStartEvent,
        HTTPScope,
    )

    from .connection import Connection
    from .core.headers import Headers

PIPELINED = 64 * 1024  # bytes of next requests read ahead while one is being answered

TOKEN = b"!#$%&'*+-.^_`|~" + (string.ascii_letters + string.digits).encode()  # RFC 9110, 5.6.2
NOT_IN_VALUES = b"\0\n\v\f\r"  # which h11 refuses as well

ASGI = {"spec_version": "2.1", "version": "3.0"}  # as Hypercorn says
NO_WEBSOCKET = b"WebSocket is not offered here: use POST and read server-sent events.\n"


class H11Stream(HTTPStream):
    """One HTTP/1.1 request.

    A chunk of a body is framed here and written straight to the wire. h11 would only check that
    the response is in its body, which `_chunked` says, and add the same bytes; its state stays.
    """

    def __init__(self, protocol: H11, request: h11.Request) -> None:
        super().__init__(*stream_arguments(protocol, STREAM_ID))
        self._protocol = protocol
        self._link = protocol.link
        self._is_1_1 = request.http_version >= b"1.1"
        self._chunked = False
        self._until_close = False

    async def open(self, request: h11.Request) -> None:
        """Have the application called. What HTTPStream does with a Request, in fewer steps."""
        self.start_time = time()
        path, _, query = request.target.partition(b"?")
        self.scope = cast(
            "HTTPScope",
            {
                "type": "http",
                "http_version": request.http_version.decode(),
                "asgi": ASGI,
                "method": request.method.decode("ascii").upper(),
                "scheme": self.scheme,
                "path": unquote(path.decode("ascii")),
                "raw_path": path,
                "query_string": query,
                "root_path": "",
                "headers": list(request.headers),
                "client": self.client,
                "server": self.server,
                "state": self._link.state.copy(),
                "extensions": {},
            },
        )
        self.app_put = await self.task_group.spawn_app(
            self.app, self.config, self.scope, self.app_send
        )

    def begin_now(self, status: int, headers: Headers, *, followed: bool) -> bool:
        """See ClientConnection."""
        if self.closed or self.state is not ASGIHTTPState.REQUEST or not self._link.is_read:
            return False
        self.response = cast(
            "HTTPResponseStartEvent",
            {"type": "http.response.start", "status": status, "headers": headers},
        )
        self._link.hold(self._protocol.head(status, list(headers)), followed=followed)
        self.state = ASGIHTTPState.RESPONSE
        self._learn_framing()
        return True

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """What the application calls to answer; None once it has returned.

        A cancellation arrives here, before anything is done, or not at all.
        """
        if message is None:
            if self._until_close and self.state is ASGIHTTPState.RESPONSE and not self.closed:
                # Nothing else tells the client that this is not the end of the body.
                self._link.wire.reset()
            await super().app_send(None)
            return
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        kind: str = message["type"]
        if kind == "http.response.start" and self.state is ASGIHTTPState.REQUEST:
            await self._begin(cast("HTTPResponseStartEvent", message))
            return
        if kind == "http.response.body":
            more = bool(message.get("more_body", False))
            if more and self._chunked:
                body = cast("bytes", message.get("body", b""))
                if body or self._link.is_behind:
                    await self._link.write(chunk(body) if body else b"")
                return
            if self._chunked and not more and message.get("body"):
                await self._finish(cast("bytes", message.get("body")))
                return
        await super().app_send(message)

    @property
    def in_chunks(self) -> bool:
        """True while the next piece of its body is a chunk."""
        return self._chunked and self.state is ASGIHTTPState.RESPONSE and not self.closed

    async def _begin(self, message: HTTPResponseStartEvent) -> None:
        """Write status and headers, together with the first of the body if that follows at once."""
        self.response = message
        headers = [(name, value.strip()) for name, value in message.get("headers", ())]
        await self._link.write_soon(self._protocol.head(int(message["status"]), headers))
        self.state = ASGIHTTPState.RESPONSE
        self._learn_framing()

    async def _finish(self, body: bytes) -> None:
        """Send the last chunk and the end of the body, in one write."""
        await self._link.write(chunk(body) + self._protocol.end_of_body())
        self.state = ASGIHTTPState.CLOSED
        await self.send(events.StreamClosed(stream_id=STREAM_ID))

    def _learn_framing(self) -> None:
        """How h11 delimits this body, by its own rules (RFC 9112 section 6.3)."""
        chunked = self._protocol.connection.in_chunks
        if chunked is not None:
            self._chunked = chunked
            return
        method, status = self.scope["method"], int(self.response["status"])
        if suppress_body(method, status) or method == "CONNECT":
            return
        names = {bytes(name).strip().lower() for name, _ in self.response.get("headers", [])}
        unknown = b"content-length" not in names or b"transfer-encoding" in names
        self._chunked = unknown and self._is_1_1
        self._until_close = unknown and not self._is_1_1


class _Paused(Exception):  # not an error: it ends a loop
    """The next request waits until this one is answered."""


NOT_PAUSED = trio.Event()  # shared by all connections that were never paused: nobody waits for it


class ReadOn(EventWrapper):
    """Stands where H11Protocol stops its reader for as long as it answers a request.

    A client that pipelined bytes, or offered an upgrade nobody took, would otherwise be noticed
    leaving only at the next write. Here the reader goes on; what it reads waits in h11.
    """

    def __init__(self) -> None:
        self._event = NOT_PAUSED

    async def clear(self) -> None:
        """Called in place of waiting."""
        await super().clear()
        raise _Paused


class H11(H11Protocol):
    """HTTP/1.1 on one connection."""

    # It offers what is used of theirs.
    may_be_reset = True  # nobody shares it
    connection: Http1  # type: ignore[assignment]
    can_read: ReadOn

    def __init__(self, link: Connection) -> None:
        # What theirs sets, but for the h11.Connection that it makes: Http1 does, if it needs one.
        shared = protocol_arguments(link)
        self.app, self.config, self.context, self.task_group, self.connection_state = shared[:5]
        self.ssl, self.client, self.server, self.send = shared[5:]
        limit = self.config.h11_max_incomplete_size
        self.connection = Http1(limit)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.keep_alive_requests = 0
        self.stream = None
        self.can_read = ReadOn()
        self.link = link
        self.held_back = False

    @property
    def refused_early(self) -> bool:
        """True if all was said while the client still sends."""
        return self.connection.our_state in (h11.DONE, h11.MUST_CLOSE) and (
            self.connection.their_state in (h11.SEND_BODY, h11.ERROR)
        )

    async def handle(self, event: Event) -> None:
        """Bytes from the client, or its end; no bytes: what was held back.

        Never waits for a response, short of PIPELINED.
        """
        if isinstance(event, Closed):
            await self.can_read.set()  # or who waits for room would do so for ever
        elif self.connection.their_state is h11.MUST_CLOSE:
            return  # RFC 9112 section 9.6: no further request; h11 would take it for an error
        if isinstance(event, RawData):
            self.held_back = False
            if event.data:
                self.connection.receive_data(event.data)
            if (whole := self.connection.take_whole()) is not None:
                await self._serve_whole(*whole)
                if not self.connection.trailing_data[0]:
                    return
        with suppress(_Paused):
            await (self._handle_events() if isinstance(event, RawData) else super().handle(event))
            return
        await self._hold_back()

    async def _hold_back(self) -> None:
        self.held_back = True
        if not (self.has_room or self.link.calls.next):  # then whoever reads on waits
            await self.have_room()

    @property
    def has_room(self) -> bool:
        """True if more may be read ahead."""
        return not self.held_back or len(self.connection.trailing_data[0]) <= PIPELINED

    async def have_room(self) -> None:
        """Wait until what was held back can be gone on with."""
        await self.can_read.wait()

    @property
    def has_whole(self) -> bool:
        """True if the request under way was read to its end."""
        return self.connection.their_state is not h11.SEND_BODY

    @property
    def in_head(self) -> bool:
        """True if the head of a request has begun, right after something was handled."""
        return self.connection.in_head

    @property
    def in_chunks(self) -> bool:
        """True while a body is being sent of which the next piece is a chunk."""
        return isinstance(self.stream, H11Stream) and self.stream.in_chunks

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Status line and headers; from here on they count as sent."""
        if not _are_fields(headers):
            raise h11.LocalProtocolError("a header of the answer is none, or would end its line")
        try:
            return self.connection.head(status, headers)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return b""  # the client sent rubbish, and has been answered

    def end_of_body(self) -> bytes:
        """What ends the body under way; from here on h11 takes it for sent."""
        return self.connection.send(h11.EndOfMessage()) or b""

    async def _serve_whole(self, request: h11.Request, body: bytes) -> None:
        """What the events of a request come to, when all of it is there."""
        self.link.work()
        await self._open_stream(request)
        if isinstance(self.stream, H11Stream):
            await self.stream.app_put({"type": "http.request", "body": body, "more_body": False})

    async def _check_protocol(self, event: h11.Request) -> None:
        # Prior knowledge (RFC 9113 section 3.3). The upgrade from 1.1, h2c, is no longer part of
        # HTTP/2 and a known way to smuggle requests past whatever stands in front: not offered.
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            rest = self.connection.trailing_data[0]
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + rest)

    async def _create_stream(self, request: h11.Request) -> None:
        if _wants_websocket(request):
            await self._refuse_websocket()
        else:
            await self._open_stream(request)

    async def _open_stream(self, request: h11.Request) -> None:
        if len(request.headers) > self.link.server.listening.max_header_fields:
            await self._send_error_response(431)
            await self.link.send(Closed())
            return
        self.stream = stream = H11Stream(self, request)
        await stream.open(request)

    async def _refuse_websocket(self) -> None:
        """RFC 9110 section 15.5.22; agents that try a WebSocket first go on with POST at once."""
        headers = [
            (b"upgrade", b"HTTP/1.1"),
            (b"connection", b"upgrade, close"),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(NO_WEBSOCKET)),
        ]
        answer: tuple[H11SendableEvent, ...] = (
            h11.Response(status_code=426, headers=headers, reason=b"Upgrade Required"),
            h11.Data(data=NO_WEBSOCKET),
            h11.EndOfMessage(),
        )
        await self.link.write(b"".join(self.connection.send(event) or b"" for event in answer))
        await self.link.send(Closed())


def _are_fields(headers: list[tuple[bytes, bytes]]) -> bool:
    """True if these are headers, one line each (RFC 9110 section 5)."""
    names, values = [name for name, _ in headers], b"".join([value for _, value in headers])
    whole = b"" not in names and not b"".join(names).translate(None, TOKEN)
    return whole and len(values.translate(None, NOT_IN_VALUES)) == len(values)


def _wants_websocket(request: h11.Request) -> bool:
    fields = {name: value.lower() for name, value in request.headers}
    tokens = [token.strip() for token in fields.get(b"connection", b"").split(b",")]
    return b"upgrade" in tokens and fields.get(b"upgrade", b"").strip() == b"websocket"
