"""Whether an upstream is worth asking: when the breaker opens, and who may close it again."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_sse_proxy.core.breaker import Breaker, BreakerRules, State, Window

RULES = {"failures": 3, "rate": 0.0, "cooldown": 10.0, "longest_cooldown": 120.0}


def breaker(**rules):
    return Breaker(BreakerRules(**{**RULES, **rules}))


def fail(one, now=0.0, times=1):
    for _ in range(times):
        one.enter(now).failed(now)


def succeed(one, now=0.0, times=1):
    for _ in range(times):
        one.enter(now).succeeded(now)


def opened(**rules):
    """Opened at 0, half-open from 10 on."""
    one = breaker(**rules)
    fail(one, times=3)
    assert one.state(0.0) is State.OPEN
    return one


def test_a_new_breaker_lets_everybody_in():
    one = breaker()
    assert all(one.enter(0.0) for _ in range(50))
    assert (one.state(0.0), one.retry_after(0.0)) == (State.CLOSED, 0.0)


def test_enough_failures_in_a_row_open_it():
    one = breaker()
    fail(one, times=2)
    assert one.state(0.0) is State.CLOSED
    fail(one)
    assert one.state(0.0) is State.OPEN
    assert one.enter(0.0) is None


def test_a_success_breaks_the_row():
    one = breaker()
    for _ in range(5):
        fail(one, times=2)
        succeed(one)
    assert one.state(0.0) is State.CLOSED


def test_a_withdrawn_call_neither_counts_nor_breaks_the_row():
    one = breaker(rate=0.5, least=3)
    for _ in range(20):
        one.enter(0.0).withdrawn(0.0)
    fail(one, times=2)
    one.enter(0.0).withdrawn(0.0)
    assert one.state(0.0) is State.CLOSED
    fail(one)
    assert one.state(0.0) is State.OPEN


def test_without_rules_no_call_opens_it():
    one = breaker(failures=0, rate=0.0)
    fail(one, times=500)
    assert one.state(0.0) is State.CLOSED


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [
        (10, 10, State.OPEN),
        (11, 10, State.CLOSED),  # under half
        (9, 10, State.CLOSED),  # too few calls
        (0, 19, State.CLOSED),
        (0, 20, State.OPEN),
    ],
)
def test_a_share_of_failures_opens_it_once_there_are_enough_calls(good, bad, state):
    one = breaker(failures=0, rate=0.5, least=20)
    succeed(one, times=good)
    fail(one, times=bad)
    assert one.state(0.0) is state


def test_failures_older_than_the_window_do_not_count():
    one = breaker(failures=0, rate=0.5, least=20, window=30.0)
    fail(one, now=0.0, times=19)
    fail(one, now=30.0)
    assert one.state(30.0) is State.CLOSED


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60),
    st.integers(0, 40),
)
def test_the_window_counts_all_of_its_last_nine_tenths_and_nothing_older_than_itself(steps, rest):
    window, now, seen = Window(30.0), 0, []
    for step, failed in steps:
        now += step
        window.add(float(now), failed=failed)
        seen.append((now, failed))
    now += rest
    share = window.share(float(now))
    bounds = [[failed for at, failed in seen if now - at < age] for age in (27, 30)]
    shares = {sum(some) / len(some) if some else 0.0 for some in bounds}
    # Between the two ages lies at most what happened at the instants 27, 28 and 29 s ago.
    between = [failed for at, failed in seen if 27 <= now - at < 30]
    if between:
        inner = bounds[0]
        for kept in range(len(between) + 1):
            some = between[len(between) - kept :] + inner
            shares.add(sum(some) / len(some) if some else 0.0)
    assert share in shares


def test_an_open_breaker_lets_nobody_in_until_the_cooldown_is_over():
    one = opened()
    assert one.enter(9.99) is None
    assert one.retry_after(4.0) == 6.0
    assert one.state(10.0) is State.HALF_OPEN
    assert one.retry_after(10.0) == 0.0


def test_asking_whether_it_admits_takes_no_slot():
    one = opened()
    assert one.admits(10.0)
    assert one.admits(10.0)
    assert one.enter(10.0) is not None
    assert not one.admits(10.0)


def test_a_half_open_breaker_lets_one_probe_in_at_a_time():
    one = opened()
    assert one.enter(10.0) is not None
    assert one.enter(10.0) is None
    assert one.enter(500.0) is None
    assert one.retry_after(500.0) > 0


def test_a_probe_that_succeeds_closes_it():
    one = opened()
    one.enter(10.0).succeeded(11.0)
    assert one.state(11.0) is State.CLOSED
    assert all(one.enter(11.0) for _ in range(9))


def test_a_probe_that_fails_opens_it_again_for_twice_as_long_up_to_the_longest():
    one = opened()
    now, cooldowns = 10.0, []
    for _ in range(6):
        one.enter(now).failed(now)
        cooldowns.append(one.retry_after(now))
        now += cooldowns[-1]
    assert cooldowns == [20.0, 40.0, 80.0, 120.0, 120.0, 120.0]
    assert one.opens == 7


def test_a_success_resets_the_cooldown():
    one = opened()
    one.enter(10.0).failed(10.0)
    one.enter(30.0).succeeded(30.0)
    fail(one, now=31.0, times=3)
    assert one.retry_after(31.0) == 10.0


def test_the_longest_cooldown_does_not_shorten_the_first():
    one = opened(cooldown=300.0, longest_cooldown=120.0)
    assert one.retry_after(0.0) == 300.0
    one.enter(300.0).failed(300.0)
    assert one.retry_after(300.0) == 300.0


def test_a_withdrawn_probe_makes_room_for_the_next():
    one = opened()
    one.enter(10.0).withdrawn(11.0)
    assert one.state(11.0) is State.HALF_OPEN
    assert one.enter(11.0) is not None
    assert one.enter(11.0) is None


def test_after_it_closed_the_old_failures_are_forgotten():
    one = breaker(failures=0, rate=0.5, least=2)
    fail(one, times=2)
    one.enter(10.0).succeeded(10.0)
    fail(one, now=11.0)
    assert one.state(11.0) is State.CLOSED
    assert one.failures == 1


@pytest.mark.parametrize("now", [5.0, 15.0], ids=["open", "half-open"])
def test_a_late_success_of_a_call_from_before_does_not_close_it(now):
    one = breaker()
    early = one.enter(0.0)
    fail(one, times=3)
    early.succeeded(now)
    assert one.state(5.0) is State.OPEN
    assert one.state(15.0) is State.HALF_OPEN


def test_late_failures_of_calls_from_before_do_not_prolong_the_cooldown():
    one = breaker()
    early = [one.enter(0.0) for _ in range(50)]
    for at, permit in enumerate(early):
        permit.failed(at * 0.1)
    assert one.opens == 1
    assert one.retry_after(5.0) == pytest.approx(5.2)  # from the third failure on


def test_a_late_failure_of_a_call_from_before_does_not_count_against_a_recovered_upstream():
    one = breaker(failures=1)
    early = one.enter(0.0)
    fail(one)
    one.enter(10.0).succeeded(10.0)
    early.failed(11.0)
    assert (one.state(11.0), one.failures) == (State.CLOSED, 0)


def test_a_late_success_of_a_call_from_before_does_not_break_a_new_row_of_failures():
    one = breaker()
    early = one.enter(0.0)
    fail(one, times=3)
    one.enter(10.0).succeeded(10.0)
    fail(one, now=11.0, times=2)
    early.succeeded(11.0)
    fail(one, now=11.0)
    assert one.state(11.0) is State.OPEN


def test_a_late_call_from_before_neither_frees_nor_takes_the_slot_of_the_probe():
    one = breaker()
    early, other = one.enter(0.0), one.enter(0.0)
    fail(one, times=3)
    probe = one.enter(10.0)
    early.withdrawn(10.5)
    other.failed(10.5)
    assert not one.admits(10.5)
    probe.succeeded(11.0)
    assert one.state(11.0) is State.CLOSED


def test_a_pass_is_told_exactly_once():
    permit = breaker().enter(0.0)
    permit.succeeded(0.0)
    assert permit.told
    for tell in (permit.succeeded, permit.failed, permit.withdrawn):
        with pytest.raises(RuntimeError):
            tell(1.0)


def test_a_failed_health_check_opens_it():
    one = breaker(failures=0)
    one.probe_failed(0.0)
    assert one.state(0.0) is State.OPEN
    assert (one.retry_after(0.0), one.opens) == (10.0, 1)


def test_failed_health_checks_put_the_probe_off_without_doubling():
    one = opened()
    for now in (5.0, 10.0, 15.0):
        one.probe_failed(now)
        assert one.retry_after(now) == 10.0
    assert one.opens == 1


def test_a_failed_health_check_opens_a_half_open_one_again_for_twice_as_long():
    one = opened()
    probe = one.enter(10.0)
    one.probe_failed(11.0)
    assert one.retry_after(11.0) == 20.0
    probe.succeeded(12.0)  # let in before it opened again
    assert one.state(12.0) is State.OPEN


def test_a_good_health_check_closes_a_half_open_one():
    one = opened()
    one.probe_succeeded(10.0)
    assert one.state(10.0) is State.CLOSED


def test_a_good_health_check_does_not_end_a_cooldown():
    one = opened()
    one.probe_succeeded(5.0)
    assert one.state(5.0) is State.OPEN


def test_what_a_health_check_opened_the_next_good_one_closes():
    one = breaker()
    one.probe_failed(0.0)
    one.probe_failed(5.0)
    one.probe_succeeded(6.0)
    assert one.state(6.0) is State.CLOSED
    fail(one, now=7.0, times=3)
    one.probe_succeeded(8.0)
    assert one.state(8.0) is State.OPEN  # this time calls did


def test_bad_health_checks_do_not_take_over_what_calls_have_opened():
    one = opened()
    one.probe_failed(5.0)
    one.probe_succeeded(6.0)
    assert (one.state(6.0), one.retry_after(6.0)) == (State.OPEN, 9.0)
    one.probe_succeeded(15.0)
    assert one.state(15.0) is State.CLOSED


def test_a_call_that_fails_as_the_probe_takes_over_what_a_check_has_opened():
    one = breaker()
    one.probe_failed(0.0)
    one.enter(10.0).failed(11.0)
    one.probe_succeeded(12.0)
    assert one.state(12.0) is State.OPEN


def test_nobody_is_let_in_before_the_next_health_check_is_done():
    one = breaker()
    one.probe_failed(0.0, next_in=32.0)
    assert one.retry_after(0.0) == 32.0
    one.probe_failed(31.0, next_in=32.0)
    assert (one.state(62.9), one.state(63.0)) == (State.OPEN, State.HALF_OPEN)
    assert breaker_after_a_check(next_in=3.0).retry_after(0.0) == 10.0


def breaker_after_a_check(next_in):
    one = breaker()
    one.probe_failed(0.0, next_in)
    return one


def test_with_all_rules_off_only_health_checks_open_it():
    one = breaker(failures=0, rate=0.0)
    fail(one, times=100)
    assert one.state(0.0) is State.CLOSED
    one.probe_failed(1.0)
    assert one.state(1.0) is State.OPEN


def test_a_good_health_check_does_not_break_a_row_of_failures():
    one = breaker()
    fail(one, times=2)
    one.probe_succeeded(0.0)
    fail(one)
    assert one.state(0.0) is State.OPEN


def test_its_state_can_be_read_as_json():
    one = breaker(failures=4)
    assert one.as_json(0.0) == {
        "state": "closed",
        "failures": 0,
        "share": 0.0,
        "opens": 0,
        "probe_in": None,
    }
    succeed(one)
    fail(one, times=4)
    assert one.as_json(4.0) == {
        "state": "open",
        "failures": 4,
        "share": 0.8,
        "opens": 1,
        "probe_in": 6.0,
    }
    assert one.as_json(10.5)["state"] == "half_open"
    assert one.as_json(10.5)["probe_in"] == 0.0


class AnyCalls(RuleBasedStateMachine):
    """Calls that overlap in any way, and health checks."""

    def __init__(self):
        super().__init__()
        self.breaker = breaker(rate=0.5, least=4)
        self.now = 0.0
        self.under_way = []
        self.probe = None
        self.by_check = False  # what opened it

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 10.0, 40.0, 200.0]))
    def time_passes(self, seconds):
        state = self.breaker.state(self.now)
        self.now += seconds
        after = self.breaker.state(self.now)
        assert after is state or (state, after) == (State.OPEN, State.HALF_OPEN)

    @rule()
    def enter(self):
        state, admits = self.breaker.state(self.now), self.breaker.admits(self.now)
        permit = self.breaker.enter(self.now)
        assert (permit is not None) is admits
        if permit is not None:
            self.under_way.append(permit)
            assert state is not State.OPEN
            if state is State.HALF_OPEN:
                assert self.probe is None
                self.probe = permit

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "withdrawn"]))
    def tell(self, data, how):
        permit = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(permit)
        state, opens = self.breaker.state(self.now), self.breaker.opens
        due = self.breaker.retry_after(self.now)
        getattr(permit, how)(self.now)
        if state is not State.CLOSED and permit is not self.probe:
            assert self.breaker.state(self.now) is state
            assert (self.breaker.opens, self.breaker.retry_after(self.now)) == (opens, due)
        if self.breaker.opens > opens:
            self.by_check = False
        if permit is self.probe:
            self.probe = None
            expected = {"succeeded": State.CLOSED, "failed": State.OPEN, "withdrawn": state}
            assert self.breaker.state(self.now) is expected[how]

    @rule(well=st.booleans())
    def health_check(self, well):
        state = self.breaker.state(self.now)
        (self.breaker.probe_succeeded if well else self.breaker.probe_failed)(self.now)
        closes = well and (state is State.HALF_OPEN or self.by_check)
        expected = State.OPEN if not well else State.CLOSED if closes else state
        assert self.breaker.state(self.now) is expected
        if not well and state is State.CLOSED:
            self.by_check = True
        if expected is State.CLOSED:
            self.by_check = False
        if closes or not well:
            self.probe = None

    @invariant()
    def the_wait_is_zero_exactly_if_it_admits(self):
        wait = self.breaker.retry_after(self.now)
        assert 0 <= wait <= 120
        assert (wait == 0) is self.breaker.admits(self.now)

    @invariant()
    def it_always_lets_somebody_in_again(self):
        if self.probe is None:
            assert self.breaker.admits(self.now + self.breaker.retry_after(self.now) + 1e-6)
            assert self.breaker.state(inf) is not State.OPEN


TestAnyCalls = AnyCalls.TestCase
