"""Workers of the simulation: what an upstream does there, a coroutine inside the process does here."""

from __future__ import annotations

import trio

from trio_sse_proxy.core.failure import Cause, Failure, Refused
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.upstreams.worker import WorkerUpstream

from .words import INPUT


class Bond:
    """Stands for the connection that a worker has not."""

    def __init__(self) -> None:
        self.closed_at: float | None = None


class Worker:
    """One worker; `upstream` is what the proxy is given."""

    def __init__(self, server, plays, log, abort_timeout: float) -> None:
        self.server, self.plays, self._log = server, plays, log
        self.ends: list[Bond] = []
        abort = self._hear if server.told else None
        self.upstream = WorkerUpstream(
            self._work, name=server.name, abort=abort, abort_timeout=abort_timeout
        )

    async def _hear(self, message) -> None:
        await trio.lowlevel.checkpoint()
        self.plays.aborts.append((message.call_id, trio.current_time()))
        self._log(self.server.name, "is told to stop")

    async def _work(self, job) -> Usage | None:
        bond = Bond()
        self.ends.append(bond)
        played = self.plays.next(self.server.name, job.dialect, job.json, job.call_id, bond)
        _hear_of_the_end(job, bond)
        try:
            await _perform(job, played)
            played.returned = True
        except (Refused, RuntimeError):
            played.returned = True
            raise
        finally:
            if bond.closed_at is None:
                bond.closed_at = trio.current_time()
            played.closed_at = bond.closed_at
        return None if job.streaming else Usage(input_tokens=INPUT, output_tokens=played.play.words)


def _hear_of_the_end(job, bond: Bond) -> None:
    """Note when the worker is told that nobody wants its work."""
    tell = job.abort.set

    def told(reason) -> None:
        bond.closed_at = trio.current_time()
        tell(reason)

    job.abort.set = told


async def _perform(job, played) -> None:
    play = played.play
    await _rest(job, play.wait)
    if play.status == 400 or (play.error == 400 and not job.streaming):
        raise Refused(Failure(cause=Cause.INVALID_REQUEST, message=played.tag))
    fails = play.status != 200 or play.answer or play.garbled == "head"
    if fails or (play.error and not job.streaming):
        raise RuntimeError("this worker fails")
    left = round(play.sent * sum(map(len, played.body)))
    for number, frame in enumerate(played.body):
        if number == play.silent_at and play.silence:
            await _rest(job, play.silence)
        left -= len(frame)
        if left < 0:
            break
        played.say()
        played.sent += frame
        if job.streaming:
            await job.send_frames(frame)
        else:
            await job.send(f"{played.tag}w0. ")
        if play.every:
            await _rest(job, play.every)
    if play.end == "hang":  # it hears of nothing, and has to be cancelled
        await trio.sleep_forever()
    if (
        play.end != "end" or play.garbled or not played.sent
    ):  # else it would be an answer, and an empty one
        raise RuntimeError("this worker fails in the middle")
    played.over = True


async def _rest(job, seconds: float) -> None:
    with job.abort.cancels():
        await trio.sleep(seconds)
