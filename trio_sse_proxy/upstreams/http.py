"""An upstream that speaks HTTP, over whichever httpx transport it is given.

The transport is called directly, without `httpx.AsyncClient`: a client follows redirects, keeps a jar
of cookies across requests (one user's cookies would go out with another's request), and asks for gzip.
Our own is asked without httpx's objects for request and response, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import httpx
import structlog
import trio

from ..codings import decoder_for
from ..core import headers as fields
from ..core.call import Abort, Reason
from ..core.errors import Broken, Garbled, ProxyError
from .aborts import outcome
from .head import frame
from .outgoing import Destination, Once, change
from .transport import TrioTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ..codings import Decoder
    from ..core.call import Call
    from ..core.headers import Headers
    from ..ports import Answer, Pump, UpstreamRequest
    from .aborts import AbortCalls
    from .transport import ReceivingStream

log = structlog.get_logger("trio_sse_proxy")


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
        self.transport = transport
        self.destination = Destination(
            base_url=base_url,
            connect_timeout=connect_timeout,
            api_key=api_key,
            models=models or {},
            add_headers=add_headers,
            drop_headers=drop_headers,
            member=abort_calls.member if abort_calls is not None else None,
        )
        self.abort_calls = abort_calls
        self._abort_timeout = abort_timeout

    def open(self, request: UpstreamRequest, call: Call) -> AbstractAsyncContextManager[Answer]:
        """See ports.Upstream."""
        return _Attempt(self, call, request)

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        await self.transport.aclose()

    async def abort(self, call: Call, credentials: Headers, *, named: bool) -> None:
        """Tell it that nobody wants that call any more, if there is a way; never raises.

        Whatever is being cancelled, this takes its time, at most `abort_timeout`. `call.abort` says
        what came of it. `named` says that the call's own id reached it, if it was to have one.
        """
        calls = self.abort_calls
        if calls is None or (calls.background_only and not call.background):
            return
        message = calls.compose(call) if named else None
        if message is None:
            call.abort = Abort.UNNAMED
            return
        call.abort = Abort.TIMED_OUT
        with trio.move_on_after(self._abort_timeout, shield=True):
            try:
                request = self.destination.abort_request(message, credentials)
                response = await self.transport.handle_async_request(request)
                call.abort = outcome(response.status_code)
                # Told is told: whether its connection can be used again matters less.
                stream = cast("ReceivingStream", response.stream)
                stream.release()
                await stream.aclose()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                call.abort = Abort.FAILED
                log.warning("abort failed", upstream=self.name, call=call.id, error=str(error))


class _Attempt:
    """A request, and its answer for as long as the context lasts.

    Not an `asynccontextmanager`: trio keeps account of every generator, which costs time and memory.
    """

    __slots__ = ("_call", "_credentials", "_named", "_request", "_stream", "_upstream", "_works")

    def __init__(self, upstream: HttpUpstream, call: Call, request: UpstreamRequest) -> None:
        self._upstream = upstream
        self._call = call
        self._request: UpstreamRequest | None = request
        self._stream: ReceivingStream | None = None
        self._credentials: Headers = ()  # for the abort message
        self._works = request.method == "POST"  # whatever else is asked for leaves no work behind
        self._named = True  # the upstream was given the id that it will be told to stop, if any

    async def __aenter__(self) -> Answer:
        try:
            decode = await self._prepare()
            head, self._stream = await self._send()
            return _answer(head, self._stream, decode=decode)
        except BaseException as error:
            await self.__aexit__(type(error))  # noqa: ASYNC102  # closing, cancelled, still closes
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._stream is not None:
                self._stream.release()
                await self._stream.aclose()
        finally:
            if self._call.begun and not self._call.over:
                await self._abort(kind)  # noqa: ASYNC102  # it is shielded, and has a deadline

    async def _prepare(self) -> bool:
        """Change what this server wants changed; true if we are to decode the answer."""
        request, upstream = self._request, self._upstream
        assert request is not None, "an attempt is made once"
        members = upstream.destination.members(self._call)
        if members and isinstance(request.body, bytes):
            self._request = await change(request, request.body, members, self._call)
        if upstream.abort_calls is not None:
            if upstream.abort_calls.member is not None:
                self._named = (
                    upstream.abort_calls.member in members and self._request is not request
                )
            self._credentials = upstream.destination.credentials(request.headers)
        return is_decoding(request)

    async def _abort(self, kind: type[BaseException] | None) -> None:
        call = self._call
        if call.reason is None:
            # Nobody of ours let go of it: either it broke, or we are cancelled from outside.
            cancelled = kind is not None and issubclass(kind, trio.Cancelled)
            call.reason = Reason.SHUTDOWN if cancelled else Reason.BROKEN
        if self._works:
            await self._upstream.abort(call, self._credentials, named=self._named)

    def _send(self) -> Awaitable[tuple[Head, ReceivingStream]]:
        """Hand it over: its body is kept by those who may need it again, not by us."""
        request, self._request = self._request, None
        assert request is not None
        transport, to, body = self._upstream.transport, self._upstream.destination, request.body
        if not isinstance(transport, TrioTransport):
            return _through_httpx(transport, to.request(request, self._call))
        return transport.ask(
            to.origin,
            frame(to.head(request), len(body) if isinstance(body, bytes) else None),
            body if isinstance(body, bytes) else Once(body),
            connect_timeout=to.connect_timeout,
            on_send=self._call.begin,
        )


class Head(Protocol):
    """Of a response."""

    @property
    def status(self) -> int:
        """Its status."""
        ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Its fields, as they came."""
        ...


@dataclass(frozen=True, slots=True)
class _HttpxHead:
    """See Head."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]


async def _through_httpx(
    transport: httpx.AsyncBaseTransport, request: httpx.Request
) -> tuple[Head, ReceivingStream]:
    """What `TrioTransport.ask` gives, from a transport of httpx's."""
    sending = transport.handle_async_request(request)
    del request
    try:
        response = await sending
    except httpx.HTTPError as error:
        raise _cause(error) from error
    head = _HttpxHead(response.status_code, response.headers.raw)
    return head, cast("ReceivingStream", response.stream)


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


def _answer(head: Head, stream: ReceivingStream, *, decode: bool) -> Answer:
    headers = fields.plain_answer(head.headers)
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
            status=head.status,
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
