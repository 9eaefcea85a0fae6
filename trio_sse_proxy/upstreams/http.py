"""An upstream that speaks HTTP, over whichever httpx transport it is given.

The transport is called directly, without `httpx.AsyncClient`: a client follows redirects, keeps a jar
of cookies across requests (one user's cookies would go out with another's request), and asks for gzip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import httpx

from ..codings import decoder_for
from ..core import headers as fields
from ..core.errors import Broken, Garbled, ProxyError
from ..core.target import join

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from ..codings import Decoder
    from ..core.headers import Headers
    from ..ports import Answer, UpstreamRequest
    from .transport import ReceivingStream

_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))  # even if it is empty (RFC 9110, section 8.6)


class HttpUpstream:
    """Forwards requests below one base address.

    `api_key` takes the place of the client's own credentials. `connect_timeout` is in seconds and
    covers name look-up, TCP and TLS; 0 is none.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        transport: httpx.AsyncBaseTransport,
        connect_timeout: float,
        api_key: str | None = None,
    ) -> None:
        self.name = name
        parts = urlsplit(base_url)
        self._url = httpx.URL(f"{parts.scheme}://{parts.netloc}/")
        self._base_path = parts.path.encode("ascii")
        self._host = self._url.netloc
        self._transport = transport
        self._timeout = {"connect": connect_timeout or None}
        self._api_key = api_key.encode("ascii") if api_key else None

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[Answer]:
        """See ports.Upstream."""
        identity = (b"accept-encoding", b"identity") in request.headers
        return _Attempt(self._transport, self._outgoing(request), decode=identity)

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        await self._transport.aclose()

    def _outgoing(self, request: UpstreamRequest) -> httpx.Request:
        path, mark, query = request.target.partition(b"?")
        headers: list[tuple[bytes, bytes]] = [(b"host", self._host), *request.headers]
        if self._api_key is not None:
            headers = [field for field in headers if field[0] not in fields.CREDENTIALS]
            # Count_tokens and batches lie below /messages and take the same key.
            if b"/messages" in path:
                headers.append((b"x-api-key", self._api_key))
            else:
                headers.append((b"authorization", b"Bearer " + self._api_key))
        body = request.body
        framed = fields.get(headers, b"content-length") is not None
        stream: httpx.AsyncByteStream
        if isinstance(body, bytes):
            stream = httpx.ByteStream(body)
            if not framed and (body or request.method in _WITH_BODY):
                headers.append((b"content-length", b"%d" % len(body)))
        else:
            stream = _Upload(body)
            if not framed:
                headers.append((b"transfer-encoding", b"chunked"))
        # Given a stream, httpx takes the fields as they are; given content, it works on them twice.
        return httpx.Request(
            request.method,
            self._url,
            headers=headers,
            stream=stream,
            extensions={
                "target": join(self._base_path, path) + mark + query,
                "timeout": self._timeout,
            },
        )


class _Attempt:
    """A request, and its answer for as long as the context lasts.

    Not an `asynccontextmanager`: trio keeps account of every generator, which costs time and memory.
    """

    __slots__ = ("_decode", "_outgoing", "_stream", "_transport")

    def __init__(
        self, transport: httpx.AsyncBaseTransport, outgoing: httpx.Request, *, decode: bool
    ) -> None:
        self._transport = transport
        self._outgoing: httpx.Request | None = outgoing
        self._stream: ReceivingStream | None = None
        self._decode = decode

    async def __aenter__(self) -> Answer:
        try:
            response = await self._transport.handle_async_request(self._take_request())
        except httpx.HTTPError as error:
            raise _cause(error) from error
        self._stream = stream = cast("ReceivingStream", response.stream)
        try:
            return _answer(response, stream, decode=self._decode)
        except BaseException:
            await self._let_go()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._let_go()

    def _take_request(self) -> httpx.Request:
        """Hand it over: its body is kept by those who may need it again, not by us."""
        outgoing, self._outgoing = self._outgoing, None
        assert outgoing is not None, "an attempt is made once"
        return outgoing

    async def _let_go(self) -> None:
        stream = self._stream
        assert stream is not None, "only an answer can be let go of"
        stream.release()
        await stream.aclose()


class _Upload(httpx.AsyncByteStream):
    """A body that can be read once. httpx would wrap it in a generator, which nobody closes."""

    resumable = True  # see Upload; ports.UpstreamRequest asks for it

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._pieces)

    async def aclose(self) -> None:
        """Nobody reads on; whoever feeds the body is told, if that is wanted."""
        aclose = getattr(self._pieces, "aclose", None)
        if aclose is not None:
            await aclose()


class HttpAnswer:
    """See ports.Answer. `receive` is the transport's own where nothing has to be decoded."""

    __slots__ = ("headers", "receive", "release", "status")

    def __init__(
        self,
        *,
        status: int,
        headers: Headers,
        receive: Callable[[], Awaitable[bytes]],
        release: Callable[[], None],
    ) -> None:
        self.status = status
        self.headers = headers
        self.receive = receive
        self.release = release


def _answer(response: httpx.Response, stream: ReceivingStream, *, decode: bool) -> Answer:
    headers = fields.plain_answer(response.headers.raw)
    receive = stream.receive
    coding = (fields.get(headers, b"content-encoding") or b"").decode("latin-1").strip().lower()
    if decode and coding and coding != "identity":
        decoder = decoder_for(coding)
        if decoder is not None:
            headers = fields.without(headers, b"content-encoding", b"content-length")
            receive = _Decoded(stream, decoder).receive
        elif fields.is_event_stream(headers):
            raise Garbled(f"the upstream's stream is encoded with {coding!r}, unasked")
    return cast(
        "Answer",
        HttpAnswer(
            status=response.status_code, headers=headers, receive=receive, release=stream.release
        ),
    )


class _Decoded:
    """A body decoded piece by piece, never more than one piece ahead."""

    def __init__(self, stream: ReceivingStream, decoder: Decoder) -> None:
        self._stream = stream
        self._decoder = decoder
        self._pieces = decoder.decode(b"")
        self._fed = False

    async def receive(self) -> bytes:
        """The next decoded piece; b"" at the end."""
        while True:
            for piece in self._pieces:
                return piece
            data = await self._stream.receive()
            if not data:
                if self._fed and not self._decoder.complete:
                    raise Broken("the encoded body ends in the middle", responded=True)
                return b""
            self._fed = True
            self._pieces = self._decoder.decode(data)


def _cause(error: httpx.HTTPError) -> ProxyError:
    """What our transport, or the fallback to httpx's, says of it."""
    cause = error.__cause__
    if isinstance(cause, ProxyError):
        return cause
    return Garbled(str(error) or type(error).__name__)
