"""An upstream that speaks HTTP, over whichever httpx transport it is given.

The transport is called directly, without `httpx.AsyncClient`: a client follows redirects, keeps a jar
of cookies across requests (one user's cookies would go out with another's request), and asks for gzip.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import httpx

from ..codings import decoder_for
from ..core import headers as fields
from ..core.errors import Broken, Garbled, ProxyError
from ..core.target import join

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable

    from ..codings import Decoder
    from ..core.headers import Headers
    from ..ports import Answer, UpstreamRequest
    from .transport import ReceivingStream


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

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncGenerator[Answer]:
        """See ports.Upstream."""
        identity = (b"accept-encoding", b"identity") in request.headers
        outgoing = self._outgoing(request)
        del request  # the body is kept by those who may need it again, not by us
        try:
            response = await self._transport.handle_async_request(outgoing)
        except httpx.HTTPError as error:
            raise _cause(error) from error
        del outgoing
        stream = cast("ReceivingStream", response.stream)
        try:
            yield _answer(response, stream, decode=identity)
        finally:
            stream.release()
            await stream.aclose()

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
        body: bytes | None = None
        upload: _Upload | None = None
        if isinstance(request.body, bytes):
            body = request.body
        else:
            upload = _Upload(request.body)
            if fields.get(headers, b"content-length") is None:
                headers.append((b"transfer-encoding", b"chunked"))
        return httpx.Request(
            request.method,
            self._url,
            headers=headers,
            content=body,
            stream=upload,
            extensions={
                "target": join(self._base_path, path) + mark + query,
                "timeout": self._timeout,
            },
        )


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
