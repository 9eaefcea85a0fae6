"""A model that lives in a process of its own, one request at a time, as an upstream of the proxy.

    python examples/worker_in_subprocess.py [HOST:PORT]

Both sides talk in lines of JSON over the process's pipes. An abort is a line like any other:

    to the model     {"generate": "call-1", "body": {...}}      {"abort": "call-1"}
    from the model   {"call": "call-1", "token": "..."}         {"call": "call-1", "end": "stopped", …}
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from serving import serve_until_signalled

from trio_sse_proxy import Abandoned, AbortMessage, Job, Proxy, Settings, Usage, WorkerUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

MODEL = str(Path(__file__).with_name("worker_model.py"))


class Model:
    """This side of the pipes."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._out, self._in = process.stdin, process.stdout
        self._slot, self._writing = trio.Lock(), trio.Lock()
        self._rest = b""

    async def work(self, job: Job) -> Usage | None:
        """Wait for the slot, ask, and read the replies to their end: they come after an abort too."""
        with job.abort.cancels() as waiting:
            await self._slot.acquire()
        if waiting.cancelled_caught:
            return None
        try:
            if job.abort.is_set():  # the slot became free on the same tick
                return None
            await self._tell(generate=job.call_id, body=job.json)
            async with aclosing(self._replies()) as replies:
                async for reply in replies:
                    if "end" in reply:
                        return Usage(output_tokens=reply["tokens"])
                    try:
                        await job.send(reply["token"])
                    except Abandoned:
                        continue  # the model was told by `abort`, and says when it has stopped
            return None
        finally:
            self._slot.release()

    async def abort(self, message: AbortMessage) -> None:
        """Tell the model, which may be busy with another call: it looks at the id."""
        await self._tell(abort=message.call_id)

    async def _tell(self, **told: Any) -> None:
        async with self._writing:
            await self._out.send_all(json.dumps(told).encode() + b"\n")

    async def _replies(self) -> AsyncGenerator[dict[str, Any]]:
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:  # nothing follows an end: there is one call at a time
                yield json.loads(line)
            data = await self._in.receive_some()
            if not data:
                raise ConnectionResetError("the model has gone")
            self._rest += data


async def start(nursery: trio.Nursery, log: Path) -> Model:
    """A model that lives as long as `nursery`, and writes into `log` what it does."""

    # `run_process` says itself when it has started.
    async def run_model(  # noqa: ASYNC114, ASYNC128
        task_status: trio.TaskStatus[trio.Process],
    ) -> None:
        await trio.run_process(
            [sys.executable, MODEL, str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            check=False,
            task_status=task_status,
        )

    return Model(await nursery.start(run_model))


async def main(bind: str) -> None:
    """Serve, with a model beside."""
    config = Config()
    config.bind = [bind]
    config.include_server_header = config.include_date_header = False
    async with trio.open_nursery() as nursery:
        model = await start(nursery, Path(os.devnull))
        upstream = WorkerUpstream(model.work, abort=model.abort)
        proxy = Proxy(Settings(heartbeat=1.0), upstream=upstream, check_door=True)
        await serve_until_signalled(proxy, config)
        nursery.cancel_scope.cancel("nobody is served any more")


if __name__ == "__main__":
    trio.run(main, (sys.argv[1:] or ["127.0.0.1:8000"])[0])
