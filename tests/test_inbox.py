"""What the kept body of a request takes up, beyond what `max_held_bytes` counts."""

from __future__ import annotations

import tracemalloc

import pytest
import trio

from trio_sse_proxy.inbox import AT_ONCE, HeldBytes, KeptBody

MIB = 2**20
PIECE = 64 * 1024


@pytest.fixture
def held() -> HeldBytes:
    return HeldBytes(512 * MIB)


async def feed(body: KeptBody, pieces: int, size: int = PIECE) -> None:
    for number in range(pieces):
        await body.feed(bytes([number % 256]) * size)
    body.close()


async def test_a_body_in_pieces_takes_up_its_size_once(held: HeldBytes) -> None:
    body = KeptBody(64 * MIB, held)
    tracemalloc.start()
    try:
        await feed(body, 256)
        whole = body.whole()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(whole) == held.used == 16 * MIB
    assert peak < 1.2 * len(whole)


async def test_many_bodies_that_grow_at_once_take_up_what_is_counted(held: HeldBytes) -> None:
    bodies = [KeptBody(64 * MIB, held) for _ in range(16)]
    tracemalloc.start()
    try:
        for number in range(16):
            for body in bodies:
                await body.feed(bytes([number]) * PIECE)
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held.used == 16 * MIB
    assert current <= peak < 1.2 * held.used


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 1000])
async def test_what_was_fed_is_what_is_handed_out(held: HeldBytes, pieces: int) -> None:
    body = KeptBody(MIB, held)
    await feed(body, pieces, size=7)
    assert body.whole() == b"".join(bytes([number % 256]) * 7 for number in range(pieces))
    body.drop()
    assert held.used == 0


async def test_empty_pieces_change_nothing(held: HeldBytes) -> None:
    body = KeptBody(MIB, held)
    for piece in (b"", b"a", b"", b"b", b""):
        await body.feed(piece)
    assert body.whole() == b"ab"


async def test_one_piece_is_handed_out_as_it_came(held: HeldBytes) -> None:
    body, piece = KeptBody(MIB, held), bytes(1000)
    await body.feed(piece)
    assert body.whole() is piece


@pytest.mark.parametrize(("size", "in_turns"), [(AT_ONCE, False), (AT_ONCE + 1, True)])
async def test_large_bodies_are_looked_into_with_turns_of_others_in_between(
    held: HeldBytes, *, size: int, in_turns: bool
) -> None:
    """So that bodies that arrive together keep nobody waiting for longer than one of them does."""
    turns, looked = 0, list[int]()

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    def look(body: bytes) -> None:
        assert len(body) == size
        looked.append(turns)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        async with trio.open_nursery() as inner:
            for _ in range(5):
                inner.start_soon(KeptBody(size, held).look_into, bytes(size), look)
        nursery.cancel_scope.cancel()
    assert len(looked) == 5
    assert (len(set(looked)) == 5) is in_turns
