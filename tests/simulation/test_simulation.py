"""Whole histories, drawn from seeds, held to the contract."""

from __future__ import annotations

import pytest

from .history import history
from .mutations import MUTATIONS
from .oracles import findings
from .world import play

SEEDS = 60
LOOKED_THROUGH = 40
"""How many seeds it may take until a deliberate bug is found."""


@pytest.mark.parametrize("block", range(4))
def test_whatever_happens_the_contract_holds(block):
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        assert findings(play(history(str(seed)))) == [], f"seed {seed}"


@pytest.mark.parametrize("seed", ["3", "17", "46"])
def test_the_same_seed_is_the_same_history_to_the_byte(seed):
    assert play(history(seed)).log.lines == play(history(seed)).log.lines


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_deliberate_bug_is_found(mutation, monkeypatch):
    mutation(monkeypatch)
    assert any(findings(play(history(str(seed)))) for seed in range(LOOKED_THROUGH))
