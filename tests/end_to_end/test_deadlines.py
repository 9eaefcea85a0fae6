"""An upstream that is dead, or only pretends to live, is not waited for, heartbeats or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from patience import NEVER, PATIENCE
from scripted.steps import Frames, Hang, Headers, Repeat

from .proxy import ServedProxy
from .wire import WireClient

pytestmark = pytest.mark.slow

# Seconds; every other deadline would be over much later. Between the first heartbeat and the end, and
# between two comments, the machine may stand still.
DUE = 4.0
FLAGS = ("--heartbeat", "1", "--first-token-timeout", str(DUE))
IDLE = ("--idle-timeout", str(DUE), "--progress-timeout", str(NEVER))
PROGRESS = ("--idle-timeout", str(NEVER), "--progress-timeout", str(DUE))
COMMENTS = Repeat(b": still here\n\n", every=0.2)
ROLE = b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
WORD = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"tok0 "}}]}\n\n'

ENDINGS = {
    "no first token": "first_token_timeout",
    "idle": "idle_timeout",
    "no progress": "progress_timeout",
}
CASES = {
    "no first token: no headers": (IDLE, Hang()),
    "no first token: a prelude": (IDLE, Headers(), Frames((ROLE,)), Hang()),
    "no first token: only comments": (IDLE, Headers(), COMMENTS, Hang()),
    "idle: no bytes after output": (IDLE, Headers(), Frames((WORD,)), Hang()),
    "no progress: only comments": (PROGRESS, Headers(), Frames((WORD,)), COMMENTS, Hang()),
}


def test_each_deadline_is_kept_told_and_releases_the_upstream(upstream):
    with ExitStack() as stack:
        proxies = {
            flags: stack.enter_context(ServedProxy(upstream.url, *FLAGS, *flags))
            for flags in (IDLE, PROGRESS)
        }
        pool = stack.enter_context(ThreadPoolExecutor())

        def wait(flags, *script):
            model = upstream.script(script)
            with WireClient(proxies[flags].port) as client:
                reply = client.ask(model).reply()
            upstream.visits(model)[0].wait_for_left(PATIENCE)
            record = proxies[flags].record_of("model", model)
            return reply, (record["ending"], len(record["attempts"]))

        for name, (reply, became) in zip(
            CASES, pool.map(lambda case: wait(*case), CASES.values()), strict=True
        ):
            assert (reply.status, reply.ending) == (200, "complete"), name
            assert became == (ENDINGS[name.partition(":")[0]], 1), name
            assert b": hb\n\n" in reply.body or COMMENTS in CASES[name], name
            assert b'"code":"upstream_timeout"' in reply.body, name
            assert DUE <= reply.seconds < PATIENCE, name
