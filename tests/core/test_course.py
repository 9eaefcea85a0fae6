"""The order of tries of one request: who is asked next, and when."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sse_proxy.core.course import Course, Step
from trio_sse_proxy.core.limits import Limits
from trio_sse_proxy.core.retry import Again, backoff

BROKEN = Again(retryable=True)
OWN_FAULT = Again(retryable=False)
TOO_SLOW = Again(retryable=False, elsewhere=True)
STALE = Again(retryable=True, at_once=True)
A, B, C = 0, 1, 2


def busy(seconds):
    return Again(retryable=True, retry_after=seconds)


def anyone(_index):
    return True


def but(*away):
    return lambda index: index not in away


def course(order=(A, B, C), **limits):
    """A request that began at 0, whose first attempt is under way at the first of `order`."""
    one = Course(Limits(**{"max_retries": 9, **limits}), 0.0, order)
    assert one.first(anyone) == order[0]
    return one


def after(one, index, again=BROKEN, now=0.0, available=anyone, jitter=1.0):
    step = one.next(index, again, now=now, jitter=jitter, available=available)
    return None if step is None else (step.index, step.delay)


def walk(one, failures, start=A):
    """What follows each of `failures`, one after the other."""
    steps, index = [], start
    for again in failures:
        steps.append(after(one, index, again))
        if steps[-1] is None:
            break
        index = steps[-1][0]
    return steps


# The first attempt.


def test_the_first_attempt_goes_to_the_first_that_lets_it_in():
    assert Course(Limits(), 0.0, (2, 0, 1)).first(but(2)) == 0


def test_if_none_lets_it_in_there_is_no_first_attempt():
    assert Course(Limits(), 0.0, (A, B)).first(but(A, B)) is None


def test_a_first_attempt_is_no_retry():
    one = course(max_retries=0)
    assert one.retries == 0
    assert after(one, A) is None


# Down the order.


def test_a_failure_goes_to_the_next_upstream_at_once():
    assert walk(course((2, 0, 1)), [BROKEN, BROKEN], start=2) == [(0, 0.0), (1, 0.0)]


def test_the_next_upstream_need_not_wait_for_what_the_failed_one_wished():
    assert after(course(), A, busy(7.0)) == (B, 0.0)
    assert after(course(), A, busy(3600.0)) == (B, 0.0)


def test_one_that_lets_nobody_in_is_passed_over():
    assert after(course(), A, available=but(B)) == (C, 0.0)


def test_one_that_is_back_gets_its_turn_in_the_same_round():
    one = course()
    assert after(one, A, available=but(B)) == (C, 0.0)
    assert after(one, C) == (B, 0.0)


@pytest.mark.parametrize("again", [OWN_FAULT, Again(retryable=False, elsewhere=False)])
def test_the_callers_own_fault_is_tried_nowhere_else(again):
    one = course()
    assert after(one, A, again) is None
    assert one.retries == 0


def test_what_only_another_upstream_may_mend_goes_on_but_never_comes_back():
    assert walk(course((A, B)), [TOO_SLOW, BROKEN, TOO_SLOW]) == [(B, 0.0), (B, 0.5), None]


def test_what_only_the_same_upstream_may_mend_stays_there():
    here = Again(retryable=True, elsewhere=False)
    assert walk(course(), [here, here, BROKEN]) == [(A, 0.5), (A, 1.0), (B, 0.0)]


# Coming back.


def test_only_when_all_were_tried_it_comes_back_to_the_first_after_a_pause():
    assert walk(course(), [BROKEN] * 4) == [(B, 0.0), (C, 0.0), (A, 0.5), (B, 0.0)]


def test_the_pause_doubles_with_every_round_and_not_with_every_attempt():
    steps = walk(course((A, B)), [BROKEN] * 7)
    assert [step for step in steps if step[0] == A] == [(A, 0.5), (A, 1.0), (A, 2.0)]
    assert [step for step in steps if step[0] == B] == [(B, 0.0)] * 4


def test_the_pause_has_full_jitter():
    one = course((A, B))
    after(one, A)
    assert after(one, B, jitter=0.3) == (A, 0.15)


def test_it_comes_back_to_the_first_that_is_available():
    one = course()
    assert [after(one, A), after(one, B)] == [(B, 0.0), (C, 0.0)]
    assert after(one, C, available=but(A)) == (B, 0.5)


def test_it_comes_back_to_nobody_if_nobody_lets_it_in():
    one = course((A, B))
    after(one, A)
    assert after(one, B, available=but(A, B)) is None


def test_coming_back_honours_what_that_upstream_wished():
    assert walk(course((A, B)), [busy(3.0), BROKEN]) == [(B, 0.0), (A, 3.0)]


def test_the_wish_runs_from_when_it_was_said():
    one = course((A, B))
    after(one, A, busy(3.0), now=10.0)
    assert after(one, B, now=12.0) == (A, 1.0)


def test_a_wish_that_is_over_leaves_nothing_to_wait_for():
    one = course((A, B))
    after(one, A, busy(3.0))
    assert after(one, B, now=60.0) == (A, 0.0)


def test_the_wish_of_one_is_not_asked_of_another():
    assert walk(course((A, B)), [BROKEN, busy(3.0)]) == [(B, 0.0), (A, 0.5)]


def test_a_wish_is_also_honoured_further_down_the_next_round():
    steps = walk(course((A, B)), [BROKEN, busy(3.0), BROKEN])
    assert steps == [(B, 0.0), (A, 0.5), (B, 3.0)]


def test_one_that_wishes_more_than_the_cap_is_not_asked_again():
    one = course((A, B), retry_after_cap=10.0)
    assert walk(one, [busy(10.01), BROKEN]) == [(B, 0.0), (B, 0.5)]


# Stale connections.


def test_a_stale_connection_is_asked_again_at_once_at_the_same_upstream():
    assert walk(course(), [STALE, BROKEN]) == [(A, 0.0), (B, 0.0)]


def test_a_stale_connection_counts_as_an_attempt():
    assert walk(course((A,), max_retries=2), [STALE] * 3) == [(A, 0.0), (A, 0.0), None]


def test_an_upstream_whose_kept_connections_are_closed_again_and_again_is_left_for_the_next():
    assert walk(course(), [STALE] * 4) == [(A, 0.0), (B, 0.0), (B, 0.0), (C, 0.0)]


def test_a_stale_connection_whose_upstream_lets_nobody_in_any_more_goes_on_to_the_next():
    assert after(course(), A, STALE, available=but(A)) == (B, 0.0)


def test_a_stale_connection_of_a_request_that_must_not_be_repeated_is_the_end():
    assert after(course(), A, Again(retryable=False, at_once=True)) is None


# Limits over all.


def test_over_all_upstreams_there_is_one_number_of_attempts():
    one = course(max_retries=3)
    assert walk(one, [BROKEN] * 4)[-2:] == [(A, 0.5), None]
    assert one.retries == 3


def test_no_attempt_starts_behind_the_deadline_not_even_elsewhere():
    assert after(course(retry_deadline=10.0), A, now=10.0) == (B, 0.0)
    assert after(course(retry_deadline=10.0), A, now=10.01) is None


def test_one_that_would_be_too_late_is_passed_over_for_one_that_is_not():
    one = course((A, B), retry_deadline=10.0)
    after(one, A, busy(9.0), now=5.0)
    assert after(one, B, now=6.0) == (B, 0.5)


def test_the_deadline_runs_from_the_beginning_of_the_request():
    one = Course(Limits(retry_deadline=10.0), 100.0, (A, B))
    one.first(anyone)
    assert after(one, A, now=109.0) == (B, 0.0)


def test_without_a_deadline_it_is_never_too_late():
    assert after(course(retry_deadline=0.0), A, now=1e9) == (B, 0.0)


# Hedges.


def hedge(one, index, now=0.0, available=anyone):
    return one.other(index, now=now, available=available)


def test_a_hedge_goes_to_the_next_upstream_of_the_order():
    assert hedge(course((2, 0, 1)), 2) == 0


def test_a_hedge_passes_over_those_that_let_nobody_in_or_are_in_use():
    assert hedge(course(), A, available=but(B)) == C
    one = course()
    assert [hedge(one, A), hedge(one, A)] == [B, C]


def test_a_hedge_of_the_last_one_goes_round():
    one = course()
    after(one, A)
    after(one, B)
    assert hedge(one, C) == A


def test_a_hedge_leaves_those_alone_that_wished_it_or_failed_for_good():
    one = course()
    after(one, A, busy(5.0))
    after(one, B, TOO_SLOW)
    assert hedge(one, C) == C
    one.drop(C)
    assert hedge(one, C, now=5.0) == A


def test_a_hedge_that_has_nowhere_else_to_go_goes_to_the_same():
    assert hedge(course((A,)), A) == A
    assert hedge(course(), A, available=but(B, C)) == A


def test_a_hedge_is_no_retry():
    one = course(max_retries=1)
    hedge(one, A)
    assert one.retries == 0
    assert after(one, A) == (C, 0.0)


def test_no_second_attempt_goes_where_one_is_running():
    one = course((A, B))
    hedge(one, A)
    assert after(one, A) == (A, 0.5)  # B was tried in this round: it runs
    assert after(one, B) == (B, 1.0)


def test_while_a_hedge_runs_at_the_same_upstream_there_is_nothing_to_add():
    one = course((A,))
    hedge(one, A)
    assert after(one, A) is None
    assert after(one, A) == (A, 0.5)


def test_one_whose_hedge_was_dropped_may_be_asked_in_the_next_round():
    one = course((A, B))
    hedge(one, A)
    one.drop(B)
    assert walk(one, [BROKEN, BROKEN]) == [(A, 0.5), (B, 0.0)]


# Of any course.

AGAINS = st.builds(
    Again,
    retryable=st.sampled_from([True, True, True, False]),
    elsewhere=st.sampled_from([None, True, False]),
    at_once=st.booleans(),
    retry_after=st.sampled_from([None, None, None, 0.0, 0.3, 9.9, 10.0, 11.0]),
)
FAILURES = st.lists(
    st.tuples(AGAINS, st.floats(0, 40), st.floats(0, 1, exclude_max=True)), max_size=12
)
LIMITS = st.builds(
    Limits,
    max_retries=st.integers(0, 8),
    retry_deadline=st.sampled_from([0.0, 20.0, 600.0]),
    retry_after_cap=st.sampled_from([0.0, 10.0]),
)


class OneUpstream:
    """The same decisions for a route of one upstream, where a few lines say them all."""

    def __init__(self, limits, began) -> None:
        self.limits = limits
        self.latest = began + limits.retry_deadline if limits.retry_deadline else inf
        self.retries = 0

    def next_delay(self, again, now, jitter):
        if not again.retryable or self.retries >= self.limits.max_retries:
            return None
        delay = again.retry_after
        if delay is None:
            delay = 0.0 if again.at_once else backoff(self.retries, jitter)
        elif delay > self.limits.retry_after_cap:
            return None
        if now + delay > self.latest:
            return None
        self.retries += 1
        return delay


@given(LIMITS, FAILURES)
def test_with_one_upstream_it_decides_as_a_few_lines_do(limits, failures):
    policy, one, now = OneUpstream(limits, 7.0), Course(limits, 7.0, (A,)), 7.0
    assert one.first(anyone) == A
    for again, took, jitter in failures:
        now += took
        delay = policy.next_delay(again, now, jitter)
        step = one.next(A, again, now=now, jitter=jitter, available=anyone)
        assert step == (None if delay is None else Step(A, delay))
        assert one.retries == policy.retries
        if delay is None:
            return
        now += delay


@given(LIMITS, st.permutations(range(4)), FAILURES, st.data())
def test_any_course_keeps_its_limits(limits, order, failures, data):
    one, now, attempts = Course(limits, 0.0, tuple(order)), 0.0, 1
    index, spent, wishes = one.first(anyone), set(), {}
    for again, took, jitter in failures:
        now += took
        away = data.draw(st.sets(st.integers(0, 3), max_size=3))
        if not again.retryable or (again.retry_after or 0.0) > limits.retry_after_cap:
            spent.add(index)
        wishes[index] = now + (again.retry_after or 0.0)
        step = one.next(index, again, now=now, jitter=jitter, available=but(*away))
        if step is None:
            return
        attempts += 1
        start = now + step.delay
        assert attempts <= limits.max_retries + 1
        assert not limits.retry_deadline or start <= limits.retry_deadline
        assert step.index not in spent | away
        assert step.delay >= 0
        assert start >= wishes.get(step.index, 0.0) - 1e-6
        index, now = step.index, start


@given(st.permutations(range(4)), st.lists(st.sampled_from([BROKEN, busy(2.0)]), max_size=9))
def test_a_round_asks_every_upstream_once_and_in_order(order, failures):
    one = Course(Limits(max_retries=99), 0.0, tuple(order))
    asked = [one.first(anyone)]
    for again in failures:
        asked.append(one.next(asked[-1], again, now=0.0, jitter=0.5, available=anyone).index)
    assert asked == (list(order) * 3)[: len(asked)]


# Two at a time.


def test_what_an_upstream_said_of_itself_holds_for_the_attempt_that_still_runs_there():
    one = course((A,))
    assert one.other(A, now=0.0, available=anyone) == A
    one.give_up(A, busy(5), now=1.0)
    assert after(one, A, now=2.0) == (A, 4.0)


def test_an_upstream_that_is_out_of_question_is_not_asked_again_when_its_hedge_fails():
    one = course((A,))
    assert one.other(A, now=0.0, available=anyone) == A
    one.give_up(A, busy(60), now=1.0)
    assert after(one, A, now=2.0) is None


def test_a_wish_that_was_granted_is_over():
    one = course((A,))
    assert after(one, A, busy(5), now=0.0) == (A, 5.0)
    assert after(one, A, now=6.0, jitter=1.0) == (A, backoff(1, 1.0))


def test_a_wish_that_was_granted_is_over_also_where_the_instants_are_rounded():
    one, now = course((A,), max_retries=99, retry_deadline=0.0), 7.0
    for _ in range(20):
        _, delay = after(one, A, busy(0.3), now=now)
        now += delay
        _, delay = after(one, A, now=now, jitter=1.0)
        assert delay >= 0.5
        now += delay
