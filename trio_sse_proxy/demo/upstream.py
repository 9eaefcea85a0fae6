"""An upstream without a socket that behaves like a slow model, and breaks when it is asked to."""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

import trio

from ..codings import decode_whole
from ..core.errors import Broken
from ..core.failure import Cause, Failure
from ..core.headers import get
from ..dialects import CHAT, recognise
from .ask import Trick, reply, understand
from .forms import DemoForm, models

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from ..core.call import Call
    from ..core.headers import Headers
    from ..dialects import Dialect
    from ..ports import UpstreamRequest
    from .ask import Ask
    from .forms import Json

LARGEST_BODY = 64 * 2**20  # bytes of a request, decoded
BROKEN_AFTER = 12  # words of a text that is to break off in the middle
REMEMBERED = 64  # requests whose first attempt failed on purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How slow it is, in seconds."""

    silence: float = 7.0  # before the headers: longer than a heartbeat of the proxy
    thinking: float = 4.0  # between the headers and the first word
    gap: float = 0.04  # between words: 25 a second


_NO_WAITING = Pace(silence=0.0, thinking=0.0)

Step = tuple[float, bytes | None]
"""Seconds to wait, and then what to send; None breaks the connection."""


class DemoUpstream:
    """Answers the three dialects' calls, the list of models, and everything else with 404.

    `tell` gets a few words for people whenever a request comes, breaks, or is aborted.
    """

    name = "demo"

    def __init__(
        self, pace: Pace | None = None, *, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.aborts = 0
        self._pace = pace or Pace()
        self._tell = tell
        self._numbers = itertools.count(1)
        self._failed: deque[int] = deque(maxlen=REMEMBERED)

    @asynccontextmanager
    async def open(self, request: UpstreamRequest, call: Call) -> AsyncGenerator[DemoAnswer]:
        """See ports.Upstream. Cancelled, or left before the answer's end, it counts an abort."""
        answer = DemoAnswer(self._tell)
        self._tell("got a request")
        call.begun = True
        try:
            await self._decide(answer, request)
            yield answer
        finally:
            answer.release()
            if not answer.over:
                self.aborts += 1
                self._tell("was aborted, and stopped working")

    async def _decide(self, answer: DemoAnswer, request: UpstreamRequest) -> None:
        """Make up `answer`, which takes as long as it takes a model."""
        path = request.target.partition(b"?")[0].decode("latin-1")
        dialect = recognise(request.method, path)
        if dialect is None:
            await trio.lowlevel.checkpoint()
            self._answer_plainly(answer, request.method, path)
            return
        body = await _body_of(request)
        coding = (get(request.headers, b"content-encoding") or b"").decode("latin-1")
        ask = understand(decode_whole(body, coding, LARGEST_BODY) or b"")
        if ask is None:
            message = "the demo upstream wants a JSON object"
            failure = Failure(cause=Cause.INVALID_REQUEST, message=message)
            answer.refuse(400, dialect.error_body(failure))
            return
        pace = _NO_WAITING if Trick.FAST in ask.tricks else self._pace
        await trio.sleep(pace.silence)
        fails = self._fails(ask, body)
        if fails and Trick.ERROR in ask.tricks:
            self._tell("answers 529, as it was asked to")
            message = "the demo upstream is overloaded, as it was asked to be"
            failure = Failure(cause=Cause.OVERLOADED, message=message)
            answer.refuse(529, dialect.error_body(failure))
            return
        self._tell("sends its headers")
        self._answer(answer, dialect, ask, pace, cut=fails)

    def _answer(
        self, answer: DemoAnswer, dialect: Dialect, ask: Ask, pace: Pace, *, cut: bool
    ) -> None:
        """The answer to a model call. `cut` breaks it before its first word."""
        number, now = next(self._numbers), int(time.time())
        words = reply(ask, silence=pace.silence, thinking=pace.thinking)
        form = DemoForm(dialect.name, ask, words, number=number, now=now)
        breaks = Trick.BREAK in ask.tricks
        if ask.stream:
            answer.headers = _headers(b"text/event-stream; charset=utf-8", number)
            answer.steps = _frames(form, words, pace, cut=cut, breaks=breaks)
        else:
            document = _dump(form.whole())
            answer.headers = _headers(b"application/json", number, len(document))
            answer.steps = _pieces(document, pace, cut=cut or breaks)

    def _answer_plainly(self, answer: DemoAnswer, method: str, path: str) -> None:
        """Everything that is no model call."""
        if method == "GET" and path.endswith("/models"):
            answer.be_document(_dump(models(int(time.time()))), next(self._numbers))
        else:
            message = f"the demo upstream has nothing at {path}"
            failure = Failure(cause=Cause.NOT_FOUND, message=message)
            answer.refuse(404, CHAT.error_body(failure))

    def _fails(self, ask: Ask, body: bytes) -> bool:
        """True for the first attempt of a request that wants it to fail.

        The second attempt is known by its body, which is the same. So the same request, asked once
        more by a client, fails at first again.
        """
        if not ask.tricks & {Trick.CUT, Trick.ERROR}:
            return False
        if (mark := hash(body)) in self._failed:
            self._failed.remove(mark)
            return False
        self._failed.append(mark)
        return True


def _frames(
    form: DemoForm, words: tuple[str, ...], pace: Pace, *, cut: bool, breaks: bool
) -> Iterator[Step]:
    yield 0.0, form.opening()
    if cut:
        yield pace.thinking / 2, None
    wait = pace.thinking
    for place, word in enumerate(words):
        if breaks and place == BROKEN_AFTER:
            yield pace.gap, None
        yield wait, form.word(word)
        wait = pace.gap
    yield 0.0, form.closing()


def _pieces(document: bytes, pace: Pace, *, cut: bool) -> Iterator[Step]:
    middle = len(document) // 2
    yield pace.thinking, document[:middle]
    yield pace.gap, None if cut else document[middle:]


class DemoAnswer:
    """See ports.Answer. `over` is true once the body has ended, well or badly."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.status = 200
        self.headers: Headers = ()
        self.steps: Iterator[Step] = iter(())
        self.over = False
        self._tell = tell
        self._released = False
        self._nap = trio.CancelScope()

    async def receive(self) -> bytes:
        """See ports.Answer."""
        wait, piece = next(self.steps, (0.0, b""))
        with trio.move_on_after(wait) as self._nap:
            if self._released:
                self._nap.cancel("released")
            await trio.sleep_forever()
        if self._released:
            raise Broken("the demo upstream was let go", responded=True)
        if piece is None:
            self.over = True
            self._tell("breaks the connection, as it was asked to")
            raise Broken("the demo upstream broke off, as it was asked to", responded=True)
        self.over = not piece
        return piece

    def release(self) -> None:
        """See ports.Answer."""
        self._released = True
        self._nap.cancel("released")

    def refuse(self, status: int, body: bytes) -> None:
        """Be an error instead of an answer."""
        self.be_document(body, 0)
        self.status = status

    def be_document(self, body: bytes, number: int) -> None:
        """Be a JSON document that comes in one piece."""
        self.headers = _headers(b"application/json", number, len(body))
        self.steps = iter([(0.0, body)])


async def _body_of(request: UpstreamRequest) -> bytes:
    if isinstance(request.body, bytes):
        return request.body
    return b"".join([piece async for piece in request.body])


def _headers(media_type: bytes, number: int, length: int | None = None) -> Headers:
    fields = (
        (b"content-type", media_type),
        (b"date", formatdate(usegmt=True).encode()),
        (b"server", b"trio-sse-proxy-demo"),
        (b"x-request-id", b"demo-%d" % number),
    )
    return fields if length is None else (*fields, (b"content-length", b"%d" % length))


def _dump(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
