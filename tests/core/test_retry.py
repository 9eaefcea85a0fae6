"""Whether to ask again, and when."""

from __future__ import annotations

from email.utils import formatdate
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sse_proxy.core.course import Course
from trio_sse_proxy.core.limits import Limits
from trio_sse_proxy.core.retry import (
    BUDGET_FLOOR,
    HEDGES_SAVED,
    Again,
    HedgeBudget,
    RetryBudget,
    backoff,
    parse_retry_after,
)

NOW = 1_700_000_000.0
AGAIN = Again(retryable=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"7", 7.0),
        (b" 7 ", 7.0),
        (b"1.5", 1.5),
        (formatdate(NOW + 90, usegmt=True).encode(), 90.0),
        (formatdate(NOW - 90, usegmt=True).encode(), 0.0),
        (b"Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        (b"-1", None),
        (b"-0.5", None),
        (b"nan", None),
        (b"inf", None),
        (b"-inf", None),
        (b"1e300", None),
        (b"", None),
        (b"soon", None),
        (b"\xff\xfe", None),
        (b"Wed, 99 Foo 2023 99:99:99 GMT", None),
    ],
)
def test_every_form_of_retry_after(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@given(st.binary(max_size=40))
def test_rubbish_in_retry_after_is_none_or_a_number_to_wait(value):
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or (isfinite(seconds) and seconds >= 0)


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_longer_than_eight_seconds_and_never_negative(retries, jitter):
    assert 0 <= backoff(retries, jitter) < 8.0


@pytest.mark.parametrize(("retries", "longest"), [(0, 0.5), (1, 1), (2, 2), (3, 4), (4, 8), (9, 8)])
def test_the_longest_pause_doubles(retries, longest):
    assert backoff(retries, 1.0) == longest
    assert backoff(retries, 0.0) == 0.0


def policy(**limits):
    """A request whose only upstream was asked once."""
    course = Course(Limits(**limits), 0.0, (0,))
    course.first(lambda _: True)
    return course


def ask(policy, again=AGAIN, now=0.0, jitter=1.0):
    step = policy.next(0, again, now=now, jitter=jitter, available=lambda _: True)
    return None if step is None else step.delay


def test_attempts_are_granted_up_to_the_limit():
    three = policy(max_retries=3)
    assert [ask(three) for _ in range(4)] == [0.5, 1.0, 2.0, None]


def test_what_asking_again_cannot_mend_is_not_granted():
    assert ask(policy(), Again(retryable=False)) is None


def test_at_once_means_no_pause_but_counts():
    one = policy(max_retries=1)
    assert ask(one, Again(retryable=True, at_once=True)) == 0.0
    assert ask(one, Again(retryable=True, at_once=True)) is None


@pytest.mark.parametrize(("wish", "delay"), [(0.0, 0.0), (10.0, 10.0), (10.01, None)])
def test_the_upstreams_wish_is_followed_up_to_the_cap(wish, delay):
    assert ask(policy(retry_after_cap=10.0), Again(retryable=True, retry_after=wish)) == delay


@pytest.mark.parametrize(("now", "delay"), [(9.5, 0.5), (9.51, None), (50.0, None)])
def test_no_attempt_may_start_behind_the_deadline(now, delay):
    assert ask(policy(retry_deadline=10.0), now=now) == delay


def test_without_a_deadline_it_is_never_too_late():
    assert ask(policy(retry_deadline=0.0), now=1e9) == 0.5


@pytest.mark.parametrize(
    ("running", "retrying", "allowed"),
    [
        (0, 0, True),
        (1, BUDGET_FLOOR - 1, True),
        (1, BUDGET_FLOOR, False),
        (400, 199, True),
        (400, 200, False),
    ],
)
def test_retries_under_way_are_a_share_of_what_runs_and_never_fewer_than_the_floor(
    running, retrying, allowed
):
    budget = RetryBudget(0.5)
    budget.running, budget.retrying = running, retrying
    assert budget.allows_another() is allowed


def hedges_of(budget, requests):
    """How many of so many requests were hedged, if each would like to be."""
    hedged = 0
    for _ in range(requests):
        budget.count()
        if budget.allows_another():
            budget.take()
            hedged += 1
    return hedged


def test_the_first_request_may_be_hedged():
    assert hedges_of(HedgeBudget(0.1), 1) == 1


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 1.0])
def test_hedges_are_a_share_of_the_requests_and_one(share):
    assert hedges_of(HedgeBudget(share), 1000) in {1000 * share, 1000 * share + 1}


def test_a_share_of_nothing_is_no_hedge():
    assert hedges_of(HedgeBudget(0.0), 1000) == 0


def test_what_was_saved_in_quiet_times_is_bounded():
    budget = HedgeBudget(0.5)
    for _ in range(1000):
        budget.count()
    burst = 0
    while budget.allows_another():
        budget.take()
        burst += 1
    assert burst == HEDGES_SAVED


def test_asking_whether_it_may_run_takes_nothing():
    budget = HedgeBudget(0.5)
    budget.count()
    assert [budget.allows_another() for _ in range(3)] == [True] * 3
