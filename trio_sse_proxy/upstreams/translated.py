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
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio

from ..codings import decode_aside
from ..core import headers as fields
from ..core.call import Call
from ..core.errors import Broken, Garbled, UpstreamError
from ..core.failure import Cause, Failure, Refused
from ..core.sse import FrameScanner, split_frames
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
from ..dialects.translate.ways import DIALECTS, WAYS
from ..ports import UpstreamRequest
from .document import Document, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from ..core.headers import Headers
    from ..dialects import DialectStream
    from ..dialects.translate.chat_stream import ChatStream
    from ..dialects.translate.messages_request import Request
    from ..dialects.translate.profile import Profile
    from ..dialects.translate.ways import Translation
    from ..ports import Answer, Pump, Upstream

GRACE = 5.0
"""Seconds after the finish_reason in which counts and `[DONE]` may come."""

QUIET = 1.0
"""Seconds after which an upstream that sends, but nothing that a client sees, is said to be alive."""

ERROR_BODY = 1.0
"""Seconds the body of an HTTP error may take; what has come by then has to do."""

COUNTING = 5.0
"""Seconds a tokenizer may take; after that an estimate has to do."""

LARGEST = 64 * 2**20
"""Bytes of a request, decoded, of a whole answer, and of one frame."""

AT_ONCE = 2**20
"""Bytes of a request that are translated while everybody else waits."""

MANY_DROPS = 256
"""Words for what was left out: more are not logged."""

UNKNOWN_ID = 16
"""Frames that are searched for the upstream's id of the answer."""

log = structlog.get_logger("trio_sse_proxy")

_COUNT = b"/messages/count_tokens"
_TARGET = b"/v1/chat/completions"
_JSON: Headers = ((b"content-type", b"application/json"),)
_EVENTS: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"),)
_OF_THE_BYTES = (
    b"content-type",
    b"content-encoding",
    b"content-length",
    b"content-digest",
    b"repr-digest",
    b"digest",
    b"content-md5",
    b"etag",
)
_OF_A_DIALECT = (b"anthropic-", b"openai-beta", b"chatgpt-", b"x-codex-")
_NO_ANSWER = frozenset({Cause.UNREACHABLE, Cause.TRUNCATED})


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
            return _declined(self._dialect, declined)
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
            return await _told_back(answer, translation, translator, told)
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
            return _declined(MESSAGES.name, declined)
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
                    await _read_into(counted, answer)
                    return tokenizer_count(bytes(counted)) if answer.status == 200 else None
            except UpstreamError:
                pass
        return None


class _Stream:
    """A Chat stream, or a completion in its place, as a stream of the client's dialect."""

    __slots__ = (
        "_answer",
        "_at_end",
        "_died",
        "_document",
        "_ended",
        "_gave_at",
        "_grace_until",
        "_heartbeat",
        "_left",
        "_over",
        "_scanner",
        "_size",
        "_to_look_at",
        "_told",
        "_translator",
        "headers",
        "status",
    )

    def __init__(
        self, answer: Answer, translation: Translation, translator: ChatStream, told: DialectStream
    ) -> None:
        self.status = answer.status
        self.headers = _headers(answer, translation, _EVENTS)
        self._answer = answer
        self._translator = translator
        self._heartbeat = translation.dialect.open_stream().byte_heartbeat()
        self._told = told
        self._to_look_at = UNKNOWN_ID
        self._scanner = FrameScanner(LARGEST)
        self._document: list[bytes] | None = None
        if not fields.is_event_stream(answer.headers):
            self._document = []
        self._size = 0  # of that
        self._gave_at = -inf
        self._grace_until = inf
        self._died: UpstreamError | None = None  # to be raised when what came before is given
        self._over = False  # the client has got its end, or its error
        self._ended = False  # nothing more is to be read
        self._at_end = False  # the upstream's body is
        self._left = b""  # of what was given in the pump

    async def receive(self) -> bytes:
        """See ports.Answer."""
        if self._gave_at == -inf:
            await trio.lowlevel.checkpoint()
            self._gave_at = trio.current_time()
            return self._translator.opening
        while not self._over:
            if self._died is not None:
                raise self._died
            piece = await self._next()
            given = self._take(piece) if piece else self._close()
            now = trio.current_time()
            if not given and not self._over and now - self._gave_at >= QUIET:
                given = self._heartbeat
            if given:
                self._gave_at = now
                return given
        await self._drain()
        return b""

    async def pump(self, take: Callable[[bytes], bytes]) -> bytes:
        """See ports.Pump. While the answer runs, its pieces are translated where they are read."""
        pump: Pump | None = getattr(self._answer, "pump", None)
        while True:
            if pump is not None and self._is_steady:
                self._left = b""
                try:
                    self._at_end = not await pump(partial(self._pass, take))
                finally:
                    self._translator.busy = False
                if self._left:
                    return self._left
            given = await self.receive()
            left = take(given) if given else b""
            if left or not given:
                return left

    def release(self) -> None:
        """See ports.Answer."""
        self._answer.release()

    @property
    def _is_steady(self) -> bool:
        """True if nothing is to be done but to translate what comes."""
        begun = self._gave_at > -inf and self._document is None
        ending = self._over or self._died is not None or self._translator.finished
        return begun and not ending

    def _pass(self, take: Callable[[bytes], bytes], piece: bytes) -> bytes:
        """Give what a piece comes to; anything but b"" ends the pump: then there is more to be done."""
        now = trio.current_time()
        given = self._take(piece)
        if not given and now - self._gave_at >= QUIET and self._is_steady:
            given = self._heartbeat
        if given:
            self._gave_at = now
            self._left = take(given)
            self._translator.busy = bool(self._left)  # until the task that pumps has woken
        return self._left or (b"" if self._is_steady else piece)

    async def _next(self) -> bytes:
        """The next piece; after the finish_reason all is said, and nothing is waited for long."""
        if self._at_end:
            await trio.lowlevel.checkpoint()
            return b""
        if not self._translator.finished:
            return await self._answer.receive()
        if self._grace_until == inf:
            self._grace_until = trio.current_time() + GRACE
        with trio.move_on_at(self._grace_until):
            try:
                return await self._answer.receive()
            except UpstreamError:
                pass
        self._ended = True
        return b""

    async def _drain(self) -> None:
        """Read to the end, so that the connection can be used again."""
        if self._ended:
            await trio.lowlevel.checkpoint()
        while not self._ended:
            self._ended = not await self._answer.receive()

    def _take(self, piece: bytes) -> bytes:
        if self._document is not None:
            self._size += len(piece)
            if self._size > LARGEST:
                return self._fail(_too_large())
            self._document.append(piece)
            return b""
        ready = self._scanner.cut(piece)
        if self._scanner.inside:
            return self._fail(_too_large())
        return self._feed(ready) if ready else b""

    def _feed(self, frames: bytes) -> bytes:
        if self._to_look_at:
            self._look_for_id(frames)
        return self._judged(self._translator.feed(frames))

    def _close(self) -> bytes:
        self._ended = True
        if self._document is not None:
            return self._judged(self._translator.whole(b"".join(self._document)))
        # Some servers leave out the blank line behind their last frame.
        tail = self._scanner.close()
        given = self._feed(tail + b"\n\n") if tail else b""
        if self._over or self._died is not None:
            return given
        return given + self._judged(self._translator.end())

    def _judged(self, given: bytes) -> bytes:
        translator = self._translator
        if translator.failure is not None:
            return given + self._fail(translator.failure)
        self._over = translator.done
        return given

    def _fail(self, failure: Failure) -> bytes:
        """The frames that tell of it, unless it is for the relay to say what becomes of it."""
        if failure.cause is Cause.PROTOCOL:
            self._died = Garbled(failure.message, responded=True)
        elif failure.cause in _NO_ANSWER:
            self._died = Broken(failure.message, responded=True)
        else:
            self._over = self._ended = True
            return self._translator.fail(failure)
        return b""

    def _look_for_id(self, frames: bytes) -> None:
        for frame in split_frames(frames):
            self._told.look(frame)
            known = self._told.answer_id is not None
            self._to_look_at = 0 if known else self._to_look_at - 1
            if not self._to_look_at:
                return


async def _told_back(
    answer: Answer, translation: Translation, translator: ChatStream, told: DialectStream
) -> Answer:
    """`answer` in the client's dialect. Raises UpstreamError."""
    if answer.status >= 400:
        body = bytearray()
        with trio.move_on_after(ERROR_BODY):
            await _read_into(body, answer)
        return _error(answer, translation, translation.failure(answer.status, bytes(body)))
    if not 200 <= answer.status < 300:
        return answer
    if translation.stream:
        return _Stream(answer, translation, translator, told)
    body = bytearray()
    await _read_into(body, answer)
    try:
        document = translation.whole(bytes(body))
    except Refused as refused:
        return _error(answer, translation, refused.failure)
    return Document(answer.status, document, _headers(answer, translation))


def _error(answer: Answer, translation: Translation, failure: Failure) -> Answer:
    return refuse(translation.dialect, failure, _headers(answer, translation))


def _declined(dialect: str, declined: Declined) -> Answer:
    if dialect == MESSAGES.name:
        return refuse(MESSAGES, declined.failure)
    return Document(DIALECTS[dialect].http_status(declined.failure), declined.openai_body())


def _headers(answer: Answer, translation: Translation, own: Headers = ()) -> Headers:
    """The answer's fields that do not speak of its bytes, `own`, and what was dropped."""
    headers = (*fields.without(answer.headers, *_OF_THE_BYTES), *own)
    if not translation.dropped:
        return headers
    # Some of the words are the client's own.
    words = ", ".join(ascii(word)[1:-1] for word in translation.dropped)[:4_000]
    return (*headers, (b"x-proxy-dropped", words.encode()))


def chat_headers(headers: Headers) -> Headers:
    """A request's fields for a Chat upstream: without those of another dialect, and with the client's
    key where Chat has it."""
    kept = [
        field
        for field in fields.without(headers, *_OF_THE_BYTES, b"x-api-key")
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


async def _read_into(body: bytearray, answer: Answer) -> None:
    while piece := await answer.receive():
        body += piece
        if len(body) > LARGEST:
            raise Garbled(_too_large().message, responded=True)


def _too_large() -> Failure:
    return Failure(cause=Cause.PROTOCOL, message="the upstream's answer is too large")
