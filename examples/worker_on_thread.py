"""A model that computes on a thread, one request at a time, as an upstream of the proxy.

    python examples/worker_on_thread.py [HOST:PORT]

What a thread cannot do is be cancelled. So it is told: `abort` sets an event that the thread looks at
between two tokens. Those who wait for the slot meanwhile get heartbeats, and leave it at once.
"""

from __future__ import annotations

import sys
import threading
import time

import trio
from serving import run

from trio_sse_proxy import Abandoned, AbortMessage, Job, Proxy, Settings, Usage, WorkerUpstream

TOKENS = 10  # unless `max_tokens` says something else
GAP = 0.002  # seconds for one token

LOG: list[tuple[str, str]] = []
"""What the worker did, with the call it did it for."""


class Model:
    """One slot, and an event for each call that tells its thread to stop."""

    def __init__(self) -> None:
        self._slot = trio.Lock()
        self._stops: dict[str, threading.Event] = {}

    async def work(self, job: Job) -> Usage | None:
        """Wait for the slot, and generate on a thread."""
        stop = self._stops[job.call_id] = threading.Event()
        tokens = job.json.get("max_tokens", TOKENS)
        try:
            with job.abort.cancels() as waiting:
                await self._slot.acquire()
            if waiting.cancelled_caught:
                return None
            try:
                await trio.to_thread.run_sync(self._generate, job, tokens, stop)
            finally:
                self._slot.release()
        finally:
            del self._stops[job.call_id]
        return Usage(output_tokens=tokens)

    async def abort(self, message: AbortMessage) -> None:
        """Tell the thread."""
        LOG.append(("aborted", message.call_id))
        if message.call_id in self._stops:
            self._stops[message.call_id].set()
        await trio.lowlevel.checkpoint()

    def _generate(self, job: Job, tokens: int, stop: threading.Event) -> None:
        """On the thread: a loop that computes, and gives away what it has."""
        LOG.append(("began", job.call_id))
        for number in range(tokens):
            time.sleep(GAP)
            if stop.is_set():
                LOG.append(("stopped", job.call_id))
                return
            try:
                trio.from_thread.run(job.send, f"token{number} ")
            except Abandoned:
                LOG.append(("stopped", job.call_id))
                raise
        LOG.append(("finished", job.call_id))


if __name__ == "__main__":
    model = Model()
    upstream = WorkerUpstream(model.work, abort=model.abort)
    run(Proxy(Settings(heartbeat=1.0), upstream=upstream, check_door=True), *sys.argv[1:])
