"""Two upstreams, of which one fails in every way that another can mend: nobody gets to see it.

Every request gets one right answer, with nothing twice, and every attempt that was begun and did not
come to its end is told to its upstream exactly once. `END_TO_END_REQUESTS=2000` asks for more than the
usual number.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass

import pytest
import trio
from patience import PATIENCE
from scripted import ScriptedUpstream
from scripted.answers import Answer
from scripted.talk import PATHS, Said

from .cases import CUT_BEFORE_OUTPUT, PASSING
from .proxy import ServedProxy
from .wire import Reader, request

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("END_TO_END_REQUESTS", "300"))
AT_A_TIME = 50  # fewer than the retries that are always allowed

GOOD = ("normal", "until-close", "gzip", "paced")
STATUSES = [f"status-{kind}" for kind in ("500", "503", "529", "429-long", "429-quota")]
HANGS = ["hang-before-headers", "hang-after-headers", "hang-after-prelude"]
WRONG = ["html", "garbage", "garbage-in-body"]
STREAMED = [*CUT_BEFORE_OUTPUT, *PASSING, *STATUSES, *HANGS, *WRONG, *GOOD]
# A plain answer that ends properly is taken at its word, and one that has begun is on its way. All of it
# is held to its end.
PLAIN = [name for name in CUT_BEFORE_OUTPUT if "eof" not in name]
PLAIN += ["reset-after-output", "fin-after-output"]
PLAIN += [*PASSING, *STATUSES, *HANGS[:2], *WRONG, *GOOD]
CUT = ("reset-", "fin-", "eof-", "hang-", "garbage")
"""Attempts that begin and do not come to their end: their upstream has to be told."""

SETTINGS = """
heartbeat = 300.0
first_token_timeout = 6.0
records = {records}
[[upstreams]]
name = "bad"
base_url = "{bad}"
abort = "sglang"
abort_timeout = 30.0
breaker_failures = 0
breaker_rate = 0.0
[[upstreams]]
name = "good"
base_url = "{good}"
abort = "kobold"
[[routes]]
upstreams = ["bad", "good"]
"""


@dataclass(frozen=True, slots=True)
class Question:
    """One request; `model` is its own, and the scenario that the bad upstream plays."""

    model: str
    dialect: str
    stream: bool

    @property
    def scenario(self):
        return self.model.partition("#")[0]

    @property
    def right_answer(self):
        ids = 1 if self.scenario in GOOD else 101
        answer = Answer(self.dialect, self.stream, Said(self.model, ids), 0.0)
        return b"".join(answer.frames())


def questions(upstream):
    """Every kind in each dialect, in a random order, over and over."""
    kinds = [(name, dialect, True) for name in STREAMED for dialect in PATHS]
    kinds += [(name, dialect, False) for name in PLAIN for dialect in PATHS]
    chance = random.Random(4)
    while True:
        chance.shuffle(kinds)
        for name, dialect, stream in kinds:
            yield Question(upstream.model(name), dialect, stream)


async def ask(port, question):
    """The reply, or None if none came in time."""
    reader = Reader(time.monotonic())
    with trio.move_on_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(
                request(question.model, dialect=question.dialect, stream=question.stream)
            )
            while (reply := reader.receive(await stream.receive_some())) is None:
                pass
            return reply
    return None


async def ask_all(port, asked):
    """(question, reply) of each, AT_A_TIME at a time."""
    replies, turn = [], iter(asked)

    async def ask_one_after_another():
        for question in turn:
            replies.append((question, await ask(port, question)))

    async with trio.open_nursery() as nursery:
        for _ in range(AT_A_TIME):
            nursery.start_soon(ask_one_after_another)
    return replies


def records_of(proxy, count):
    """By model; a record may be written a moment after its answer's end."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        records = proxy.get("/-/records")["records"]
        if len(records) >= count:
            break
        time.sleep(0.05)
    assert len(records) == count
    return {record["model"]: record for record in records}


async def test_every_request_gets_one_right_answer_and_every_loose_end_is_told_once(tmp_path):
    with (
        ScriptedUpstream(silence=0.2) as bad,
        ScriptedUpstream(only="normal", ids_from=101) as good,
    ):
        file = tmp_path / "settings.toml"
        file.write_text(SETTINGS.format(records=REQUESTS, bad=bad.url, good=good.url))
        with ServedProxy(None, "--config", str(file)) as proxy:
            source = questions(bad)
            asked = [next(source) for _ in range(REQUESTS)]
            # What is waited for comes first, all of it at once.
            asked.sort(key=lambda question: question.scenario not in HANGS)
            replies = await ask_all(proxy.port, asked)
            records = records_of(proxy, REQUESTS)
            assert proxy.streams() == []
    wrong = [
        (question, reply and (reply.status, reply.ending, reply.body[-200:]))
        for question, reply in replies
        if reply is None
        or (reply.status, reply.ending, reply.body) != (200, "complete", question.right_answer)
    ]
    assert wrong == []
    assert len(replies) == REQUESTS
    assert_told(bad, asked, records)
    assert good.aborts == []
    # What fails goes to the other one, which is asked once and heard to the end.
    assert max(Counter(visit.key for visit in good.log).values()) == 1
    # A machine that stood still between an answer's last frame and its end has an answer left there.
    assert Counter(visit.ending for visit in good.log)["played"] >= len(good.log) - 2


def assert_told(bad, asked, records):
    """By what the upstream itself saw, and by what the records say.

    It may be asked twice, where a kept connection was closed under a request.
    """
    told = Counter(abort.json()["rid"] for abort in bad.aborts)
    for question in asked:
        cut = question.scenario.startswith(CUT)
        attempts = records[question.model]["attempts"]
        at_bad = [attempt for attempt in attempts if attempt["upstream"] == "bad"]
        assert 1 <= len(at_bad) <= 1 + cut, question
        assert len(attempts) == len(at_bad) + (question.scenario not in GOOD), question
        for visit, attempt in zip(bad.visits(question.model), at_bad, strict=True):
            left = not attempt["over"]
            assert left == cut, question
            assert attempt["abort"] == ("done" if left else None), question
            assert told[visit.json()["rid"]] == left, question
    assert set(told.values()) == {1}
