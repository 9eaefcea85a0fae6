"""How many connections there may be, and which has to go when one more comes."""

from __future__ import annotations

import pytest
import trio
from patience import PATIENCE
from serving import body, read_until, serving, start

from trio_sse_proxy import crowd as crowd_module
from trio_sse_proxy.crowd import RESERVED, WITHOUT_LIMIT, Crowd, most_by_descriptors

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class One:
    def __init__(self, crowd):
        self.crowd = crowd
        self.evicted = False
        crowd.enter(self)

    def evict(self):
        self.evicted = True
        self.crowd.leave(self)


def test_the_one_that_has_rested_longest_makes_room():
    crowd = Crowd(3)
    ones = [One(crowd) for _ in range(3)]
    crowd.work(ones[0])
    crowd.rest(ones[0])
    assert crowd.has_room()
    assert [one.evicted for one in ones] == [False, True, False]


def test_nobody_at_work_has_to_go():
    crowd = Crowd(1)
    only = One(crowd)
    crowd.work(only)
    assert not crowd.has_room()
    assert (only.evicted, crowd.turned_away) == (False, 1)


def test_there_is_room_again_once_one_has_left():
    crowd = Crowd(1)
    only = One(crowd)
    crowd.work(only)
    crowd.leave(only)
    assert crowd.has_room()


@pytest.mark.parametrize(("soft", "most"), [(1024, (1024 - RESERVED) // 2), (10, 16)])
def test_half_of_the_descriptors_are_for_clients(monkeypatch, soft, most):
    monkeypatch.setattr(crowd_module.resource, "getrlimit", lambda _: (soft, soft))
    assert most_by_descriptors() == most


def test_without_a_limit_of_the_system_there_is_one_of_ours(monkeypatch):
    unlimited = crowd_module.resource.RLIM_INFINITY
    monkeypatch.setattr(crowd_module.resource, "getrlimit", lambda _: (unlimited, unlimited))
    assert most_by_descriptors() == WITHOUT_LIMIT


async def hold(scope, receive, send):
    await send(start())
    await send(body(b"hello", more=True))
    await trio.sleep_forever()


@pytest.mark.slow
@pytest.mark.steady
async def test_a_silent_connection_makes_room_for_one_that_asks():
    async with serving(hold, max_connections=3) as running:
        silent = [await running.connect() for _ in range(3)]
        async with await running.connect() as client:
            await client.send_all(GET)
            await read_until(client, b"hello")
            with trio.fail_after(PATIENCE):
                assert await silent[0].receive_some() == b""


@pytest.mark.slow
@pytest.mark.steady
async def test_a_newcomer_is_told_that_there_is_no_room_among_those_at_work():
    async with serving(hold, max_connections=2) as running:
        for _ in range(2):
            client = await running.connect()
            await client.send_all(GET)
            await read_until(client, b"hello")
        newcomer = await running.connect()
        assert b"503" in await read_until(newcomer, b"\r\n\r\n")
        running.server.close()
