"""The demo upstream speaks the three dialects correctly, and the story told with it holds."""

import json
import re

import anthropic
import httpx2
import openai
import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy import Call
from trio_sse_proxy.core.errors import Broken
from trio_sse_proxy.core.sse import split_frames
from trio_sse_proxy.demo import DemoUpstream, Pace, story
from trio_sse_proxy.demo.ask import Trick, reply, understand
from trio_sse_proxy.demo.client import Client
from trio_sse_proxy.dialects import Sight, recognise
from trio_sse_proxy.ports import UpstreamRequest

CALL = Call(id="1-1", stream_id="1")

PATHS = {
    "chat": b"/v1/chat/completions",
    "responses": b"/v1/responses",
    "messages": b"/v1/messages",
}
DIALECTS = list(PATHS)


def body(dialect, prompt, **fields):
    asked = {"input": prompt} if dialect == "responses" else {"messages": [said(prompt)]}
    return json.dumps({"model": "m-1", "stream": True, **asked, **fields}).encode()


def said(prompt):
    return {"role": "user", "content": prompt}


def request(target, content=b"", method="POST"):
    return UpstreamRequest(method=method, target=target, headers=(), body=content)


async def read(upstream, asked):
    """Status, headers and whole body of one answer."""
    async with upstream.open(asked, CALL) as answer:
        pieces = []
        while piece := await answer.receive():
            pieces.append(piece)
        return answer.status, dict(answer.headers), b"".join(pieces)


async def read_stream(dialect, prompt, **fields):
    return await read(DemoUpstream(), request(PATHS[dialect], body(dialect, prompt, **fields)))


def sdk(kind, status, headers, content):
    """An SDK's client that gets this answer, whatever it asks."""
    headers = [(name.decode(), value.decode()) for name, value in headers.items()]
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(status, headers=headers, content=content)
    )
    return kind(
        api_key="k",
        base_url="http://demo",
        http_client=httpx2.Client(transport=transport),
        max_retries=0,
    )


TEXT = "".join(
    reply(understand(body("chat", "hello there")), silence=Pace().silence, thinking=Pace().thinking)
)
WORDS = len(TEXT.split())


async def test_a_chat_stream_accumulates_in_the_openai_sdk(autojump_clock):
    answer = await read_stream("chat", "hello there", stream_options={"include_usage": True})
    wanted = {"include_usage": True}
    with (
        sdk(openai.OpenAI, *answer) as client,
        client.chat.completions.stream(
            model="m-1", messages=[said("hello there")], stream_options=wanted
        ) as stream,
    ):
        final = stream.get_final_completion()
    assert final.choices[0].message.content == TEXT
    assert final.choices[0].finish_reason == "stop"
    assert final.model == "m-1"
    assert final.usage.prompt_tokens == 2
    assert final.usage.total_tokens == 2 + final.usage.completion_tokens
    assert final.usage.completion_tokens_details.reasoning_tokens == 8


async def test_chat_usage_is_left_out_unless_asked_for(autojump_clock):
    _, _, content = await read_stream("chat", "hello")
    assert b"usage" not in content
    assert b'"choices":[]' not in content


async def test_a_responses_stream_accumulates_in_the_openai_sdk(autojump_clock):
    answer = await read_stream("responses", "hello there")
    with (
        sdk(openai.OpenAI, *answer) as client,
        client.responses.stream(model="m-1", input="hello there") as stream,
    ):
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert final.output_text == TEXT
    assert final.status == "completed"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (2, WORDS + 8)
    assert final.usage.output_tokens_details.reasoning_tokens == 8


async def test_a_messages_stream_accumulates_in_the_anthropic_sdk(autojump_clock):
    answer = await read_stream("messages", "hello there", max_tokens=9)
    with (
        sdk(anthropic.Anthropic, *answer) as client,
        client.messages.stream(model="m-1", max_tokens=9, messages=[said("hello there")]) as stream,
    ):
        assert "".join(stream.text_stream) == TEXT
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (2, WORDS + 8)


async def test_whole_answers_are_read_by_the_sdks(autojump_clock):
    chat = await read_stream("chat", "hello there", stream=False)
    with sdk(openai.OpenAI, *chat) as client:
        completion = client.chat.completions.create(model="m-1", messages=[said("hello there")])
    assert completion.choices[0].message.content == TEXT
    assert completion.usage.total_tokens == 2 + WORDS + 8

    responses = await read_stream("responses", "hello there", stream=False)
    with sdk(openai.OpenAI, *responses) as client:
        response = client.responses.create(model="m-1", input="hello there")
    assert response.output_text == TEXT
    assert response.usage.total_tokens == 2 + WORDS + 8

    messages = await read_stream("messages", "hello there", stream=False)
    with sdk(anthropic.Anthropic, *messages) as client:
        message = client.messages.create(model="m-1", max_tokens=9, messages=[said("hello there")])
    assert message.content[0].text == TEXT
    assert message.usage.output_tokens == WORDS + 8


async def test_the_list_of_models_is_read_by_both_sdks(autojump_clock):
    answer = await read(DemoUpstream(), request(b"/v1/models", method="GET"))
    with sdk(openai.OpenAI, *answer) as client:
        assert [model.id for model in client.models.list()] == ["demo"]
    with sdk(anthropic.Anthropic, *answer) as client:
        assert [model.id for model in client.models.list()] == ["demo"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_dialect_judges_the_stream_complete_and_its_opening_no_output(
    dialect, autojump_clock
):
    _, _, content = await read_stream(dialect, "hello", stream_options={"include_usage": True})
    stream = recognise("POST", PATHS[dialect].decode()).open_stream()
    sights = [stream.look(frame) for frame in split_frames(content)]
    shown = sights.index(Sight.OUTPUT)
    assert shown >= 1
    assert set(sights[:shown]) <= {Sight.PRELUDE, Sight.IDLE}
    assert sights[-1] is Sight.END
    assert stream.finished
    assert stream.usage.input_tokens == 1
    assert stream.usage.output_tokens == sights.count(Sight.OUTPUT) - trailing(dialect) + 8


def trailing(dialect):
    """Frames that count as output and are no word: a finish reason, or `done` events."""
    return {"chat": 1, "responses": 3, "messages": 2}[dialect]


# Time


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_it_is_silent_before_the_headers_and_before_the_text(dialect, autojump_clock):
    upstream = DemoUpstream(Pace(silence=7, thinking=4, gap=0.04))
    began = trio.current_time()
    async with upstream.open(request(PATHS[dialect], body(dialect, "hello")), CALL) as answer:
        assert trio.current_time() - began == pytest.approx(7)
        await answer.receive()
        assert trio.current_time() - began == pytest.approx(7)
        await answer.receive()
        assert trio.current_time() - began == pytest.approx(11)
        for _ in range(25):
            await answer.receive()
        assert trio.current_time() - began == pytest.approx(12)


async def test_fast_leaves_the_silence_out(autojump_clock):
    began = trio.current_time()
    _, _, content = await read_stream("chat", "fast please")
    assert trio.current_time() - began == pytest.approx((WORDS_WHEN_FAST - 1) * 0.04)
    assert b"heartbeats" not in content


WORDS_WHEN_FAST = len(reply(understand(body("chat", "fast please")), silence=0, thinking=0))


# Tricks


async def broken(upstream, asked):
    """What came of an answer before it broke."""
    pieces = []
    async with upstream.open(asked, CALL) as answer:
        with pytest.raises(Broken) as caught:  # noqa: PT012  (whatever comes before is wanted)
            while True:
                pieces.append(await answer.receive())
    assert caught.value.responded
    return b"".join(pieces)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_cut_breaks_the_first_attempt_before_output_and_not_the_second(
    dialect, autojump_clock
):
    upstream = DemoUpstream()
    asked = request(PATHS[dialect], body(dialect, "cut"))
    for _ in range(2):  # the same request of another day is cut again
        stream = recognise("POST", PATHS[dialect].decode()).open_stream()
        content = await broken(upstream, asked)
        assert Sight.OUTPUT not in {stream.look(frame) for frame in split_frames(content)}
        _, _, content = await read(upstream, asked)
        stream = recognise("POST", PATHS[dialect].decode()).open_stream()
        assert Sight.END in {stream.look(frame) for frame in split_frames(content)}
    assert upstream.aborts == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_break_breaks_every_attempt_in_the_middle_of_the_text(dialect, autojump_clock):
    upstream = DemoUpstream()
    asked = request(PATHS[dialect], body(dialect, "fast break"))
    for _ in range(2):
        stream = recognise("POST", PATHS[dialect].decode()).open_stream()
        content = await broken(upstream, asked)
        sights = [stream.look(frame) for frame in split_frames(content)]
        assert sights.count(Sight.OUTPUT) == 12
        assert not stream.finished


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_error_answers_529_once_in_the_form_of_the_dialect(dialect, autojump_clock):
    upstream = DemoUpstream()
    asked = request(PATHS[dialect], body(dialect, "error"))
    status, headers, content = await read(upstream, asked)
    assert (status, headers[b"content-type"]) == (529, b"application/json")
    assert "overloaded" in json.loads(content)["error"]["message"]
    status, _, _ = await read(upstream, asked)
    assert status == 200


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_whole_answer_can_be_cut_too(dialect, autojump_clock):
    upstream = DemoUpstream()
    asked = request(PATHS[dialect], body(dialect, "cut", stream=False))
    assert await broken(upstream, asked)
    status, _, content = await read(upstream, asked)
    assert status == 200
    assert json.loads(content)["model"] == "m-1"


@pytest.mark.parametrize(
    ("prompt", "tricks"),
    [
        ("", set()),
        ("hello, cut it", set()),
        ("Cut!", {Trick.CUT}),
        ("fast, break", {Trick.FAST, Trick.BREAK}),
        ("faster", set()),
    ],
)
def test_tricks_are_the_words_a_message_begins_with(prompt, tricks):
    assert understand(body("chat", prompt)).tricks == tricks


@pytest.mark.parametrize(
    "asked",
    [
        {"messages": [said("no"), {"role": "assistant", "content": "x"}, said("hi")]},
        {"messages": [said([{"type": "text", "text": "no"}, {"type": "text", "text": "hi"}])]},
        {"messages": [said("hi"), {"role": "system", "content": "no"}, 5]},
        {"input": "hi"},
        {"input": [{"type": "message", **said([{"type": "input_text", "text": "hi"}])}, {}]},
        {"input": [said("hi"), {"type": "function_call_output", "output": "no"}]},
    ],
)
def test_the_prompt_is_the_last_text_of_the_user(asked):
    assert understand(json.dumps(asked).encode()).prompt == "hi"


@pytest.mark.parametrize("rubbish", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_what_is_no_json_object_is_refused(rubbish, autojump_clock):
    status, _, content = await read(DemoUpstream(), request(PATHS["chat"], rubbish))
    assert status == 400
    assert json.loads(content)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("strange", [{"messages": 5}, {"messages": [said(None)]}, {"input": {}}])
async def test_a_conversation_without_text_is_answered_all_the_same(strange, autojump_clock):
    asked = request(PATHS["chat"], json.dumps(strange).encode())
    status, _, content = await read(DemoUpstream(), asked)
    assert status == 200
    assert "“nothing”" in json.loads(content)["choices"][0]["message"]["content"]


async def test_other_paths_are_not_found(autojump_clock):
    for method, path in (("GET", b"/"), ("POST", b"/v1/embeddings"), ("GET", b"/v1/messages")):
        status, _, content = await read(DemoUpstream(), request(path, method=method))
        assert status == 404
        assert path.decode() in json.loads(content)["error"]["message"]


# Letting go


async def test_release_wakes_a_task_that_waits_and_harms_nobody_when_repeated(autojump_clock):
    upstream = DemoUpstream()
    async with upstream.open(request(PATHS["chat"], body("chat", "hello")), CALL) as answer:
        await answer.receive()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(Broken):
                    await answer.receive()

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            answer.release()
            answer.release()
        with pytest.raises(Broken):
            await answer.receive()
        assert trio.current_time() == began
    assert upstream.aborts == 1


@pytest.mark.parametrize("after", [1.0, 8.0, 11.5], ids=["silence", "thinking", "text"])
async def test_leaving_early_is_one_abort_in_whatever_phase(after, autojump_clock):
    told = []
    upstream = DemoUpstream(tell=told.append)
    with trio.move_on_after(after) as scope:
        await read(upstream, request(PATHS["chat"], body("chat", "hello")))
    assert scope.cancelled_caught
    assert upstream.aborts == 1
    assert told[-1] == "was aborted, and stopped working"


async def test_an_answer_read_to_its_end_is_no_abort(autojump_clock):
    upstream = DemoUpstream()
    await read(upstream, request(PATHS["chat"], body("chat", "hello")))
    await read(upstream, request(b"/nowhere", method="GET"))
    assert upstream.aborts == 0


# The story


async def test_the_story_holds_and_takes_less_than_25_seconds(autojump_clock):
    lines = []
    began = trio.current_time()
    assert await story.perform(lines.append)
    assert trio.current_time() - began < 25
    text = re.sub(r"\x1b\[\d*m", "", "\n".join(lines))
    silence, cut, leaving = re.split(r"^\d\. .*$", text, flags=re.M)[1:]
    assert silence.count("gets a heartbeat") >= 2
    assert silence.index("gets a heartbeat") < silence.index("sends its headers")
    assert "has the whole answer" in silence
    assert cut.count("got a request") == 2
    assert cut.index("breaks the connection") < cut.index("asks again")
    assert cut.index("asks again") < cut.index("gets the first word")
    assert cut.count("gets the first word") == 1
    assert leaving.index("leaves") < leaving.index("was aborted")


async def test_a_story_that_goes_wrong_says_so(autojump_clock, monkeypatch):
    monkeypatch.setattr(Client, "_look", lambda self, frame: None)
    lines = []
    assert not await story.perform(lines.append)
    assert "not how it should have gone" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("colour", [True, False])
def test_the_command_tells_the_story_in_colour_unless_told_otherwise(
    colour, monkeypatch, capsys, terminal
):
    monkeypatch.setattr(story, "PACE", Pace(silence=0.0, thinking=0.0, gap=0.0))
    monkeypatch.setattr(story, "LEAVES_AFTER", 0.0)
    monkeypatch.setenv("NO_COLOR", "" if colour else "1")
    assert story.tell() == 1  # there was no silence, so it did not go as it should
    assert ("\x1b[" in capsys.readouterr().out) is colour


@pytest.fixture
def terminal(monkeypatch):
    """Standard output passes for a terminal, and log lines are as they were afterwards."""
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda stream, color: color is False)
    yield
    structlog.reset_defaults()
