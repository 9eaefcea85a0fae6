"""The targets of the long runs, shortly: what was found and kept, and a few changes of it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import corpus, targets
from .mutating import mutate

by_target = pytest.mark.parametrize("name", targets.NAMES)


def beginnings(name):
    return [*targets.load(name).SEEDS, *corpus.inputs(name)]


@by_target
def test_what_was_found_and_kept_still_holds(name):
    run = targets.load(name).run
    for data in beginnings(name):
        run(data)


@by_target
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changes_of_it_hold_too(name, data):
    target = targets.load(name)
    changed = data.draw(st.sampled_from(beginnings(name)))
    for seed in data.draw(st.lists(st.integers(0, 2**32), min_size=1, max_size=4)):
        changed = mutate(changed, target.WORDS, seed)
    target.run(changed)


@by_target
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300))
def test_any_bytes_hold(name, data):
    targets.load(name).run(data)


@by_target
def test_what_is_kept_is_small(name):
    assert sum(map(len, corpus.inputs(name))) < 30_000
