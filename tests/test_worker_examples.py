"""The worker examples: one abort for each call left, none for others, none left generating."""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

import pytest
import trio
from patience import PATIENCE, until
from serving import serving
from upstreams.servers import reset

from trio_sse_proxy import Proxy, Settings
from trio_sse_proxy.core.call import Abort, Call, Reason
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams.worker import WorkerUpstream

EXAMPLES = Path(__file__).parents[1] / "examples"
PATHS = {
    "chat": b"/v1/chat/completions",
    "responses": b"/v1/responses",
    "messages": b"/v1/messages",
}
ENDS = {"chat": b"data: [DONE]", "responses": b"response.completed", "messages": b"message_stop"}
MANY = 5000  # tokens; they take ten seconds at least, and nobody waits for them
SOON = 5.0  # seconds in which a worker must have stopped, or it goes on to its end

pytestmark = pytest.mark.slow


@pytest.fixture
def load(monkeypatch):
    """Imports an example afresh."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        for other in (name, "serving"):  # there is a `serving` of the tests too
            monkeypatch.delitem(sys.modules, other, raising=False)
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
    yield WorkerUpstream(model.work, abort=model.abort, abort_timeout=PATIENCE), lambda: example.LOG


@asynccontextmanager
async def in_subprocess(load, tmp_path):
    example = load("worker_in_subprocess")
    log = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        model = await example.start(nursery, log)
        read = lambda: [tuple(line.split()) for line in log.read_text().splitlines()]  # noqa: E731
        yield WorkerUpstream(model.work, abort=model.abort, abort_timeout=PATIENCE), read
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request. Who leaves asks for more than could be made before, so that nothing depends on
    how busy the machine is; it leaves after some time, or after some tokens, whichever comes first.
    """

    name: str
    dialect: str
    leaves: bool
    seconds: float = inf
    tokens: int = MANY

    @property
    def body(self):
        wanted = {"max_tokens": MANY} if self.leaves else {}
        return json.dumps({"model": self.name, "stream": True, "messages": []} | wanted).encode()

    def has_enough(self, received):
        return received.count(b"token") >= self.tokens


def visitors(chance):
    """200, half of whom leave: of these, half while they wait or begin, half amid their tokens."""
    leaving = set(chance.sample(range(200), 100))
    for number in range(200):
        leaves = number in leaving
        yield Visitor(
            name=f"c{number}",
            dialect=chance.choice(list(PATHS)),
            leaves=leaves,
            seconds=chance.uniform(0, 0.03) if leaves and number % 2 else inf,
            tokens=chance.randrange(1, 20) if leaves else MANY,
        )


def amid_tokens(everybody):
    """How many leave for having enough, which nobody can before the worker has begun."""
    several = sum(visitor.leaves and visitor.seconds == inf for visitor in everybody)
    assert several > 40
    return several


async def all_at_once(visit):
    """Run `visit` for each of 200 visitors, twenty at a time; the visitors."""
    chance = random.Random(4)
    everybody = list(visitors(chance))
    slots = trio.CapacityLimiter(20)

    async def one(visitor):
        async with slots:
            await visit(visitor)

    async with trio.open_nursery() as nursery:
        for visitor in everybody:
            nursery.start_soon(one, visitor)
    return everybody


def assert_told_once(log, place, call_id, *, left, aborted):
    """What the worker's own log says of one call."""
    assert log["aborted", call_id] == aborted
    assert log["finished", call_id] == (not left)
    ended = log["finished", call_id] + log["stopped", call_id]
    # In a task there is nothing between an abort and the end.
    assert log["began", call_id] == (aborted or not left if place is in_task else ended)


def is_whole(body, dialect):
    return ENDS[dialect] in body and body.count(b"token9 ") >= 1


async def ask(upstream, call, visitor):
    """As the relay does: open, read, say how it ended, leave. The body."""
    request = UpstreamRequest(
        method="POST", target=PATHS[visitor.dialect], headers=(), body=visitor.body
    )
    received = b""
    # The reason stands before anybody lets go.
    call.reason = Reason.CLIENT_LEFT if visitor.leaves else None
    with trio.move_on_after(visitor.seconds):
        async with upstream.open(request, call) as answer:
            while not visitor.has_enough(received) and (piece := await answer.receive()):
                received += piece
                call.over = ENDS[visitor.dialect] in received
    return received


EVERY = pytest.mark.parametrize("place", [in_task, on_thread, in_subprocess])


@EVERY
async def test_of_200_requests_every_one_left_is_aborted_once_and_no_other(place, load, tmp_path):
    calls = {}
    async with place(load, tmp_path) as (upstream, read_log):

        async def visit(visitor):
            call = calls[visitor.name] = Call(id=visitor.name, stream_id=visitor.name)
            body = await ask(upstream, call, visitor)
            assert visitor.leaves or is_whole(body, visitor.dialect)

        everybody = await all_at_once(visit)
        log = Counter(read_log())
    for visitor in everybody:
        call = calls[visitor.name]
        assert call.begun or visitor.leaves
        aborted = visitor.leaves and call.begun
        assert_told_once(log, place, call.id, left=visitor.leaves, aborted=aborted)
        assert call.abort is (Abort.DONE if aborted else None)
    assert sum(call.abort is Abort.DONE for call in calls.values()) >= amid_tokens(everybody)


class Witness:
    """An observer that keeps the records, by model."""

    def __init__(self):
        self.records = {}

    def began(self, record):
        pass

    def retried(self, record, cause):
        pytest.fail(f"{record.model} is asked again: {cause}")

    def heartbeat(self, record, kind):
        pass

    def ended(self, record):
        self.records[record.model] = record


async def browse(port, visitor):
    """A client on a socket of its own, which leaves by closing it or by a reset; the body."""
    head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    received = b""
    with trio.move_on_after(visitor.seconds):
        await stream.send_all(head % (PATHS[visitor.dialect], len(visitor.body)) + visitor.body)
        while not visitor.has_enough(received) and (data := await stream.receive_some()):
            received += data
    if visitor.leaves and visitor.name.endswith(("1", "2", "3")):
        reset(stream)
    await trio.aclose_forcefully(stream)
    return received


@EVERY
async def test_the_same_holds_behind_a_proxy_on_real_sockets(place, load, tmp_path):
    witness = Witness()
    async with place(load, tmp_path) as (upstream, read_log):
        proxy = Proxy(Settings(), upstream=upstream, observers=(witness,))
        async with proxy.running(), serving(proxy, drain_timeout=PATIENCE) as running:

            async def visit(visitor):
                body = await browse(running.port, visitor)
                assert visitor.leaves or is_whole(body, visitor.dialect)

            everybody = await all_at_once(visit)
            await until(lambda: not proxy.application.live)
        log = Counter(read_log())
    aborted = 0
    for visitor in everybody:
        record = witness.records.get(visitor.name)
        if record is None:
            assert visitor.leaves, "it left before its request was read"
            continue
        assert (record.ending is Ending.CLIENT_LEFT) is visitor.leaves, record
        entries = record.attempts
        told = [entry.abort for entry in entries if entry.abort is not None]
        assert told == ([Abort.DONE] if visitor.leaves and told else [])
        if entries:
            assert_told_once(log, place, f"1-{record.id}", left=visitor.leaves, aborted=bool(told))
        aborted += len(told)
    assert aborted >= amid_tokens(everybody)
    assert aborted == sum(count for (what, _), count in log.items() if what == "aborted")


@EVERY
async def test_the_worker_stops_soon_after_the_client_and_serves_the_next(place, load, tmp_path):
    async with place(load, tmp_path) as (upstream, read_log):
        first, second = (Call(id=name, stream_id=name) for name in ("left", "next"))
        request = UpstreamRequest(
            method="POST",
            target=PATHS["chat"],
            headers=(),
            body=b'{"stream": true, "max_tokens": 5000}',
        )
        async with upstream.open(request, first) as answer:
            await answer.receive()
            first.reason = Reason.CLIENT_LEFT
            began = trio.current_time()
            answer.release()
        assert trio.current_time() - began < SOON
        assert ("aborted", "left") in read_log()
        assert ("finished", "left") not in read_log()
        body = await ask(upstream, second, Visitor(name="next", dialect="chat", leaves=False))
        assert body.endswith(b"data: [DONE]\n\n")
        assert first.abort is Abort.DONE
        assert second.abort is None


def test_every_worker_example_is_run_here():
    mine = set(re.findall(r'load\("(\w+)"\)', Path(__file__).read_text()))
    # The subprocess example starts the model.
    assert {path.stem for path in EXAMPLES.glob("worker_*.py")} == mine | {"worker_model"}
