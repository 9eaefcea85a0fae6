"""Frames taken for harmless by their likeness to earlier ones: they are, and their number is right."""

from __future__ import annotations

import re

import pytest
from dialect_frames import choice, chunk, data, event
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.sse import split_frames
from trio_sse_proxy.dialects import CHAT, MESSAGES, Sight
from trio_sse_proxy.dialects.template import LEARNING, MAX_FIXED, Template, shown

calm = settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])


def never(frames):
    return False


def learned(example, *keys):
    template = Template(shown(*(keys or ("content",))))
    template.learn(example, never)
    return template


def said(text: bytes) -> bytes:
    """A frame whose text is spelled so, valid or not."""
    return chunk(choice({"content": "TEXT"})).replace(b"TEXT", text)


def padded(text: bytes, padding: bytes) -> bytes:
    frame = chunk(choice({"content": "TEXT"}), usage=None, obfuscation="PAD")
    return frame.replace(b"TEXT", text).replace(b"PAD", padding)


HEAD, TAIL = said(b"|").split(b"|")
MIDDLE = padded(b"|", b"|").split(b"|")[1]

# --- what it recognises ------------------------------------------------------------------------

HARMLESS = {
    "empty": b"",
    "words": b" a few words",
    "not ASCII": "\u00e9\u2028\u4e0a".encode(),
    "escapes": rb"\n\t\u00e9 \" \\ \\\" \\\\",
    "a quoted word": rb"\"error\" or \"finish_reason\":\"stop\"",
    "words that a search would stop at": b"message_stop [DONE] error ping",
    "the name of a key": b"error",
}


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_frames_with_another_text_are_recognised_and_counted(text):
    template = learned(said(b"x"))
    assert template.count(said(text)) == 1
    assert template.count(said(text) * 2) == 2
    assert template.count(said(b"a") + said(text) * 300 + said(b"b")) == 302


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_so_are_frames_with_padding(text):
    template = learned(padded(b"x", b"12"))
    assert template.count(padded(text, b"")) == 1
    assert template.count(padded(text, b"123") + padded(b"x", b"") * 300) == 301


def test_a_text_longer_than_the_rest_of_the_frame_is_recognised():
    assert learned(said(b"x")).count(said(b"y" * 9000)) == 1
    assert learned(said(b"x")).count(said(b"y" * 9000) * 3) == 3


def test_the_event_line_belongs_to_the_template():
    delta = {"type": "text_delta", "text": "x"}
    frame = event("content_block_delta", index=0, delta=delta)
    template = learned(frame, "text")
    assert template.count(frame * 3) == 3
    assert not template.count(frame.replace(b"event: content_block_delta", b"event: error"))


# --- what it must not take for harmless ----------------------------------------------------------

OTHER_TEXTS = {
    "a closed string": b'x","finish_reason":"stop',
    "a backslash before the quote": b'\\\\","finish_reason":"stop',
    "half of an escape": b"\\",
    "half of an escape behind a whole one": b"\\\\\\",
    "a line end": b"\ndata: x",
    "a frame end": b"\n\ndata: [DONE]\n\n",
    "another line end": b"\rdata: x",
    "another frame end": b"\r\rdata: [DONE]\r\r",
    "an odd quote": b'"',
}


@pytest.mark.parametrize("text", OTHER_TEXTS.values(), ids=OTHER_TEXTS)
def test_a_text_that_is_more_than_a_string_is_not_recognised(text):
    template = learned(said(b"x"))
    for frames in (said(text), said(text) * 2, said(b"a") * 9 + said(text) + said(b"b") * 9):
        assert not template.count(frames)


@pytest.mark.parametrize("text", OTHER_TEXTS.values(), ids=OTHER_TEXTS)
def test_nor_is_one_beside_padding_or_in_it(text):
    template = learned(padded(b"x", b"12"))
    plain = padded(b"x", b"12")
    for odd in (padded(text, b"1"), padded(b"x", text)):
        for frames in (odd, odd * 2, plain * 9 + odd + plain * 9):
            assert not template.count(frames)


def test_quotes_that_are_missing_in_one_frame_do_not_make_up_for_more_in_another():
    """Head and tail share a quote here, so that the number of quotes in all comes out right."""
    short = HEAD + TAIL[1:]
    assert not learned(said(b"x")).count(short)
    assert not learned(said(b"x")).count(short * 2 + said(b'a","error":"b'))


def test_a_middle_that_one_frame_has_twice_does_not_make_up_for_one_that_lacks_it():
    template = learned(padded(b"x", b"12"))
    twice, without = padded(b"x" + MIDDLE + b"x", b""), said(b"x")[: -len(TAIL)] + b'"}\n\n'
    assert not template.count(twice)
    assert not template.count(without)
    assert not template.count(twice + without)
    assert not template.count(padded(b"a", b"") + twice + without + padded(b"b", b""))


OTHERS = {
    "a comment": b": hb\n\n",
    "a blank line": b"\n",
    "another choice": chunk(choice({"content": "x"}, index=1)),
    "a finish": chunk(choice(finish="stop")),
    "the terminator": b"data: [DONE]\n\n",
    "CR LF": said(b"x").replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_other_frames_are_noticed_wherever_they_stand(other):
    template, frame = learned(said(b"x")), said(b"x")
    for frames in (other, other + frame, frame + other, frame * 2 + other + frame * 2):
        assert not template.count(frames)


# --- learning ------------------------------------------------------------------------------------

UNFIT = {
    "no such key": chunk(choice({"role": "x"})),
    "no string": chunk(choice({"content": None})),
    "no JSON": said(b'x"'),
    "CR LF": said(b"x").replace(b"\n", b"\r\n"),
    "a comment": b": hb\n\n",
    "a line behind the text": said(b"x")[:-1] + b"retry: 1\n\n",
    "too long": chunk(choice({"content": "x"}), more="y" * MAX_FIXED),
}


@pytest.mark.parametrize("frame", UNFIT.values(), ids=UNFIT)
def test_nothing_is_learned_from_an_unfit_example(frame):
    template = learned(frame)
    assert not template.count(frame)
    assert not template.count(frame * 3)


def test_the_last_frame_is_the_example():
    template = learned(b": hb\n\n" + OTHERS["a finish"] + said(b"x"))
    assert template.count(said(b"y")) == 1


def test_a_frame_that_tells_something_is_no_example():
    template = Template(shown("content"))
    template.learn(said(b"x"), lambda frame: frame == said(b"x"))
    assert not template.count(said(b"x"))


def test_a_new_template_takes_the_place_of_the_old_one():
    template = learned(said(b"x"))
    other = data({"id": "c2", "content": "x"})
    template.learn(other, never)
    assert template.count(other * 2) == 2
    assert not template.count(said(b"x"))


def test_learning_becomes_rare_where_it_does_not_help():
    template, learnings = Template(shown("content")), 0

    def tells(frame):
        nonlocal learnings
        learnings += 1
        return False

    for number in range(100 * LEARNING):
        frame = chunk(choice({"content": "x"}), more=number)
        assert not template.count(frame)
        template.learn(frame, tells)
    assert learnings == pytest.approx(100, abs=10)


def test_a_stream_with_a_clock_in_its_frames_learns_at_every_tick():
    template, recognised = Template(shown("content")), 0
    for number in range(20 * 500):
        frame = chunk(choice({"content": "x"}), clock=number // 20)
        if template.count(frame):
            recognised += 1
        else:
            template.learn(frame, never)
    assert recognised == 19 * 500


# --- what is recognised tells nothing --------------------------------------------------------------

PIECES = [
    b"x",
    b" ",
    b'"',
    b"\\",
    b'\\"',
    b"\\\\",
    b"\n",
    b"\n\n",
    b"\r",
    HEAD,
    HEAD[:-1],
    TAIL,
    TAIL[1:],
    MIDDLE,
    b'","finish_reason":"stop","x":"',
    b'"},"finish_reason":"stop","index":0}],"x":[{"y":"',
    b'","error":{"message":"x"},"x":"',
    b'","usage":{"output_tokens":5},"x":"',
    b'","type":"message_stop","x":"',
    b"data: [DONE]\n\n",
    b"event: error\n",
    b": hb\n\n",
    "\u4e0a".encode(),
]
texts = st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join)
SPELLINGS = {
    CHAT: [
        said(b"TEXT"),
        padded(b"TEXT", b"PAD"),
        said(b"TEXT").replace(b'":', b'": '),
        data({"choices": [choice({"reasoning_content": "TEXT"})], "usage": None}),
        data(
            {"choices": [choice({"tool_calls": [{"index": 0, "function": {"arguments": "TEXT"}}]})]}
        ),
        data({"choices": [choice({"content": "TEXT"}), choice({"content": "x"}, index=1)]}),
        data({"choices": [choice({"content": "TEXT"})], "created": 2}),
        said(b"TEXT").replace(b"\n\n", b"\r\n\r\n"),
        said(b"TEXT").replace(b"data: {", b"data: {\ndata: "),
        b"id: 7\n" + said(b"TEXT"),
    ],
    MESSAGES: [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "TEXT"}),
        event(
            "content_block_delta",
            index=1,
            delta={"type": "input_json_delta", "partial_json": "TEXT"},
        ),
        event("content_block_delta", index=0, delta={"thinking": "TEXT"}).replace(b'":', b'": '),
        event("message_delta", delta={"text": "TEXT"}, usage={"output_tokens": 3}),
        event("ping", text="TEXT"),
    ],
}


def streams_of(dialect):
    spelling = st.sampled_from(SPELLINGS[dialect])
    odd = st.builds(
        lambda frame, text, pad: frame.replace(b"TEXT", text).replace(b"PAD", pad),
        spelling,
        texts,
        st.sampled_from([b"", b"ab", b'"']),
    )
    # Runs of one spelling, so that a template is learned; and anything in between.
    run = st.builds(
        lambda frame, some: [frame.replace(b"TEXT", text) for text in some],
        spelling,
        st.lists(texts | st.just(b"y"), min_size=1, max_size=5),
    )
    pieces = st.sampled_from([b": hb\n\n", b"data: [DONE]\n\n", HEAD + TAIL[1:], b"\n"])
    chunks = run.map(b"".join) | st.lists(odd | pieces, min_size=1, max_size=3).map(b"".join)
    return st.lists(chunks, max_size=6)


def whole(frames: bytes) -> bytes:
    """Only whole frames come to be skimmed."""
    return frames if frames.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")) else frames + b"\n\n"


def check(dialect, spelling, chunks):
    """A chunk to learn from, then anything: what is recognised is output, or an empty text."""
    stream, reader = dialect.open_stream(), dialect.open_stream()
    first = spelling.replace(b"TEXT", b"x")
    reader.look(first)
    for frames in (first, *map(whole, chunks)):
        number = stream._template.count(frames) if stream._template else 0
        skimmed = stream.skim(frames)
        if number:
            before, apart = facts(reader), split_frames(frames)
            assert number == skimmed == len(apart)
            assert {reader.look(frame) for frame in apart} <= {Sight.OUTPUT, Sight.PRELUDE}
            assert facts(reader) == before


def facts(stream):
    told = stream.error_frames(Failure(cause=Cause.TRUNCATED, message="m"))
    return (
        stream.finished,
        stream.usage,
        stream.failure,
        re.sub(rb'"(id|model)":"[^"]*"', b"", told),
    )


@calm
@given(spelling=st.sampled_from(SPELLINGS[CHAT]), chunks=streams_of(CHAT))
@example(spelling=said(b"TEXT"), chunks=[said(b"a") + HEAD + TAIL[1:] + said(b'x"')])
@example(spelling=said(b"TEXT"), chunks=[said(b"\\") + said(b',"error":"x')])
def test_chat_frames_that_are_recognised_tell_nothing(spelling, chunks):
    check(CHAT, spelling, chunks)


@calm
@given(spelling=st.sampled_from(SPELLINGS[MESSAGES]), chunks=streams_of(MESSAGES))
def test_messages_frames_that_are_recognised_tell_nothing(spelling, chunks):
    check(MESSAGES, spelling, chunks)


@calm
@given(some=st.lists(texts | st.just(b"y"), min_size=1, max_size=6))
def test_recognised_is_what_the_grammar_of_strings_allows(some):
    """Exactly: neither more nor, for frames of one template, less."""
    grammar = re.compile(rb'(?:[^"\\\r\n]|\\[^\r\n])*')
    frames = b"".join(map(said, some))
    expected = len(some) if all(map(grammar.fullmatch, some)) else 0
    found = learned(said(b"x")).count(frames)
    # A text may itself hold whole frames of the template.
    assert found == expected or (HEAD in b"".join(some) and found == len(split_frames(frames)))
