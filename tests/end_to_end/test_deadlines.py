"""An upstream that is dead, or only pretends to live, is not waited for, heartbeats or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted.steps import Frames, Hang, Headers, Repeat

from .proxy import ServedProxy
from .wire import WireClient

pytestmark = pytest.mark.slow

FLAGS = ("--heartbeat", "1", "--first-token-timeout", "2")
FLAGS += ("--idle-timeout", "1.2", "--progress-timeout", "2")
LATE = 0.6  # seconds, for a busy machine; under a heartbeat, which must not put deadlines off
COMMENTS = Repeat(b": still here\n\n", every=0.2)
ROLE = b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
WORD = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"tok0 "}}]}\n\n'

CASES = {
    "no first token: no headers": ((Hang(),), 2.0),
    "no first token: a prelude": ((Headers(), Frames((ROLE,)), Hang()), 2.0),
    "no first token: only comments": ((Headers(), COMMENTS, Hang()), 2.0),
    "idle: no bytes after output": ((Headers(), Frames((WORD,)), Hang()), 1.2),
    "no progress: only comments": ((Headers(), Frames((WORD,)), COMMENTS, Hang()), 2.0),
}


def test_each_deadline_is_kept_told_and_releases_the_upstream(upstream):
    with ServedProxy(upstream.url, *FLAGS) as proxy, ThreadPoolExecutor() as pool:

        def wait(script):
            model = upstream.script(script)
            with WireClient(proxy.port) as client:
                reply = client.ask(model).reply()
            upstream.visits(model)[0].wait_for_left(0.5)
            return reply, len(upstream.visits(model))

        scripts = [script for script, _ in CASES.values()]
        for (name, (_, due)), (reply, attempts) in zip(
            CASES.items(), pool.map(wait, scripts), strict=True
        ):
            assert (reply.status, reply.ending, attempts) == (200, "complete", 1), name
            assert b'"code":"upstream_timeout"' in reply.body, name
            assert due - 0.1 < reply.seconds < due + LATE, name
