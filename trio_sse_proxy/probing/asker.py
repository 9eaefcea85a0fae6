"""Sending questions to a server, within bounds: their number, the tokens of the answers, the time.

A question that would go beyond a bound is not sent, and its reply says so: what was found until then
still counts. Nothing is asked twice, unless the caller asks again in other words, or the connection
had been closed behind an earlier answer: llama.cpp does so after each stream, without a word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ..core.call import Call
from ..core.errors import BadRequest, UpstreamError
from ..dialects.wire import dumps
from ..ports import UpstreamRequest
from .reply import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..core.headers import Headers
    from ..ports import Answer, Upstream
    from .reply import Json

LARGEST = 2**20
"""Bytes that are read of an answer."""

_HEADERS: Headers = (
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"trio-sse-proxy-probe"),
)
_JSON: Headers = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may be asked. `patience` is for one answer, `total` for everything, in seconds."""

    questions: int = 30
    tokens: int = 3_000
    patience: float = 60.0
    total: float = 300.0


@dataclass(slots=True)
class Asker:
    """Asks `upstream`; `root` is the same server without the path of its base URL.

    `tell` gets a line before each question.
    """

    upstream: Upstream
    root: Upstream
    bounds: Bounds
    tell: Callable[[str], None]
    asked: int = 0
    tokens: int = 0
    _until: float = field(default=0.0, init=False)

    def begin(self) -> None:
        """The time runs from now on."""
        self._until = trio.current_time() + self.bounds.total

    async def get(self, path: str, why: str, *, root: bool = False) -> Reply:
        """The answer to a GET."""
        request = UpstreamRequest(method="GET", target=path.encode(), headers=_HEADERS, body=b"")
        return await self._ask(self.root if root else self.upstream, request, why)

    async def post(
        self,
        path: str,
        body: Json,
        why: str,
        *,
        tokens: int,
        until: Callable[[bytes], bool] | None = None,
        amid: Callable[[], Awaitable[None]] | None = None,
    ) -> Reply:
        """The answer to a POST that may cost so many tokens.

        With `until`, which is asked about all that came, it is left as soon as that is true, and
        `amid` was awaited.
        """
        if self.tokens + tokens > self.bounds.tokens:
            return Reply(problem="not asked: that would have been too many tokens")
        self.tokens += tokens
        headers = (*_HEADERS, *_JSON)
        if path.endswith("/messages"):
            headers = (*headers, (b"anthropic-version", b"2023-06-01"))
        request = UpstreamRequest(
            method="POST", target=path.encode(), headers=headers, body=dumps(body)
        )
        return await self._ask(self.upstream, request, why, until, amid)

    async def _ask(
        self,
        upstream: Upstream,
        request: UpstreamRequest,
        why: str,
        until: Callable[[bytes], bool] | None = None,
        amid: Callable[[], Awaitable[None]] | None = None,
    ) -> Reply:
        if self.asked >= self.bounds.questions:
            return Reply(problem="not asked: that would have been too many questions")
        left = min(self.bounds.patience, self._until - trio.current_time())
        if left <= 0:
            return Reply(problem="not asked: the time was up")
        self.asked += 1
        self.tell(f"{request.method} {request.target.decode()}: {why}")
        # Over before it begins: abort calls are not what is looked at here.
        call = Call(id=f"probe-{self.asked}", stream_id="probe", over=True)
        partial = _Partial()
        again = True
        with trio.move_on_after(left):
            while True:
                try:
                    async with upstream.open(request, call) as answer:
                        await partial.read(answer, until)
                        if partial.left and amid is not None:
                            await amid()
                    return partial.reply()
                except UpstreamError as error:
                    if not (again and error.reused and not error.responded):
                        return partial.reply(str(error))
                    again = False
                except BadRequest as error:
                    return partial.reply(str(error))
        return partial.reply(f"no {'end' if partial.status else 'answer'} within {left:.0f} s")


@dataclass(slots=True)
class _Partial:
    """An answer that may stop anywhere."""

    status: int | None = None
    headers: Headers = ()
    body: bytearray = field(default_factory=bytearray)
    left: bool = False

    async def read(self, answer: Answer, until: Callable[[bytes], bool] | None) -> None:
        self.status, self.headers = answer.status, answer.headers
        while piece := await answer.receive():
            self.body += piece
            if until is not None and until(bytes(self.body)):
                self.left = True
                return
            if len(self.body) > LARGEST:
                raise UpstreamError(f"more than {LARGEST} bytes")

    def reply(self, problem: str = "") -> Reply:
        return Reply(
            status=self.status,
            headers=tuple(self.headers),
            body=bytes(self.body),
            problem=problem,
            left=self.left,
        )
