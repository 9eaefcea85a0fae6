"""What a Chat upstream answers, told in the dialect of the client; see `translated`."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio

from ..core import headers as fields
from ..core.errors import Broken, Garbled, UpstreamError
from ..core.failure import Cause, Failure, Refused
from ..core.sse import FrameScanner, split_frames
from ..dialects import MESSAGES
from ..dialects.translate.ways import DIALECTS
from .document import Document, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.headers import Headers
    from ..dialects import DialectStream
    from ..dialects.translate.chat_stream import ChatStream
    from ..dialects.translate.refusals import Declined
    from ..dialects.translate.ways import Translation
    from ..ports import Answer, Pump

GRACE = 5.0
"""Seconds after the finish_reason in which counts and `[DONE]` may come."""

QUIET = 1.0
"""Seconds after which an upstream that sends, but nothing that a client sees, is said to be alive."""

ERROR_BODY = 1.0
"""Seconds the body of an HTTP error may take; what has come by then has to do."""

LARGEST = 64 * 2**20
"""Bytes of a request, decoded, of a whole answer, and of one frame."""

UNKNOWN_ID = 16
"""Frames that are searched for the upstream's id of the answer."""

OF_THE_BYTES = (b"content-type", b"etag", *fields.OF_THE_BYTES)
"""Fields of a message that are wrong once it is translated."""

_EVENTS: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"),)
_NO_ANSWER = frozenset({Cause.UNREACHABLE, Cause.TRUNCATED})


class ToldBack:
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


async def tell_back(
    answer: Answer, translation: Translation, translator: ChatStream, told: DialectStream
) -> Answer:
    """`answer` in the client's dialect. Raises UpstreamError."""
    if answer.status >= 400:
        body = bytearray()
        with trio.move_on_after(ERROR_BODY):
            await read_into(body, answer)
        return _error(answer, translation, translation.failure(answer.status, bytes(body)))
    if not 200 <= answer.status < 300:
        return answer
    if translation.stream:
        return ToldBack(answer, translation, translator, told)
    body = bytearray()
    await read_into(body, answer)
    try:
        document = translation.whole(bytes(body))
    except Refused as refused:
        return _error(answer, translation, refused.failure)
    return Document(answer.status, document, _headers(answer, translation))


def _error(answer: Answer, translation: Translation, failure: Failure) -> Answer:
    return refuse(translation.dialect, failure, _headers(answer, translation))


def decline(dialect: str, declined: Declined) -> Answer:
    """What a client is told whose request has no counterpart in Chat."""
    if dialect == MESSAGES.name:
        return refuse(MESSAGES, declined.failure)
    return Document(DIALECTS[dialect].http_status(declined.failure), declined.openai_body())


def _headers(answer: Answer, translation: Translation, own: Headers = ()) -> Headers:
    """The answer's fields that do not speak of its bytes, `own`, and what was dropped."""
    headers = (*fields.without(answer.headers, *OF_THE_BYTES), *own)
    if not translation.dropped:
        return headers
    # Some of the words are the client's own.
    words = ", ".join(ascii(word)[1:-1] for word in translation.dropped)[:4_000]
    return (*headers, (b"x-proxy-dropped", words.encode()))


async def read_into(body: bytearray, answer: Answer) -> None:
    """Read a whole answer; what has come is in `body` if it is cancelled. Raises UpstreamError."""
    while piece := await answer.receive():
        body += piece
        if len(body) > LARGEST:
            raise Garbled(_too_large().message, responded=True)


def _too_large() -> Failure:
    return Failure(cause=Cause.PROTOCOL, message="the upstream's answer is too large")
