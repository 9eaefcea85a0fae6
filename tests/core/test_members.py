"""Members are changed, and nothing else is: neither a number nor an escape nor a space."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_sse_proxy.core.members import with_members

SPACE = st.text(" \t\r\n", max_size=3)
NAMES = st.text(max_size=6).map(json.dumps) | st.sampled_from(
    ['"a"', '"\\u0061"', '"\\"}"', '"é,"', '"]["', '"\\\\"', '""']
)
SCALARS = st.sampled_from(
    [
        "1e400",
        "-0.0",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        "1E+2",
        "true",
        "null",
        "NaN",
        "-Infinity",
        '"\\ud800"',
        '"\\u00e9é\\/\\n"',
        '"\\\\"',
        '"{\\"model\\":[1,2}"',
        '"\u2028"',
    ]
)
VALUES = st.recursive(
    SCALARS | st.text(max_size=9).map(json.dumps),
    lambda inner: (
        st.builds(
            lambda items, space: "[" + f"{space},{space}".join(items) + space + "]",
            st.lists(inner, max_size=3),
            SPACE,
        )
        | st.builds(
            lambda items, space: (
                "{" + ",".join(f"{space}{k}{space}:{v}" for k, v in items) + space + "}"
            ),
            st.lists(st.tuples(NAMES | st.just('"model"'), inner), max_size=3),
            SPACE,
        )
    ),
    max_leaves=12,
)


def written(members):
    """A body: `members` are (space, name, space, space, value, space) as they are to be written."""
    return (
        "{" + ",".join(f"{a}{name}{b}:{c}{value}{d}" for a, name, b, c, value, d in members) + "}"
    )


def pairs(body):
    """Every member of an object in order, repeated ones too; numbers as they are written."""
    return json.loads(body, object_pairs_hook=list, parse_int=str, parse_float=str)


MEMBERS = st.tuples(SPACE, NAMES, SPACE, SPACE, VALUES, SPACE)


@given(st.lists(MEMBERS, max_size=4), st.lists(MEMBERS, max_size=4), SPACE, SPACE)
def test_all_around_a_replaced_value_stays_byte_for_byte(before, after, lead, trail):
    def body(value):
        members = [*before, ("", '"model"', " ", "\t", value, "\n"), *after]
        return (lead + written(members) + trail).encode()

    for value in ('"old"', "1e400", '{"model": [1, "]"]}'):
        assert with_members(body(value), {"model": "new"}) == body('"new"')


@given(st.lists(MEMBERS, max_size=5), SPACE, SPACE)
def test_an_added_member_comes_last_and_the_rest_stays_byte_for_byte(members, lead, trail):
    body = (lead + written(members) + trail).encode()
    longer = with_members(body, {"rid": "r-1"})
    comma = b"," if members else b""
    cut = longer.rindex(comma + b'"rid":"r-1"')
    assert longer[:cut] + longer[cut + len(comma + b'"rid":"r-1"') :] == body
    assert [str(pair) for pair in pairs(longer)] == [
        *(str(pair) for pair in pairs(body)),
        "('rid', 'r-1')",
    ]


@given(st.lists(MEMBERS, max_size=5))
def test_with_no_members_nothing_changes(members):
    body = written(members).encode()
    assert with_members(body, {}) == body


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b"{}", b'{"model":"m","rid":"r"}'),
        (b" { \n} ", b' {"model":"m","rid":"r" \n} '),
        (b'{"model":"a"}', b'{"model":"m","rid":"r"}'),
        (b'{"rid": null, "model" :"a" }\n', b'{"rid": "r", "model" :"m" }\n'),
        (b'{"model":1,"x":2,"model":3}', b'{"model":"m","x":2,"model":"m","rid":"r"}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"m","rid":"r"}'),
        (b'{"x":{"model":"a"}}', b'{"x":{"model":"a"},"model":"m","rid":"r"}'),
        (b'{"x":"\xff"}', b'{"x":"\xff","model":"m","rid":"r"}'),
    ],
)
def test_a_body_and_what_becomes_of_it(body, changed):
    assert with_members(body, {"model": "m", "rid": "r"}) == changed


def test_any_json_value_can_be_set():
    value = {"a": [1, None, "é\ud800\u2028"], 'b"': True}
    assert json.loads(with_members(b'{"x":0}', {"x": value})) == {"x": value}


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), b"bytes"])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        with_members(b"{}", {"x": value})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b'"{}"',
        b"{",
        b"{}{}",
        b"{},",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b"{,}",
        b'{"a":1 "b":2}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":1.}',
        b'{"a":tru}',
        b'{"a":truex}',
        b'{"a":[1}',
        b'{"a":"}',
        b'{"a":["]}',
        b"{'a':1}",
        b"{a:1}",
        b'{"\\x":1}',
        b"\xef\xbb\xbf{}",
        b'{"a":1}x',
        b'{"a":1',
    ],
)
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(ValueError, match=r"JSON|escape"):
        with_members(body, {"model": "m"})


@given(st.binary(max_size=30) | st.text('{}[]":,\\ a1', max_size=30).map(str.encode))
@example(b'{"a":[}')
def test_rubbish_is_refused_as_such_or_kept(body):
    try:
        changed = with_members(body, {"model": "m"})
    except ValueError:
        return
    assert changed.replace(b',"model":"m"', b"").replace(b'"model":"m"', b"") == body


def test_a_body_that_tells_no_end_takes_linear_time():
    seconds = []
    for size in (2**16, 2**19):
        body = b'{"a":' + b'[{"' * size
        began = time.process_time()
        with pytest.raises(ValueError, match="breaks off"):
            with_members(body, {})
        seconds.append(time.process_time() - began)
    assert seconds[1] < 32 * max(seconds[0], 0.001)  # 8 times as long; quadratic would be 64


def test_deep_nesting_is_no_matter():
    body = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert with_members(body, {"b": 1}) == body[:-1] + b',"b":1}'


def test_a_long_string_is_passed_over_at_once():
    image = bytes(random.Random(0).choices(b"abcdefgh/+", k=2**16)) * 64
    body = b'{"image":"' + image + b'","model":"a"}'
    assert with_members(body, {"model": "m"}) == body.replace(b':"a"', b':"m"')
