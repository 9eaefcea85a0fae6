"""R7, R11: cancelled in any gap, in any way, a request leaves nothing behind and nobody working for it.

A sample of what `python -m tests.cancellation` does in full.
"""

from __future__ import annotations

import pytest

from . import catalogue
from .catalogue import CATALOGUE
from .judge import findings
from .mutations import MUTATIONS
from .play import WAYS, examine, perform

EVERY = 13
SEED = "1"


@pytest.mark.parametrize("scenario", CATALOGUE, ids=lambda scenario: scenario.__name__)
def test_a_cancellation_anywhere_leaves_no_trace(scenario):
    reference = perform(scenario, SEED)
    assert findings(reference, reference) == []
    for first, way in enumerate(WAYS, 1):
        for gap in range(first, reference.gaps.count + 1, EVERY):
            assert examine(scenario, SEED, way, gap, reference) == [], (way, gap)


def test_the_hot_path_is_among_what_is_cancelled():
    assert perform(catalogue.steady_stream, SEED).fast


def test_a_run_can_be_repeated_to_the_gap():
    counts = [perform(catalogue.hedge_on_one_tick, SEED).gaps.count for _ in range(2)]
    assert counts[0] == counts[1] > 50


WHERE = {
    "slot_of_a_connection_kept": catalogue.connecting,
    "place_lost_on_the_way": catalogue.waiting_in_the_queue,
    "connection_left_to_its_tasks": catalogue.connection,
    "leaving_kept_from_the_call": catalogue.connection_in_silence,
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_deliberate_bug_is_found(mutation, monkeypatch):
    mutation(monkeypatch)
    scenario = WHERE.get(mutation.__name__, catalogue.chat_stream)
    reference = perform(scenario, SEED)
    assert findings(reference, reference) == [], "it shows only if something is cancelled"
    assert any(
        examine(scenario, SEED, way, gap, reference)
        for gap in range(1, reference.gaps.count + 1)
        for way in ("server", "client")
    )


# What was found: in full, since a sample may leave the one place out.


@pytest.mark.parametrize(
    "scenario", [catalogue.late_failed_frame, catalogue.no_failed_frame, catalogue.stuck_client]
)
def test_what_was_found_once_stays_mended(scenario):
    """An error that was yet to be written passed for told; and a write that was stuck under a shield
    held the upstream while the server waited for it."""
    reference = perform(scenario, "0")
    for gap in range(1, reference.gaps.count + 1):
        assert examine(scenario, "0", "server", gap, reference) == [], gap
