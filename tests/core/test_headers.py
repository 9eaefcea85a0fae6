"""Which header fields pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sse_proxy.core import headers as fields

HOP = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
]
names = st.sampled_from([b"a", b"b", b"x-request-id", b"set-cookie", b"date", b"server", b"via"])
some = st.lists(st.tuples(names, st.binary(max_size=4)), max_size=12).map(tuple)


@pytest.mark.parametrize("name", HOP)
def test_hop_by_hop_fields_end_here_in_both_directions(name):
    given_fields = ((name, b"x"), (b"a", b"1"))
    assert fields.to_upstream(given_fields, drop=frozenset(), identity=False) == ((b"a", b"1"),)
    assert fields.plain_answer(given_fields) == ((b"a", b"1"),)
    assert name not in dict(fields.event_stream(given_fields))


def test_fields_that_connection_names_end_here_too_whatever_their_case():
    given_fields = (
        (b"Connection", b"close, X-Hop ,,x-other"),
        (b"X-HOP", b"1"),
        (b"x-other", b"2"),
        (b"connection", b"x-third"),
        (b"x-third", b"3"),
        (b"x-stays", b"4"),
    )
    assert fields.plain_answer(given_fields) == ((b"x-stays", b"4"),)


@given(some)
def test_everything_else_passes_in_order_with_its_duplicates(given_fields):
    assert fields.plain_answer(given_fields) == given_fields
    assert fields.to_upstream(given_fields, drop=frozenset(), identity=False) == given_fields


def test_names_are_lowered_and_values_are_not_touched():
    assert fields.plain_answer(((b"X-Yes", b" As It Is "),)) == ((b"x-yes", b" As It Is "),)


@pytest.mark.parametrize("name", [b"host", b"content-length", b"expect"])
def test_what_the_transport_sets_itself_does_not_go_upstream(name):
    assert fields.to_upstream(((name, b"x"),), drop=frozenset(), identity=False) == ()


def test_an_answer_whose_frames_are_read_is_asked_for_uncompressed():
    given_fields = ((b"accept-encoding", b"gzip"), (b"accept-encoding", b"br"), (b"a", b"1"))
    sent = fields.to_upstream(given_fields, drop=frozenset(), identity=True)
    assert sent == ((b"a", b"1"), (b"accept-encoding", b"identity"))


def test_dropped_fields_are_dropped():
    given_fields = ((b"authorization", b"k"), (b"x-api-key", b"k"))
    sent = fields.to_upstream(given_fields, drop=frozenset({b"authorization"}), identity=False)
    assert sent == ((b"x-api-key", b"k"),)


def test_a_plain_answer_keeps_its_length_and_a_stream_has_none():
    given_fields = ((b"content-length", b"3"), (b"cache-control", b"max-age=9"))
    assert fields.plain_answer(given_fields) == given_fields
    assert fields.event_stream(given_fields) == fields.NO_BUFFERING


@pytest.mark.parametrize(
    ("value", "yes"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b" text/event-stream ;x=y", True),
        (b"text/event-stream-x", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_an_event_stream_is_known_by_its_media_type(value, yes):
    assert fields.is_event_stream(((b"content-type", value),)) is yes


def test_without_a_content_type_there_is_no_media_type():
    assert fields.media_type(()) == b""


def test_get_takes_the_first_and_get_all_takes_all():
    given_fields = ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
    assert fields.get(given_fields, b"a") == b"1"
    assert fields.get(given_fields, b"c") is None
    assert fields.get_all(given_fields, b"a") == [b"1", b"3"]
    assert fields.without(given_fields, b"a") == ((b"b", b"2"),)
