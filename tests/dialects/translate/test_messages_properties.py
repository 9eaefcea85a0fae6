"""What holds for any Chat stream told as Messages, however it comes and wherever it is cut."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import anthropic
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_grammar import read
from messages_talk import (
    DONE,
    KEY,
    blocks,
    call,
    chunk,
    counts,
    events,
    frame,
    fresh,
    stream_of,
    told,
    user,
    way_back,
)

from trio_sse_proxy.core.failure import Cause, Failure, Refused
from trio_sse_proxy.core.sse import FrameScanner
from trio_sse_proxy.dialects import MESSAGES
from trio_sse_proxy.dialects.base import look_through
from trio_sse_proxy.dialects.translate.carried import unpack
from trio_sse_proxy.dialects.translate.messages_answer import translate_answer
from trio_sse_proxy.dialects.translate.messages_request import translate_request
from trio_sse_proxy.dialects.translate.profile import GENERIC, ReasoningEcho

calm = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
slowly = settings(calm, max_examples=25)

said = st.text(min_size=1, max_size=8) | st.sampled_from(["{", "}", "\u2028\r\n上", '"', "<think>"])
arguments = st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(), max_size=3)
names = st.sampled_from(["Bash", "Read", "Edit"])


@st.composite
def called(draw, index):
    """The deltas of one call, and the block it is to become."""
    whole = json.dumps(draw(arguments))
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    name, call_id = draw(names), f"call_{index}"
    extra = {"google": {"thought_signature": f"sig{index}"}}
    more = {"extra_content": extra} if draw(st.booleans()) else {}
    first = call(index, call_id, name, draw(st.sampled_from(["", None])), **more)
    deltas = [first, *(call(index, None, None, piece) for piece in pieces)]
    block = {"type": "tool_use", "id": call_id, "name": name, "input": whole}
    return deltas, block, {call_id: more} if more else {}


@st.composite
def answers(draw):
    """Chat deltas in any order that keeps each call's own, the blocks they come to, the extras."""
    runs = [draw(called(index)) for index in range(draw(st.integers(0, 3)))]
    waiting = [list(deltas) for deltas, _, _ in runs]
    deltas, expected, begun = [], [], set()
    for choice in draw(st.lists(st.integers(0, 6), max_size=12)):
        if choice < len(waiting) and waiting[choice]:
            _take(waiting, choice, runs, deltas, expected, begun)
        elif choice >= 5:
            kind = ("text", "thinking")[choice - 5]
            piece = draw(said)
            deltas.append({"content" if kind == "text" else "reasoning_content": piece})
            if expected and expected[-1]["type"] == kind:
                expected[-1][kind] += piece
            else:
                expected.append({"type": kind, kind: piece})
    for number, rest in enumerate(waiting):
        while rest:
            _take(waiting, number, runs, deltas, expected, begun)
    extras = {key: value for _, _, more in runs for key, value in more.items()}
    return deltas, expected, extras


def _take(waiting, number, runs, deltas, expected, begun):
    deltas.append(waiting[number].pop(0))
    if number not in begun:
        begun.add(number)
        expected.append(dict(runs[number][1]))


endings = st.sampled_from(
    [
        [chunk(finish="stop"), DONE],
        [chunk(finish="tool_calls"), counts(prompt_tokens=5, completion_tokens=2), DONE],
        [chunk(finish="length")],
    ]
)


def without_signatures(content):
    """The blocks, without the signatures and without thinking that holds nothing else."""
    for block in content:
        if block["type"] == "thinking":
            assert unpack(block.pop("signature")) is not None
    return [block for block in content if block.get("thinking") != ""]


def extras_in(content):
    """What the signatures carry, and that no call comes before its own."""
    found = {}
    for block in content:
        if block["type"] == "thinking":
            found |= unpack(block["signature"]).extras
    return found


@calm
@given(answer=answers(), ending=endings)
def test_any_valid_chunks_give_a_valid_stream_that_says_the_same(answer, ending):
    deltas, expected, extras = answer
    stream, given = stream_of(*map(chunk, deltas), *ending)
    assert stream.failure is None
    assert read(events(given)).place == "after"
    content, stop = blocks(given)
    assert extras_in(content) == extras
    assert without_signatures(content) == expected
    assert (stop["delta"]["stop_reason"] == "tool_use") <= any(
        block["type"] == "tool_use" for block in expected
    )


@calm
@given(answer=answers(), data=st.data())
def test_any_cut_gives_a_valid_failed_stream(answer, data):
    frames = [*map(chunk, answer[0]), chunk({"content": "x"})]
    after = data.draw(st.integers(0, len(frames)))
    stream, given = stream_of(*frames[:after])
    grammar = read(events(given))
    assert grammar.failed
    assert grammar.place != "after"
    assert b"message_stop" not in given
    assert (stream.failure.cause is Cause.TRUNCATED) is (
        grammar.index > 0 or grammar.kind is not None
    )


@calm
@given(answer=answers(), data=st.data())
def test_a_call_is_never_closed_before_it_is_whole(answer, data):
    deltas, expected, _ = answer
    after = data.draw(st.integers(0, len(deltas)))
    _, given = stream_of(*map(chunk, deltas[:after]), end=False)
    whole = {block["id"]: block["input"] for block in expected if block["type"] == "tool_use"}
    content, _ = blocks(given)
    closed = sum(event["type"] == "content_block_stop" for event in events(given))
    for block in content[:closed]:
        if block["type"] == "tool_use":
            assert json.loads(block["input"]) == json.loads(whole[block["id"]])


@calm
@given(answer=answers(), ending=endings, data=st.data())
def test_however_the_bytes_are_cut_the_output_is_the_same(answer, ending, data):
    frames = b"".join([*map(chunk, answer[0]), *ending])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frames)), max_size=8)))
    _, expected = stream_of(frames)
    scanner, stream = FrameScanner(1 << 20), fresh()
    given = stream.opening
    for start, end in zip([0, *cuts], [*cuts, len(frames)], strict=True):
        given += stream.feed(scanner.cut(frames[start:end]))
    assert given + stream.end() == expected


@calm
@given(answer=answers(), ending=endings)
def test_heartbeats_anywhere_change_nothing(answer, ending):
    frames = [*map(chunk, answer[0]), *ending]
    stream, client = fresh(), MESSAGES.open_stream()
    plain = with_heartbeats = stream.opening
    look_through(client, plain)
    client.forwarded = True
    for one in frames:
        with_heartbeats += client.byte_heartbeat() + (client.event_heartbeat("sdk") or b"")
        given = stream.feed(one)
        look_through(client, given)
        plain += given
        with_heartbeats += given
    last = stream.end()
    kept = [
        event
        for event in events(with_heartbeats + last)
        if event.get("delta") != {"stop_reason": None, "stop_sequence": None}
        and event["type"] != "ping"
    ]
    assert kept == [event for event in events(plain + last) if event["type"] != "ping"]


def by_sdk(body):
    """The message that the SDK puts together."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=body))
    with httpx2.Client(transport=transport) as http:
        client = anthropic.Anthropic(api_key="k", http_client=http, max_retries=0)
        prompt = [{"role": "user", "content": "x"}]
        with client.messages.stream(model="m", max_tokens=9, messages=prompt) as stream:
            return stream.get_final_message()


@slowly
@given(answer=answers(), ending=endings)
def test_the_sdk_puts_the_same_message_together(answer, ending):
    deltas, expected, _ = answer
    _, given = stream_of(*map(chunk, deltas), *ending)
    message = by_sdk(given)
    content = without_signatures([block.to_dict(exclude_unset=True) for block in message.content])
    for block in expected:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["input"])
    assert [_known(block) for block in content] == expected
    assert message.model == "claude-x"


def _known(block):
    """Without what the SDK adds on its own."""
    kept = {"text": ("text",), "thinking": ("thinking",), "tool_use": ("id", "name", "input")}
    return {key: block[key] for key in ("type", *kept[block["type"]])}


@slowly
@given(answer=answers(), data=st.data())
def test_the_sdk_raises_on_any_cut(answer, data):
    frames = [*map(chunk, answer[0])]
    _, given = stream_of(*frames[: data.draw(st.integers(0, len(frames)))])
    with pytest.raises(anthropic.APIStatusError, match="upstream_"):
        by_sdk(given)


# --- there and back ------------------------------------------------------------------------------

ECHOING = replace(GENERIC, reasoning_echo=ReasoningEcho.ALL)


@calm
@given(answer=answers())
def test_a_streamed_answer_goes_back_as_the_turn_it_was(answer):
    """What came from the upstream returns to it, call by call and word by word."""
    deltas, expected, extras = answer
    _, given = stream_of(*map(chunk, deltas), chunk(finish="stop"), DONE)
    content, _ = blocks(given)
    for block in content:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["input"])
    if not expected:
        return
    _, message, *_ = told(user({"type": "text", "text": "a"}), _turn(content), profile=ECHOING)
    assert message.get("content", "") == _joined(expected, "text")
    assert message.get("reasoning_content", "") == _joined(expected, "thinking")
    calls = [block for block in expected if block["type"] == "tool_use"]
    for sent, block in zip(message.get("tool_calls", []), calls, strict=True):
        assert (sent["id"], sent["function"]["name"]) == (block["id"], block["name"])
        assert json.loads(sent["function"]["arguments"]) == json.loads(block["input"])
        assert {"extra_content": sent.get("extra_content")} == extras.get(
            block["id"], {"extra_content": None}
        )


def _turn(content):
    return {"role": "assistant", "content": content}


def _joined(expected, kind):
    return "\n\n".join(block[kind] for block in expected if block["type"] == kind)


@st.composite
def turns(draw):
    """An assistant's blocks in the order that a whole answer has."""
    content = []
    if draw(st.booleans()):
        content.append({"type": "thinking", "thinking": draw(said)})
    if draw(st.booleans()) or not content:
        content.append({"type": "text", "text": draw(said)})
    for index in range(draw(st.integers(0, 2))):
        block = {"type": "tool_use", "id": f"c{index}", "name": draw(names)}
        content.append(block | {"input": draw(arguments)})
    return content


@calm
@given(content=turns())
def test_a_history_there_and_back_loses_nothing(content):
    _, message, *_ = told(user({"type": "text", "text": "a"}), _turn(content), profile=ECHOING)
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    back = json.loads(translate_answer(body.encode(), way_back(), KEY))["content"]
    assert without_signatures(back) == content


# --- rubbish -------------------------------------------------------------------------------------

KEYS = (  # noqa: SIM905
    "type text content role thinking signature tool_use_id id name input source media_type data title "
    "is_error choices delta message index tool_calls function arguments finish_reason usage error "
    "reasoning_content reasoning_details extra_content effort budget_tokens system tools"
).split()
KINDS = (  # noqa: SIM905
    "text image document tool_result tool_use thinking base64 url content search_result user assistant "
    "system stop tool_calls auto any tool custom"
).split()
scalars = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(KINDS)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=10,
)


@calm
@given(choices=st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=4), max_size=4))
def test_whatever_comes_the_stream_obeys_the_grammar(choices):
    frames = [frame({"choices": [choice]}) for choice in choices]
    _, given = stream_of(*frames, DONE)
    grammar = read(events(given))
    assert grammar.failed or grammar.place == "after"


@calm
@given(frames=st.lists(st.binary(max_size=30), max_size=4))
def test_whatever_bytes_come_the_stream_obeys_the_grammar(frames):
    _, given = stream_of(*(b"data: " + one + b"\n\n" for one in frames))
    grammar = read(events(given))
    assert grammar.failed or grammar.place == "after"


@calm
@given(message=values, finish=values)
def test_whatever_is_answered_is_a_message_or_refused(message, finish):
    body = json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()
    with suppress(Refused):
        assert json.loads(translate_answer(body, way_back(), KEY))["type"] == "message"


@calm
@given(
    messages=st.lists(values, max_size=3), system=values, tools=values, choice=values, rest=values
)
def test_whatever_is_asked_is_translated_or_refused(messages, system, tools, choice, rest):
    asked = {
        "model": "m",
        "max_tokens": 1,
        "messages": messages,
        "system": system,
        "tools": tools,
        "tool_choice": choice,
        "thinking": rest,
        "output_config": rest,
        "stop_sequences": rest,
        "metadata": rest,
    }
    with suppress(Refused):
        assert json.dumps(translate_request(json.dumps(asked).encode(), GENERIC).body)


def test_a_failure_of_the_relays_is_told_wherever_it_comes():
    for after in range(4):
        stream = fresh()
        given = stream.opening
        for one in [chunk({"content": "x"}), chunk(call(0, "a", "Bash", "{}")), DONE][:after]:
            given += stream.feed(one)
        given += stream.fail(Failure(cause=Cause.TIMEOUT, message="m"))
        grammar = read(events(given))
        assert grammar.failed is (grammar.place != "after")
