"""Which of several reasons is the one that counts."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest

from trio_sse_proxy.core.endings import Ending, Fact, Side, settle
from trio_sse_proxy.core.failure import Cause, Failure

ORDER = list(Ending)


@pytest.mark.parametrize(
    ("first", "second"), list(combinations(ORDER, 2)), ids=lambda ending: ending.value
)
def test_of_two_facts_the_one_written_first_counts_in_either_order(first, second):
    facts = [Fact(ending=first), Fact(ending=second)]
    assert settle(facts).ending is first
    assert settle(facts[::-1]).ending is first


def test_of_equal_facts_the_earliest_counts():
    facts = [
        Fact(ending=Ending.TRUNCATED, failure=Failure(cause=Cause.TRUNCATED, message=message))
        for message in ("first", "second")
    ]
    assert settle(facts) is facts[0]


def test_without_facts_it_was_a_bug():
    assert settle([]) == Fact(ending=Ending.INTERNAL)


def test_the_order_in_which_facts_are_noted_never_matters():
    chosen = [Ending.COMPLETED, Ending.CLIENT_LEFT, Ending.IDLE_TIMEOUT, Ending.TRUNCATED]
    facts = [Fact(ending=ending) for ending in chosen]
    assert {settle(order).ending for order in permutations(facts)} == {Ending.COMPLETED}


# Ending a request releases its upstream, whose reader then sees a broken connection: whoever ended
# it explains that, never the other way round.
OURS = [
    Ending.WRITE_STALLED,
    Ending.CLIENT_LEFT,
    Ending.CANCELLED,
    Ending.TOTAL_TIMEOUT,
    Ending.FIRST_TOKEN_TIMEOUT,
    Ending.IDLE_TIMEOUT,
    Ending.PROGRESS_TIMEOUT,
    Ending.SHUTDOWN,
]


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("caused", [Ending.TRUNCATED, Ending.UNREACHABLE, Ending.PROTOCOL])
def test_who_let_go_of_the_upstream_explains_the_broken_connection(ours, caused):
    assert settle([Fact(ending=caused), Fact(ending=ours)]).ending is ours


@pytest.mark.parametrize("ending", ORDER, ids=lambda ending: ending.value)
def test_every_ending_has_a_side(ending):
    assert isinstance(ending.side, Side)
