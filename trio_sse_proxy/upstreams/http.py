"""An upstream that speaks HTTP, over whichever httpx transport it is given.

The transport is called directly, without `httpx.AsyncClient`: a client follows redirects, keeps a jar
of cookies across requests (one user's cookies would go out with another's request), and asks for gzip.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import httpx
import structlog
import trio

from ..codings import decode_whole, decoder_for
from ..core import headers as fields
from ..core.call import Abort, Reason
from ..core.errors import Broken, Garbled, ProxyError
from ..core.members import with_members
from ..core.routing import rename
from ..core.target import join
from .aborts import outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from ..codings import Decoder
    from ..core.call import Call
    from ..core.headers import Headers
    from ..ports import Answer, Pump, UpstreamRequest
    from .aborts import AbortCalls, AbortMessage
    from .transport import ReceivingStream

LARGEST_BODY = 64 * 2**20  # bytes of a request, decoded, that are looked into
log = structlog.get_logger("trio_sse_proxy")

_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))  # even if it is empty (RFC 9110, section 8.6)


class HttpUpstream:
    """Forwards requests below one base address.

    `api_key` takes the place of the client's own credentials, `add_headers` that of the client's fields
    of the same names, and `drop_headers` do not go on. `models` are what it calls them, by clients'
    names or globs of those. `connect_timeout` is in seconds and covers name look-up, TCP and TLS; 0 is
    none. `abort_calls` tell it of calls that were abandoned; each may take `abort_timeout` seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        transport: httpx.AsyncBaseTransport,
        connect_timeout: float,
        api_key: str | None = None,
        models: Mapping[str, str] | None = None,
        add_headers: Headers = (),
        drop_headers: frozenset[bytes] = frozenset(),
        abort_calls: AbortCalls | None = None,
        abort_timeout: float = 2.0,
    ) -> None:
        self.name = name
        parts = urlsplit(base_url)
        self._url = httpx.URL(f"{parts.scheme}://{parts.netloc}/")
        self._base_path = parts.path.encode("ascii")
        self._host = self._url.netloc
        self.transport = transport
        self._timeout = {"connect": connect_timeout or None}
        self._api_key = api_key.encode("ascii") if api_key else None
        self._models = models or {}
        self._added = add_headers
        self._dropped = drop_headers | {name for name, _ in add_headers}
        self._aborts = abort_calls
        self._abort_timeout = abort_timeout

    def open(self, request: UpstreamRequest, call: Call) -> AbstractAsyncContextManager[Answer]:
        """See ports.Upstream."""
        members = self._members(call)
        if members and isinstance(request.body, bytes):
            request = _with_members(request, request.body, members)
        return _Attempt(self, call, self._outgoing(request, call), is_decoding(request))

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        await self.transport.aclose()

    async def abort(self, call: Call) -> None:
        """Tell it that nobody wants that call any more, if there is a way; never raises.

        Whatever is being cancelled, this takes its time, at most `abort_timeout`. `call.abort` says
        what came of it.
        """
        message = self._aborts.compose(call) if self._aborts is not None else None
        if message is None:
            return
        call.abort = Abort.TIMED_OUT
        with trio.move_on_after(self._abort_timeout, shield=True):
            try:
                request = self._abort_request(message)
                response = await self.transport.handle_async_request(request)
                call.abort = outcome(response.status_code)
                # Told is told: whether its connection can be used again matters less.
                stream = cast("ReceivingStream", response.stream)
                stream.release()
                await stream.aclose()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                call.abort = Abort.FAILED
                log.warning("abort failed", upstream=self.name, call=call.id, error=str(error))

    def _abort_request(self, message: AbortMessage) -> httpx.Request:
        headers = list(message.headers)
        url, target = self._url, message.target.encode("ascii")
        if message.url is not None:
            url = httpx.URL(message.url)
            target = url.raw_path
        if url.netloc == self._host and url.scheme == self._url.scheme:
            names = {name for name, _ in headers}
            headers += [field for field in self._added if field[0] not in names]
            if self._api_key is not None:
                headers.append((b"authorization", b"Bearer " + self._api_key))
        headers += [(b"host", url.netloc), (b"content-length", b"%d" % len(message.body))]
        return httpx.Request(
            message.method,
            url,
            headers=headers,
            stream=httpx.ByteStream(message.body),
            extensions={"target": target, "timeout": self._timeout},
        )

    def _members(self, call: Call) -> dict[str, object]:
        """What this server wants changed in a request's body."""
        members: dict[str, object] = {}
        if call.model is not None and self._models:
            name = rename(self._models, call.model)
            if name != call.model:
                members["model"] = name
        if (
            self._aborts is not None
            and self._aborts.member is not None
            and call.dialect is not None
        ):
            members[self._aborts.member] = call.id
        return members

    def _outgoing(self, request: UpstreamRequest, call: Call) -> httpx.Request:
        path, mark, query = request.target.partition(b"?")
        headers: list[tuple[bytes, bytes]] = [(b"host", self._host), *request.headers]
        if self._api_key is not None:
            headers = [field for field in headers if field[0] not in fields.CREDENTIALS]
            # Count_tokens and batches lie below /messages and take the same key.
            if b"/messages" in path:
                headers.append((b"x-api-key", self._api_key))
            else:
                headers.append((b"authorization", b"Bearer " + self._api_key))
        if self._dropped:
            headers = [field for field in headers if field[0] not in self._dropped]
            headers += self._added
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
                "on_send": call.begin,
            },
        )


class _Attempt:
    """A request, and its answer for as long as the context lasts.

    Not an `asynccontextmanager`: trio keeps account of every generator, which costs time and memory.
    """

    __slots__ = ("_call", "_decode", "_outgoing", "_stream", "_upstream")

    def __init__(
        self, upstream: HttpUpstream, call: Call, outgoing: httpx.Request, decode: bool
    ) -> None:
        self._upstream = upstream
        self._call = call
        self._outgoing: httpx.Request | None = outgoing
        self._stream: ReceivingStream | None = None
        self._decode = decode

    async def __aenter__(self) -> Answer:
        try:
            transport = self._upstream.transport
            try:
                response = await transport.handle_async_request(self._take_request())
            except httpx.HTTPError as error:
                raise _cause(error) from error
            self._stream = stream = cast("ReceivingStream", response.stream)
            return _answer(response, stream, decode=self._decode)
        except BaseException as error:
            await self.__aexit__(type(error))
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stream is not None:
            self._stream.release()
            await self._stream.aclose()
        call = self._call
        if call.begun and not call.over:
            if call.reason is None:
                # Nobody of ours let go of it: either it broke, or we are cancelled from outside.
                cancelled = kind is not None and issubclass(kind, trio.Cancelled)
                call.reason = Reason.SHUTDOWN if cancelled else Reason.BROKEN
            await self._upstream.abort(call)

    def _take_request(self) -> httpx.Request:
        """Hand it over: its body is kept by those who may need it again, not by us."""
        outgoing, self._outgoing = self._outgoing, None
        assert outgoing is not None, "an attempt is made once"
        return outgoing


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

    __slots__ = ("headers", "pump", "receive", "release", "status")

    def __init__(
        self,
        *,
        status: int,
        headers: Headers,
        receive: Callable[[], Awaitable[bytes]],
        release: Callable[[], None],
        pump: Pump | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.receive = receive
        self.release = release
        self.pump = pump


def is_decoding(request: UpstreamRequest) -> bool:
    """True if the answer is to be read by us: it was asked for without any content coding."""
    return (b"accept-encoding", b"identity") in request.headers


def _with_members(
    request: UpstreamRequest, body: bytes, members: dict[str, object]
) -> UpstreamRequest:
    """The same request with other members in its body; as it was, if that is no JSON object."""
    coding = (fields.get(request.headers, b"content-encoding") or b"").decode("latin-1")
    decoded = decode_whole(body, coding, LARGEST_BODY)
    try:
        changed = with_members(decoded or b"", members)
    except ValueError:
        return request
    headers = fields.without(request.headers, b"content-encoding", b"content-length")
    return replace(request, headers=headers, body=changed)


def _answer(response: httpx.Response, stream: ReceivingStream, *, decode: bool) -> Answer:
    headers = fields.plain_answer(response.headers.raw)
    receive, pump = stream.receive, getattr(stream, "pump", None)
    coding = (fields.get(headers, b"content-encoding") or b"").decode("latin-1").strip().lower()
    if decode and coding and coding != "identity":
        decoder = decoder_for(coding)
        if decoder is not None:
            headers = fields.without(headers, b"content-encoding", b"content-length")
            receive, pump = _Decoded(stream, decoder).receive, None
        elif fields.is_event_stream(headers):
            raise Garbled(f"the upstream's stream is encoded with {coding!r}, unasked")
    return cast(
        "Answer",
        HttpAnswer(
            status=response.status_code,
            headers=headers,
            receive=receive,
            release=stream.release,
            pump=pump,
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
