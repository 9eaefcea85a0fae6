"""An upstream that is a piece of this program: a trio callable which is given the request and an output.

    async def worker(job: Job) -> Usage | None:
        async for token in model.generate(job.json["messages"]):
            await job.send(token)

    proxy = Proxy(settings, upstream=WorkerUpstream(worker))

A call lives in the nursery of `open`. Its worker is shielded from whatever cancels the request, so that
it hears of the abandonment before anything is cancelled:

    answer taken to its end    no abort. A worker that makes its own frames gets MOMENT to return after
                               its terminator, and is then cancelled, which is no abort either.
    abandoned                  `release` sets `job.abort` at once, from whichever task: also while the
                               task that reads the answer is stuck writing to the client. `abort` is
                               called, once. Both together, the callback and the worker's returning by
                               itself, may take `abort_timeout`; then the worker is cancelled.

A worker that has returned has nothing to abort, even if the client leaves before the last frame: a
message might hit what the same slot does next. One that hangs in a thread cannot be cancelled, and the
request waits for it; `trio.to_thread.run_sync(..., abandon_on_cancel=True)` leaves the thread behind.
"""

from __future__ import annotations

import secrets
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import structlog
import trio

from ..codings import decode_aside
from ..core.call import Abort, Reason
from ..core.errors import Broken
from ..core.failure import Cause, Failure, Refused
from ..core.headers import get
from ..dialects import CHAT, peek, recognise
from ..dialects.forms import FORMS, Heading
from ..dialects.wire import fields, loads
from .document import Document, refuse
from .job import Abandoned, AbortMessage, AbortSignal, Job, Output

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ..core.call import Call
    from ..core.headers import Headers
    from ..core.usage import Usage
    from ..dialects import Dialect
    from ..ports import Answer, UpstreamRequest

    Worker = Callable[[Job], Awaitable[Usage | None]]
    AbortCallback = Callable[[AbortMessage], Awaitable[object]]

__all__ = ["Abandoned", "AbortMessage", "AbortSignal", "Job", "WorkerUpstream"]

MOMENT = 0.1  # seconds a worker gets to return after its own terminator
LARGEST_BODY = 64 * 2**20  # bytes of a request, decoded

log = structlog.get_logger("trio_sse_proxy")


class WorkerUpstream:
    """Answers the three dialects' calls by `worker`; everything else with 404.

    `worker` may raise Refused to answer with an error of its choice, as long as it has sent nothing.
    Anything else it raises is logged, and told to the client by its type alone; before output the
    relay may ask again. `abort` is told of abandoned calls, for workers behind the border of a process
    or thread; `abort_timeout` is in seconds.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        name: str = "worker",
        abort: AbortCallback | None = None,
        abort_timeout: float = 2.0,
    ) -> None:
        self.worker = worker
        self.name = name
        self.abort = abort
        self.abort_timeout = abort_timeout

    @asynccontextmanager
    async def open(self, request: UpstreamRequest, call: Call) -> AsyncGenerator[Answer]:
        """See ports.Upstream. Waits for the first output, or for the whole of an answer in JSON."""
        path = unquote(request.target.partition(b"?")[0].decode("latin-1"))
        dialect = recognise(request.method, path)
        if dialect is None:
            await trio.lowlevel.checkpoint()
            message = f"the worker {self.name} answers model calls only"
            yield refuse(CHAT, Failure(cause=Cause.NOT_FOUND, message=message))
            return
        coding = (get(request.headers, b"content-encoding") or b"").decode("latin-1")
        body = await decode_aside(await _body_of(request), coding, LARGEST_BODY) or b""
        job = self._job(request, call, dialect, path, body)
        async with _Family() as nursery:
            run = _Run(self, call, dialect, job, nursery)
            nursery.start_soon(run.work)
            try:
                yield await run.first_answer()
            except BaseException as error:
                run.left_by(error)
                raise
            finally:
                run.release()

    def _job(
        self, request: UpstreamRequest, call: Call, dialect: Dialect, path: str, body: bytes
    ) -> Job:
        asked = peek(body)
        heading = Heading(
            key=secrets.token_hex(12),
            model=asked.model or self.name,
            created=int(time.time()),
            include_usage=_wants_usage(body),
        )
        abort = AbortSignal()
        return Job(
            call_id=call.id,
            stream_id=call.stream_id,
            dialect=dialect.name,
            path=path,
            headers=request.headers,
            body=body,
            model=asked.model,
            streaming=asked.stream,
            abort=abort,
            output=Output(FORMS[dialect.name](heading), abort, stream=asked.stream),
        )


class _Run:
    """One call: the task of its worker, and its answer if that is a stream (see ports.Answer)."""

    status = 200
    headers: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"),)

    def __init__(
        self,
        upstream: WorkerUpstream,
        call: Call,
        dialect: Dialect,
        job: Job,
        nursery: trio.Nursery,
    ) -> None:
        self._upstream = upstream
        self._call = call
        self._dialect = dialect
        self._job = job
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._returned = trio.Event()  # the worker is at its end, however it came there
        self._usage: Usage | None = None
        self._failure: Exception | None = None
        self._first = b""
        self._told = False  # something of the answer was handed out
        self._released = False

    async def work(self) -> None:
        """Run the worker. Raises nothing: the nursery must bring no exceptions but its body's."""
        with trio.CancelScope(shield=True):
            try:
                if not self._released:
                    await self._run_worker()
            finally:
                self._job.output.end()

    async def _run_worker(self) -> None:
        self._call.begun = True
        try:
            with self._scope:
                self._usage = await self._upstream.worker(self._job)
        except Exception as error:
            self._note(error)
        finally:
            self._returned.set()
        if self._failure is None and not self._released:
            with suppress(Abandoned):  # the client left before the last frames
                await self._job.output.finish(self._usage, self._job.stop)

    def _note(self, error: Exception) -> None:
        self._failure = error
        self._call.reason = self._call.reason or Reason.BROKEN
        if isinstance(error, Refused) or (self._released and _is_abandonment(error)):
            return
        log.error(
            "a worker failed", upstream=self._upstream.name, call=self._call.id, exc_info=error
        )

    async def first_answer(self) -> Answer:
        """The answer, once it is known of which kind it is. Raises Broken."""
        self._first = await self._job.output.take()
        if self._first:
            if self._job.output.makes_frames:
                self._call.numbering = self._job.output
            return self
        if isinstance(self._failure, Refused):
            return refuse(self._dialect, self._failure.failure)
        if self._failure is not None:
            raise self._broken() from self._failure
        return Document(200, self._job.output.document(self._usage, self._job.stop))

    async def receive(self) -> bytes:
        """See ports.Answer."""
        frames, self._first = self._first, b""
        self._told = True
        if frames:
            await trio.lowlevel.checkpoint()
        else:
            frames = await self._job.output.take()
        if self._released:
            raise Broken("the worker was let go", responded=True)
        if not frames and self._failure is not None:
            raise self._broken() from self._failure
        return frames

    def left_by(self, error: BaseException) -> None:
        """The call is being left by an exception; nobody of ours may have said why."""
        if isinstance(error, trio.Cancelled) and not self._call.over:
            self._call.reason = self._call.reason or Reason.SHUTDOWN

    def release(self) -> None:
        """See ports.Answer. This is when the worker hears of it."""
        if self._released:
            return
        self._released = True
        over = not self._call.begun or self._returned.is_set()
        if not self._call.over:
            # Where nobody let go of it and nothing was cancelled, what it said was of no use.
            reason = self._call.reason = self._call.reason or Reason.BROKEN
            if not over:
                self._job.abort.set(reason)
                self._nursery.start_soon(self._see_out, reason)
        elif not over:
            self._nursery.start_soon(self._dismiss)
        self._job.output.close()

    async def _see_out(self, reason: Reason) -> None:
        """Tell of the abort, and give the worker the rest of the time to return by itself."""
        deadline = trio.current_time() + self._upstream.abort_timeout
        outcome = Abort.TIMED_OUT
        try:
            with trio.CancelScope(shield=True, deadline=deadline):
                await self._send_abort(reason)
                outcome = Abort.IGNORED
        except Exception as error:
            outcome = Abort.FAILED
            log.error(
                "an abort callback failed",
                upstream=self._upstream.name,
                call=self._call.id,
                exc_info=error,
            )
        with trio.CancelScope(shield=True, deadline=deadline):
            await self._returned.wait()
        if outcome is Abort.IGNORED and self._returned.is_set():
            outcome = Abort.DONE
        self._call.abort = outcome
        self._scope.cancel("the worker did not return after the abort")

    async def _send_abort(self, reason: Reason) -> None:
        call = self._call
        if self._upstream.abort is not None:
            message = AbortMessage(
                call_id=call.id, stream_id=call.stream_id, reason=reason, model=self._job.model
            )
            await self._upstream.abort(message)

    async def _dismiss(self) -> None:
        with trio.move_on_after(MOMENT, shield=True):
            await self._returned.wait()
        self._scope.cancel("the answer is complete")

    def _broken(self) -> Broken:
        failure = self._failure
        if isinstance(failure, Refused):
            message = failure.failure.message
        else:
            message = f"the worker failed with {type(failure).__name__}"
        return Broken(message, responded=self._told)


class _Family:
    """A nursery whose tasks raise nothing, so that what its body raises need not come in a group.

    The relay looks for UpstreamError, and a group around it would hide that.
    """

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        return await self._manager.__aenter__()

    async def __aexit__(self, *exception: object) -> None:
        # A nursery's exit waits for its tasks, cancelled or not; each of them has its own deadline.
        await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102


def _is_abandonment(error: Exception) -> bool:
    """True if it, or everything in it, only says that nobody reads any more."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return all(_is_abandonment(inner) for inner in group.exceptions)
    return isinstance(error, Abandoned)


def _wants_usage(body: bytes) -> bool:
    """True if a Chat client asked for token counts in its stream."""
    if b"include_usage" not in body:
        return False
    return fields(fields(loads(body)).get("stream_options")).get("include_usage") is True


async def _body_of(request: UpstreamRequest) -> bytes:
    if isinstance(request.body, bytes):
        return request.body
    return b"".join([piece async for piece in request.body])
