"""The soak judges rightly: growth is found, chance is not, and an answer that is wrong is."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.soak.cases import CASES, Outcome, Wish, _possible, complaint
from benchmarks.soak.verdict import MB, Soak
from benchmarks.soak.watch import Sample

REST = Sample(at=0.0, descriptors=20, memory=50 * MB, tasks=10, streams=0, idle=5, cpu=1.0)


def soak(change=lambda sample, share: sample, after=REST, wrong=()):
    """Ten minutes; `change` is told how much of them has passed."""
    chance = random.Random(1)
    samples = [
        Sample(
            at=5.0 * n,
            descriptors=140 + chance.randrange(-20, 20),
            memory=round(60 * MB + chance.uniform(-4, 4) * MB),
            tasks=250 + chance.randrange(-40, 40),
            streams=60,
            idle=8,
            cpu=1.0 * n,
        )
        for n in range(120)
    ]
    samples = [change(sample, n / 120) for n, sample in enumerate(samples)]
    return Soak(
        before=REST, samples=samples, after=after, outcomes={"paced": 9}, wrong=dict(wrong),
        complaints=[], reloads=3, machine="here", began="2026-11-21",
    )  # fmt: skip


def test_what_only_varies_is_flat():
    assert soak().findings() == []
    assert "Nothing grew" in soak().as_markdown()


@pytest.mark.parametrize(("name", "much"), [("descriptors", 20), ("tasks", 35), ("memory", 9 * MB)])
def test_what_grows_under_load_is_found(name, much):
    def grow(sample, share):
        return replace(sample, **{name: round(getattr(sample, name) + much * share)})

    (found,) = soak(grow).findings()
    assert "grew by" in found
    assert "Not flat" in soak(grow).as_markdown()


@pytest.mark.parametrize(("name", "much"), [("descriptors", 3), ("tasks", 1), ("memory", 7 * MB)])
def test_what_is_left_at_rest_is_found(name, much):
    after = replace(REST, **{name: getattr(REST, name) + much})
    (found,) = soak(after=after).findings()
    assert "more than before" in found


def test_idle_connections_may_stay():
    after = replace(REST, descriptors=REST.descriptors + 30, idle=REST.idle + 30)
    assert soak(after=after).findings() == []


def test_a_wrong_answer_is_found():
    assert soak(wrong={"paced": 1}).findings() == ["1 of 'paced' went wrong"]


def wish(name, **how):
    (case,) = (case for case in CASES if case.name == name)
    how = {"dialect": "chat", "stream": True, "translated": False, "number": 7, **how}
    return Wish(case=case, scenario=case.scenarios[0], **how)


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
@pytest.mark.parametrize("stream", [True, False])
def test_only_the_whole_answer_of_one_attempt_is_right(dialect, stream):
    asked = wish("asked again", dialect=dialect, stream=stream)
    _, second, *_ = _possible(asked)
    beat = b": hb\n\n" if stream else b"\n"
    assert complaint(asked, 200, beat + second, complete=True) is None
    for body in (second[:-60], second + second, second.replace(b"tok3 ", b"")):
        assert complaint(asked, 200, body, complete=True)
    assert complaint(asked, 200, second, complete=False)
    assert complaint(asked, 502, second, complete=True)


def test_a_failure_has_to_be_told():
    asked = wish("cut")
    assert asked.case.outcome is Outcome.FAILED
    assert complaint(asked, 200, b'data: {"error":{}}\n\n', complete=True) is None
    assert complaint(asked, 502, b"", complete=True) is None
    for body in (b"data: {}\n\n", b'data: {"error":{}}\n\ndata: [DONE]\n\n'):
        assert complaint(asked, 200, body, complete=True)
