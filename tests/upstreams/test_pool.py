"""The pool: fair, flat, and without a slot lost whoever is cancelled when."""

from __future__ import annotations

import gc
import sys

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.core.errors import Unreachable
from trio_sse_proxy.upstreams.failures import QueueTimedOut
from trio_sse_proxy.upstreams.pool import Origin, Pool

HERE = Origin("http", "here", 80)
THERE = Origin("http", "there", 80)


class Fake:
    def __init__(self, origin):
        self.origin = origin
        self.alive = True
        self.closed = False

    def is_alive(self):
        return self.alive and not self.closed

    def close(self):
        self.closed = True


class Connector:
    """Opens fakes; refuses while `fails`."""

    def __init__(self):
        self.opened = []
        self.fails = False

    async def __call__(self, origin, within):
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise Unreachable("refused")
        self.opened.append(Fake(origin))
        return self.opened[-1]


async def test_the_connection_used_last_is_used_next():
    pool = Pool(Connector())
    first, second = await pool.check_out(HERE), await pool.check_out(HERE)
    pool.give_back(first)
    pool.give_back(second)
    assert await pool.check_out(HERE) is second
    assert await pool.check_out(HERE) is first
    assert pool.idle_connections == 0


async def test_origins_share_nothing():
    pool = Pool(Connector())
    pool.give_back(await pool.check_out(HERE))
    assert (await pool.check_out(THERE)).origin == THERE
    assert (await pool.check_out(HERE._replace(server_name="x"))).origin.server_name == "x"
    assert pool.idle_connections == 1


async def test_a_dead_connection_is_closed_and_passed_over(autojump_clock):
    pool = Pool(Connector(), max_connections=2)
    first, second = await pool.check_out(HERE), await pool.check_out(HERE)
    pool.give_back(first)
    pool.give_back(second)
    second.alive = False
    assert await pool.check_out(HERE) is first
    assert second.closed
    with trio.fail_after(1):
        await pool.check_out(HERE)  # the dead one's slot is free


async def test_idle_connections_expire_when_the_pool_is_touched(autojump_clock):
    pool = Pool(Connector(), keepalive_expiry=30)
    old, other = await pool.check_out(HERE), await pool.check_out(THERE)
    pool.give_back(old)
    await trio.sleep(20)
    pool.give_back(other)
    await trio.sleep(10)
    young = await pool.check_out(THERE)
    assert young is other
    assert old.closed
    assert not young.closed
    assert pool.idle_connections == 0


async def test_waiters_are_served_in_order_and_newcomers_do_not_overtake(autojump_clock):
    pool = Pool(Connector(), max_connections=1)
    order = []

    async def use(name):
        connection = await pool.check_out(HERE)
        order.append(name)
        await trio.sleep(1)
        pool.give_back(connection)
        if name < 3:
            await use(name + 10)  # at once, while others wait

    async with trio.open_nursery() as nursery:
        for name in range(5):
            nursery.start_soon(use, name)
            await wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3, 4, 10, 11, 12]
    assert pool.busy_connections == 0


async def test_a_cancelled_waiter_leaves_the_queue_at_once(autojump_clock):
    pool = Pool(Connector(), max_connections=1)
    held = await pool.check_out(HERE)
    with trio.move_on_after(1):
        await pool.check_out(HERE)
    pool.give_back(held)
    assert pool.idle_connections == 1
    assert await pool.check_out(HERE) is held


@pytest.mark.parametrize("fit", [True, False])
@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_slot_handed_to_a_waiter_cancelled_on_the_same_tick_is_passed_on(fit, cancel_first):
    connector = Connector()
    pool = Pool(connector, max_connections=1)
    held = await pool.check_out(HERE)
    scope = trio.CancelScope()
    got = []

    async def doomed():
        with scope:
            connection = await pool.check_out(HERE)
            try:
                await trio.lowlevel.checkpoint()
            finally:
                pool.give_back(connection)

    async def patient():
        got.append(await pool.check_out(HERE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(doomed)
        await wait_all_tasks_blocked()
        nursery.start_soon(patient)
        await wait_all_tasks_blocked()
        release = pool.give_back if fit else pool.discard
        if cancel_first:
            scope.cancel()
            release(held)
        else:
            release(held)
            scope.cancel()
    assert len(got) == 1
    pool.give_back(got[0])
    assert (pool.busy_connections, pool.idle_connections) == (0, 1)


async def test_a_slot_whose_connection_cannot_be_opened_is_passed_on():
    connector = Connector()
    connector.fails = True
    pool = Pool(connector, max_connections=1)
    failures = []

    async def attempt():
        with pytest.raises(Unreachable):
            await pool.check_out(HERE)
        failures.append(1)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(attempt)
    assert len(failures) == 5
    connector.fails = False
    assert await pool.check_out(HERE)


async def test_waiting_longer_than_the_queue_timeout_is_told(autojump_clock):
    pool = Pool(Connector(), max_connections=1)
    held = await pool.check_out(HERE)
    start = trio.current_time()
    with pytest.raises(QueueTimedOut) as caught:
        await pool.check_out(HERE, queue_timeout=3)
    assert trio.current_time() - start == pytest.approx(3)
    assert not caught.value.sent
    pool.give_back(held)
    assert await pool.check_out(HERE) is held


async def test_closing_closes_all_and_refuses_waiters_and_comers(autojump_clock):
    connector = Connector()
    pool = Pool(connector, max_connections=1)
    pool.give_back(await pool.check_out(THERE))
    await pool.check_out(HERE)
    async with trio.open_nursery() as nursery:

        async def wait():
            with pytest.raises(Unreachable):
                await pool.check_out(HERE)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        pool.close()
    assert all(connection.closed for connection in connector.opened)
    with pytest.raises(Unreachable):
        await pool.check_out(HERE)


async def test_closing_while_a_connection_is_on_its_way_to_a_waiter_closes_it():
    pool = Pool(Connector(), max_connections=1)
    held = await pool.check_out(HERE)
    async with trio.open_nursery() as nursery:

        async def wait():
            with pytest.raises(Unreachable):
                await pool.check_out(HERE)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        pool.give_back(held)
        pool.close()
    assert held.closed
    assert pool.busy_connections == 0


async def test_releasing_twice_frees_one_slot():
    pool = Pool(Connector(), max_connections=1)
    held = await pool.check_out(HERE)
    pool.discard(held)
    pool.discard(held)
    await pool.check_out(HERE)
    with pytest.raises(QueueTimedOut):
        await pool.check_out(HERE, queue_timeout=0)


async def test_nothing_is_kept_of_origins_that_are_done_with(autojump_clock):
    pool = Pool(Connector(), keepalive_expiry=1)
    for number in range(50):
        pool.give_back(await pool.check_out(HERE._replace(port=number)))
    await trio.sleep(2)
    pool.discard(await pool.check_out(HERE))
    assert pool._shelves == {}


async def calls_of(pool, origin):
    """Function calls, Python's and C's, of one check-out and return."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # it would count what it finds of other tests
    sys.setprofile(profile)
    try:
        pool.give_back(await pool.check_out(origin))
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


async def test_a_thousand_check_outs_cost_as_much_each_as_the_first():
    pool = Pool(Connector())
    pool.give_back(await pool.check_out(HERE))
    alone = await calls_of(pool, HERE)
    busy = [await pool.check_out(HERE) for _ in range(1000)]
    for connection in busy[:500]:
        pool.give_back(connection)
    assert [await calls_of(pool, HERE) for _ in range(1000)] == [alone] * 1000
