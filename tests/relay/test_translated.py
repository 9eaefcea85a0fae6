"""A Chat upstream behind the translation, as the relay and the client see it."""

from __future__ import annotations

import gzip
import json
import sys
from functools import partial
from math import inf

import pytest
import trio
from structlog.testing import capture_logs

from trio_sse_proxy.core.call import Call
from trio_sse_proxy.core.errors import Broken, Unreachable
from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.dialects import (
    MESSAGES,
    RESPONSES,
    Sight,
    is_retryable,
    is_upstreams_fault,
    may_go_elsewhere,
)
from trio_sse_proxy.dialects.base import look_through
from trio_sse_proxy.dialects.translate.profile import PRESETS
from trio_sse_proxy.dialects.translate.ways import WAYS
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams.told_back import GRACE
from trio_sse_proxy.upstreams.translated import COUNTING, MANY_DROPS, Translated

from .frames import CHAT_ERROR, DONE, FINISH, HELLO, ROLE, WHOLE, chunk, events_in, unnamed, usage
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, ScriptedUpstream, answers, fails
from .world import World

KEY = "0123456789abcdef01234567"
CHAT_PATH = b"/v1/chat/completions"
CONTEXT = {"error": {"message": "This model's maximum context length is 4", "code": 400}}
dialects = pytest.mark.parametrize("dialect", ["responses", "messages"])


class Seen(Translated):
    """One that shows its calls, as the world wants it."""

    @property
    def calls(self):
        return self.inner.calls


def world(*attempts, **how):
    upstream = Seen(ScriptedUpstream(*attempts))
    return World(Endpoint(upstream=upstream, dialects=frozenset({"chat"})), **how)


def wish(dialect, **more):
    said = [{"role": "user", "content": "hi"}]
    asked = {"input": said} if dialect == "responses" else {"messages": said, "max_tokens": 9}
    return json.dumps({"model": "m", "stream": True, **asked, **more}).encode()


def client(dialect, *, leaves_at=inf, headers=(), **more):
    return Client(wish(dialect, **more), leaves_at=leaves_at, headers=headers)


def kinds(client):
    return [event["type"] for event in events_in(client.body)]


def text_of(client):
    return "".join(
        event["delta"] if isinstance(event["delta"], str) else event["delta"].get("text", "")
        for event in events_in(client.body)
        if event["type"] in ("response.output_text.delta", "content_block_delta")
    )


LAST = {"responses": "response.completed", "messages": "message_stop"}


@dialects
async def test_a_stream_is_told_in_the_clients_dialect_and_asked_for_in_chat(dialect):
    w = world(answers(*WHOLE))
    headers = (
        (b"x-api-key", b"sk-own"),
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"context-management-2025-06-27"),
        (b"openai-beta", b"responses=v1"),
    )
    c = await w.ask(client(dialect, headers=headers), dialect=dialect, query_string=b"beta=true")
    assert (text_of(c), kinds(c)[-1]) == ("hello", LAST[dialect])
    assert c.response_headers[b"content-type"].startswith(b"text/event-stream")
    assert w.record.ending.value == "completed"
    ((method, target, sent),) = w.calls[0].received
    assert (method, target) == ("POST", CHAT_PATH)
    assert dict(sent)[b"authorization"] == b"Bearer sk-own"
    own = {b"x-api-key", b"anthropic-version", b"anthropic-beta", b"openai-beta"}
    assert not own & {name for name, _ in sent}
    body = json.loads(w.calls[0].body)
    assert (body["model"], body["stream"]) == ("m", True)
    assert body["messages"] == [{"role": "user", "content": "hi"}]


@dialects
async def test_a_call_that_the_upstream_names_itself_is_told_to_stop_by_that_name(dialect):
    w = world(answers(ROLE, HELLO, HANG))
    c = client(dialect, leaves_at=3.0)
    await w.ask(c, dialect=dialect)
    (call,) = w.calls
    assert call.aborts == [(3.0, call.told.reason)]
    assert (call.told.answer_id, call.told.dialect) == ("c1", "chat")
    assert call.released == 3.0


@dialects
async def test_a_cut_before_output_is_invisible(dialect):
    w = world(answers(ROLE, Broken("cut", responded=True)), answers(*WHOLE))
    c = await w.ask(client(dialect), dialect=dialect)
    assert (text_of(c), kinds(c)[-1], len(w.calls)) == ("hello", LAST[dialect], 2)
    starts = [kind for kind in kinds(c) if kind in ("response.created", "message_start")]
    assert len(starts) == 1


@dialects
@pytest.mark.parametrize("end", [(), (Broken("cut", responded=True),), (DONE,)])
async def test_what_ends_without_a_word_of_its_end_before_output_is_asked_again(dialect, end):
    w = world(answers(ROLE, *end), answers(*WHOLE))
    c = await w.ask(client(dialect), dialect=dialect)
    assert (text_of(c), len(w.calls)) == ("hello", 2)


@dialects
@pytest.mark.parametrize("end", [(), (Broken("cut", responded=True),)])
async def test_a_cut_after_output_is_told(dialect, end):
    w = world(answers(ROLE, HELLO, *end))
    c = await w.ask(client(dialect), dialect=dialect)
    assert text_of(c) == "hello"
    assert kinds(c)[-1] in ("response.failed", "error")
    assert w.record.ending.value == "truncated"


@dialects
async def test_an_error_that_may_pass_is_asked_again_before_output_and_told_after_it(dialect):
    w = world(answers(ROLE, CHAT_ERROR), answers(ROLE, HELLO, CHAT_ERROR))
    c = await w.ask(client(dialect), dialect=dialect)
    assert (text_of(c), len(w.calls)) == ("hello", 2)
    assert w.record.ending.value == "upstream_error"
    assert kinds(c)[-1] in ("response.failed", "error")
    assert b"try later" in c.body


@dialects
async def test_a_final_error_on_the_stream_is_told_at_once(dialect):
    w = world(answers(ROLE, unnamed(CONTEXT)))
    c = await w.ask(client(dialect), dialect=dialect)
    assert len(w.calls) == 1
    want = b"context_length_exceeded" if dialect == "responses" else b"prompt is too long"
    assert want in c.body


@dialects
@pytest.mark.parametrize("status", [400, 413])
async def test_a_context_that_is_too_long_is_what_makes_agents_compact(dialect, status):
    w = world(answers(json.dumps(CONTEXT).encode(), status=status, headers=JSON))
    c = await w.ask(client(dialect), dialect=dialect)
    body = json.loads(c.body)
    if dialect == "messages":
        assert c.status == 400
        assert body["error"]["message"].startswith("prompt is too long")
    else:
        assert (c.status, body["error"]["code"]) == (status, "context_length_exceeded")


@dialects
async def test_retry_after_is_kept_with_the_status(dialect):
    body = b'{"error":{"message":"slow down"}}'
    w = world(answers(body, status=429, headers=(*JSON, (b"retry-after", b"77"))))
    c = await w.ask(client(dialect), dialect=dialect)
    assert (c.status, c.response_headers[b"retry-after"]) == (429, b"77")
    assert json.loads(c.body)["error"]["type"] == "rate_limit_error"


@dialects
async def test_an_error_body_that_never_ends_holds_nobody(dialect):
    w = world(answers(b'{"error":', HANG, status=400, headers=JSON))
    c = await w.ask(client(dialect), dialect=dialect)
    assert (c.status, c.ended_at) == (400, 1.0)


COMPLETION = {
    "id": "c1",
    "object": "chat.completion",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


@dialects
async def test_a_whole_answer_is_translated_whole(dialect):
    data = json.dumps(COMPLETION).encode()
    w = world(answers(data[:50], 1.0, data[50:], headers=JSON))
    c = await w.ask(client(dialect, stream=False), dialect=dialect)
    told = json.loads(c.body)
    assert int(c.response_headers[b"content-length"]) == len(c.body)
    assert (told["model"], told["usage"]["output_tokens"]) == ("m", 1)
    key = w.record.id + "6553f100"  # the request's own id, and when it was read
    assert told["id"] == (f"resp_{key}" if dialect == "responses" else f"msg_{key}")
    assert len(key) == 24


@dialects
async def test_a_whole_answer_to_a_streaming_request_becomes_a_stream(dialect):
    w = world(answers(json.dumps(COMPLETION).encode(), headers=JSON))
    c = await w.ask(client(dialect), dialect=dialect)
    assert (text_of(c), kinds(c)[-1]) == ("hello", LAST[dialect])


@dialects
async def test_what_is_no_completion_is_an_answer_of_502(dialect):
    page = answers(b"<html>", headers=((b"content-type", b"text/html"),))
    w = world(page, max_retries=0)
    c = await w.ask(client(dialect, stream=False), dialect=dialect)
    assert c.status == 502


@dialects
async def test_rubbish_on_a_stream_is_not_asked_for_again(dialect):
    w = world(answers(ROLE, b"data: {{{\n\n", HANG))
    c = await w.ask(client(dialect), dialect=dialect)
    assert len(w.calls) == 1
    assert w.record.ending.value == "protocol"
    assert b"upstream_protocol" in c.body


@dialects
@pytest.mark.parametrize("end", [(HANG,), (Broken("cut", responded=True),), ()])
async def test_after_the_finish_reason_nothing_is_waited_for_long(dialect, end):
    w = world(answers(ROLE, HELLO, FINISH, *end))
    c = await w.ask(client(dialect), dialect=dialect)
    assert kinds(c)[-1] == LAST[dialect]
    assert w.record.ending.value == "completed"
    assert w.calls[0].aborts == []
    assert c.ended_at == (GRACE if end == (HANG,) else 0.0)


@dialects
async def test_counts_behind_the_finish_reason_are_told(dialect):
    w = world(answers(ROLE, HELLO, FINISH, 1.0, usage(prompt_tokens=3, completion_tokens=2), DONE))
    await w.ask(client(dialect), dialect=dialect)
    assert w.record.as_json()["attempts"][0]["usage"]["output_tokens"] == 2


def assert_numbered(c, dialect):
    """No event of ours has the number of another: clients may take them for one."""
    numbers = [event["sequence_number"] for event in events_in(c.body) if dialect == "responses"]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("begun", [False, True])
async def test_after_event_heartbeats_the_numbers_go_on_also_in_errors_and_other_attempts(begun):
    first = fails(Broken("reset", responded=False), after=35.0)
    second = answers(ROLE, *((HELLO, 35.0) if begun else (35.0,)), Broken("reset", responded=True))
    w = world(first, second, event_heartbeat=10.0, max_retries=1)
    c = await w.ask(
        client("responses", headers=((b"user-agent", b"codex_cli_rs/1"),)), dialect="responses"
    )
    assert len([kind for _, kind in w.witness.heartbeats if kind == "event"]) >= 4
    assert kinds(c)[-2:] == ["error", "response.failed"]
    assert_numbered(c, "responses")


@dialects
async def test_silence_is_filled_in_every_phase(dialect):
    w = world(
        answers(ROLE, 30.0, HELLO, 30.0, FINISH, DONE, after=30.0),
        event_heartbeat=10.0,
        prelude_hold=15.0,
    )
    agent = ((b"user-agent", b"codex_cli_rs/1 claude-cli/2"),)
    c = await w.ask(client(dialect, headers=agent), dialect=dialect)
    assert (text_of(c), kinds(c)[-1]) == ("hello", LAST[dialect])
    at = [moment for moment, _ in c.pieces]
    assert max(b - a for a, b in zip([0.0, *at], at, strict=False)) <= 5.0
    beats = [moment for moment, kind in w.witness.heartbeats if kind == "event"]
    assert any(moment < 30 for moment in beats)
    assert any(30 < moment < 60 for moment in beats)
    assert any(moment > 60 for moment in beats)
    assert_numbered(c, dialect)


@dialects
async def test_an_upstream_that_sends_what_shows_nothing_is_not_taken_for_silent(dialect):
    comments = [part for _ in range(30) for part in (20.0, b": still here\n\n")]
    w = world(
        answers(ROLE, HELLO, *comments, FINISH, DONE), idle_timeout=60.0, progress_timeout=0.0
    )
    c = await w.ask(client(dialect), dialect=dialect)
    assert kinds(c)[-1] == LAST[dialect]


@dialects
async def test_a_silent_upstream_is_let_go(dialect):
    w = world(answers(ROLE, HELLO, HANG), idle_timeout=60.0)
    await w.ask(client(dialect), dialect=dialect)
    assert w.record.ending.value == "idle_timeout"
    assert w.calls[0].released == 60.0


@pytest.mark.parametrize(
    ("dialect", "more"),
    [("responses", {"previous_response_id": "r"}), ("messages", {"max_tokens": 0})],
)
async def test_what_cannot_be_translated_is_refused_and_nobody_asked(dialect, more):
    w = world()
    c = await w.ask(client(dialect, **more), dialect=dialect)
    told = json.loads(c.body)
    assert c.status == 400
    assert told["error"]["type"] == "invalid_request_error"
    assert (told.get("type") == "error") == (dialect == "messages")
    assert w.calls == []


@dialects
async def test_its_body_is_freed_at_the_first_output(dialect):
    w = world(answers(ROLE, HELLO, HANG))
    body = wish(dialect, metadata={"pad": "x" * 1000})
    references = sys.getrefcount(body)
    c = Client(body, leaves_at=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(w.run, c, dialect=dialect))
        await trio.sleep(1.0)
        assert text_of(c) == "hello"
        assert sys.getrefcount(body) == references
    w.assert_no_trace()


@dialects
async def test_what_was_dropped_is_told_in_a_header(dialect):
    w = world(answers(*WHOLE))
    c = await w.ask(client(dialect, unhört=1), dialect=dialect)
    assert c.response_headers[b"x-proxy-dropped"] == rb"field:unh\xf6rt"


@dialects
async def test_what_was_dropped_is_logged_once(dialect):
    w = world(*[answers(*WHOLE)] * 3)
    with capture_logs() as logs:
        for more in ({"speed": 1}, {"speed": 2}, {"speed": 1, "betas": []}):
            await w.ask(client(dialect, **more), dialect=dialect)
    found = [line["what"] for line in logs if line["event"] == "has no counterpart, left out"]
    assert found == [["field:speed"], ["field:betas"]]


@dialects
async def test_words_that_clients_make_up_do_not_fill_the_log(dialect):
    w = world(*[answers(*WHOLE)] * 2)
    with capture_logs() as logs:
        for turn in "ab":
            made_up = {f"{turn}{n}": 1 for n in range(MANY_DROPS)}
            await w.ask(client(dialect, **made_up), dialect=dialect)
    assert len([line for line in logs if "what" in line]) == 1


@dialects
async def test_a_body_that_came_encoded_goes_on_decoded(dialect):
    w = world(answers(*WHOLE))
    headers = ((b"content-encoding", b"gzip"),)
    body = gzip.compress(wish(dialect))
    c = Client(body, headers=headers)
    await w.ask(c, dialect=dialect)
    ((_, _, sent),) = w.calls[0].received
    assert b"content-encoding" not in dict(sent)
    assert json.loads(w.calls[0].body)["messages"] == [{"role": "user", "content": "hi"}]


async def test_count_tokens_is_estimated_and_says_so():
    w = world()
    asked = wish("messages")
    headers = ((b"content-length", b"%d" % len(asked)),)
    c = await w.ask(Client(asked, headers=headers), path="/v1/messages/count_tokens")
    assert (c.status, c.response_headers[b"x-proxy-estimate"]) == (200, b"1")
    assert json.loads(c.body)["input_tokens"] > 0


async def test_count_tokens_that_make_no_sense_are_refused():
    headers = ((b"content-length", b"2"),)
    c = await world().ask(Client(b"[]", headers=headers), path="/v1/messages/count_tokens")
    assert (c.status, json.loads(c.body)["type"]) == (400, "error")


async def counted(*attempts, coding=()):
    """What a client of Messages is told, and the calls that a tokenizer with this script got."""
    tokenizer = ScriptedUpstream(*attempts, name="tokenizer")
    inner = ScriptedUpstream()  # which has no script, and must not be asked
    upstream = Translated(inner, PRESETS["vllm"], tokenizer=tokenizer)
    request = UpstreamRequest(
        method="POST",
        target=b"/v1/messages/count_tokens?beta=true",
        headers=((b"x-api-key", b"sk-own"), (b"anthropic-version", b"2023-06-01"), *coding),
        body=wish("messages"),
    )
    async with upstream.open(request, Call(id="1", stream_id="1")) as answer:
        body = await answer.receive()
        return json.loads(body)["input_tokens"], dict(answer.headers), tokenizer.calls


async def test_count_tokens_are_counted_where_the_profile_names_a_tokenizer():
    attempt = answers(b'{"count": 17, "max_model_len": 32}', headers=JSON)
    tokens, headers, (call,) = await counted(attempt)
    assert (tokens, b"x-proxy-estimate" in headers) == (17, False)
    ((method, target, sent),) = call.received
    assert (method, target) == ("POST", b"/tokenize")
    assert dict(sent)[b"authorization"] == b"Bearer sk-own"
    assert json.loads(call.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert (call.told.model, call.aborts) == ("m", [])


@pytest.mark.parametrize(
    "attempt",
    [
        answers(b'{"detail": "Not Found"}', status=404, headers=JSON),
        answers(b"<html>", headers=JSON),
        answers(b'{"count": 1', Broken("gone", responded=True), headers=JSON),
        fails(Unreachable("nobody")),
        answers(HANG, headers=JSON),
    ],
    ids=["404", "no JSON", "cut", "unreachable", "silent"],
)
async def test_count_tokens_are_estimated_where_the_tokenizer_fails(attempt):
    began = trio.current_time()
    tokens, headers, _ = await counted(attempt)
    assert tokens > 0
    assert headers[b"x-proxy-estimate"] == b"1"
    assert trio.current_time() - began <= COUNTING


@pytest.mark.parametrize("dialect", ["chat", None, "messages"])
def test_what_it_speaks_itself_is_handed_through_as_it_is(dialect):
    class Inner:
        name = "inner"

        def open(self, request, call):
            return self, request, call

    class Call:
        pass

    class Request:
        method = "POST"
        target = b"/v1/messages/count_tokens"

    inner, request, call = Inner(), Request(), Call()
    call.dialect = dialect
    upstream = Translated(inner, dialects=("chat", "messages"))
    assert upstream.open(request, call) == (inner, request, call)


@dialects
async def test_answers_that_are_neither_good_nor_errors_pass(dialect):
    w = world(answers(status=307, headers=((b"location", b"/x"),)))
    c = await w.ask(client(dialect), dialect=dialect)
    assert (c.status, c.response_headers[b"location"]) == (307, b"/x")


FOR_THE_RELAY = {Cause.PROTOCOL, Cause.UNREACHABLE, Cause.TRUNCATED}
NEVER_READ = {
    Cause.SHUTDOWN,
    Cause.INTERNAL,
}  # from an upstream these are overload and its own error
TOLD_ON_STREAMS = [cause for cause in Cause if cause not in FOR_THE_RELAY | NEVER_READ]


@dialects
@pytest.mark.parametrize("cause", TOLD_ON_STREAMS)
def test_an_error_is_read_from_the_translated_frames_as_it_was_meant(dialect, cause):
    translator = WAYS[dialect](wish(dialect), Seen(None).profile, KEY, 0).open()
    stream = {"responses": RESPONSES, "messages": MESSAGES}[dialect].open_stream()
    look_through(stream, translator.opening)
    seen = look_through(stream, translator.fail(Failure(cause=cause, message="no")))
    assert seen.final is Sight.ERROR
    read = stream.failure.cause
    for judge in (is_retryable, may_go_elsewhere, is_upstreams_fault):
        assert judge(read) == judge(cause), (judge.__name__, read)


@dialects
async def test_a_tool_call_is_told_as_one(dialect):
    tool = {"name": "run", "description": "d"}
    schema = {"type": "object", "properties": {}}
    if dialect == "responses":
        tools = [{"type": "function", **tool, "parameters": schema}]
    else:
        tools = [{**tool, "input_schema": schema}]
    call = {"index": 0, "id": "call_1", "function": {"name": "run", "arguments": "{}"}}
    w = world(answers(ROLE, chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), DONE))
    c = await w.ask(client(dialect, tools=tools), dialect=dialect)
    assert json.loads(w.calls[0].body)["tools"][0]["function"]["name"] == "run"
    assert b'"call_1"' in c.body
    want = "response.function_call_arguments.done" if dialect == "responses" else "message_delta"
    assert want in kinds(c)
    assert dialect == "responses" or b'"stop_reason":"tool_use"' in c.body
