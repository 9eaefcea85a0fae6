"""The worker examples: one abort for each call left, none for others, none left generating."""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from trio_sse_proxy.core.call import Abort, Call, Reason
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams.worker import WorkerUpstream

EXAMPLES = Path(__file__).parents[1] / "examples"
PATHS = {
    "chat": b"/v1/chat/completions",
    "responses": b"/v1/responses",
    "messages": b"/v1/messages",
}
ENDS = {"chat": b"data: [DONE]", "responses": b"response.completed", "messages": b"message_stop"}
SOON = 0.1  # seconds in which a worker must have stopped

pytestmark = pytest.mark.slow


@pytest.fixture
def load(monkeypatch):
    """Imports an example afresh."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


@asynccontextmanager
async def in_task(load, tmp_path):
    example = load("worker_in_task")
    yield example.upstream, lambda: example.LOG


@asynccontextmanager
async def on_thread(load, tmp_path):
    example = load("worker_on_thread")
    model = example.Model()
    yield WorkerUpstream(model.work, abort=model.abort), lambda: example.LOG


@asynccontextmanager
async def in_subprocess(load, tmp_path):
    example = load("worker_in_subprocess")
    log = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        model = await example.start(nursery, log)
        read = lambda: [tuple(line.split()) for line in log.read_text().splitlines()]  # noqa: E731
        yield WorkerUpstream(model.work, abort=model.abort), read
        nursery.cancel_scope.cancel()


async def ask(upstream, call, dialect, *, leave_after=None):
    """As the relay does: open, read, say how it ended, leave. The body."""
    body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
    request = UpstreamRequest(method="POST", target=PATHS[dialect], headers=(), body=body)
    received = b""
    # The reason stands before anybody lets go.
    call.reason = None if leave_after is None else Reason.CLIENT_LEFT
    with trio.move_on_after(float("inf") if leave_after is None else leave_after):
        async with upstream.open(request, call) as answer:
            while piece := await answer.receive():
                received += piece
                call.over = ENDS[dialect] in received
    return received


EVERY = pytest.mark.parametrize("place", [in_task, on_thread, in_subprocess])


@EVERY
async def test_of_200_requests_every_one_left_is_aborted_once_and_no_other(place, load, tmp_path):
    chance = random.Random(4)
    leaving = {f"c{number}" for number in chance.sample(range(200), 100)}
    calls = [Call(id=f"c{number}", stream_id=f"s{number}") for number in range(200)]
    bodies = {}
    async with place(load, tmp_path) as (upstream, read_log):
        slots = trio.CapacityLimiter(20)

        async def one(call, dialect, leave_after):
            async with slots:
                bodies[call.id] = await ask(upstream, call, dialect, leave_after=leave_after)

        async with trio.open_nursery() as nursery:
            for call in calls:
                # Its ten tokens take at least 20 ms: whoever leaves before has not got them all.
                after = chance.uniform(0, 0.018) if call.id in leaving else None
                nursery.start_soon(one, call, chance.choice(list(PATHS)), after)
        log = Counter(read_log())
    begun = {call.id for call in calls if call.begun}
    assert {call.id for call in calls if call.id not in leaving} <= begun
    for call in calls:
        left = call.id in leaving and call.id in begun
        assert log["aborted", call.id] == left, call
        assert call.abort is (Abort.DONE if left else None)
        assert log["finished", call.id] == (call.id not in leaving)
        ended = log["finished", call.id] + log["stopped", call.id]
        assert place is in_task or log["began", call.id] == ended
    whole = [body for name, body in bodies.items() if name not in leaving]
    assert all(any(end in body for end in ENDS.values()) for body in whole)
    assert all(body.count(b"token9 ") >= 1 for body in whole)
    assert len(begun & leaving) > 50


@EVERY
async def test_the_worker_stops_soon_after_the_client_and_serves_the_next(place, load, tmp_path):
    async with place(load, tmp_path) as (upstream, read_log):
        first, second = (Call(id=name, stream_id=name) for name in ("left", "next"))
        request = UpstreamRequest(
            method="POST", target=PATHS["chat"], headers=(), body=b'{"stream": true}'
        )
        async with upstream.open(request, first) as answer:
            await answer.receive()
            first.reason = Reason.CLIENT_LEFT
            began = trio.current_time()
            answer.release()
        assert trio.current_time() - began < SOON
        assert ("aborted", "left") in read_log()
        assert ("finished", "left") not in read_log()
        body = await ask(upstream, second, "chat")
        assert body.endswith(b"data: [DONE]\n\n")
        assert first.abort is Abort.DONE
        assert second.abort is None


def test_every_worker_example_is_run_here():
    mine = set(re.findall(r'load\("(\w+)"\)', Path(__file__).read_text()))
    # The subprocess example starts the model.
    assert {path.stem for path in EXAMPLES.glob("worker_*.py")} == mine | {"worker_model"}
