"""How long the server waits at its end, in virtual time."""

from __future__ import annotations

import trio

from trio_sse_proxy.listening import Stop
from trio_sse_proxy.server import FAREWELL, _wind_down


class Telling:
    """A drainer whose streams take some turns of the event loop to tell their clients of the end."""

    def __init__(self, turns):
        self.turns = turns
        self.ending, self.told = trio.Event(), trio.Event()

    def begin_drain(self):
        pass

    def end_streams(self):
        self.ending.set()

    async def drained(self):
        await self.told.wait()

    async def tell(self, clock):
        await self.ending.wait()
        for _ in range(self.turns):
            clock.jump(1.0)
            await trio.lowlevel.checkpoint()
        self.told.set()


async def test_clients_are_told_though_each_turn_of_the_loop_takes_a_second(autojump_clock):
    streams = Telling(turns=6)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(streams.tell, autojump_clock)
        await _wind_down(streams, Stop(), 5.0)
        assert streams.told.is_set()


async def test_clients_that_take_nothing_are_not_waited_for(autojump_clock):
    streams = Telling(turns=0)
    await _wind_down(streams, Stop(), 5.0)
    assert trio.current_time() == 5.0 + FAREWELL
