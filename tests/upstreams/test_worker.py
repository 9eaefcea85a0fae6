"""A worker of the embedder's own as an upstream: what it says, and how it hears that nobody listens."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager

import anthropic
import httpx2
import openai
import pytest
import trio
import trio._core._run as trio_run
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sse_proxy.core.call import Abort, Call, Reason
from trio_sse_proxy.core.errors import Broken
from trio_sse_proxy.core.failure import Cause, Failure, Refused
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.dialects.forms import Stop
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams.worker import MOMENT, Abandoned, WorkerUpstream

PATHS = {
    "chat": b"/v1/chat/completions",
    "responses": b"/v1/responses",
    "messages": b"/v1/messages",
}
dialects = pytest.mark.parametrize("dialect", list(PATHS))


def request(dialect="chat", *, stream=True, **more):
    body = json.dumps({"model": "m-1", "stream": stream, **more}).encode()
    return UpstreamRequest(method="POST", target=PATHS[dialect], headers=(), body=body)


def new_call():
    return Call(id="c-1", stream_id="s-1")


async def read(worker, asked, call=None):
    async with WorkerUpstream(worker).open(asked, call or new_call()) as answer:
        body = b""
        while piece := await answer.receive():
            body += piece
        return answer.status, dict(answer.headers), body


async def poet(job):
    await job.send_reasoning("Let me ")
    await job.send_reasoning("think. ")
    await job.send("Roses ")
    await job.send("are red")
    return Usage(input_tokens=5, output_tokens=9, cached_tokens=2, reasoning_tokens=4)


def sdk(kind, answer):
    status, headers, body = answer
    headers = {name.decode(): value.decode() for name, value in headers.items()}
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(status, headers=headers, content=body)
    )
    return kind(
        api_key="k",
        base_url="http://w",
        http_client=httpx2.Client(transport=transport),
        max_retries=0,
    )


USER = [{"role": "user", "content": "x"}]


# What the client gets


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_answer_is_read_by_the_openai_sdk(stream):
    options = {"stream_options": {"include_usage": True}}
    answer = await read(poet, request("chat", stream=stream, **options))
    with sdk(openai.OpenAI, answer) as client:
        if stream:
            with client.chat.completions.stream(model="m", messages=USER, **options) as events:
                final = events.get_final_completion()
        else:
            final = client.chat.completions.create(model="m", messages=USER)
    message = final.choices[0].message
    assert (message.content, message.reasoning_content) == ("Roses are red", "Let me think. ")
    assert (final.model, final.choices[0].finish_reason) == ("m-1", "stop")
    assert (final.usage.prompt_tokens, final.usage.total_tokens) == (5, 14)
    assert final.usage.prompt_tokens_details.cached_tokens == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_a_responses_answer_is_read_by_the_openai_sdk(stream):
    answer = await read(poet, request("responses", stream=stream))
    with sdk(openai.OpenAI, answer) as client:
        if stream:
            with client.responses.stream(model="m", input="x") as events:
                numbers = [event.sequence_number for event in events]
                final = events.get_final_response()
            assert numbers == list(range(len(numbers)))
        else:
            final = client.responses.create(model="m", input="x")
    assert final.output_text == "Roses are red"
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output[0].content[0].text == "Let me think. "
    assert (final.status, final.usage.total_tokens) == ("completed", 14)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_messages_answer_is_read_by_the_anthropic_sdk(stream):
    answer = await read(poet, request("messages", stream=stream))
    with sdk(anthropic.Anthropic, answer) as client:
        if stream:
            with client.messages.stream(model="m", max_tokens=9, messages=USER) as events:
                final = events.get_final_message()
        else:
            final = client.messages.create(model="m", max_tokens=9, messages=USER)
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert (final.content[0].thinking, final.content[1].text) == ("Let me think. ", "Roses are red")
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (3, 2)
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 9)


@dialects
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_cut_at_its_length_says_so_and_unknown_counts_are_not_told(dialect, stream):
    async def worker(job):
        job.stop = Stop.LENGTH

    _, _, body = await read(worker, request(dialect, stream=stream))
    words = {"chat": b'"length"', "responses": b"max_output_tokens", "messages": b'"max_tokens"'}
    assert words[dialect] in body
    assert b"prompt_tokens" not in body
    if dialect == "responses":
        assert b'"usage":null' in body
    ends = {"chat": b"[DONE]\n\n", "responses": b"\n\n", "messages": b'"message_stop"}\n\n'}
    assert not stream or body.endswith(ends[dialect])


async def test_frames_of_the_workers_own_pass_as_they_are():
    async def worker(job):
        await job.send_frames(b"data: 1\n\n")
        await job.send_frames(b"data: [DONE]\n\n")

    assert (await read(worker, request()))[2] == b"data: 1\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("stream", [True, False])
async def test_frames_fit_neither_into_a_document_nor_behind_text(stream):
    async def worker(job):
        if stream:
            await job.send("x")
        with pytest.raises(RuntimeError):
            await job.send_frames(b"data: 1\n\n")
        await job.send("y")

    assert b"y" in (await read(worker, request(stream=stream)))[2]


async def test_a_piece_whose_sending_is_cancelled_goes_with_the_next(autojump_clock):
    async def worker(job):
        await job.send("one ")
        with trio.move_on_after(1):
            await job.send("two ")
        await job.send("three")

    async with WorkerUpstream(worker).open(request("responses"), new_call()) as answer:
        await trio.sleep(2)
        body = b""
        while piece := await answer.receive():
            body += piece
    assert b"one two three" in body
    assert body.index(b'"two "') < body.index(b'"three"')


async def test_what_several_tasks_send_at_once_is_one_piece():
    async def worker(job):
        async with trio.open_nursery() as nursery:
            for word in "abc":
                nursery.start_soon(job.send, word)

    async with WorkerUpstream(worker).open(request(), new_call()) as answer:
        frames = await answer.receive()
        assert all(f'"content":"{word}"'.encode() in frames for word in "abc")


async def test_the_worker_waits_for_whoever_reads():
    sent = []

    async def worker(job):
        for number in range(100):
            await job.send(str(number))
            sent.append(number)

    async with WorkerUpstream(worker).open(request(), new_call()) as answer:
        await wait_all_tasks_blocked()
        assert len(sent) <= 1
        await answer.receive()
        await answer.receive()
        await wait_all_tasks_blocked()
        assert len(sent) <= 2


async def test_the_worker_is_told_what_was_asked():
    jobs = []

    async def worker(job):
        jobs.append(job)
        assert job.json["seed"] == 7

    await read(worker, request("messages", seed=7))
    (job,) = jobs
    assert (job.call_id, job.stream_id, job.dialect) == ("c-1", "s-1", "messages")
    assert (job.path, job.model, job.streaming) == ("/v1/messages", "m-1", True)


async def test_other_calls_are_not_found_and_reach_no_worker():
    call = new_call()
    asked = UpstreamRequest(method="GET", target=b"/v1/models", headers=(), body=b"")
    status, _, body = await read(poet, asked, call)
    assert status == 404
    assert json.loads(body)["error"]["message"]
    assert not call.begun


# Failures


@dialects
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_before_output_is_a_status_of_the_dialect(dialect, stream):
    async def worker(job):
        raise Refused(Failure(cause=Cause.RATE_LIMITED, message="one at a time", retry_after=3.2))

    status, headers, body = await read(worker, request(dialect, stream=stream))
    assert (status, headers[b"retry-after"]) == (429, b"4")
    assert "one at a time" in json.loads(body)["error"]["message"]


async def test_a_body_that_is_no_json_object_is_refused_when_the_worker_looks():
    async def worker(job):
        await job.send(job.json["model"])

    asked = UpstreamRequest(method="POST", target=PATHS["chat"], headers=(), body=b"[]")
    assert (await read(worker, asked))[0] == 400


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_is_told_by_its_type_alone(stream):
    async def worker(job):
        raise ValueError("the prompt was: secret")

    call = new_call()
    with pytest.raises(Broken, match=r"^the worker failed with ValueError$") as caught:
        await read(worker, request(stream=stream), call)
    assert not caught.value.responded
    assert (call.begun, call.abort, call.reason) == (True, None, Reason.BROKEN)


async def test_a_failure_after_output_breaks_the_answer():
    async def worker(job):
        await job.send("x")
        raise ValueError

    async with WorkerUpstream(worker).open(request(), new_call()) as answer:
        assert b"x" in await answer.receive()
        with pytest.raises(Broken) as caught:
            await answer.receive()
    assert caught.value.responded


async def test_what_the_relay_raises_comes_out_as_it_is(autojump_clock):
    call = new_call()
    with pytest.raises(KeyError):
        async with WorkerUpstream(chatter).open(request(), call):
            raise KeyError
    assert call.abort is Abort.DONE


# Aborts


async def chatter(job):
    while True:
        await trio.sleep(1)
        await job.send("word ")


async def leave(upstream, call, *, reason=Reason.CLIENT_LEFT):
    """Read one piece, and leave. Seconds that leaving took."""
    async with upstream.open(request(), call) as answer:
        await answer.receive()
        call.reason = reason
        left = trio.current_time()
    return trio.current_time() - left


async def test_a_worker_that_only_sends_is_ended_by_its_next_sending(autojump_clock):
    call = new_call()
    assert await leave(WorkerUpstream(chatter), call) == pytest.approx(1)
    assert call.abort is Abort.DONE


async def test_release_tells_the_worker_at_once_though_the_reader_is_stuck(autojump_clock):
    heard = []

    async def worker(job):
        await job.send("x")
        await job.abort.wait()
        heard.append((trio.current_time(), job.abort.reason))

    async def abort(message):
        heard.append((trio.current_time(), message.reason, message.call_id, message.model))

    call = new_call()
    async with WorkerUpstream(worker, abort=abort).open(request(), call) as answer:
        await answer.receive()
        now = trio.current_time()
        call.reason = Reason.OPERATOR
        answer.release()
        answer.release()
        with trio.CancelScope(shield=True):
            await trio.sleep(30)  # a write that is stuck
    wanted = [(now, Reason.OPERATOR), (now, Reason.OPERATOR, "c-1", "m-1")]
    assert sorted(heard, key=len) == wanted
    assert call.abort is Abort.DONE


async def test_release_wakes_who_waits_in_receive(autojump_clock):
    async with WorkerUpstream(chatter).open(request(), new_call()) as answer:
        await answer.receive()
        async with trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(Broken):
                    await answer.receive()

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            began = trio.current_time()
            answer.release()
        assert trio.current_time() == began


async def test_a_worker_that_ignores_the_abort_is_cancelled_in_time(autojump_clock):
    ended = []

    async def worker(job):
        await job.send("x")
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    call = new_call()
    assert await leave(WorkerUpstream(worker, abort_timeout=3), call) == pytest.approx(3)
    assert len(ended) == 1
    assert call.abort is Abort.IGNORED


async def test_the_worker_has_the_rest_of_the_time_after_the_callback(autojump_clock):
    async def worker(job):
        await job.send("x")
        await job.abort.wait()
        await trio.sleep(1.5)

    async def abort(message):
        await trio.sleep(1)

    call = new_call()
    assert await leave(WorkerUpstream(worker, abort=abort), call) == pytest.approx(1.5)
    assert call.abort is Abort.DONE


@pytest.mark.parametrize(("hangs", "outcome"), [(True, Abort.TIMED_OUT), (False, Abort.FAILED)])
async def test_a_callback_that_hangs_or_raises_costs_no_more_than_the_timeout(
    hangs, outcome, autojump_clock
):
    calls = []

    async def worker(job):
        await job.send("x")
        await trio.sleep_forever()

    async def abort(message):
        calls.append(message)
        if hangs:
            await trio.sleep_forever()
        raise OSError("no such process")

    call = new_call()
    assert await leave(WorkerUpstream(worker, abort=abort), call) == pytest.approx(2)
    assert call.abort is outcome
    assert len(calls) == 1


async def test_a_request_cancelled_before_output_is_aborted_too(autojump_clock):
    messages = []

    async def worker(job):
        await job.abort.wait()

    async def abort(message):
        messages.append(message.reason)

    call = new_call()
    with trio.move_on_after(5) as scope:
        await read_with(WorkerUpstream(worker, abort=abort), call)
    assert scope.cancelled_caught
    assert messages == [Reason.SHUTDOWN]
    assert call.reason is Reason.SHUTDOWN
    assert call.abort is Abort.DONE


async def test_a_call_cancelled_from_outside_says_so_also_after_its_worker_has_returned():
    async def worker(job):
        await job.send("x")

    call = new_call()
    with trio.CancelScope() as scope:
        async with WorkerUpstream(worker).open(request(), call) as answer:
            await answer.receive()
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert (call.reason, call.abort) == (Reason.SHUTDOWN, None)


async def test_a_call_that_nobody_let_go_of_was_of_no_use(autojump_clock):
    messages = []

    async def abort(message):
        messages.append(message.reason)

    call = new_call()
    await leave(WorkerUpstream(chatter, abort=abort), call, reason=None)
    assert messages == [Reason.BROKEN]
    assert call.reason is Reason.BROKEN


async def read_with(upstream, call):
    async with upstream.open(request(), call) as answer:
        while await answer.receive():
            pass


@pytest.mark.parametrize("stream", [True, False])
async def test_a_completed_call_is_not_aborted(stream, autojump_clock):
    async def abort(message):
        raise AssertionError

    call = new_call()
    async with WorkerUpstream(poet, abort=abort).open(request(stream=stream), call) as answer:
        while await answer.receive():
            pass
        call.over = True
    assert call.abort is None


async def test_a_worker_that_lingers_after_its_terminator_is_dismissed_without_an_abort(
    autojump_clock,
):
    ended = []

    async def worker(job):
        await job.send_frames(b"data: [DONE]\n\n")
        try:
            await trio.sleep_forever()
        finally:
            ended.append(job.abort.is_set())

    call = new_call()
    async with WorkerUpstream(worker).open(request(), call) as answer:
        await answer.receive()
        call.over = True
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(MOMENT)
    assert ended == [False]
    assert call.abort is None


async def test_a_scope_ends_waiting_that_the_abort_finds_or_comes_before(autojump_clock):
    async def worker(job):
        await job.send("x")
        for _ in range(2):
            with job.abort.cancels() as scope:
                await trio.sleep_forever()
            assert scope.cancelled_caught
        with pytest.raises(Abandoned):
            await job.send("y")

    call = new_call()
    assert await leave(WorkerUpstream(worker), call) == 0
    assert call.abort is Abort.DONE


# Any moment


@contextmanager
def seeded(seed):
    before, trio_run._r = trio_run._r, random.Random(seed)
    try:
        yield
    finally:
        trio_run._r = before


class AtStep(trio.abc.Instrument):
    def __init__(self, step):
        self.left = step
        self.act = None

    def before_task_step(self, task):
        if self.act is not None:
            self.left -= 1
            if self.left == 0:
                self.act()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("how", ["polite", "ignoring", "chatty", "whole"])
def test_a_cancellation_at_any_step_is_one_abort_at_most_and_leaves_no_task(how, seed):
    async def main(instrument):
        working, messages = [], []

        async def worker(job):
            working.append(1)
            try:
                for _ in range(3):
                    await trio.sleep(1)
                    if how == "polite" and job.abort.is_set():
                        return
                    if how == "ignoring":
                        with trio.move_on_after(0.1):
                            try:
                                await job.send("x")
                            except Abandoned:
                                await trio.sleep_forever()
                    else:
                        await job.send("x")
            finally:
                working.pop()

        async def abort(message):
            messages.append(message)
            await trio.sleep(0.5)

        call = new_call()
        upstream = WorkerUpstream(worker, abort=abort)
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            instrument.act = scope.cancel
            async with upstream.open(request(stream=how != "whole"), call) as answer:
                while await answer.receive():
                    pass
                call.over = True
        instrument.act = None
        assert not working
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert len(messages) == (call.abort is not None)
        assert not (call.abort and call.over)
        return call.abort

    outcomes = []
    with seeded(seed):
        while True:
            instrument = AtStep(len(outcomes) + 1)
            clock = MockClock(autojump_threshold=0)
            outcomes.append(trio.run(main, instrument, clock=clock, instruments=[instrument]))
            if instrument.left > 0:
                break
    assert len(outcomes) > 10
    assert outcomes[-1] is None
    assert {Abort.DONE, None} <= set(outcomes) or how == "ignoring"
