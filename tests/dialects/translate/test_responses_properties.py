"""What holds for any stream of chunks, wherever it is cut, and however its frames arrive."""

from __future__ import annotations

import json

import httpx2
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from responses_frames import (
    DONE,
    KEY,
    REASONING,
    calling,
    chunk,
    events,
    frame,
    fresh,
    request,
    sent,
    tool,
)
from responses_grammar import check

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.dialects import CHAT, RESPONSES, Sight
from trio_sse_proxy.dialects.base import look_through
from trio_sse_proxy.dialects.translate.profile import Profile, ReasoningEcho
from trio_sse_proxy.dialects.translate.responses_stream import translate_answer

calm = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

DIED = Failure(cause=Cause.TRUNCATED, message="it died")
TOOLS = [
    tool("f"),
    {"type": "custom", "name": "p"},
    {"type": "tool_search", "execution": "client"},
    {"type": "namespace", "name": "n", "tools": [tool("g")]},
]
NAMES = st.sampled_from(["f", "p", "tool_search", "g", "unknown"])
TEXTS = st.text(min_size=1, max_size=6) | st.sampled_from(
    ["<think>", "</think>", "\u2028", "\n\ndata: x", '"', "\\"]
)
COUNTS = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
SIGNED = {"extra_content": {"google": {"thought_signature": "s"}}}

pieces = st.one_of(
    TEXTS.map(lambda text: chunk({"content": text})),
    TEXTS.map(lambda text: chunk({"reasoning_content": text})),
    TEXTS.map(lambda text: chunk({"refusal": text})),
    st.builds(
        lambda name, index, arguments, more: calling(
            arguments, index=index, id=f"c{index}{name}", name=name, **more
        ),
        NAMES,
        st.integers(0, 3),
        st.sampled_from(["", "{}", '{"input":"x', '{"a":1}', '{"']),
        st.sampled_from([{}, {}, SIGNED]),
    ),
    st.builds(
        lambda index, arguments: calling(arguments, index=index),
        st.integers(0, 3),
        st.sampled_from(["", '"}', "}", ' "b"', "x"]),
    ),
    st.sampled_from(
        [
            b": keep-alive\n\n",
            chunk({"role": "assistant", "content": ""}),
            chunk(usage=COUNTS),
            frame({"choices": []}),
            frame({"choices": [{"index": 0}]}),
        ]
    ),
)
ends = st.builds(
    lambda finish, usage: [chunk(finish=finish), *usage, DONE],
    st.sampled_from(["stop", "tool_calls", "length", "content_filter"]),
    st.sampled_from([[], [frame({"choices": [], "usage": COUNTS})]]),
)
streams = st.builds(lambda body, end: [*body, *end], st.lists(pieces, max_size=10), ends)
asks = st.sampled_from([{}, {"reasoning": {"summary": "auto"}}, REASONING])
profiles = st.builds(
    Profile,
    inline_think=st.booleans(),
    length_as_completed=st.booleans(),
    refusal_as_text=st.booleans(),
)


def unopened(profile, asked):
    return fresh(request(profile, stream=True, tools=TOOLS, **asked).back)


@calm
@given(streams, profiles, asks)
def test_any_stream_of_chunks_becomes_a_valid_stream_of_events(frames, profile, asked):
    translator = unopened(profile, asked)
    given = translator.opening + b"".join(map(translator.feed, frames))
    response = check(events(given))
    assert translator.done
    assert translator.failure is None
    assert response["status"] in ("completed", "incomplete")


@calm
@given(streams, profiles, asks, st.data())
def test_any_cut_becomes_a_valid_failed_stream(frames, profile, asked, data):
    translator = unopened(profile, asked)
    given = translator.opening
    for part in frames[: data.draw(st.integers(0, len(frames)))]:
        given += translator.feed(part)
    if translator.finished:
        given += translator.end()
        assert translator.done
    else:
        assert translator.end() == b""
        assert translator.failure
        given += translator.fail(translator.failure)
    status = check(events(given))["status"]
    assert (status == "failed") is not translator.finished


@calm
@given(streams, asks, st.data())
def test_however_frames_arrive_what_is_given_is_the_same(frames, asked, data):
    one_by_one, in_groups = unopened(Profile(), asked), unopened(Profile(), asked)
    expected = b"".join(map(one_by_one.feed, frames))
    given, rest = b"", list(frames)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        given += in_groups.feed(b"".join(rest[:size]))
        rest = rest[size:]
    assert given == expected


@calm
@given(streams)
def test_line_ends_and_spacing_do_not_matter(frames):
    plain, spaced = unopened(Profile(), REASONING), unopened(Profile(), REASONING)
    windows = [one.replace(b"\n", b"\r\n") for one in frames]
    assert b"".join(map(plain.feed, frames)) == b"".join(map(spaced.feed, windows))


@calm
@given(streams, st.data())
def test_heartbeats_fit_between_any_two_frames(frames, data):
    translator, client = unopened(Profile(), REASONING), RESPONSES.open_stream()
    given = translator.opening
    look_through(client, given)
    client.forwarded = True
    for part in frames:
        if data.draw(st.booleans()) and not translator.done:
            given += client.event_heartbeat("codex_cli_rs/1") or b""
        told = translator.feed(part)
        look_through(client, told)
        given += told
    found, last = events(given), -1
    for event in found:  # a heartbeat repeats the number before it
        assert event["sequence_number"] in (last, last + 1)
        last = event["sequence_number"]
    for number, event in enumerate(found):
        event["sequence_number"] = number
    check(found)


@calm
@given(st.lists(pieces, max_size=10), profiles, asks)
def test_nothing_is_given_before_the_upstream_has_put_out_something(frames, profile, asked):
    """Else a replay would show."""
    translator, upstream = unopened(profile, asked), CHAT.open_stream()
    for part in frames:
        if upstream.look(part) is Sight.OUTPUT:
            break
        assert translator.feed(part) == b""


# --- there and back ------------------------------------------------------------------------------

ECHOING = Profile(reasoning_echo=ReasoningEcho.ALL)
OFFERED = [*TOOLS[:2], TOOLS[3]]


@st.composite
def turns(draw):
    """What a model said in one turn, as the assistant's message that it becomes in a history."""
    message = {"role": "assistant"}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXTS)
    if draw(st.booleans()):
        message["content"] = draw(TEXTS)
    calls = []
    for index in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(["f", "p", "g"]))
        told = {"input": draw(TEXTS)} if name == "p" else draw(st.dictionaries(TEXTS, TEXTS))
        function = {"name": name, "arguments": json.dumps(told)}
        signed = draw(st.sampled_from([{}, SIGNED]))
        calls.append({**signed, "id": f"c{index}", "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
    return message


def asked_again(output):
    said = [{"role": "user", "content": "a"}, *output]
    return sent(ECHOING, input=said, tools=OFFERED)["messages"][1:]


def read(messages):
    """The turn, its arguments decoded; the outputs that calls were given are no part of it."""
    told = [message for message in messages if message["role"] == "assistant"]
    for message in told:
        if not message.get("content"):
            message.pop("content", None)
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return told


@settings(calm, max_examples=30)
@given(turns())
def test_a_streamed_answer_goes_back_as_the_turn_it_was(message):
    translator = fresh(request(ECHOING, stream=True, tools=OFFERED, **REASONING).back)
    pieces = [{key: message[key]} for key in ("reasoning_content", "content") if key in message]
    calls = [
        calling(call["function"]["arguments"], index=n, id=call["id"], name=call["function"]["name"],
                **{key: call[key] for key in SIGNED if key in call})
        for n, call in enumerate(message.get("tool_calls", ()))
    ]  # fmt: skip
    frames = [*map(chunk, pieces), *calls, chunk(finish="stop"), DONE]
    output = events(b"".join(map(translator.feed, frames)))[-1]["response"]["output"]
    assert read(asked_again(output)) == read([message] if len(message) > 1 else [])


@settings(calm, max_examples=30)
@given(turns())
def test_a_history_there_and_back_loses_nothing(message):
    """The same by the whole answer, for a client that does not stream."""
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    back = request(ECHOING, tools=OFFERED, **REASONING).back
    output = json.loads(translate_answer(body.encode(), back, KEY, 7))["output"]
    assert read(asked_again(output)) == read([message] if len(message) > 1 else [])


KEYS = (  # noqa: SIM905
    "choices delta message content reasoning_content reasoning_details tool_calls function name "
    "arguments id index finish_reason usage error extra_content type text refusal"
).split()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@calm
@given(st.lists(VALUES, max_size=4), VALUES)
def test_no_json_whatever_breaks_it(values, delta):
    translator = unopened(Profile(inline_think=True), REASONING)
    given = translator.opening
    for value in [*values, {"choices": [{"index": 0, "delta": delta}]}]:
        given += translator.feed(frame(value))
    given += translator.end(terminated=True)
    if translator.failure:
        given += translator.fail(translator.failure)
    check(events(given))


@settings(calm, max_examples=25)
@given(streams, asks)
def test_the_openai_sdk_accumulates_what_the_last_event_says(frames, asked):
    translator = unopened(Profile(), asked)
    body = translator.opening + b"".join(map(translator.feed, frames))
    final = accumulated(body)
    said = events(body)[-1]["response"]["output"]
    assert final.output_text == "".join(
        part.get("text", "")
        for item in said
        if item["type"] == "message"
        for part in item["content"]
    )
    assert [item.type for item in final.output] == [item["type"] for item in said]


@settings(calm, max_examples=25)
@given(st.lists(pieces, max_size=6))
def test_the_openai_sdk_raises_on_a_cut_stream(frames):
    translator = unopened(Profile(), REASONING)
    body = translator.opening + b"".join(map(translator.feed, frames)) + translator.fail(DIED)
    with pytest.raises(openai.APIError, match="it died"):
        accumulated(body)


def accumulated(body):
    headers = {"content-type": "text/event-stream"}
    answer = httpx2.Response(200, headers=headers, content=body)
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: answer)) as http:
        client = openai.OpenAI(api_key="k", http_client=http, max_retries=0)
        with client.responses.stream(model="m", input="x") as stream:
            terminal = [event for event in stream if hasattr(event, "response")][-1]
    return terminal.response


def test_the_grammar_refuses_what_is_wrong():
    """A grammar that accepts everything would prove nothing."""
    translator = unopened(Profile(), REASONING)
    frames = [
        chunk({"reasoning_content": "a"}),
        chunk({"content": "b"}),
        chunk(finish="stop"),
        DONE,
    ]
    good = events(translator.opening + b"".join(map(translator.feed, frames)))
    check(good)
    for missing in range(len(good)):
        if good[missing]["type"] == "response.in_progress":
            continue
        bad = json.loads(json.dumps(good[:missing] + good[missing + 1 :]))
        for number, event in enumerate(bad):
            event["sequence_number"] = number
        with pytest.raises((AssertionError, KeyError, IndexError)):
            check(bad)
