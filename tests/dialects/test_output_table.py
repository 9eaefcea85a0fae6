"""What counts as output, row by row of the table in the documentation.

A row that is wrong in one direction replays what a client has seen; in the other it gives up a replay.
"""

from __future__ import annotations

import pytest
from dialect_frames import choice, chunk, data, event

from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES, Sight

DIALECTS = (CHAT, RESPONSES, MESSAGES)
DONE = b"data: [DONE]\n\n"


def delta(**told):
    return chunk(choice(told))


def item(kind):
    return event("response.output_item.added", output_index=0, item={"type": kind, "id": "x_1"})


def text_delta(text):
    return event("response.output_text.delta", item_id="msg_1", delta=text)


def block(**told):
    return event("content_block_start", index=0, content_block=told)


def block_delta(**told):
    return event("content_block_delta", index=0, delta=told)


def named(rows):
    return [pytest.param(frame, id=name) for name, frame in rows.items()]


def sight_of(dialect, frame):
    return dialect.open_stream().look(frame)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "frame",
    named(
        {
            "comment": b": keep-alive\n\n",
            "comment without text": b":\n\n",
            "comment without space (OpenRouter)": b":OPENROUTER PROCESSING\n\n",
            "blank line": b"\n",
            "blank line CR LF": b"\r\n\r\n",
            "event with empty data": b"data:\n\n",
            "event with empty data and a name": b"event: something\ndata: \n\n",
            "event without data": b"event: something\n\n",
            "retry alone": b"retry: 1000\n\n",
        }
    ),
)
def test_a_sign_of_life_is_idle_in_every_dialect(dialect, frame):
    assert sight_of(dialect, frame) is Sight.IDLE


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "frame",
    named(
        {
            "no JSON": b"data: hello\n\n",
            "broken JSON": b'data: {"choices":[\n\n',
            "an array": b"data: [1]\n\n",
            "a number": b"data: 1\n\n",
            "null": b"data: null\n\n",
            "too deep": b"data: " + b"[" * 100_000 + b"\n\n",
            "not UTF-8": b"data: \xff\xfe\n\n",
            "an object nobody knows": b'data: {"hello":1}\n\n',
        }
    ),
)
def test_what_cannot_be_understood_is_output_in_every_dialect(dialect, frame):
    assert sight_of(dialect, frame) is Sight.OUTPUT


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "choices []": chunk(),
            "choices [] with usage": chunk(usage={"prompt_tokens": 1}),
            "choices [] with prompt_filter_results (Azure)": data(
                {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"x": 1}]}
            ),
            "choices [] with obfuscation": chunk(obfuscation="abc"),
            "choices null": chunk().replace(b'"choices":[]', b'"choices":null'),
            "no choices, but usage": data({"usage": {"prompt_tokens": 1}}),
            "delta empty": delta(),
            "role only": delta(role="assistant"),
            "content null": delta(role="assistant", content=None),
            'content ""': delta(role="assistant", content=""),
            "content []": delta(content=[]),
            "reasoning_content empty": delta(reasoning_content=""),
            "reasoning empty": delta(reasoning=""),
            "reasoning_details empty": delta(reasoning_details=[]),
            "tool_calls []": delta(tool_calls=[]),
            "tool_calls null": delta(tool_calls=None),
            "refusal null": delta(refusal=None),
            "function_call null": delta(function_call=None),
            "audio id only": delta(audio={"id": "a", "expires_at": 5}),
            "audio with empty data": delta(audio={"id": "a", "data": "", "transcript": ""}),
            "unknown key, null": delta(something=None),
            "choice without delta (Azure)": chunk({"index": 0, "content_filter_results": {"a": 1}}),
            "delta null": chunk({"index": 0, "delta": None, "finish_reason": None}),
            'finish_reason ""': chunk(choice({}, finish="")),
        }
    ),
)
def test_chat_prelude(frame):
    assert sight_of(CHAT, frame) is Sight.PRELUDE


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "content": delta(content="x"),
            "content, a space": delta(content=" "),
            "content in parts": delta(content=[{"type": "text", "text": "x"}]),
            "reasoning_content": delta(reasoning_content="x"),
            "reasoning": delta(content="", reasoning="x"),
            "reasoning_details": delta(reasoning_details=[{"type": "reasoning.text"}]),
            "refusal": delta(refusal="no"),
            "tool_calls": delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
            "tool_calls id alone": delta(tool_calls=[{"index": 0, "id": "call_1"}]),
            "tool_calls name alone": delta(tool_calls=[{"function": {"name": "f"}}]),
            "function_call": delta(function_call={"name": "f"}),
            "audio data": delta(audio={"id": "a", "data": "AAAA"}),
            "audio transcript": delta(audio={"id": "a", "transcript": "x"}),
            "images": delta(images=[{"type": "image_url"}]),
            "unknown key": delta(something="x"),
            "unknown key, a number": delta(something=0),
            "finish_reason": chunk(choice(finish="stop")),
            "finish_reason error": chunk(choice(finish="error")),
            "finish_reason abort (SGLang)": chunk(choice(finish="abort")),
            "finish_reason network_error": chunk(choice(finish="network_error")),
            "finish_reason insufficient_system_resource": chunk(
                choice(finish="insufficient_system_resource")
            ),
            "second choice": chunk(
                choice({"role": "assistant"}), choice({"content": "x"}, index=1)
            ),
            "message instead of delta": chunk({"index": 0, "message": {"content": "x"}}),
            "text instead of delta": chunk({"index": 0, "text": "x"}),
            "choices no array": chunk().replace(b'"choices":[]', b'"choices":{"a":1}'),
        }
    ),
)
def test_chat_output(frame):
    assert sight_of(CHAT, frame) is Sight.OUTPUT


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "ping by name": data({}, event="ping"),
            "ping by type": data({"type": "ping"}),
        }
    ),
)
def test_chat_idle(frame):
    assert sight_of(CHAT, frame) is Sight.IDLE


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "created": event("response.created", response={"id": "resp_1"}),
            "queued": event("response.queued", response={"id": "resp_1"}),
            "in_progress": event("response.in_progress", response={"id": "resp_1"}),
            "metadata": event("response.metadata", metadata={"a": 1}),
            "message added": item("message"),
            "reasoning added": item("reasoning"),
            "function_call added": item("function_call"),
            "custom_tool_call added": item("custom_tool_call"),
            "content_part.added": event("response.content_part.added", part={"text": ""}),
            "reasoning_summary_part.added": event("response.reasoning_summary_part.added"),
            "text delta empty": text_delta(""),
            "arguments delta empty": event("response.function_call_arguments.delta", delta=""),
            "type in the JSON only": data({"type": "response.created", "response": {}}),
            "type in the event line only": data({"response": {}}, event="response.created"),
        }
    ),
)
def test_responses_prelude(frame):
    assert sight_of(RESPONSES, frame) is Sight.PRELUDE


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "text delta": text_delta("x"),
            "refusal delta": event("response.refusal.delta", delta="x"),
            "arguments delta": event("response.function_call_arguments.delta", delta="{"),
            "custom input delta": event("response.custom_tool_call_input.delta", delta="x"),
            "reasoning summary delta": event("response.reasoning_summary_text.delta", delta="x"),
            "reasoning text delta": event("response.reasoning_text.delta", delta="x"),
            "audio delta": event("response.audio.delta", delta="AAAA"),
            "delta of unknown kind": event("response.new_thing.delta", delta={"a": 1}),
            "text done": event("response.output_text.done", text="x"),
            "arguments done": event("response.function_call_arguments.done", arguments="{}"),
            "content_part.done": event("response.content_part.done", part={}),
            "output_item.done": event("response.output_item.done", item={"type": "message"}),
            "annotation.added": event("response.output_text.annotation.added", annotation={}),
            "partial_image": event("response.image_generation_call.partial_image"),
            "web_search_call added": item("web_search_call"),
            "mcp_call added": item("mcp_call"),
            "image_generation_call added": item("image_generation_call"),
            "added without item": event("response.output_item.added"),
            "hosted tool under way": event("response.web_search_call.in_progress"),
            "unknown event": event("response.something_new"),
        }
    ),
)
def test_responses_output(frame):
    assert sight_of(RESPONSES, frame) is Sight.OUTPUT


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "keepalive": event("keepalive", sequence_number=3),
            "keepalive without a name": data({"type": "keepalive", "sequence_number": 3}),
            "ping": event("ping"),
            "stray [DONE]": DONE,
        }
    ),
)
def test_responses_idle(frame):
    assert sight_of(RESPONSES, frame) is Sight.IDLE


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "message_start": event("message_start", message={"content": []}),
            "text block": block(type="text", text=""),
            "thinking block": block(type="thinking", thinking="", signature=""),
            "text delta empty": block_delta(type="text_delta", text=""),
            "input_json delta empty": block_delta(type="input_json_delta", partial_json=""),
            "thinking delta empty": block_delta(type="thinking_delta", thinking=""),
            "message_delta without stop_reason": event(
                "message_delta", delta={"stop_reason": None}, usage={"output_tokens": 0}
            ),
        }
    ),
)
def test_messages_prelude(frame):
    assert sight_of(MESSAGES, frame) is Sight.PRELUDE


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "text delta": block_delta(type="text_delta", text="x"),
            "input_json delta": block_delta(type="input_json_delta", partial_json="{"),
            "thinking delta": block_delta(type="thinking_delta", thinking="x"),
            "signature delta": block_delta(type="signature_delta", signature="x"),
            "citations delta": block_delta(type="citations_delta", citation={"a": 1}),
            "delta of unknown kind": block_delta(type="new_delta", thing="x"),
            "delta missing": event("content_block_delta", index=0),
            "text block with text": block(type="text", text="x"),
            "thinking block with text": block(type="thinking", thinking="x"),
            "redacted_thinking block": block(type="redacted_thinking", data="x"),
            "tool_use block": block(type="tool_use", id="t", name="f", input={}),
            "server_tool_use block": block(type="server_tool_use", id="t", name="f", input={}),
            "web_search_tool_result block": block(type="web_search_tool_result", content=[]),
            "block of unknown kind": block(type="new_block"),
            "content_block_stop": event("content_block_stop", index=0),
            "message_delta with stop_reason": event(
                "message_delta", delta={"stop_reason": "end_turn"}
            ),
            "unknown event": event("something_new"),
        }
    ),
)
def test_messages_output(frame):
    assert sight_of(MESSAGES, frame) is Sight.OUTPUT


@pytest.mark.parametrize(
    "frame",
    named(
        {
            "ping": event("ping"),
            "ping without a name": data({"type": "ping"}),
            "ping in the event line only": data({}, event="ping"),
            "stray [DONE]": DONE,
        }
    ),
)
def test_messages_idle(frame):
    assert sight_of(MESSAGES, frame) is Sight.IDLE
