"""The frame scanner, against a reference that reads the standard word by word (DIALECTS A1, A2)."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_sse_proxy.core.sse import (
    BOM,
    Event,
    FrameScanner,
    count_frames,
    has_id,
    parse,
    split_frames,
)

from .sse_reference import read_events

UNLIMITED = 2**30
PIECES = [
    b"\n",
    b"\r",
    b"\r\n",
    b":",
    b"data: x",
    b"data:",
    b"data",
    b"event: e",
    b"id: 1",
    b" ",
    b"x",
]
streams = st.lists(st.sampled_from([*PIECES, "é ".encode(), BOM, b"\x00"]), max_size=24).map(
    b"".join
)
cuts = st.lists(st.integers(0, 200), max_size=8)


def cut_at(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    return [piece for piece in pieces if piece]


def scan(chunks, limit=UNLIMITED):
    scanner = FrameScanner(limit)
    return [scanner.cut(chunk) for chunk in chunks], scanner


def dispatched(frames: list[bytes]) -> list[tuple[str, bytes]]:
    events = [parse(frame) for frame in frames]
    return [(event.type, event.data) for event in events if event is not None]


@given(streams, cuts)
@example(b"data: x\r\n\r\n", [5, 8, 9, 10])
@example(b"\r\r\n\n", [1, 2, 3])
@example(BOM + b"data: x\n\n", [1, 2])
@example(b"data: x\r\r\ndata: y\n\n", [9])
def test_however_the_bytes_are_cut_what_comes_out_and_the_rest_are_what_came_in(stream, places):
    out, scanner = scan(cut_at(stream, places))
    rest = scanner.rest
    assert b"".join(out) + rest == stream.removeprefix(BOM)


@given(streams, cuts)
@example(b"data: x\r\rdata: y\r\n\r\n", [8, 9])
def test_however_the_bytes_are_cut_the_frames_say_what_the_reference_reads(stream, places):
    out, _ = scan(cut_at(stream, places))
    assert read_events(b"".join(out)) == read_events(stream)


@given(streams, cuts)
def test_frames_looked_at_one_by_one_say_the_same(stream, places):
    scanner = FrameScanner(UNLIMITED)
    frames = [frame for chunk in cut_at(stream, places) for frame in scanner.split(chunk)]
    assert dispatched(frames) == read_events(stream)


@given(streams, cuts)
def test_something_of_ours_may_go_in_wherever_the_scanner_stops(stream, places):
    """A comment between any two writes changes no event."""
    scanner = FrameScanner(UNLIMITED)
    out = []
    for chunk in cut_at(stream, places):
        out += [scanner.cut(chunk), b": hb\n\n"]
        scanner.wrote_our_own()
    assert read_events(b"".join(out) + scanner.rest) == read_events(stream.removeprefix(BOM))


@given(streams, cuts, st.integers(1, 30))
def test_the_bytes_are_the_same_with_any_limit(stream, places, limit):
    out, scanner = scan(cut_at(stream, places), limit)
    assert b"".join(out) + scanner.rest == stream.removeprefix(BOM)


@given(streams, cuts, st.integers(1, 30))
def test_never_more_is_held_than_the_limit_and_one_read(stream, places, limit):
    scanner = FrameScanner(limit)
    for chunk in cut_at(stream, places):
        scanner.cut(chunk)
        assert len(scanner.rest) <= max(limit, 3)


@given(st.integers(1, 70), st.integers(1, 40))
def test_an_endless_frame_is_let_through_whatever_the_size_of_the_reads(size, limit):
    scanner = FrameScanner(limit)
    came = went = 0
    for _ in range(60):
        went += len(scanner.cut(b"x" * size))
        came += size
        assert came - went <= limit
    assert scanner.inside


@given(streams, cuts, st.integers(1, 30))
def test_nothing_of_ours_goes_inside_an_oversize_frame(stream, places, limit):
    scanner = FrameScanner(limit)
    out = []
    for chunk in cut_at(stream, places):
        out.append(scanner.cut(chunk))
        if not scanner.inside:
            out.append(b": hb\n\n")
            scanner.wrote_our_own()
    assert read_events(b"".join(out) + scanner.rest) == read_events(stream.removeprefix(BOM))


def test_an_empty_read_inside_an_oversize_frame_changes_nothing():
    scanner = FrameScanner(1)
    scanner.cut(b"data: x")
    scanner.cut(b"")
    assert scanner.inside


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("place", range(1, 12))
def test_every_byte_boundary_of_one_event(end, place):
    stream = b"data: x" + end + end
    out, scanner = scan([stream[:place], stream[place:]])
    assert b"".join(out) == stream
    assert scanner.rest == b""


def test_a_frame_that_ends_in_cr_is_complete_at_once():
    scanner = FrameScanner(UNLIMITED)
    assert scanner.cut(b"data: x\r\r") == b"data: x\r\r"


def test_a_line_feed_after_that_goes_out_with_the_next_bytes():
    scanner = FrameScanner(UNLIMITED)
    scanner.cut(b"data: x\r\n\r")
    assert scanner.cut(b"\n") == b"\n"
    assert scanner.cut(b"data: y\n\n") == b"data: y\n\n"


def test_a_line_feed_after_something_of_ours_is_dropped_and_only_that_one():
    scanner = FrameScanner(UNLIMITED)
    scanner.cut(b"data: x\r\r")
    scanner.wrote_our_own()
    assert scanner.cut(b"\n\ndata: y\n\n") == b"\ndata: y\n\n"


def test_something_of_ours_elsewhere_drops_nothing():
    scanner = FrameScanner(UNLIMITED)
    scanner.cut(b"data: x\n\n")
    scanner.wrote_our_own()
    assert scanner.cut(b"\ndata: y\n\n") == b"\ndata: y\n\n"


def test_a_byte_order_mark_is_dropped_at_the_start_and_nowhere_else():
    out, _ = scan([BOM + b"data: x\n\n", BOM + b"data: y\n\n"])
    assert out == [b"data: x\n\n", BOM + b"data: y\n\n"]


def test_a_byte_order_mark_may_come_in_three_reads():
    out, _ = scan([BOM[:1], BOM[1:2], BOM[2:] + b"data: x\n\n"])
    assert b"".join(out) == b"data: x\n\n"


def test_what_only_begins_like_a_byte_order_mark_is_kept():
    out, scanner = scan([BOM[:2], b"data: x\n\n"])
    assert b"".join(out) + scanner.rest == BOM[:2] + b"data: x\n\n"


def test_half_a_byte_order_mark_is_not_lost_at_the_end():
    _, scanner = scan([BOM[:2]])
    assert scanner.close() == BOM[:2]


def test_other_line_separators_end_no_line():
    text = "data: a\u2028\u2029\u0085\x0b\x0c\x1cb\n\n".encode()
    out, _ = scan([text])
    assert out == [text]
    assert parse(text) == Event("message", text[6:-2])


def test_utf8_cut_in_the_middle_of_a_character_is_whole_again():
    text = "data: żółć\n\n".encode()
    for place in range(len(text)):
        out, _ = scan([text[:place], text[place:]])
        assert b"".join(out) == text


def test_a_data_line_of_5_mib_within_the_limit_is_one_frame():
    frame = b"data: " + b"x" * (5 * 2**20) + b"\n\n"
    scanner = FrameScanner(8 * 2**20)
    chunks = [frame[n : n + 65_536] for n in range(0, len(frame), 65_536)]
    assert [len(piece) for chunk in chunks if (piece := scanner.cut(chunk))] == [len(frame)]


def test_a_data_line_of_5_mib_above_the_limit_passes_in_pieces():
    frame = b"data: " + b"x" * (5 * 2**20) + b"\n\n"
    scanner = FrameScanner(2**20)
    went = []
    for n in range(0, len(frame), 65_536):
        went.append(scanner.cut(frame[n : n + 65_536]))
        assert len(scanner.rest) <= 2**20
    assert b"".join(went) == frame
    assert not scanner.inside


def test_a_frame_without_end_byte_by_byte_costs_no_square():
    scanner = FrameScanner(2**20)
    for _ in range(200_000):
        scanner.cut(b"x")
    assert len(scanner.rest) == 200_000


def test_many_lines_behind_one_cr_cost_no_square():
    scanner = FrameScanner(2**30)
    scanner.cut(b"\n\n")
    chunk = b"\r" + b"a\n" * 32_000
    began = time.process_time()
    for _ in range(200):
        scanner.cut(chunk)
    assert time.process_time() - began < 1  # it took more than four seconds


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (b":\n\n", None),
        (b": comment\n\n", None),
        (b"event: x\n\n", None),
        (b"\n\n", None),
        (b"data\n\n", Event("message", b"")),
        (b"data:\n\n", Event("message", b"")),
        (b"data: \n\n", Event("message", b"")),
        (b"data:[DONE]\n\n", Event("message", b"[DONE]")),
        (b"data:  two\n\n", Event("message", b" two")),
        (b"data: a\ndata: b\n\n", Event("message", b"a\nb")),
        (b"data: a\rdata: b\r\r", Event("message", b"a\nb")),
        (b"Data: a\n\n", None),
        (b" data: a\n\n", None),
        (b"event: x\ndata: a:b\n\n", Event("x", b"a:b")),
        (b"event: x\nevent: y\ndata: a\n\n", Event("y", b"a")),
        (b"event:\ndata: a\n\n", Event("message", b"a")),
        (b"id: 1\nretry: 5\nfoo: bar\ndata: a\n\n", Event("message", b"a")),
    ],
)
def test_what_a_client_dispatches_for_one_frame(frame, event):
    assert parse(frame) == event


@given(st.binary(max_size=80))
def test_rubbish_raises_nothing(rubbish):
    scanner = FrameScanner(16)
    for frame in scanner.split(rubbish):
        parse(frame)
        has_id(frame)
        count_frames(frame)
    scanner.close()


@given(streams)
def test_frames_split_apart_are_the_frames(stream):
    assert b"".join(split_frames(stream)) == stream


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (b"id: 1\ndata: x\n\n", True),
        (b"data: x\nid\n\n", True),
        (b"data: x\r\rid:\r\r", True),
        (b"data: id: 1\n\n", False),
        (b"idea: 1\n\n", False),
        (b": id: 1\n\n", False),
        (b"", False),
    ],
)
def test_id_lines_are_seen_where_a_line_begins(frames, found):
    assert has_id(frames) is found


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_frames_are_counted_whatever_ends_their_lines(end):
    assert count_frames((b"data: x" + end + end) * 3) == 3
