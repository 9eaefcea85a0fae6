"""What vendors do and want, one test for each, on both ways: Responses and Messages on their Chat."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from messages_talk import DONE, blocks, call, chunk, counts, frame
from responses_frames import events

from trio_sse_proxy.core.failure import Cause
from trio_sse_proxy.dialects import MESSAGES, RESPONSES
from trio_sse_proxy.dialects.base import look_through
from trio_sse_proxy.dialects.translate.profile import GENERIC, PRESETS, ReasoningEcho
from trio_sse_proxy.dialects.translate.ways import WAYS

KEY = "0123456789abcdef01234567"
PNG = "iVBORw0KGgo="
STOP = chunk(finish="stop")
SCHEMA = {"type": "object", "properties": {}}
both_ways = pytest.mark.parametrize("way", ["responses", "messages"])


# --- what is sent ---------------------------------------------------------------------------------


def translation(way, profile, asked):
    needed = {"model": "m", "stream": True} | ({"max_tokens": 99} if way == "messages" else {})
    return WAYS[way](json.dumps(needed | asked).encode(), profile, KEY, 7)


def sent(way, profile=GENERIC, **asked):
    """The Chat request."""
    return json.loads(translation(way, profile, asked).body)


def tools(way, *names, **more):
    key = "parameters" if way == "responses" else "input_schema"
    kind = {"type": "function"} if way == "responses" else {}
    return [{**kind, "name": name, key: SCHEMA, **more} for name in names]


def effort(way, told):
    return {"reasoning" if way == "responses" else "output_config": {"effort": told}}


def turns(way, *, reasoning="Hm.", output="ok", image=False):
    """A turn with a call and its output, and one that is text alone."""
    if way == "responses":
        shown = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
        thought = [{"type": "reasoning", "summary": [{"type": "summary_text", "text": reasoning}]}]
        called = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "call_1"}
        told = [*(thought if reasoning else []), called, result | {"output": output}]
        if image:
            told[-1]["output"] = [shown]
        said = {"role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}
        return {"input": [{"role": "user", "content": "a"}, *told, said, _user("b")]}
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    thought = [{"type": "thinking", "thinking": reasoning, "signature": ""}] if reasoning else []
    called = {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": output}
    if image:
        result["content"] = [{"type": "image", "source": source}]
    said = {"role": "assistant", "content": "Done."}
    messages = [_user("a"), {"role": "assistant", "content": [*thought, called]}]
    return {"messages": [*messages, {"role": "user", "content": [result]}, said, _user("b")]}


def _user(text):
    return {"role": "user", "content": text}


def history(way, profile=GENERIC, **how):
    return sent(way, profile, tools=tools(way, "f"), **turns(way, **how))["messages"]


def with_system(way, profile=GENERIC):
    """Instructions, a user's word, and instructions again in the middle."""
    if way == "responses":
        said = [_user("a"), {"role": "developer", "content": "late"}, _user("b")]
        return sent(way, profile, instructions="first", input=said)["messages"]
    said = [_user("a"), {"role": "system", "content": "late"}, _user("b")]
    return sent(way, profile, system="first", messages=said)["messages"]


# --- what comes back ------------------------------------------------------------------------------


def told(way, *frames, profile=GENERIC, **asked):
    """The translator, and all it gave."""
    said = {"input": "hi"} if way == "responses" else {"messages": [_user("hi")]}
    wishes = {"include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}
    more = wishes if way == "responses" else {}
    stream = translation(way, profile, said | more | asked).open()
    given = stream.opening + b"".join(map(stream.feed, frames)) + stream.end()
    return stream, given


def heard(way, *frames, **how):
    """Reasoning, text, and calls with their arguments, of an answer that is complete."""
    stream, given = told(way, *frames, **how)
    assert stream.done, stream.failure
    if way == "messages":
        content, _ = blocks(given)
        thinking = "".join(block.get("thinking", "") for block in content)
        text = "".join(block.get("text", "") for block in content)
        made = [(b["name"], json.loads(b["input"])) for b in content if b["type"] == "tool_use"]
        return thinking, text, made
    items = events(given)[-1]["response"]["output"]
    kinds = {kind: [i for i in items if i["type"] == kind] for kind in ("reasoning", "message")}
    thinking = "".join(part["text"] for item in kinds["reasoning"] for part in item["summary"])
    text = "".join(part["text"] for item in kinds["message"] for part in item["content"])
    made = [(i["name"], json.loads(i["arguments"])) for i in items if i["type"] == "function_call"]
    return thinking, text, made


def usage(way, given):
    """Input and cached tokens as the client is told them."""
    if way == "messages":
        told = blocks(given)[1]["usage"]
        cached = told["cache_read_input_tokens"]
        return told["input_tokens"] + cached, cached, told["output_tokens"]
    told = events(given)[-1]["response"]["usage"]
    cached = told["input_tokens_details"]["cached_tokens"]
    return told["input_tokens"], cached, told["output_tokens"]


TEXT = chunk({"content": "hi"})


# --- the vendors ----------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("quiet", [b": keep-alive\n\n", b"\n", b"\n\n"])
def test_deepseek_sends_comments_and_blank_lines_while_it_is_queued(way, quiet):
    assert heard(way, quiet, quiet, TEXT, quiet, STOP, DONE) == ("", "hi", [])
    stream = translation(way, GENERIC, {"input": "x", "messages": [_user("x")]}).open()
    assert stream.feed(quiet) == b"", "it would close the replay window"


@both_ways
@pytest.mark.parametrize("vendor", ["deepseek", "mimo"])
def test_deepseek_v4_and_mimo_want_the_reasoning_of_every_turn_back(way, vendor):
    first, second = (m for m in history(way, PRESETS[vendor]) if m["role"] == "assistant")
    assert first["reasoning_content"] == "Hm."
    assert second["reasoning_content"] == PRESETS[vendor].reasoning_placeholder
    bare = [m for m in history(way, PRESETS[vendor], reasoning="") if m["role"] == "assistant"]
    assert all(message["reasoning_content"] for message in bare)


@both_ways
def test_deepseek_reasoner_rejects_reasoning_that_is_sent(way):
    profile = replace(PRESETS["deepseek"], reasoning_echo=ReasoningEcho.NEVER)
    assert all("reasoning_content" not in message for message in history(way, profile))


@both_ways
def test_deepseek_rejects_developers_images_of_tools_null_content_and_stray_tool_messages(way):
    profile = PRESETS["deepseek"]
    assert {message["role"] for message in with_system(way, profile)} == {"system", "user"}
    found = history(way, profile, image=True)
    assert all(message.get("content", "") is not None for message in found)
    for before, message in pairwise(found):
        if message["role"] == "tool":
            assert isinstance(message["content"], str)
            assert before["tool_calls"]
    assert any(PNG in json.dumps(message) for message in found if message["role"] == "user")


@both_ways
def test_mimo_rejects_nulls_choices_and_images_alone_and_knows_three_efforts(way):
    profile = PRESETS["mimo"]
    auto = "auto" if way == "responses" else {"type": "auto"}
    offered = tools(way, "f", strict=None)
    body = sent(way, profile, tools=offered, tool_choice=auto, **turns(way, image=True))
    assert "null" not in json.dumps(body)
    assert "strict" not in json.dumps(body)
    assert "tool_choice" not in body
    (pictured,) = (m["content"] for m in body["messages"] if isinstance(m.get("content"), list))
    assert any(part["type"] == "text" for part in pictured)
    for asked, known in [("minimal", "low"), ("xhigh", "high"), ("max", "high")]:
        said = turns(way) | effort(way, asked)
        assert sent(way, profile, **said)["reasoning_effort"] == known


@both_ways
def test_minimax_wants_one_system_message_and_no_null_and_thinks_inside_its_content(way):
    profile = PRESETS["minimax"]
    roles = [message["role"] for message in with_system(way, profile)]
    assert roles.index("system") == 0
    assert roles.count("system") == 1
    assert all(message.get("content", "") is not None for message in history(way, profile))
    auto = "auto" if way == "responses" else {"type": "auto"}
    said = {"tools": tools(way, "f"), "tool_choice": auto, **turns(way)}
    assert "tool_choice" not in sent(way, profile, **said)
    cut = [chunk({"content": piece}) for piece in ("<thi", "nk>Hm.</th", "ink>\n\nhi")]
    assert heard(way, *cut, STOP, DONE, profile=profile) == ("Hm.", "hi", [])


@both_ways
def test_mistral_wants_call_ids_of_nine(way):
    found = history(way, PRESETS["mistral"])
    (called,) = (message["tool_calls"][0]["id"] for message in found if "tool_calls" in message)
    (answered,) = (message["tool_call_id"] for message in found if message["role"] == "tool")
    assert called == answered
    assert len(called) == 9
    assert called.isalnum()


@both_ways
def test_kimi_counts_in_the_choice_and_knows_max_tokens(way):
    last = chunk(
        finish="stop", usage={"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4}
    )
    _, given = told(way, TEXT, last, DONE)
    assert usage(way, given) == (9, 4, 2)
    limit = {"max_output_tokens": 7} if way == "responses" else {"max_tokens": 7}
    body = sent(way, PRESETS["kimi"], **turns(way), **limit)
    assert body["max_tokens"] == 7
    assert "store" not in body


@both_ways
@pytest.mark.parametrize(
    "failed",
    [
        frame({"id": "c", "choices": [], "error": {"code": 502, "message": "gone"}}),
        frame({"id": "c", "error": {"code": 502, "message": "gone"}, "choices": [{"delta": {}}]}),
        chunk(finish="error", error={"code": 502, "message": "gone"}),
    ],
    ids=["alone", "beside choices", "finish reason"],
)
def test_openrouter_comments_while_it_waits_and_fails_midway_in_a_data_event(way, failed):
    comment = b": OPENROUTER PROCESSING\n\n"
    assert heard(way, comment, TEXT, STOP, DONE) == ("", "hi", [])
    stream, _ = told(way, comment, TEXT, failed, DONE)
    assert not stream.done
    assert stream.failure.message == "gone"


@both_ways
def test_gemini_sends_whole_calls_without_an_index_says_stop_and_wants_its_signature_back(way):
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    first = chunk(call(None, "a", "f", '{"x":1}', **signed))
    second = chunk(call(None, "b", "f", '{"x":2}'))
    frames = (first, second, STOP, DONE)
    assert heard(way, *frames) == ("", "", [("f", {"x": 1}), ("f", {"x": 2})])
    _, given = told(way, *frames)
    if way == "responses":
        back = {"input": [_user("a"), *events(given)[-1]["response"]["output"]]}
    else:
        content, stop = blocks(given)
        assert stop["delta"]["stop_reason"] == "tool_use"
        for block in content:
            if block["type"] == "tool_use":
                block["input"] = json.loads(block["input"])
        back = {"messages": [_user("a"), {"role": "assistant", "content": content}]}
    messages = sent(way, PRESETS["gemini"], tools=tools(way, "f"), **back)["messages"]
    (returned,) = (message["tool_calls"] for message in messages if "tool_calls" in message)
    assert [one.get("extra_content") for one in returned] == [signed["extra_content"], None]


@both_ways
def test_azure_sends_chunks_without_choices_and_choices_without_delta(way):
    filters = frame({"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]})
    late = frame({"id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter": {}}]})
    assert heard(way, filters, TEXT, late, STOP, late, DONE) == ("", "hi", [])


@both_ways
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_vllm_has_two_names_for_reasoning_an_empty_first_delta_and_errors_before_done(way, name):
    empty = chunk({"role": "assistant", "content": ""})
    assert heard(way, empty, chunk({name: "Hm."}), TEXT, STOP, DONE) == ("Hm.", "hi", [])
    error = frame({"object": "error", "message": "boom", "code": 500})
    stream, _ = told(way, empty, TEXT, error, DONE)
    assert not stream.done
    assert stream.failure.cause is Cause.SERVER_ERROR


@both_ways
def test_sglang_says_abort_where_it_gave_up(way):
    stream, given = told(way, TEXT, chunk(finish="abort"), DONE)
    assert not stream.done
    assert stream.failure.cause is Cause.SERVER_ERROR
    assert b"message_stop" not in given
    assert b"response.completed" not in given


@both_ways
def test_llamacpp_sends_a_bare_comment_now_and_then(way):
    assert heard(way, b":\n\n", TEXT, b":\n\n", STOP, b":\n\n", DONE) == ("", "hi", [])


@both_ways
def test_exo_keeps_alive_from_the_start_and_errs_before_done(way):
    stream, _ = told(way, b": keep-alive\n\n", frame({"error": {"message": "boom"}}), DONE)
    assert stream.failure is not None
    assert heard(way, b": keep-alive\n\n", TEXT, STOP, DONE) == ("", "hi", [])


@both_ways
@pytest.mark.parametrize("profile", [GENERIC, PRESETS["vllm"], PRESETS["llamacpp"]])
def test_qwens_template_wants_no_system_message_but_the_first(way, profile):
    found = with_system(way, profile)
    assert [message["role"] for message in found][:1] == ["system"]
    assert all(message["role"] != "system" for message in found[1:])
    assert "late" in json.dumps(found)


@both_ways
def test_various_liberties_are_taken(way):
    first = chunk({"role": "assistant", "tool_calls": None, "content": "h"}, usage=None)
    second = chunk({"role": "assistant", "content": "i", "reasoning": None}, usage=None)
    done = b"data:[DONE]\n\n"
    assert heard(way, first, second, STOP, done) == ("", "hi", [])
    piece = {"index": 0, "id": "a", "type": "function"}
    named = [
        chunk({"tool_calls": [{**piece, "function": {"name": "f", "arguments": part}}]})
        for part in ('{"x"', ":1}")
    ]
    assert heard(way, *named, chunk(finish="tool_calls"), done) == ("", "", [("f", {"x": 1})])
    said = {"input": "hi"} if way == "responses" else {"messages": [_user("hi")]}
    stream = translation(way, GENERIC, said).open()
    stream.whole(b'{"error":{"message":"no","code":429}}')
    assert stream.failure.cause is Cause.RATE_LIMITED


@both_ways
def test_openai_rejects_unknown_keys_and_parallel_calls_without_tools(way):
    for message in history(way, PRESETS["openai"]):
        assert message.keys() <= {"role", "content", "tool_calls", "tool_call_id"}
    parallel = {"parallel_tool_calls": True}
    if way == "messages":
        parallel = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    body = sent(way, PRESETS["openai"], **turns(way), **parallel)
    assert "parallel_tool_calls" not in body
    assert "tool_choice" not in body


@both_ways
def test_strict_clients_want_event_heartbeats_to_be_whole(way):
    """Old decoders fail on unknown events, and CLIs on events without a number."""
    dialect = {"responses": RESPONSES, "messages": MESSAGES}[way]
    client = dialect.open_stream()
    stream, _ = told(way)
    look_through(client, stream.opening)
    client.forwarded = True
    beat = client.event_heartbeat("some-sdk")
    (event,) = events(beat)
    if way == "responses":
        assert event["type"] == "response.in_progress"
        assert isinstance(event["sequence_number"], int)
        assert {"id", "output", "tools", "usage"} <= event["response"].keys()
    else:
        assert event["type"] == "message_delta"
        assert event["usage"] == {"output_tokens": 0}


def test_what_mimo2codex_got_wrong_is_right():
    """A cut is no end, a call of each kind is one of its kind, and names of namespaces stay apart."""
    custom = {"type": "custom", "name": "patch", "format": {"type": "text"}}
    search = {"type": "tool_search", "execution": "client", "description": "d"}
    spaces = [
        {"type": "namespace", "name": name, "tools": tools("responses", "list")}
        for name in ("a", "b")
    ]
    offered = {"tools": [custom, search, *spaces]}
    names = [one["function"]["name"] for one in sent("responses", input="x", **offered)["tools"]]
    assert len(set(names)) == len(names) == 4
    calls = [chunk(call(n, f"c{n}", name, '{"input":"x"}')) for n, name in enumerate(names)]
    _, given = told("responses", *calls, chunk(finish="tool_calls"), DONE, **offered)
    items = events(given)[-1]["response"]["output"]
    assert [item["type"] for item in items] == [
        *("custom_tool_call", "tool_search_call"),
        *("function_call", "function_call"),
    ]
    assert [item.get("namespace") for item in items] == [None, None, "a", "b"]
    past = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "raw"}
    (turn, _) = sent("responses", input=[past], **offered)["messages"]
    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"input": "raw"}
    _, given = told("responses", TEXT, chunk(finish="length"), DONE)
    assert events(given)[-1]["type"] == "response.incomplete"
    stream, given = told("responses", TEXT)
    assert stream.failure.cause is Cause.TRUNCATED
    assert b"completed" not in given


# --- what agents need at the least ------------------------------------------------------------------


def test_minimum_for_codex():
    """Each item done with what is read of it, and an end with an id and all counts."""
    frames = (
        chunk({"reasoning_content": "Hm."}),
        TEXT,
        chunk(call(0, "a", "f", '{"x":1}')),
        chunk(finish="tool_calls"),
        counts(prompt_tokens=5, completion_tokens=2),
        DONE,
    )
    found = events(told("responses", *frames, tools=tools("responses", "f"))[1])
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    reasoning, message, called = done
    assert isinstance(reasoning["summary"], list)
    assert (message["role"], message["content"][0]["type"]) == ("assistant", "output_text")
    assert message["content"][0]["text"] == "hi"
    assert (called["call_id"], called["name"]) == ("a", "f")
    assert isinstance(called["arguments"], str)
    end = found[-1]["response"]
    assert end["id"] == found[0]["response"]["id"]
    counted = end["usage"]
    assert {"input_tokens", "output_tokens", "total_tokens"} <= counted.keys()
    assert "cached_tokens" in counted["input_tokens_details"]
    assert "reasoning_tokens" in counted["output_tokens_details"]
    shown = [event for event in found if "summary_text.delta" in event["type"]]
    assert all(isinstance(event["summary_index"], int) for event in shown)


def test_minimum_for_claude_code():
    """Named events; the start first; each block whole; a stop reason; the stop."""
    frames = (TEXT, chunk(call(0, "a", "f", '{"x":')), chunk(finish="tool_calls"), DONE)
    _, given = told("messages", *frames)
    assert given.count(b"event: ") == given.count(b"data: ")
    found = [event["type"] for event in events(given)]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert found == ["message_start", "ping", *block, *block, "message_delta", "message_stop"]
    content, stop = blocks(given)
    assert stop["delta"]["stop_reason"] == "tool_use"
    assert content[1]["input"] == '{"x":', "what is no JSON is for the model to hear of"
