"""Our heartbeats and error frames, read by the SDKs they are made for."""

from __future__ import annotations

import anthropic
import httpx2
import openai
import pytest
from dialect_frames import choice, chunk, event

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES

DIED = Failure(cause=Cause.TRUNCATED, message="it died")
CODEX = "codex_cli_rs/1"
CLAUDE = "claude-cli/2"
PROMPT = [{"role": "user", "content": "Count."}]

CHAT_STREAM = [
    chunk(choice({"role": "assistant", "content": ""})),
    chunk(choice({"content": "one "})),
    chunk(choice({"content": "two"})),
    chunk(choice(finish="stop")),
    b"data: [DONE]\n\n",
]

PART = {"type": "output_text", "text": "", "annotations": []}
ITEM = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress"}
AT = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def response(status, *output):
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def delta(number, text):
    return event(
        "response.output_text.delta", sequence_number=number, delta=text, logprobs=[], **AT
    )


RESPONSES_STREAM = [
    event("response.created", sequence_number=0, response=response("in_progress")),
    event("response.in_progress", sequence_number=1, response=response("in_progress")),
    event(
        "response.output_item.added",
        sequence_number=2,
        output_index=0,
        item={**ITEM, "content": []},
    ),
    event("response.content_part.added", sequence_number=3, part=PART, **AT),
    delta(4, "one "),
    delta(5, "two"),
    event("response.output_text.done", sequence_number=6, text="one two", logprobs=[], **AT),
    event("response.content_part.done", sequence_number=7, part={**PART, "text": "one two"}, **AT),
    event(
        "response.output_item.done",
        sequence_number=8,
        output_index=0,
        item={**ITEM, "content": [{**PART, "text": "one two"}]},
    ),
    event(
        "response.completed",
        sequence_number=9,
        response=response("completed", {**ITEM, "content": [{**PART, "text": "one two"}]}),
    ),
]


def block_delta(text):
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


MESSAGES_STREAM = [
    event(
        "message_start",
        message={
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 1},
        },
    ),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    block_delta("one "),
    block_delta("two"),
    event("content_block_stop", index=0),
    event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 2},
    ),
    event("message_stop"),
]


def transport_of(body):
    headers = {"content-type": "text/event-stream"}
    return httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=body))


@pytest.fixture
def openai_client():
    clients = []

    def make(body):
        http = httpx2.Client(transport=transport_of(body))
        clients.append(openai.OpenAI(api_key="k", http_client=http, max_retries=0))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def anthropic_client():
    clients = []

    def make(body):
        http = httpx2.Client(transport=transport_of(body))
        clients.append(anthropic.Anthropic(api_key="k", http_client=http, max_retries=0))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def chat_text(client):
    stream = client.chat.completions.create(model="m", messages=PROMPT, stream=True)
    chunks = list(stream)
    assert all(part.choices for part in chunks)
    return "".join(part.choices[0].delta.content or "" for part in chunks)


def responses_text(client):
    stream = client.responses.create(model="m", input="Count.", stream=True)
    return "".join(part.delta for part in stream if part.type == "response.output_text.delta")


def responses_helper_text(client):
    with client.responses.stream(model="m", input="Count.") as stream:
        for _ in stream:
            pass
        return stream.get_final_response().output_text


def messages_helper_text(client):
    with client.messages.stream(model="m", max_tokens=9, messages=PROMPT) as stream:
        message = stream.get_final_message()
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == 2
        return "".join(block.text for block in message.content)


def with_byte_heartbeats(dialect, frames):
    """A heartbeat between any two frames, as the stream of the moment would send it."""
    stream = dialect.open_stream()
    stream.forwarded = True
    body = stream.byte_heartbeat() * 2
    for frame in frames[:-1]:
        stream.look(frame)
        body += frame + stream.byte_heartbeat() * 2
    return body + frames[-1]


def with_event_heartbeats(dialect, frames, agent, *, looked_at):
    """An event heartbeat between any two frames from the first on; later frames are skimmed."""
    stream = dialect.open_stream()
    body = b""
    for number, frame in enumerate(frames[:-1]):
        if number < looked_at or not stream.skim(frame):
            stream.look(frame)
        stream.forwarded = True
        body += frame + (stream.event_heartbeat(agent) or b"")
    return body + frames[-1]


def with_ids(frames):
    return [b"id: %d\n" % number + frame for number, frame in enumerate(frames)]


def cut(dialect, frames, after):
    """The stream as a client gets it when the upstream dies `after` so many frames."""
    stream = dialect.open_stream()
    stream.forwarded = after > 0
    for frame in frames[:after]:
        stream.look(frame)
    return b"".join(frames[:after]) + stream.error_frames(DIED)


@pytest.mark.parametrize("ids", [False, True], ids=["", "with ids"])
def test_openai_does_not_see_byte_heartbeats_on_chat(openai_client, ids):
    frames = with_ids(CHAT_STREAM) if ids else CHAT_STREAM
    assert chat_text(openai_client(with_byte_heartbeats(CHAT, frames))) == "one two"


@pytest.mark.parametrize("ids", [False, True], ids=["", "with ids"])
@pytest.mark.parametrize("read", [responses_text, responses_helper_text])
def test_openai_does_not_see_byte_heartbeats_on_responses(openai_client, ids, read):
    frames = with_ids(RESPONSES_STREAM) if ids else RESPONSES_STREAM
    assert read(openai_client(with_byte_heartbeats(RESPONSES, frames))) == "one two"


def test_a_comment_block_after_an_id_is_what_breaks_openai(openai_client):
    """If this fails, the SDK was mended, and heartbeats need no second form."""
    body = b": hb\n\n".join(with_ids(CHAT_STREAM))
    with pytest.raises(ValueError, match="Expecting value"):
        chat_text(openai_client(body))


@pytest.mark.parametrize("ids", [False, True], ids=["", "with ids"])
def test_anthropic_does_not_see_byte_heartbeats(anthropic_client, ids):
    frames = with_ids(MESSAGES_STREAM) if ids else MESSAGES_STREAM
    body = with_byte_heartbeats(MESSAGES, frames)
    assert messages_helper_text(anthropic_client(body)) == "one two"


@pytest.mark.parametrize("looked_at", [5, 99], ids=["skimming", "looking"])
@pytest.mark.parametrize("read", [responses_text, responses_helper_text])
def test_openai_bears_event_heartbeats_on_responses(openai_client, looked_at, read):
    body = with_event_heartbeats(RESPONSES, RESPONSES_STREAM, CODEX, looked_at=looked_at)
    assert body.count(b"event: keepalive") == 7
    assert body.count(b"event: response.in_progress") == 3
    assert read(openai_client(body)) == "one two"


@pytest.mark.parametrize("looked_at", [3, 99], ids=["skimming", "looking"])
def test_anthropic_bears_event_heartbeats(anthropic_client, looked_at):
    body = with_event_heartbeats(MESSAGES, MESSAGES_STREAM, CLAUDE, looked_at=looked_at)
    assert body.count(b"event: message_delta") == 6
    assert messages_helper_text(anthropic_client(body)) == "one two"


@pytest.mark.parametrize("after", range(len(CHAT_STREAM)))
def test_openai_raises_on_our_chat_error(openai_client, after):
    with pytest.raises(openai.APIError, match="it died") as caught:
        chat_text(openai_client(cut(CHAT, CHAT_STREAM, after)))
    assert caught.value.code == "upstream_truncated"
    assert caught.value.type == "server_error"


@pytest.mark.parametrize("after", range(len(RESPONSES_STREAM)))
@pytest.mark.parametrize("read", [responses_text, responses_helper_text])
def test_openai_raises_on_our_responses_error(openai_client, after, read):
    with pytest.raises(openai.APIError, match="upstream_truncated: it died") as caught:
        read(openai_client(cut(RESPONSES, RESPONSES_STREAM, after)))
    assert caught.value.code == "server_error"


@pytest.mark.parametrize("after", range(len(MESSAGES_STREAM)))
def test_anthropic_raises_on_our_error(anthropic_client, after):
    with pytest.raises(anthropic.APIStatusError, match="upstream_truncated: it died") as caught:
        messages_helper_text(anthropic_client(cut(MESSAGES, MESSAGES_STREAM, after)))
    assert caught.value.body["error"]["type"] == "api_error"
