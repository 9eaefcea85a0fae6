"""In which order a request tries the upstreams of its route."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sse_proxy.core.balance import Balance, Balancer, sticky_order

IDLE = (0, 0, 0)
KEYS = [b"session-%d" % number for number in range(20_000)]


def balancer(balance, weights=(1, 1, 1)):
    return Balancer(balance, [f"up-{index}" for index in range(len(weights))], weights)


def firsts(one, times, inflight=IDLE, **options):
    return [one.order(inflight, **options)[0] for _ in range(times)]


def test_the_names_in_the_settings():
    assert [each.value for each in Balance] == [
        "ordered",
        "least_inflight",
        "round_robin",
        "weighted",
    ]


@given(
    st.sampled_from(Balance),
    st.lists(st.sampled_from([0, 0.5, 1, 1, 3]), max_size=6),
    st.lists(st.none() | st.binary(max_size=9), min_size=1, max_size=9),
    st.data(),
)
def test_every_upstream_stands_in_every_order_exactly_once(balance, weights, keys, data):
    one = balancer(balance, weights)
    for key in keys:
        inflight = data.draw(st.lists(st.integers(0, 3), min_size=6, max_size=6))
        up = data.draw(st.sets(st.integers(0, 5)))
        order = one.order(inflight, key, up.__contains__)
        assert sorted(order) == list(range(len(weights)))


def test_ordered_is_as_written():
    one = balancer(Balance.ORDERED)
    assert {one.order((9, 5, 0)) for _ in range(5)} == {(0, 1, 2)}


def test_round_robin_takes_turns_whatever_the_weights():
    one = balancer(Balance.ROUND_ROBIN, (1, 50, 1))
    assert [one.order((7, 0, 3)) for _ in range(4)] == [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 1, 2)]


def test_least_inflight_goes_by_requests_per_weight():
    one = balancer(Balance.LEAST_INFLIGHT, (1, 4, 2))
    assert one.order((2, 4, 3)) == (1, 2, 0)


def test_ties_of_least_inflight_take_turns():
    assert firsts(balancer(Balance.LEAST_INFLIGHT), 6) == [0, 1, 2, 0, 1, 2]


def test_ties_take_equal_turns_though_another_stands_between_them():
    assert firsts(balancer(Balance.LEAST_INFLIGHT), 6, inflight=(0, 5, 0)) == [0, 2, 0, 2, 0, 2]


def test_weighted_is_smooth():
    assert firsts(balancer(Balance.WEIGHTED, (5, 1, 1)), 7) == [0, 0, 1, 0, 2, 0, 0]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
def test_weighted_gives_each_its_weight_in_every_round(weights):
    one = balancer(Balance.WEIGHTED, weights)
    for _ in range(2):
        served = Counter(firsts(one, sum(weights)))
        assert [served[index] for index in range(len(weights))] == weights


@pytest.mark.parametrize("balance", [Balance.LEAST_INFLIGHT, Balance.WEIGHTED])
def test_an_upstream_of_weight_zero_comes_last(balance):
    one = balancer(balance, (1, 0, 3))
    assert {one.order((50, 0, 50))[-1] for _ in range(20)} == {1}


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_INFLIGHT, Balance.WEIGHTED])
def test_the_share_of_an_upstream_that_is_away_falls_to_all_others(balance):
    one = balancer(balance)
    orders = [one.order(IDLE, available=lambda index: index != 1) for _ in range(10)]
    assert Counter(order[0] for order in orders) == {0: 5, 2: 5}
    assert {order[-1] for order in orders} == {1}


def test_those_that_are_left_share_by_their_own_weights():
    one = balancer(Balance.WEIGHTED, (3, 1, 4))
    served = Counter(firsts(one, 40, available=lambda index: index != 2))
    assert served == {0: 30, 1: 10}


@pytest.mark.parametrize("balance", Balance)
def test_if_all_are_away_there_is_still_an_order(balance):
    order = balancer(balance).order(IDLE, available=lambda _index: False)
    assert sorted(order) == [0, 1, 2]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        balancer(Balance.WEIGHTED, (1, weight))


def test_a_sticky_key_takes_nobodys_turn():
    one = balancer(Balance.ROUND_ROBIN)
    for key in KEYS[:7]:
        one.order(IDLE, key)
    assert firsts(one, 3) == [0, 1, 2]


def test_a_sticky_key_has_one_order_in_every_process():
    """A figure from another run: Python's own `hash` would change with each."""
    assert sticky_order(b"session", ["a", "b", "c", "d"], [1, 1, 1, 1]) == (3, 0, 2, 1)


@given(st.binary(), st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_a_key_does_not_depend_on_how_the_upstreams_are_written(key, names):
    weights = {"a": 1, "b": 2, "c": 0.5, "d": 0}
    order = sticky_order(key, names, [weights[name] for name in names])
    plain = sticky_order(key, list("abcd"), list(weights.values()))
    assert [names[index] for index in order] == ["abcd"[index] for index in plain]
    assert names[order[-1]] == "d"


@given(st.binary(), st.integers(0, 4))
def test_without_one_upstream_the_others_keep_their_order(key, gone):
    """So nothing moves but the share of the one that is added or taken away."""
    names, weights = ["a", "b", "c", "d", "e"], [1, 2, 3, 0, 0.1]
    order = [names[index] for index in sticky_order(key, names, weights)]
    order.remove(names.pop(gone))
    weights.pop(gone)
    assert [names[index] for index in sticky_order(key, names, weights)] == order


def test_sticky_keys_are_shared_by_weight():
    served = Counter(sticky_order(key, ["a", "b", "c"], [1, 2, 1])[0] for key in KEYS)
    assert served[1] == pytest.approx(10_000, rel=0.04)
    assert served[0] == pytest.approx(5_000, rel=0.06)


def test_an_added_upstream_takes_its_share_and_no_other_key_moves():
    before = [sticky_order(key, ["a", "b", "c"], [1, 1, 1])[0] for key in KEYS]
    after = [sticky_order(key, ["a", "b", "c", "d"], [1, 1, 1, 1])[0] for key in KEYS]
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {new for _, new in moved} == {3}
    assert len(moved) == pytest.approx(5_000, rel=0.06)
    taken = Counter(old for old, _ in moved)
    assert all(taken[old] == pytest.approx(1_667, rel=0.1) for old in range(3))


def test_the_keys_of_an_upstream_that_fails_are_spread_over_all_others():
    seconds = Counter(
        order[1]
        for order in (sticky_order(key, ["a", "b", "c"], [1, 1, 1]) for key in KEYS)
        if order[0] == 0
    )
    assert seconds[1] == pytest.approx(seconds[2], rel=0.1)
