"""Whole histories, drawn from seeds, held to the contract."""

from __future__ import annotations

import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from . import history as simulated
from . import network
from .counting import tally
from .history import history
from .mutations import (
    MUTATIONS,
    bodies_without_bound,
    cut_taken_for_an_end,
    double_terminator,
    drain_that_forgets_one,
    forgotten_release,
    goodbye_first,
    hedge_that_goes_on,
    lost_abort,
    no_event_heartbeats,
    opening_without_bound,
    outbox_without_bound,
    shut_window_not_noticed,
    stream_taken_back_is_kept,
)
from .oracles import findings
from .report import digest, story
from .shrink import shrink, size
from .world import play

SEEDS = 48
LOOKED_THROUGH = 60
"""How many seeds it may take until a deliberate bug is found."""
FOUND_AT = {
    forgotten_release: 157,
    no_event_heartbeats: 97,
    hedge_that_goes_on: 12,
    bodies_without_bound: 66,
    opening_without_bound: 75,
    outbox_without_bound: 15603,
    shut_window_not_noticed: 26,
    stream_taken_back_is_kept: 26,
    cut_taken_for_an_end: 38,
    goodbye_first: 186,
}
"""Where the rarer ones show: the first seed that is tried, to save the others."""


@pytest.mark.parametrize("block", range(4))
def test_whatever_happens_the_contract_holds(block):
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        assert findings(play(history(str(seed)))) == [], f"pytest --seed {seed}"


def test_a_good_part_of_all_streams_comes_through_the_server():
    counts = tally(range(SEEDS, SEEDS + 20)).counts
    assert 0.2 < counts["streams through the server"] / counts["streams"] < 0.6


def test_the_same_seed_is_the_same_history_to_the_byte_in_every_process():
    seeds = range(8)
    code = f"import simulation.report as r; print(r.digest({seeds!r}))"
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == digest(seeds) == digest(seeds)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_deliberate_bug_is_found(mutation, monkeypatch):
    mutation(monkeypatch)
    first = FOUND_AT.get(mutation, 0)
    found = (findings(play(history(str(first + n)))) for n in range(LOOKED_THROUGH))
    rules = (line.partition(":")[0] for lines in found for line in lines)
    assert MUTATIONS[mutation] in rules


@pytest.mark.parametrize(
    "mutation",
    [double_terminator, lost_abort, drain_that_forgets_one],
    ids=lambda mutation: mutation.__name__,
)
def test_a_history_that_fails_is_made_smaller_and_fails_in_the_same_rule(mutation, monkeypatch):
    mutation(monkeypatch)
    failing = (history(str(seed)) for seed in range(LOOKED_THROUGH))
    whole = next(one for one in failing if findings(play(one)))
    rule = findings(play(whole))[0][:3]
    small, found = shrink(whole, tries=25)
    assert found
    assert all(line.startswith(rule) for line in found)
    assert size(small) < size(whole) / 2
    assert len(play(small).log.lines) < len(play(whole).log.lines)
    assert [line for line in findings(play(small)) if line.startswith(rule)] == found
    assert shrink(whole, tries=25) == (small, found)


def test_what_is_printed_of_a_seed_that_fails_is_the_small_history_with_its_log(monkeypatch):
    assert story(7) is None
    double_terminator(monkeypatch)
    told = story(7, tries=20)
    assert told is not None
    assert told.startswith("seed 7:\n")
    assert "gets status 200" in told
    written = told[told.index("History(") : told.index("\n0.")]
    assert eval(written, vars(simulated) | vars(network) | {"inf": inf}).seed == "7"
