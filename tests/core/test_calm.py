"""What an HTTP/2 client may ask for beside requests and bodies, frame by frame."""

from __future__ import annotations

import pytest

from trio_sse_proxy.core.calm import PREFACE, SPAN, UPDATES, Bucket, Calm

DATA, HEADERS, RST, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9


def frame(kind, size=0, flags=0):
    return size.to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + bytes(size)


def calm(*, frames=5, resets=5):
    made = Calm(resets=resets, frames=frames, now=0.0)
    assert made.read(bytes(PREFACE), 0.0)
    return made


@pytest.mark.parametrize("kind", [SETTINGS, PING, RST, WINDOW_UPDATE, 0xBE])
def test_frames_that_carry_nothing_are_counted(kind):
    one = calm()
    assert all(one.read(frame(kind, 4), 0.0) for _ in range(5))
    assert not one.read(frame(kind, 4), 0.0)


@pytest.mark.parametrize("kind", [DATA, CONTINUATION])
def test_small_pieces_are_counted_and_fair_ones_are_not(kind):
    assert not calm().read(frame(kind, 1) * 6, 0.0)
    assert calm().read(frame(kind, 100) * 6, 0.0)


def test_requests_and_the_ends_of_bodies_are_not_counted():
    request, end = frame(HEADERS, 5, 4), frame(DATA, 0, 1)
    assert calm().read((request + end) * 100, 0.0)


def test_window_updates_that_answer_data_are_free():
    one = calm(frames=1)
    for _ in range(10):
        one.sent_data()
    assert one.read(frame(WINDOW_UPDATE, 4) * (10 * UPDATES), 0.0)
    assert not one.read(frame(WINDOW_UPDATE, 4) * 2, 0.0)


def test_resets_are_counted_apart():
    one = calm(resets=3, frames=1000)
    assert [one.reset(0.0) for _ in range(4)] == [True, True, True, False]


def test_the_count_is_the_same_however_the_bytes_are_cut():
    data = frame(PING, 8) * 3 + frame(DATA, 40) + frame(PING, 8) * 2
    for size in range(1, len(data) + 1):
        one = calm(frames=5)
        assert all(one.read(data[at : at + size], 0.0) for at in range(0, len(data), size))
        assert not one.read(frame(PING, 8), 0.0)


def test_what_is_counted_leaks_away_with_time():
    one = Bucket(10, 0.0)
    assert one.take(10, 0.0)
    assert not one.take(1, 0.0)
    assert one.take(4, SPAN / 2)
    assert one.take(10, 10 * SPAN)
    assert not one.take(1, 10 * SPAN)


def test_0_is_no_limit():
    assert Bucket(0, 0.0).take(10**9, 0.0)
