"""Our own transport under httpx's interface: HTTP/1.1 over trio, flat in the number of streams.

Any `httpx.AsyncClient(transport=TrioTransport())` works with it. What the relay needs beyond httpx:

- `response.stream.receive()` hands over what one socket read brought, in one piece, and raises the
  errors of `core/errors.py` themselves; no async generator on the hot path.
- `response.stream.release()` lets go of the upstream at once, from any task, without waiting.
- Every httpx exception has ours as its `__cause__`, which says whether the connection was
  `reused`, whether anything was `sent`, and whether the upstream `responded`.
- `extensions["target"]` is sent as the request target as it stands, and
  `extensions["sni_hostname"]` replaces the host in TLS, as with httpx's own transport.
  `extensions["trace"]` is not supported.
- A response that comes before the request has ended is handed out at once, and the rest of the request
  goes out whenever its body is read.
- Once a request went out nothing here keeps it, or its body: answers may take minutes, and last for
  hours. `response.request`, and the `request` of exceptions, are set by httpx's client, as they are over
  httpx's own transports.

httpx's pool walks all its connections at every request and every close, which at 1,000 streams
takes 10 to 25 ms of CPU each; ours does not (see pool.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import httpx
import trio

from ..core.errors import BadRequest, Broken, Garbled, ProxyError, Unreachable, UpstreamError
from .connect import connect_line
from .failures import (
    ConnectTimedOut,
    EndedEarly,
    QueueTimedOut,
    ReadTimedOut,
    WriteTimedOut,
)
from .head import Framed, RequestHead, frame
from .lines import Line, SocketLine, StreamLine
from .pool import Origin, Pool
from .tls import TlsLine, make_ssl_context
from .upload import ENDLESS, Patience
from .wire import Wire

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping

    from .reply import Reply

_PORTS = {"http": 80, "https": 443}


class ReceivingStream(Protocol):
    """What the stream of every response from these transports can do beyond httpx's interface."""

    async def receive(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises UpstreamError."""
        ...

    def release(self) -> None:
        """Let go of the connection now, from any task; harmless to repeat."""
        ...

    async def aclose(self) -> None:
        """Let go of the connection; the owner calls it in the end, also after `release`."""
        ...


class TrioTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 upstreams, plain and over TLS."""

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int | None = None,
        keepalive_expiry: float = 30.0,
        connect: Callable[[Origin, float | None], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        """`max_connections` is per origin; those over it wait their turn. None: no limit.

        `connect` opens a stream to an origin in place of TCP and TLS, within so many seconds; it is
        for tests over memory streams. It may raise OSError.
        """
        self._ssl_context = ssl_context
        self._connect = connect
        self._pool: Pool[Wire] = Pool(
            self._open if connect is None else self._open_given,
            max_connections=max_connections,
            keepalive_expiry=keepalive_expiry,
        )

    @property
    def pool(self) -> Pool[Wire]:
        """The connections, for whoever counts them."""
        return self._pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` once; see the module for what comes back."""
        try:
            body = _body_of(request)
            timeouts: Mapping[str, float | None] = request.extensions.get("timeout") or {}
            asking = self.ask(
                origin_of(request.url, request.extensions.get("sni_hostname")),
                _framed(request, body),
                body,
                connect_timeout=timeouts.get("connect"),
                queue_timeout=timeouts.get("pool"),
                patience=_patience(timeouts),
                on_send=request.extensions.get("on_send") or _nothing,
            )
            del request, body
            reply, stream = await asking
        except (UpstreamError, BadRequest) as error:
            raise as_httpx(error) from error
        return _response(reply, stream)

    async def ask(
        self,
        origin: Origin,
        framed: Framed,
        body: bytes | AsyncIterable[bytes],
        *,
        connect_timeout: float | None,
        queue_timeout: float | None = None,
        patience: Patience = ENDLESS,
        on_send: Callable[[], None],
    ) -> tuple[Reply, WireStream]:
        """The same without httpx, whose objects cost a first token more than sending and reading do.

        The head of the response, and its body. Calls `on_send` once there is a connection for it.
        Raises UpstreamError and BadRequest.
        """
        wire = await self._pool.check_out(
            origin, connect_timeout=connect_timeout, queue_timeout=queue_timeout
        )
        try:
            on_send()
            exchange = wire.exchange(framed, body, patience)
            del framed, body
            reply = await exchange
        except BaseException:
            self._pool.discard(wire)
            raise
        return reply, WireStream(self._pool, wire)

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        self._pool.close()

    async def _open(self, origin: Origin, within: float | None) -> Wire:
        return Wire(await connect_line(origin, within, self._ssl_context))

    async def _open_given(self, origin: Origin, within: float | None) -> Wire:
        assert self._connect is not None
        try:
            stream = await self._connect(origin, within)
        except (OSError, trio.BrokenResourceError) as error:
            raise Unreachable(f"cannot connect to {origin.host}:{origin.port}: {error}") from error
        if isinstance(stream, trio.SocketStream):
            return Wire(SocketLine(stream))
        return Wire(StreamLine(stream))


class WireStream(httpx.AsyncByteStream):
    """The body of one response. The connection goes back as soon as its last byte was received."""

    __slots__ = ("_pool", "_released", "_wire", "line", "reused")

    def __init__(self, pool: Pool[Wire], wire: Wire) -> None:
        self.line = wire.line
        self.reused = wire.reused
        self._pool = pool
        self._released: Wire | None = None
        self._wire: Wire | None = wire
        if wire.complete:
            self._give_back(wire)

    async def receive(self) -> bytes:
        """See ReceivingStream. After `release` it raises Broken if the body was not over."""
        wire = self._wire
        if wire is None:
            if self._released is not None:
                raise Broken("the connection was released", responded=True)
            return b""
        try:
            data = await wire.receive()
        except Exception:  # also what reading the rest of the request body raised
            self.release()
            raise
        if wire.complete and self._wire is not None:
            self._give_back(wire)
        return data

    async def pump(self, take: Callable[[bytes], bytes]) -> bytes:
        """See ports.Pump; otherwise as `receive`."""
        wire = self._wire
        if wire is None:
            return await self.receive()
        try:
            left = await wire.pump(take)
        except Exception:
            self.release()
            raise
        if wire.complete and self._wire is not None:
            self._give_back(wire)
        return left

    def release(self) -> None:
        """See ReceivingStream. The slot is free at once; whoever waits in `receive` is woken."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._released = wire
            self._pool.discard(wire)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while data := await self.receive():
                yield data
        except UpstreamError as error:
            raise as_httpx(error) from error

    async def aclose(self) -> None:
        """Release; and if the request body was still being read, tell it that this is over."""
        self.release()
        if self._released is not None:
            await self._released.aclose()

    def _give_back(self, wire: Wire) -> None:
        self._wire = None
        if wire.settle():
            self._pool.give_back(wire)
        else:
            self._pool.discard(wire)


class NetworkStream:
    """What httpx's users find under `response.extensions["network_stream"]`, without the stream."""

    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line = line

    def get_extra_info(self, info: str) -> Any:
        """`info`: socket, ssl_object, client_addr, server_addr, is_readable. None: not known."""
        line = self._line
        if info == "ssl_object":
            return line.ssl_object if isinstance(line, TlsLine) else None
        if isinstance(line, StreamLine):
            return None
        assert isinstance(line, SocketLine | TlsLine)
        match info:
            case "socket":
                return line.socket
            case "client_addr":
                return line.socket.getsockname()
            case "server_addr":
                return line.socket.getpeername()
            case "is_readable":
                return not line.is_quiet()
            case _:
                return None


def _nothing() -> None:
    pass


def origin_of(url: httpx.URL, sni_hostname: str | None = None) -> Origin:
    """The origin that `url` is of. Raises httpx.UnsupportedProtocol."""
    scheme = url.scheme
    port = _PORTS.get(scheme)
    host = url.raw_host.decode("ascii")
    if port is None or not host:
        message = f"{scheme or 'no'!r} is not a protocol that can be spoken: http or https"
        raise httpx.UnsupportedProtocol(message)
    return Origin(scheme, host, url.port or port, sni_hostname)


def _body_of(request: httpx.Request) -> bytes | httpx.AsyncByteStream:
    if isinstance(request.stream, httpx.ByteStream):
        return b"".join(request.stream)  # the same bytes, not a copy of them
    try:
        return request.content
    except httpx.RequestNotRead:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        return request.stream


def _framed(request: httpx.Request, body: bytes | httpx.AsyncByteStream) -> Framed:
    head = RequestHead(
        method=request.method.encode("ascii", "replace"),
        target=request.extensions.get("target") or request.url.raw_path,
        headers=request.headers.raw,
    )
    return frame(head, len(body) if isinstance(body, bytes) else None)


def _patience(timeouts: Mapping[str, float | None]) -> Patience:
    read, write = timeouts.get("read"), timeouts.get("write")
    if read is None and write is None:
        return ENDLESS
    return Patience(read=read, write=write)


def _response(reply: Reply, stream: WireStream) -> httpx.Response:
    return httpx.Response(
        reply.status,
        headers=reply.headers,
        stream=stream,
        extensions={
            "http_version": reply.version,
            "reason_phrase": reply.reason,
            "network_stream": NetworkStream(stream.line),
            "reused": stream.reused,
        },
    )


# The first that fits; kinds stand before their roots.
_KINDS: tuple[tuple[type[ProxyError], type[httpx.TransportError]], ...] = (
    (ConnectTimedOut, httpx.ConnectTimeout),
    (QueueTimedOut, httpx.PoolTimeout),
    (Unreachable, httpx.ConnectError),
    (ReadTimedOut, httpx.ReadTimeout),
    (WriteTimedOut, httpx.WriteTimeout),
    (EndedEarly, httpx.RemoteProtocolError),
    (Garbled, httpx.RemoteProtocolError),
    (BadRequest, httpx.LocalProtocolError),
    (Broken, httpx.ReadError),
)


def as_httpx(error: ProxyError) -> httpx.TransportError:
    """The exception httpx's users expect for `error`."""
    for ours, theirs in _KINDS:
        if isinstance(error, ours):
            return theirs(str(error))
    return httpx.TransportError(str(error))


def open_transport(
    *,
    http2: bool = False,
    proxy: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    max_connections: int | None = None,
    keepalive_expiry: float = 30.0,
) -> httpx.AsyncBaseTransport:
    """The transport that fits: ours, or httpx's for HTTP/2 and outbound proxies.

    Either way the stream of a response is a ReceivingStream. `ssl_context` becomes the transport's
    own; None: certifi's roots. `max_connections` is per origin.
    """
    if not http2 and proxy is None:
        return TrioTransport(
            ssl_context=ssl_context,
            max_connections=max_connections,
            keepalive_expiry=keepalive_expiry,
        )
    from .one_at_a_time import OneAtATimeTransport

    return OneAtATimeTransport(
        ssl_context=ssl_context or make_ssl_context(),
        http2=http2,
        proxy=proxy,
        max_connections=max_connections,
        keepalive_expiry=keepalive_expiry,
    )
