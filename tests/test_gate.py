"""The gate: fair, flat, and without a slot lost or doubled whoever is cancelled when."""

from __future__ import annotations

import gc
import random
import sys
from collections import Counter, deque
from contextlib import suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from relay.conftest import scheduler_seed  # noqa: F401  # a fixture
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sse_proxy import gate as gate_module
from trio_sse_proxy.core.errors import Unreachable
from trio_sse_proxy.gate import Gate, Overloaded, QueueFull, WaitedTooLong


class Crowd:
    """Requests that wait at a gate, each in a task of its own, and what became of them."""

    def __init__(self, gate, nursery):
        self.gate = gate
        self.nursery = nursery
        self.order = []  # who was let in, in turn
        self.refused = {}
        self.slots = {}
        self.scopes = {}

    async def join(self, *names, client=None):
        """Each of `names` comes, one after the other; its first letter says who its client is."""
        for name in names:
            self.nursery.start_soon(self._request, name, name[0] if client is None else client)
            await wait_all_tasks_blocked()

    async def _request(self, name, client):
        with trio.CancelScope() as self.scopes[name]:
            try:
                self.slots[name] = await self.gate.enter(client)
                self.order.append(name)
            except Overloaded as error:
                self.refused[name] = error

    async def serve_all(self):
        """One after the other leaves, until none is left."""
        while self.slots:
            self.slots.pop(next(iter(self.slots))).leave()
            await wait_all_tasks_blocked()
        return self.order


async def test_without_a_limit_everybody_is_let_in_and_counted():
    gate = Gate()
    slots = [await gate.enter("") for _ in range(1000)]
    assert gate.inflight == 1000
    for slot in slots:
        slot.leave()
    assert (gate.inflight, gate.queued) == (0, 0)


async def test_what_needs_no_waiting_is_no_checkpoint():
    gate = Gate(max_inflight=2)
    with trio.CancelScope() as scope:
        scope.cancel()
        await gate.enter("a")
        assert gate.try_enter() is not None
    assert not scope.cancelled_caught


def test_there_are_as_many_slots_as_said():
    gate = Gate(max_inflight=2)
    assert gate.try_enter()
    assert gate.try_enter()
    assert gate.try_enter() is None
    assert gate.inflight == 2


async def test_leaving_twice_frees_one_slot():
    gate = Gate(max_inflight=2)
    first, _second = await gate.enter("a"), await gate.enter("a")
    first.leave()
    first.leave()
    assert gate.inflight == 1


async def test_a_slot_ends_with_its_block_also_by_an_error():
    gate = Gate(max_inflight=1)
    slot = await gate.enter("a")
    with suppress(KeyError), slot:
        assert gate.inflight == 1
        raise KeyError
    assert gate.inflight == 0


async def test_one_client_is_served_in_the_order_it_came(nursery):
    gate = Gate(max_inflight=1)
    crowd = Crowd(gate, nursery)
    await crowd.join("a1", "a2", "a3", "a4")
    assert gate.queued == 3
    assert await crowd.serve_all() == ["a1", "a2", "a3", "a4"]


async def test_clients_take_turns(nursery):
    crowd = Crowd(Gate(max_inflight=1), nursery)
    await crowd.join("x", "a1", "a2", "a3", "b1", "b2", "c1")
    assert await crowd.serve_all() == ["x", "a1", "b1", "c1", "a2", "b2", "a3"]


async def test_a_client_that_comes_again_does_not_come_before_its_turn(nursery):
    crowd = Crowd(Gate(max_inflight=1), nursery)
    await crowd.join("x", "a1", "b1", "b2", "c1")
    crowd.slots.pop("x").leave()  # a1 is let in; a's line is empty
    await crowd.join("a2")
    assert await crowd.serve_all() == ["x", "a1", "b1", "c1", "a2", "b2"]


async def test_a_thousand_requests_of_one_client_delay_another_by_one(scheduler_seed):  # noqa: F811
    gate = Gate(max_inflight=1)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(gate, nursery)
        await crowd.join("x")
        for n in range(999):
            nursery.start_soon(crowd._request, f"a{n}", "a")
        await wait_all_tasks_blocked()
        await crowd.join("b1")
        assert gate.queued == 1000
        await crowd.serve_all()
    assert crowd.order.index("b1") <= 2
    assert len(crowd.order) == 1001


async def test_nobody_overtakes_those_who_wait(nursery):
    gate = Gate(max_inflight=1)
    crowd = Crowd(gate, nursery)
    await crowd.join("a1", "b1")
    crowd.slots.pop("a1").leave()
    assert gate.try_enter() is None  # it is b1's, which has not even run yet
    await wait_all_tasks_blocked()
    assert crowd.order == ["a1", "b1"]


async def test_a_cancelled_waiter_is_out_of_the_queue_at_once(nursery):
    gate = Gate(max_inflight=1)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "a2", "b1")
    crowd.scopes["a1"].cancel()
    assert gate.queued == 2  # no checkpoint since
    assert await crowd.serve_all() == ["x", "a2", "b1"]


async def test_a_cancelled_waiter_is_never_handed_a_slot(nursery):
    gate = Gate(max_inflight=1)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "b1")
    crowd.scopes["a1"].cancel()
    crowd.slots["x"].leave()
    await wait_all_tasks_blocked()
    assert crowd.order == ["x", "b1"]


async def test_a_slot_handed_to_a_task_cancelled_before_it_ran_goes_on(nursery):
    gate = Gate(max_inflight=1)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "b1")
    crowd.slots["x"].leave()
    crowd.scopes["a1"].cancel()
    await wait_all_tasks_blocked()
    assert crowd.order == ["x", "b1"]
    assert (gate.inflight, gate.queued) == (1, 0)


async def test_a_cancelled_newcomer_sends_nobody_away(nursery):
    gate = Gate(max_inflight=1, max_queued=2)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "a2")
    with trio.CancelScope() as scope:
        scope.cancel()
        await gate.enter("b")
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert (gate.queued, crowd.refused) == (2, {})


async def test_a_resent_request_does_not_wait_behind_its_own_ghost(nursery):
    """Whoever ends a request frees its slot, however long its own task takes to clean up."""
    gate = Gate(max_inflight=1)
    cleaned_up = trio.Event()

    async def left_request(slot):
        with slot:
            await cleaned_up.wait()

    slot = await gate.enter("a")
    nursery.start_soon(left_request, slot)
    slot.leave()
    assert gate.try_enter() is not None
    cleaned_up.set()
    await wait_all_tasks_blocked()
    assert gate.inflight == 1  # the ghost did not free the slot of the other


async def test_the_queue_timeout_is_kept(autojump_clock):
    gate = Gate(max_inflight=1, queue_timeout=30)
    await gate.enter("a")
    with pytest.raises(WaitedTooLong, match="in 30 s"):
        await gate.enter("a")
    assert trio.current_time() == pytest.approx(30)
    assert (gate.inflight, gate.queued) == (1, 0)


async def test_without_a_queue_timeout_one_waits_for_as_long_as_it_takes(autojump_clock):
    gate = Gate(max_inflight=1)
    slot = await gate.enter("a")
    with trio.move_on_after(10**6) as patience:
        await gate.enter("a")
    assert patience.cancelled_caught
    slot.leave()
    assert gate.try_enter() is not None


async def test_a_slot_freed_on_the_tick_of_the_queue_timeout_is_used_or_left(
    autojump_clock,
    scheduler_seed,  # noqa: F811
):
    gate = Gate(max_inflight=1, queue_timeout=5)
    slot = await gate.enter("a")
    ended = []

    async def wait():
        try:
            with await gate.enter("b"):
                ended.append("in")
        except WaitedTooLong:
            ended.append("late")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(5)
        slot.leave()
    assert ended in (["in"], ["late"])
    assert (gate.inflight, gate.queued) == (0, 0)


async def test_a_slot_handed_over_before_the_timeout_struck_is_kept(mock_clock, nursery):
    """The deadline passes between the hand-over and the moment the waiter runs."""
    crowd = Crowd(Gate(max_inflight=1, queue_timeout=5), nursery)
    await crowd.join("x", "a1")
    crowd.slots["x"].leave()
    mock_clock.jump(10)
    await wait_all_tasks_blocked()
    assert crowd.order == ["x", "a1"]


async def test_a_full_queue_refuses(nursery):
    gate = Gate(max_inflight=1, max_queued=2)
    crowd = Crowd(gate, nursery)
    await crowd.join("a0", "a1", "a2")
    with pytest.raises(QueueFull, match="2 requests wait"):
        await gate.enter("a")
    assert gate.queued == 2
    assert await crowd.serve_all() == ["a0", "a1", "a2"]


async def test_nobody_waits_if_nobody_may():
    gate = Gate(max_inflight=1, max_queued=0)
    slot = await gate.enter("a")
    with pytest.raises(QueueFull, match="nobody waits"):
        await gate.enter("b")
    slot.leave()
    await gate.enter("b")


async def test_a_full_queue_makes_room_for_a_client_with_fewer_waiting(nursery):
    gate = Gate(max_inflight=1, max_queued=4)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "a2", "a3", "a4", "b1", "b2")
    assert set(crowd.refused) == {"a4", "a3"}
    assert isinstance(crowd.refused["a4"], QueueFull)
    await crowd.join("b3", "a5")
    assert set(crowd.refused) == {"a4", "a3", "b3", "a5"}
    assert gate.queued == 4
    assert await crowd.serve_all() == ["x", "a1", "b1", "a2", "b2"]


async def test_of_several_longest_lines_the_one_that_grew_last_makes_room_first(nursery):
    crowd = Crowd(Gate(max_inflight=1, max_queued=6), nursery)
    await crowd.join("x", "a1", "b1", "a2", "b2", "a3", "b3", "c1")
    assert set(crowd.refused) == {"b3"}
    await crowd.join("c2")
    assert set(crowd.refused) == {"b3", "a3"}
    await crowd.join("c3")
    assert set(crowd.refused) == {"b3", "a3", "c3"}


async def test_the_first_of_a_line_is_never_sent_away(nursery):
    gate = Gate(max_inflight=1, max_queued=3)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "b1", "c1", "d1")
    assert set(crowd.refused) == {"d1"}


async def test_an_overload_is_known_as_nothing_sent():
    gate = Gate(max_inflight=1, max_queued=0)
    await gate.enter("a")
    with pytest.raises(Unreachable) as caught:
        await gate.enter("a")
    assert (caught.value.sent, caught.value.responded) == (False, False)
    assert issubclass(WaitedTooLong, Overloaded)


async def test_more_slots_are_handed_out_at_once(nursery):
    gate = Gate(max_inflight=1)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "a2", "b1")
    gate.change(3, 10, 0)
    assert (gate.inflight, gate.queued) == (3, 1)
    gate.change(0, 10, 0)
    await wait_all_tasks_blocked()
    assert (gate.inflight, gate.queued) == (4, 0)
    assert set(crowd.order) == {"x", "a1", "a2", "b1"}


async def test_with_fewer_slots_those_who_leave_are_not_followed(nursery):
    gate = Gate(max_inflight=3)
    crowd = Crowd(gate, nursery)
    await crowd.join("a1", "a2", "a3", "b1")
    gate.change(1, 10, 0)
    crowd.slots.pop("a1").leave()
    crowd.slots.pop("a2").leave()
    assert (gate.inflight, gate.queued) == (1, 1)
    crowd.slots.pop("a3").leave()
    await wait_all_tasks_blocked()
    assert crowd.order[-1] == "b1"


async def test_fewer_places_send_nobody_away(nursery):
    gate = Gate(max_inflight=1, max_queued=3)
    crowd = Crowd(gate, nursery)
    await crowd.join("x", "a1", "a2", "a3")
    gate.change(1, 1, 0)
    await crowd.join("b1")
    assert gate.queued == 3
    assert len(await crowd.serve_all()) == 4


@pytest.mark.parametrize("limits", [(-1, 0, 0), (0, -1, 0), (0, 0, -1.0), (0, 0, float("nan"))])
def test_limits_are_not_negative(limits):
    with pytest.raises(ValueError, match="negative"):
        Gate(*limits)


class Street:
    """Hundreds of requests that come, wait, are cancelled and ended from outside as a seed has it."""

    def __init__(self, seed, limits, clients):
        self.random = random.Random(seed)
        self.gate = Gate(*limits)
        self.limits = limits
        self.clients = clients
        self.ends = Counter()
        self.inside = 0

    async def run(self, requests):
        async with trio.open_nursery() as nursery:
            for _ in range(requests):
                nursery.start_soon(self.request)
        assert (self.gate.inflight, self.gate.queued, self.inside) == (0, 0, 0)
        assert self.ends.total() == requests
        return self.ends

    def look(self):
        """What holds at any moment."""
        most, waiting, _ = self.limits
        assert self.inside <= self.gate.inflight <= most
        assert self.gate.queued <= waiting
        assert not self.gate.queued or self.gate.inflight == most

    async def request(self):
        r = self.random
        await trio.sleep(r.randrange(20))  # whole seconds: there are many ties
        patience = r.choice([1, 2, 5, 1000])
        with trio.CancelScope(deadline=trio.current_time() + patience) as scope:
            try:
                slot = await self.gate.enter(r.choice(self.clients))
            except Overloaded as error:
                self.ends[type(error).__name__] += 1
                self.look()
                return
            with slot:
                self.inside += 1
                try:
                    self.look()
                    await trio.sleep(r.randrange(3))
                finally:
                    self.inside -= 1
                    if r.random() < 0.5:
                        slot.leave()  # before the clean-up
                    with trio.move_on_after(1, shield=True):
                        await trio.lowlevel.checkpoint()
            self.look()
            self.ends["served"] += 1
        if scope.cancelled_caught:
            self.ends["cancelled"] += 1
            self.look()


async def test_no_slot_is_lost_or_doubled(autojump_clock, scheduler_seed):  # noqa: F811
    street = Street(scheduler_seed, (4, 40, 4.0), "abcdefgh")
    ends = await street.run(400)
    assert set(ends) == {"served", "cancelled", "QueueFull", "WaitedTooLong"}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    most=st.integers(1, 5),
    waiting=st.integers(0, 30),
    timeout=st.sampled_from([0.0, 1.0, 3.0]),
    clients=st.integers(1, 6),
)
def test_no_slot_is_lost_or_doubled_whatever_the_limits(seed, most, waiting, timeout, clients):
    street = Street(seed, (most, waiting, timeout), range(clients))
    trio.run(street.run, 80, clock=MockClock(autojump_threshold=0))


Steps = st.lists(
    st.tuples(st.sampled_from("++++-x"), st.integers(0, 3), st.integers(0, 20)), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(Steps, st.integers(1, 8))
def test_the_queue_does_what_a_slow_and_simple_one_does(steps, places):
    """One slot; each step is a newcomer, a leaver who had the slot, or a waiter that gives up."""

    async def main():
        async with trio.open_nursery() as nursery:
            crowd = Crowd(Gate(1, places), nursery)
            plain = PlainQueue(places)
            await crowd.join("x")
            for number, (step, client, which) in enumerate(steps):
                name = f"{client}-{number}"
                if step == "+":
                    await crowd.join(name)
                    plain.join(name)
                elif step == "-":
                    crowd.slots.pop(plain.inside).leave()
                    await wait_all_tasks_blocked()
                    plain.leave()
                    if plain.inside is None:
                        await crowd.join("x")
                        plain.inside = "x"
                elif plain.waiting():
                    name = plain.waiting()[which % len(plain.waiting())]
                    crowd.scopes[name].cancel()
                    plain.give_up(name)
                assert crowd.gate.queued == len(plain.waiting())
                assert set(crowd.refused) == plain.refused
                assert list(crowd.slots) == [plain.inside]
            crowd.nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


class PlainQueue:
    """The same rules, looking at everybody each time."""

    def __init__(self, places):
        self.places = places
        self.inside = "x"
        self.lines = deque()  # [client, [names], when it came to this length]
        self.refused = set()
        self.time = 0

    def waiting(self):
        return [name for _, names, _ in self.lines for name in names]

    def join(self, name):
        line = next((line for line in self.lines if line[0] == name[0]), None)
        if len(self.waiting()) == self.places:
            longest = max(self.lines, key=lambda line: (len(line[1]), line[2]))
            if (len(line[1]) if line else 0) + 1 >= len(longest[1]):
                self.refused.add(name)
                return
            self.refused.add(longest[1][-1])
            self.give_up(longest[1][-1])
        if line is None:
            line = [name[0], [], 0]
            self.lines.append(line)
        line[1].append(name)
        self._touch(line)

    def give_up(self, name):
        line = next(line for line in self.lines if name in line[1])
        line[1].remove(name)
        self._touch(line)
        if not line[1]:
            self.lines.remove(line)

    def leave(self):
        self.inside = None
        if self.lines:
            line = self.lines.popleft()
            self.inside = line[1].pop(0)
            self._touch(line)
            if line[1]:
                self.lines.append(line)

    def _touch(self, line):
        self.time += 1
        line[2] = self.time


async def work_of_a_turn(waiting, clients):
    """How many calls, C functions included, it takes to come and to be let in while so many wait."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in {"call", "c_call"} and frame.f_code.co_filename == gate_module.__file__

    async with trio.open_nursery() as nursery:
        gate = Gate(max_inflight=1, max_queued=10 * waiting)
        crowd = Crowd(gate, nursery)
        await crowd.join("x")
        for n in range(waiting):
            nursery.start_soon(crowd._request, f"a{n}", f"client {n % clients}")
        await wait_all_tasks_blocked()
        gc.collect()
        sys.setprofile(count)
        try:
            await crowd.join("b")
            crowd.slots["x"].leave()
            await wait_all_tasks_blocked()
        finally:
            sys.setprofile(None)
        nursery.cancel_scope.cancel()
    return calls


async def test_a_turn_costs_the_same_however_many_wait():
    few = await work_of_a_turn(waiting=10, clients=5)
    assert await work_of_a_turn(waiting=1000, clients=5) == few
    assert await work_of_a_turn(waiting=1000, clients=500) == few
