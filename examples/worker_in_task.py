"""A model that runs in this very trio program, as an upstream of the proxy.

    python examples/worker_in_task.py [HOST:PORT]

The worker is given the request and says its text; the frames of the client's dialect are made for it.
When the client leaves, the scope around its work is cancelled at once.
"""

from __future__ import annotations

import sys

import trio
from serving import run

from trio_sse_proxy import Job, Proxy, Settings, Usage, WorkerUpstream

TOKENS = 10  # unless `max_tokens` says something else
GAP = 0.002  # seconds for one token

LOG: list[tuple[str, str]] = []
"""What the worker did, with the call it did it for."""


async def worker(job: Job) -> Usage | None:
    """Generate, unless nobody wants it any more."""
    LOG.append(("began", job.call_id))
    tokens = job.json.get("max_tokens", TOKENS)
    with job.abort.cancels():
        for number in range(tokens):
            await trio.sleep(GAP)
            await job.send(f"token{number} ")
        LOG.append(("finished", job.call_id))
        return Usage(input_tokens=len(job.json.get("messages", ())), output_tokens=tokens)
    LOG.append(("aborted", job.call_id))
    return None


upstream = WorkerUpstream(worker)

if __name__ == "__main__":
    run(Proxy(Settings(heartbeat=1.0), upstream=upstream, check_door=True), *sys.argv[1:])
