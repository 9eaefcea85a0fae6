"""Whatever a Chat server may say comes out as the same answer, by a grammar and by the real SDKs.

The chunks are made from what Chat allows and from what vendors make of it: reasoning under three names,
calls interleaved, unnumbered, or named again with every piece, several things in one delta, roles,
nulls and empty strings everywhere, counts in four places, three ways to end. What went in is kept
beside them; the grammars and the SDKs' helpers know nothing of the translators.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import anthropic
import httpx2
import messages_grammar
import openai
import pytest
import responses_grammar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_talk import events as messages_events
from messages_talk import fresh as to_messages
from messages_talk import way_back
from responses_frames import REASONING, events, frame, messages, request, tool
from responses_frames import fresh as to_responses

from trio_sse_proxy.core.sse import FrameScanner
from trio_sse_proxy.dialects.translate.profile import GENERIC, ReasoningEcho

calm = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
slowly = settings(calm, max_examples=30)

TOOLS = ("Bash", "Read", "Edit")
STOPS = {"length": "max_tokens", "content_filter": "refusal"}
ECHOING = replace(GENERIC, reasoning_echo=ReasoningEcho.ALL)
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass
class Said:
    """An answer: the frames, and what they say."""

    frames: list[bytes] = field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, dict[str, Any]]] = field(
        default_factory=list
    )  # id, name, arguments
    finish: str = "stop"
    counts: dict[str, int] | None = None


# -- what a server may say ------------------------------------------------------------------------

pieces = st.text(min_size=1, max_size=8) | st.sampled_from(
    ['"', "\\", "{", "}", "\u2028", "\r\n\r\ndata: [DONE]", "上下文", "🦀", " ", "null"]
)
values = st.none() | st.booleans() | st.integers() | pieces
arguments = st.dictionaries(pieces, values | st.lists(values, max_size=2), max_size=3)
reasoning_keys = st.sampled_from(["reasoning_content", "reasoning", "reasoning_details"])
numbers = st.integers(0, 10**6)


@st.composite
def counts(draw):
    prompt, completion = draw(numbers), draw(numbers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached": draw(st.integers(0, prompt)),
        "reasoning": draw(st.integers(0, completion)),
    }


def usage(told):
    """As most servers spell it."""
    return {
        "prompt_tokens": told["prompt_tokens"],
        "completion_tokens": told["completion_tokens"],
        "total_tokens": told["prompt_tokens"] + told["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": told["cached"]},
        "completion_tokens_details": {"reasoning_tokens": told["reasoning"]},
    }


@st.composite
def calls(draw, style, number):
    """The deltas of one call in their order, and what they say."""
    call_id, name, wanted = f"call_{number}", draw(st.sampled_from(TOOLS)), draw(arguments)
    whole = json.dumps(wanted, ensure_ascii=draw(st.booleans()))
    head = {"id": call_id, "type": "function"}
    if style == "unnumbered":
        told = wanted if draw(st.booleans()) else whole  # some send the arguments decoded
        return [head | {"function": {"name": name, "arguments": told}}], (call_id, name, wanted)
    place = {"index": 0 if style == "always 0" else number}
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    if style == "named again":
        deltas = [place | head | {"function": {"name": name, "arguments": part}} for part in parts]
    else:
        deltas = [place | head | {"function": {"name": name, "arguments": ""}}]
        deltas += [place | {"function": {"arguments": part}} for part in parts]
    return deltas, (call_id, name, wanted)


@st.composite
def answers(draw):
    said = Said(finish=draw(st.sampled_from(["stop", "tool_calls", "length", "content_filter"])))
    nothing = {key: IDLE[key] for key in draw(st.sets(st.sampled_from(sorted(IDLE)), max_size=3))}
    told = [chunk(nothing | delta) for delta in draw(speech(said))]
    said.counts = draw(st.none() | counts())
    finish(said, told, draw)
    said.frames = [frame(one) for one in told]
    for where, one in draw(st.lists(st.tuples(st.integers(0, 12), noise), max_size=3)):
        said.frames.insert(where, one)
    said.frames += draw(st.sampled_from([[b"data: [DONE]\n\n"], [b"data:[DONE]\r\n\r\n"], []]))
    return said


@st.composite
def speech(draw, said):
    """Deltas that say something, in any order that keeps each call's own."""
    style = draw(st.sampled_from(["numbered", "named again", "always 0", "unnumbered"]))
    interleaved = style in ("numbered", "named again")
    key = draw(reasoning_keys)
    runs = [draw(calls(style, number)) for number in range(draw(st.integers(0, 3)))]
    waiting = [list(deltas) for deltas, _ in runs]
    found = []

    def take(number):
        if len(waiting[number]) == len(runs[number][0]):
            said.calls.append(runs[number][1])
        pieces = 1 if interleaved else len(waiting[number])
        found.extend({"tool_calls": [one]} for one in waiting[number][:pieces])
        del waiting[number][:pieces]

    for choice in draw(st.lists(st.sampled_from([*"tTrf", 0, 1, 2]), max_size=10)):
        if isinstance(choice, str):
            found.append(word(said, choice, key, draw(pieces)))
        elif choice < len(runs) and waiting[choice]:
            take(choice)
    for number in range(len(runs)):
        while waiting[number]:
            take(number)
    return found


def word(said, choice, key, piece):
    """A delta with some text, reasoning, both, or a refusal; it is noted as said."""
    delta = {}
    if choice in "rT":
        said.reasoning += piece
        detail = [{"type": "reasoning.text", "text": piece}]
        delta[key] = detail if key == "reasoning_details" else piece
    if choice in "tT":
        said.text += piece
        delta["content"] = [{"type": "text", "text": piece}] if piece == " " else piece
    if choice == "f":
        said.text += piece
        delta["refusal"] = piece
    return delta


def chunk(delta, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "up"}
    return head | {"choices": [choice], **more}


def finish(said, told, draw):
    """The finish_reason on the last chunk or on one of its own, the counts in one of four places."""
    if not told or draw(st.booleans()):
        told.append(chunk({}))
    last = told[-1]["choices"][0]
    last["finish_reason"] = said.finish
    if said.counts is None:
        return
    match draw(st.sampled_from(["own chunk", "finish", "every", "choice"])):
        case "own chunk":
            told.append(chunk({}) | {"choices": [], "usage": usage(said.counts)})
        case "finish":
            told[-1]["usage"] = usage(said.counts)
        case "choice":
            last["usage"] = usage(said.counts)
        case _:  # they grow, and the last ones count
            for one in told[:-1]:
                one["usage"] = usage(dict.fromkeys(said.counts, 0))
            told[-1]["usage"] = usage(said.counts)


IDLE: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "reasoning_content": None,
    "refusal": None,
    "tool_calls": None,
    "function_call": None,
    "annotations": [],
}
"""What vendors add to deltas, and says nothing."""

noise = st.sampled_from(
    [
        b": keep-alive\n\n",
        b":\n\n",
        frame(chunk({"role": "assistant", "content": ""})),
        frame(chunk({}) | {"usage": None}),
        frame(chunk({}) | {"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]}),
        frame({"id": "c1", "choices": [{"index": 0, "content_filter_results": {}}]}),
    ]
)


# -- what comes out -------------------------------------------------------------------------------


def responses_stream():
    tools = [tool(name) for name in TOOLS]
    return to_responses(request(stream=True, tools=tools, **REASONING).back)


def messages_stream():
    return to_messages(way_back())


def translated(stream, frames):
    """All that is given for these frames."""
    given = stream.opening + b"".join(map(stream.feed, frames)) + stream.end()
    assert stream.failure is None
    assert stream.done
    return given


def counted(said):
    return said.counts or dict.fromkeys(
        ("prompt_tokens", "completion_tokens", "cached", "reasoning"), 0
    )


def loaded(whole):
    return [(call_id, name, json.loads(text)) for call_id, name, text in whole]


@calm
@given(answers())
def test_as_responses_it_obeys_the_grammar_and_says_the_same(said):
    response = responses_grammar.check(events(translated(responses_stream(), said.frames)))
    reason = INCOMPLETE.get(said.finish)
    assert response["status"] == ("incomplete" if reason else "completed")
    assert response["incomplete_details"] == ({"reason": reason} if reason else None)
    items = response["output"]
    kinds = {"message": [], "reasoning": [], "function_call": []}
    for item in items:
        kinds[item["type"]].append(item)
    assert joined(kinds["message"], "content") == said.text
    assert joined(kinds["reasoning"], "summary") == said.reasoning
    assert (
        loaded(
            (call["call_id"], call["name"], call["arguments"]) for call in kinds["function_call"]
        )
        == said.calls
    )


def joined(items, key):
    return "".join(part["text"] for item in items for part in item[key])


@calm
@given(answers())
def test_as_messages_it_obeys_the_grammar_and_says_the_same(said):
    found = messages_events(translated(messages_stream(), said.frames))
    assert messages_grammar.read(found).place == "after"
    told = {"text_delta": "text", "thinking_delta": "thinking"}
    spoken = {
        kind: "".join(
            event["delta"][key]
            for event in found
            if event["type"] == "content_block_delta" and event["delta"]["type"] == kind
        )
        for kind, key in told.items()
    }
    assert spoken == {"text_delta": said.text, "thinking_delta": said.reasoning}


@calm
@given(answers(), st.data())
def test_however_its_bytes_are_cut_the_same_comes_out(said, data):
    body = b"".join(said.frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    for fresh in (responses_stream, messages_stream):
        scanner = FrameScanner(1 << 20)
        chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        assert translated(fresh(), map(scanner.cut, chunks)) == translated(fresh(), said.frames)


@calm
@given(answers(), st.data())
def test_cut_anywhere_it_is_a_valid_failure_that_gives_no_call_to_run(said, data):
    """Unless it had finished: then only counts or the terminator are missing."""
    frames = said.frames[: data.draw(st.integers(0, len(said.frames)))]
    for fresh, read in ((responses_stream, events), (messages_stream, messages_events)):
        stream = fresh()
        given = stream.opening + b"".join(map(stream.feed, frames)) + stream.end()
        if stream.failure is None:
            assert stream.finished
            continue
        found = read(given + stream.fail(stream.failure))
        if fresh is responses_stream:
            response = responses_grammar.check(found)
            assert response["status"] == "failed"
            assert not [item for item in response["output"] if item["type"] == "function_call"]
        else:
            assert messages_grammar.read(found).failed


@calm
@given(answers())
def test_as_responses_it_goes_back_as_the_turn_it_was(said):
    """What a client sends back of it, the items of `output`, comes to the upstream's own words."""
    response = responses_grammar.check(events(translated(responses_stream(), said.frames)))
    items = response["output"]
    results = [
        {"type": "function_call_output", "call_id": call_id, "output": "ok"}
        for call_id, _, _ in said.calls
    ]
    asked = {"type": "message", "role": "user", "content": "x"}
    tools = [tool(name) for name in TOOLS]
    sent = messages(asked, *items, *results, profile=ECHOING, tools=tools)
    if not items:
        assert sent == [{"role": "user", "content": "x"}]
        return
    turn = sent[1]
    spoken = [joined([item], "content") for item in items if item["type"] == "message"]
    thought = [joined([item], "summary") for item in items if item["type"] == "reasoning"]
    assert turn["role"] == "assistant"
    assert turn.get("content", "") == "\n\n".join(spoken)
    assert turn.get("reasoning_content", "") == "\n\n".join(thought)
    calls = [(call["id"], call["function"]) for call in turn.get("tool_calls", ())]
    assert loaded((key, call["name"], call["arguments"]) for key, call in calls) == said.calls
    assert [message["tool_call_id"] for message in sent[2:]] == [call[0] for call in said.calls]


# -- the SDKs -------------------------------------------------------------------------------------


class Server:
    """Answers whatever is asked with `body`."""

    def __init__(self):
        self.body = b""
        self.http = httpx2.Client(transport=httpx2.MockTransport(self._answer))

    def _answer(self, _):
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, content=self.body)


@pytest.fixture(scope="module")
def server():
    server = Server()
    with server.http:
        yield server


@pytest.fixture(scope="module")
def openai_sdk(server):
    return openai.OpenAI(api_key="k", http_client=server.http, max_retries=0)


@pytest.fixture(scope="module")
def anthropic_sdk(server):
    return anthropic.Anthropic(api_key="k", http_client=server.http, max_retries=0)


@slowly
@given(said=answers())
def test_the_openai_sdk_puts_the_same_together(said, server, openai_sdk):
    server.body = translated(responses_stream(), said.frames)
    texts, written, terminal = {}, {}, None
    with openai_sdk.responses.stream(model="m", input="x") as stream:
        for event in stream:
            match event.type:
                case "response.output_text.delta":
                    texts[event.output_index] = event.snapshot
                case "response.function_call_arguments.delta":
                    written[event.output_index] = event.snapshot
                case "response.completed" | "response.incomplete":
                    terminal = event.response
    assert "".join(texts.values()) == said.text == terminal.output_text
    calls = [item for item in terminal.output if item.type == "function_call"]
    assert loaded((call.call_id, call.name, call.arguments) for call in calls) == said.calls
    assert [json.loads(whole) for _, whole in sorted(written.items())] == [
        call[2] for call in said.calls
    ]
    if said.counts is None:
        assert terminal.usage is None
        return
    known = terminal.usage
    assert counted(said) == {
        "prompt_tokens": known.input_tokens,
        "completion_tokens": known.output_tokens,
        "cached": known.input_tokens_details.cached_tokens,
        "reasoning": known.output_tokens_details.reasoning_tokens,
    }


@slowly
@given(said=answers())
def test_the_anthropic_sdk_puts_the_same_together(said, server, anthropic_sdk):
    server.body = translated(messages_stream(), said.frames)
    prompt = [{"role": "user", "content": "x"}]
    with anthropic_sdk.messages.stream(model="m", max_tokens=9, messages=prompt) as stream:
        message = stream.get_final_message()
    content = message.content
    assert "".join(block.text for block in content if block.type == "text") == said.text
    thought = "".join(block.thinking for block in content if block.type == "thinking")
    assert thought == said.reasoning
    calls = [(block.id, block.name, block.input) for block in content if block.type == "tool_use"]
    assert calls == said.calls
    called = "tool_use" if said.calls else "end_turn"
    assert message.stop_reason == STOPS.get(said.finish, called)
    known, told = message.usage, counted(said)
    assert known.input_tokens == told["prompt_tokens"] - told["cached"]
    assert (known.output_tokens, known.cache_read_input_tokens) == (
        told["completion_tokens"],
        told["cached"],
    )
