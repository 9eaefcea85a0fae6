"""HTTP/2 upstreams and outbound proxies: httpx's own transport, kept from its own pool.

httpx's pool walks all its connections at every request, and its HTTP/2 does not reset a stream that
is left early. So each of its transports here has one connection and carries one request at a time:
no pool ever walks more than one, and leaving early closes the connection, which is noticed by every
upstream. They stand on the same shelves as our own connections do (pool.py).

The price: over HTTP/2 every request under way has a connection of its own.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ..core.errors import BadRequest, Broken, Garbled, Unreachable, UpstreamError
from .failures import ConnectTimedOut, EndedEarly, QueueTimedOut, ReadTimedOut, WriteTimedOut
from .lines import reset
from .pool import Origin, Pool
from .transport import as_httpx, origin_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

FAREWELL = 1.0  # seconds for closing calls that should not wait at all


class _Lent(httpx.AsyncByteStream):
    """A request body that is taken away when it was sent: httpcore's objects keep the request."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream: httpx.AsyncByteStream | None = stream
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._stream is not None, "httpcore reads the body before it hands out the response"
        self._begun = True
        return aiter(self._stream)

    async def aclose(self) -> None:
        """Let go of it, and tell it that nobody reads on, unless it can still be sent elsewhere."""
        stream, self._stream = self._stream, None
        if stream is not None and self._begun:
            await stream.aclose()


class OneAtATime:
    """One of httpx's transports, used by one request at a time."""

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        """Takes over `transport`, which has at most one connection."""
        self._transport = transport
        self._socket: trio.socket.SocketType | None = None
        self.requests = 0
        self.connected = False
        self.sent = False
        self.responded = False
        self._uploading = False

    @property
    def reused(self) -> bool:
        """True if the request under way goes over a connection that served an earlier one."""
        return self.requests > 1 and not self.connected

    def is_alive(self) -> bool:
        """See Poolable. httpx looks at an idle connection itself, and replaces a dead one."""
        return True

    def close(self) -> None:
        """See Poolable. httpx's objects hold no task; with the socket closed they are just memory.

        It must be trio's socket object: closing it wakes whoever waits on it. In the middle of a
        request it is a reset, as in wire.py.
        """
        if self._socket is None:
            return
        if self._uploading:
            reset(self._socket)
        else:
            self._socket.close()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises UpstreamError or BadRequest."""
        self.requests += 1
        self.connected = self.sent = self.responded = self._uploading = False
        assert isinstance(request.stream, httpx.AsyncByteStream)
        body = _Lent(request.stream)
        watched = httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=body,
            extensions={**request.extensions, "trace": self._watch(request.extensions)},
        )
        try:
            response = await self._transport.handle_async_request(watched)
        except httpx.TransportError as error:
            await self.aclose()
            raise self.translate(error) from error
        except BaseException:
            # httpx's HTTP/2 would keep the connection, with our stream still running on it.
            await self.aclose()
            raise
        finally:
            await body.aclose()
        return response

    async def aclose(self) -> None:
        """Close for good, whatever state the connection is in."""
        self.close()
        with trio.move_on_after(FAREWELL, shield=True):
            await self._transport.aclose()

    def translate(self, error: httpx.TransportError) -> UpstreamError | BadRequest:
        """`error` as one of ours, with what was seen of the request."""
        message = str(error) or type(error).__name__
        if isinstance(error, httpx.LocalProtocolError):
            return BadRequest(message)
        kind = _kind(error)
        if issubclass(kind, Unreachable):
            return kind(message)
        return kind(message, reused=self.reused, sent=self.sent, responded=self.responded)

    def _watch(self, extensions: Mapping[str, Any]) -> Callable[[str, Any], Awaitable[None]]:
        """httpcore's trace hook: the only place that tells how far a request went."""
        theirs = extensions.get("trace")
        on_send: Callable[[], None] | None = extensions.get("on_send")

        async def trace(event: str, info: Any) -> None:
            if event.endswith("connect_tcp.complete"):
                self.connected = True
                self._socket = info["return_value"].get_extra_info("socket")
            elif event.endswith("send_request_headers.started"):
                self.sent = info["request"].method != b"CONNECT"  # the tunnel's, not ours
                self._uploading = self.sent
                if self.sent and on_send is not None:
                    on_send()
            elif event.endswith("send_request_body.complete"):
                self._uploading = False
            elif event.endswith("receive_response_headers.complete"):
                self.responded = self.sent
            if theirs is not None:
                await theirs(event, info)

        return trace


class ProxiedStream(httpx.AsyncByteStream):
    """The body of one response; see ReceivingStream in transport.py."""

    def __init__(
        self,
        pool: Pool[OneAtATime],
        single: OneAtATime,
        response: httpx.Response,
    ) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._pool = pool
        self._single: OneAtATime | None = single
        self._owned = single
        self._stream = response.stream
        self._pieces = aiter(self._stream)
        self._over = False

    async def receive(self) -> bytes:
        """See ReceivingStream."""
        if self._single is None:
            if self._over:
                return b""
            raise Broken("the connection was released", responded=True)
        try:
            async for piece in self._pieces:
                if piece:
                    return piece
            # Told to httpx before the connection stands on the shelf again.
            await self._stream.aclose()
        except httpx.TransportError as error:
            self.release()
            raise self._owned.translate(error) from error
        self._give_back()
        return b""

    def release(self) -> None:
        """See ReceivingStream."""
        single, self._single = self._single, None
        if single is not None:
            self._pool.discard(single)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while data := await self.receive():
                yield data
        except UpstreamError as error:
            raise as_httpx(error) from error

    async def aclose(self) -> None:
        """Close the connection if the body is not over."""
        self.release()
        if self._over:
            return
        # httpx nests four async generators and closes only the outermost. Reading on from a closed
        # socket fails in the innermost, which ends them all; it cannot wait.
        with trio.move_on_after(FAREWELL, shield=True), suppress(httpx.TransportError):
            async for _ in self._pieces:
                pass
        await self._owned.aclose()

    def _give_back(self) -> None:
        single, self._single = self._single, None
        if single is not None:
            self._over = True
            self._pool.give_back(single)


class OneAtATimeTransport(httpx.AsyncBaseTransport):
    """HTTP/2 or an outbound proxy, or both, through many small transports of httpx's."""

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext,
        http2: bool = False,
        proxy: str | None = None,
        max_connections: int | None = None,
        keepalive_expiry: float = 30.0,
    ) -> None:
        """`ssl_context` becomes this transport's own: httpx sets the protocols it offers.

        `proxy` is a URL: http, https, socks5 or socks5h, with user and password if need be.
        """
        self._ssl_context = ssl_context
        self._http2 = http2
        self._proxy = None if proxy is None else _proxy(proxy, ssl_context)
        self._expiry = keepalive_expiry
        self._pool: Pool[OneAtATime] = Pool(
            self._open, max_connections=max_connections, keepalive_expiry=keepalive_expiry
        )

    @property
    def pool(self) -> Pool[OneAtATime]:
        """The connections, for whoever counts them."""
        return self._pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` once; see transport.py for what comes back."""
        try:
            return await self._handle(request)
        except (UpstreamError, BadRequest) as error:
            raise as_httpx(error) from error

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        self._pool.close()

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout") or {}
        origin = origin_of(request.url, request.extensions.get("sni_hostname"))
        single = await self._pool.check_out(origin, queue_timeout=timeouts.get("pool"))
        try:
            response = await single.handle(request)
        except BaseException:
            self._pool.discard(single)
            raise
        extensions = dict(response.extensions)
        extensions["reused"] = single.reused
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=ProxiedStream(self._pool, single, response),
            extensions=extensions,
        )

    async def _open(self, origin: Origin, within: float | None) -> OneAtATime:
        """Nothing is connected yet: httpx does that with the request, under its own timeout."""
        return OneAtATime(
            httpx.AsyncHTTPTransport(
                verify=self._ssl_context,
                trust_env=False,
                http2=self._http2,
                proxy=self._proxy,
                limits=httpx.Limits(
                    max_connections=1,
                    max_keepalive_connections=1,
                    keepalive_expiry=self._expiry,
                ),
            )
        )


def _proxy(url: str, ssl_context: ssl.SSLContext) -> httpx.Proxy:
    """httpx takes a context for the proxy itself only where the proxy speaks TLS."""
    secure = httpx.URL(url).scheme == "https"
    return httpx.Proxy(url, ssl_context=ssl_context if secure else None)


def _kind(error: httpx.TransportError) -> type[UpstreamError]:
    if isinstance(error, httpx.RemoteProtocolError):
        # httpcore gives one type to an end of stream, an HTTP/2 reset, and what h11 refused; only
        # the last is no use asking again. Its pool suppresses the cause, the context is left.
        origin = error.__cause__ and error.__cause__.__context__
        refused = type(origin).__module__.startswith("h11.")
        return Garbled if refused and "peer closed" not in str(error) else EndedEarly
    for theirs, ours in _KINDS:
        if isinstance(error, theirs):
            return ours
    return Broken


# The first that fits.
_KINDS: tuple[tuple[type[httpx.TransportError], type[UpstreamError]], ...] = (
    (httpx.ConnectTimeout, ConnectTimedOut),
    (httpx.PoolTimeout, QueueTimedOut),
    (httpx.ConnectError, Unreachable),
    (httpx.ProxyError, Unreachable),
    (httpx.ReadTimeout, ReadTimedOut),
    (httpx.WriteTimeout, WriteTimedOut),
)
