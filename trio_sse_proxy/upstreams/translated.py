"""An upstream that speaks Chat, made to speak Responses and Messages too.

A call in a dialect that the upstream speaks itself is handed through: same context manager, same answer.
A call in another one goes out as Chat, and what comes back is told in the client's dialect; see
`dialects/translate`, which knows how. To the relay a translated answer is one like any other: it holds
the opening back as prelude, asks again after a cut that nobody saw, and reads errors from the frames.

| what the upstream does | what the relay gets |
|---|---|
| an HTTP error | the client's status and body for it, `Retry-After` as it came |
| an error on the stream | the client's error frames, of the same cause |
| a stream that ends before its finish_reason | Broken |
| what is no Chat at all | Garbled on a stream, 502 before one |
| silence after the finish_reason, or a cut | after `GRACE` at most, the end |
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import trio

from ..codings import decode_aside
from ..core import headers as fields
from ..core.call import Call
from ..core.errors import UpstreamError
from ..dialects import CHAT, MESSAGES
from ..dialects.translate.messages_count import (
    ESTIMATE_HEADER,
    count_answer,
    estimate,
    tokenizer_count,
    tokenizer_request,
)
from ..dialects.translate.messages_request import translate_count
from ..dialects.translate.profile import GENERIC
from ..dialects.translate.refusals import Declined
from ..dialects.translate.ways import WAYS
from ..ports import UpstreamRequest
from .document import Document
from .told_back import LARGEST, OF_THE_BYTES, decline, read_into, tell_back

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from ..core.headers import Headers
    from ..dialects.translate.messages_request import Request
    from ..dialects.translate.profile import Profile
    from ..dialects.translate.ways import Translation
    from ..ports import Answer, Upstream

COUNTING = 5.0
"""Seconds a tokenizer may take; after that an estimate has to do."""

AT_ONCE = 2**20
"""Bytes of a request that are translated while everybody else waits."""

MANY_DROPS = 256
"""Words for what was left out: more are not logged."""

log = structlog.get_logger("trio_sse_proxy")

_COUNT = b"/messages/count_tokens"
_TARGET = b"/v1/chat/completions"
_JSON: Headers = ((b"content-type", b"application/json"),)
_OF_A_DIALECT = (b"anthropic-", b"openai-beta", b"chatgpt-", b"x-codex-")


class Translated:
    """`inner`, which speaks `dialects`, for clients that speak any; `profile` is what it understands.

    `tokenizer` is where the profile's `tokenizer_url` lies: the same server, from its root.
    """

    def __init__(
        self,
        inner: Upstream,
        profile: Profile = GENERIC,
        *,
        dialects: Iterable[str] = ("chat",),
        tokenizer: Upstream | None = None,
    ) -> None:
        self.inner = inner
        self.profile = profile
        self.dialects = frozenset(dialects)
        self.tokenizer = tokenizer
        self._known_drops: set[str] = set()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Translated):
            return NotImplemented
        mine, theirs = (self.profile, self.dialects), (other.profile, other.dialects)
        return self.inner is other.inner and mine == theirs

    __hash__ = None  # type: ignore[assignment]

    @property
    def name(self) -> str:
        """That of the upstream inside."""
        return self.inner.name

    @property
    def transport(self) -> object:
        """That of the upstream inside, if it has one: connections are counted there."""
        return getattr(self.inner, "transport", None)

    def open(self, request: UpstreamRequest, call: Call) -> AbstractAsyncContextManager[Answer]:
        """See ports.Upstream."""
        if call.dialect in WAYS and call.dialect not in self.dialects:
            return _Attempt(self, request, call, call.dialect)
        if "messages" not in self.dialects and _counts_tokens(request):
            return _Count(request, self.profile, self.tokenizer, call)
        return self.inner.open(request, call)

    def translate(self, dialect: str, body: bytes, call: Call) -> Translation:
        """Ids and times are the request's: so all its attempts begin alike. Raises Declined."""
        created = int(call.began)
        key = f"{call.stream_id}{created:08x}"
        return WAYS[dialect](body, self.profile, key, created)

    def note_dropped(self, words: tuple[str, ...]) -> None:
        """Log what has no counterpart, each word once; the answers' headers tell it every time."""
        new = sorted(set(words) - self._known_drops)
        if new and len(self._known_drops) < MANY_DROPS:  # some of the words are clients' own
            self._known_drops.update(new)
            log.info("has no counterpart, left out", upstream=self.name, what=new[:MANY_DROPS])


class _Attempt:
    """One translated call. Not an `asynccontextmanager`, for the reason given in `http`."""

    __slots__ = ("_call", "_context", "_dialect", "_request", "_upstream")

    def __init__(
        self, upstream: Translated, request: UpstreamRequest, call: Call, dialect: str
    ) -> None:
        self._upstream = upstream
        self._request: UpstreamRequest | None = request
        self._call = call
        self._dialect = dialect
        self._context: AbstractAsyncContextManager[Answer] | None = None

    async def __aenter__(self) -> Answer:
        # Its body is kept by those who may need it again, not by us.
        request, self._request = self._request, None
        assert request is not None, "an attempt is made once"
        try:
            translation = await self._translate(request)
        except Declined as declined:
            self._call.declined = True
            return decline(self._dialect, declined)
        self._upstream.note_dropped(translation.dropped)
        call = self._call
        call.dialect = CHAT.name  # in which it is asked, and told to stop
        call.told = told = CHAT.open_stream()
        translator = translation.open()
        call.opening = translator.opening if translation.stream else b""
        call.numbering = translator
        translator.skip(call.skipped, b"")
        headers = chat_headers(request.headers)
        request = replace(request, target=_TARGET, headers=headers, body=translation.body)
        self._context = context = self._upstream.inner.open(request, call)
        answer = await context.__aenter__()
        try:
            return await tell_back(answer, translation, translator, told)
        except BaseException:
            await context.__aexit__(*sys.exc_info())  # noqa: ASYNC102  # as its own `async with`
            raise

    async def __aexit__(self, *exception: object) -> None:
        if self._context is not None:
            leave = self._context.__aexit__
            await leave(*exception)  # type: ignore[arg-type]  # pyright: ignore  # noqa: ASYNC102

    async def _translate(self, request: UpstreamRequest) -> Translation:
        body = await _body_of(request)
        coding = (fields.get(request.headers, b"content-encoding") or b"").decode("latin-1")
        decoded = _known(await decode_aside(body, coding, LARGEST), coding)
        self._call.make_room(len(decoded))
        args = (self._dialect, decoded, self._call)
        if len(decoded) <= AT_ONCE:
            await trio.lowlevel.checkpoint()
            return self._upstream.translate(*args)
        translate = self._upstream.translate
        return await trio.to_thread.run_sync(translate, *args, abandon_on_cancel=True)


class _Count:
    """A client of Messages asks how long its prompt is: counted where somebody can, else estimated."""

    def __init__(
        self, request: UpstreamRequest, profile: Profile, tokenizer: Upstream | None, call: Call
    ) -> None:
        self._request = request
        self._profile = profile
        self._tokenizer = tokenizer
        self._call = call

    async def __aenter__(self) -> Answer:
        coding = (fields.get(self._request.headers, b"content-encoding") or b"").decode("latin-1")
        await trio.lowlevel.checkpoint()
        try:
            body = await _body_of(self._request)
            decoded = _known(await decode_aside(body, coding, LARGEST), coding)
            asked = translate_count(decoded, self._profile)
        except Declined as declined:
            return decline(MESSAGES.name, declined)
        tokens = await self._counted(asked)
        if tokens is None:
            return Document(200, count_answer(estimate(asked)), (ESTIMATE_HEADER,))
        return Document(200, count_answer(tokens))

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def _counted(self, asked: Request) -> int | None:
        """What the tokenizer says; None if there is none, or none that answers as it should."""
        tokenizer, path = self._tokenizer, self._profile.tokenizer_url
        if tokenizer is None or path is None:
            return None
        request = UpstreamRequest(
            method="POST",
            target=path.encode("ascii"),
            headers=chat_headers(self._request.headers),
            body=tokenizer_request(asked),
        )
        # Over before it begins: leaving it early leaves no work behind that a message would stop.
        own = Call(id=self._call.id, stream_id=self._call.stream_id, over=True)
        own.model = asked.body.get("model")
        with trio.move_on_after(COUNTING):
            try:
                async with tokenizer.open(request, own) as answer:
                    counted = bytearray()
                    await read_into(counted, answer)
                    return tokenizer_count(bytes(counted)) if answer.status == 200 else None
            except UpstreamError:
                pass
        return None


def chat_headers(headers: Headers) -> Headers:
    """A request's fields for a Chat upstream: without those of another dialect, and with the client's
    key where Chat has it."""
    kept = [
        field
        for field in fields.without(headers, *OF_THE_BYTES, b"x-api-key")
        if not field[0].startswith(_OF_A_DIALECT)
    ]
    key = fields.get(headers, b"x-api-key")
    if key is not None and fields.get(headers, b"authorization") is None:
        kept.append((b"authorization", b"Bearer " + key))
    return (*kept, *_JSON)


def _counts_tokens(request: UpstreamRequest) -> bool:
    return request.method == "POST" and request.target.partition(b"?")[0].endswith(_COUNT)


def _known(decoded: bytes | None, coding: str) -> bytes:
    if decoded is None:
        raise Declined(f"the body does not decode as {coding!r}, or is too large")
    return decoded


async def _body_of(request: UpstreamRequest) -> bytes:
    if isinstance(request.body, bytes):
        return request.body
    body = bytearray()
    try:
        async for piece in request.body:
            body += piece
            if len(body) > LARGEST:
                raise Declined("the body is too large")
    finally:
        aclose = getattr(request.body, "aclose", None)
        if aclose is not None:
            await aclose()  # noqa: ASYNC102  # it says that we read no further, and does not wait
    return bytes(body)
