"""What holds for any bytes, and for any stream however its JSON is spaced and however it is cut."""

from __future__ import annotations

import json

import pytest
from dialect_frames import payloads
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.sse import parse, split_frames
from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES, Sight, failure_of_error, is_retryable
from trio_sse_proxy.dialects.base import look_through

DIALECTS = [CHAT, RESPONSES, MESSAGES]
by_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

# No deadline per example: the machine may be busy, and nothing here waits for anything.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TRICKY = [
    "",
    "x",
    '"finish_reason":"stop"',
    "finish_reason",
    "usage",
    "error",
    "[DONE]",
    '"index":1',
    "event: error\n\n",
    "message_stop",
    "response.completed",
    "\u2028\r\n上",
]

# --- any JSON, anywhere ------------------------------------------------------------------------

KEYS = (  # noqa: SIM905
    "id model object type error choices index delta content role audio tool_calls finish_reason usage "
    "prompt_tokens_details sequence_number response item output message content_block code status "
    "message_start message_delta stop_reason text metadata raw detail"
).split()
KINDS = (  # noqa: SIM905
    "error ping keepalive response.created response.failed response.completed message_start "
    "message_delta message_stop content_block_start content_block_delta response.output_item.added "
    "chat.completion.chunk message text stop"
).split()
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(KINDS)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(KEYS), values)


@st.composite
def odd_frames(draw):
    body = json.dumps(draw(values | objects)).encode()
    name = draw(st.sampled_from(["", *KINDS]))
    return b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"


@by_dialect
@calm
@given(frames=st.lists(st.binary() | odd_frames(), max_size=4))
@example(frames=[b'data: {"choices":[[]],"usage":[1]}\n\n', b'data: {"response":[]}\n\n'])
def test_no_frame_whatsoever_raises(dialect, frames):
    stream = dialect.open_stream()
    for frame in frames:
        sight = stream.look(frame)
        assert (sight is Sight.ERROR) <= (stream.failure is not None)
        stream.skim(frame)
        _ = (
            stream.finished,
            stream.usage,
            stream.byte_heartbeat(),
            stream.event_heartbeat("codex"),
        )
    stream.forwarded = True
    stream.event_heartbeat("claude-cli/1")
    failure = Failure(cause=Cause.INTERNAL, message="m")
    assert dialect.open_stream().look(split_frames(stream.error_frames(failure))[0]) is Sight.ERROR


@by_dialect
@pytest.mark.parametrize("line", [b"event: ping", b"event:ping"])
@pytest.mark.parametrize("before", [b"id: 1\n", b"retry: 1\n", b"x\r\n"])
def test_a_ping_is_no_progress_whichever_line_names_it(dialect, line, before):
    ping = before + line + b'\ndata: {"n":1}\n\n'
    stream = dialect.open_stream()
    assert stream.look(ping) is Sight.IDLE
    assert not stream.skim(ping)


@by_dialect
@calm
@given(body=st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_no_answer_whatsoever_raises(dialect, body):
    dialect.answer_usage(body)


@calm
@given(error=values | objects)
def test_every_error_object_means_something(error):
    failure = failure_of_error(error)
    assert failure.message
    assert failure.status is None or 400 <= failure.status <= 599


# --- our own frames ----------------------------------------------------------------------------

failures = st.builds(
    Failure,
    cause=st.sampled_from(Cause),
    message=st.text() | st.text(st.characters(), min_size=1),
    status=st.none() | st.integers(100, 999),
    retry_after=st.none() | st.floats(),
)


@by_dialect
@calm
@given(failure=failures, forwarded=st.booleans())
def test_error_frames_are_whole_valid_and_understood(dialect, failure, forwarded):
    stream = dialect.open_stream()
    stream.forwarded = forwarded
    told = stream.error_frames(failure)
    frames = split_frames(told)
    assert len(payloads(told)) == len(frames) == (2 if dialect is RESPONSES else 1)
    reader = dialect.open_stream()
    for frame in frames:
        assert frame.endswith(b"\n\n")
        assert reader.look(frame) is Sight.ERROR
        assert not reader.skim(frame)
    assert not reader.awaits_failed
    assert not reader.finished


@by_dialect
@pytest.mark.parametrize("cause", Cause)
def test_a_proxy_before_this_one_knows_as_well_what_asking_again_would_mend(dialect, cause):
    """It going away, or a bug of its own, is another attempt's chance here."""
    failure = Failure(cause=cause, message="m")
    reader = dialect.open_stream()
    for frame in split_frames(dialect.open_stream().error_frames(failure)):
        reader.look(frame)
    again = is_retryable(cause) or cause in {Cause.SHUTDOWN, Cause.INTERNAL}
    assert is_retryable(reader.failure.cause) is again


@by_dialect
@calm
@given(failure=failures)
def test_error_bodies_are_json_and_statuses_are_errors(dialect, failure):
    assert json.loads(dialect.error_body(failure))["error"]["type"]
    assert 400 <= dialect.http_status(failure) <= 599


@by_dialect
@calm
@given(frames=st.lists(st.binary() | odd_frames(), max_size=3), forwarded=st.booleans())
def test_byte_heartbeats_are_no_progress(dialect, frames, forwarded):
    stream = dialect.open_stream()
    stream.forwarded = forwarded
    for frame in frames:
        stream.look(frame)
    assert dialect.open_stream().look(stream.byte_heartbeat()) is Sight.IDLE
    assert not dialect.open_stream().skim(stream.byte_heartbeat())


# --- skimming sees what looking sees -----------------------------------------------------------


def spaced(draw, value) -> str:
    """JSON with white space wherever the grammar allows it."""
    gap = draw(st.sampled_from(["", " ", "\n", "\t ", ""]))
    if isinstance(value, dict):
        pairs = [f"{json.dumps(k)}{gap}:{gap}{spaced(draw, v)}" for k, v in value.items()]
        return "{" + gap + f"{gap},".join(pairs) + gap + "}"
    if isinstance(value, list):
        return "[" + gap + f",{gap}".join(spaced(draw, v) for v in value) + gap + "]"
    return json.dumps(value)


@st.composite
def frame_of(draw, value, names=(None,)):
    """One frame: compact, as Python writes it, or spaced at will over several data lines."""
    style = draw(st.sampled_from(["compact", "python", "free"]))
    if style == "free":
        body = spaced(draw, value)
    else:
        body = json.dumps(value, separators=(",", ":") if style == "compact" else None)
    name = draw(st.sampled_from(names))
    colon = draw(st.sampled_from([":", ": "]))
    lines = [f"event{colon}{name}"] if name else []
    lines += [f"data{colon}{line}" for line in body.split("\n")]
    end = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"]))
    return (end.join(lines) + end + end).encode()


texts = st.sampled_from(TRICKY)
counts = st.integers(0, 9)
comments = st.sampled_from([b": hb\n\n", b":\n\n", b"\n", b": ping\r\n\r\n"])
errors = st.fixed_dictionaries({"message": texts, "code": st.sampled_from(["slow_down", 502])})
rubbish = st.sampled_from([b"data: error\n\n", b"data: {\n\n", b"data: [1]\n\n"])


@st.composite
def chat_choices(draw):
    tool = {"index": draw(st.integers(0, 2)), "function": {"arguments": draw(texts)}}
    delta = draw(st.sampled_from([{"content": draw(texts)}, {"tool_calls": [tool]}, {}]))
    told = {"index": draw(st.integers(0, 2)), "delta": delta}
    told["finish_reason"] = draw(st.sampled_from([None, None, None, "stop", "length"]))
    if draw(st.integers(0, 9)) == 0:
        told["usage"] = {"prompt_tokens": draw(counts)}
    return told


@st.composite
def chat_frames(draw):
    told = {"id": "c1", "choices": draw(st.lists(chat_choices(), min_size=1, max_size=2))}
    match draw(st.integers(0, 9)):
        case 0:
            told["usage"] = {"prompt_tokens": draw(counts)}
        case 1 | 2:
            told["usage"] = None
        case 3:
            told = {"id": "c1", "choices": [], "usage": {"completion_tokens": draw(counts)}}
        case 4 if draw(st.booleans()):
            told["error"] = draw(errors)
        case 5 if draw(st.booleans()):
            return draw(st.sampled_from([b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n"]))
    return draw(frame_of(told))


@st.composite
def responses_frames(draw):
    kind = draw(st.sampled_from(["response.output_text.delta"] * 9 + RESPONSES_KINDS))
    told = {"type": kind, "sequence_number": draw(st.integers(0, 99)), "delta": draw(texts)}
    if kind in RESPONSES_KINDS[:4]:
        told["response"] = {"usage": {"input_tokens": draw(counts)}, "error": draw(errors)}
    if kind == "error":
        told["error"] = draw(errors)
    del told[draw(st.sampled_from(["delta", "sequence_number"]))]
    return draw(named_frame_of(told))


RESPONSES_KINDS = [
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.in_progress",
    "response.output_item.done",
    "error",
    "keepalive",
]


@st.composite
def messages_frames(draw):
    kind = draw(st.sampled_from(["content_block_delta"] * 9 + MESSAGES_KINDS))
    told = {"type": kind, "index": 0}
    match kind:
        case "content_block_delta":
            told["delta"] = {"type": "text_delta", "text": draw(texts)}
        case "message_start":
            told["message"] = {"usage": {"input_tokens": draw(counts)}}
        case "message_delta":
            told["delta"] = {"stop_reason": draw(st.sampled_from([None, "end_turn"]))}
            told["usage"] = draw(st.sampled_from([None, {"output_tokens": draw(counts)}]))
        case "error":
            told["error"] = draw(errors)
    return draw(named_frame_of(told))


MESSAGES_KINDS = ["message_start", "message_delta", "message_stop", "error", "ping"]


@st.composite
def named_frame_of(draw, told):
    """Its type in the event line, in the JSON, or in both."""
    kind = told["type"]
    if draw(st.booleans()):
        return draw(frame_of(told, names=(kind, None)))
    return draw(frame_of({k: v for k, v in told.items() if k != "type"}, names=(kind,)))


FRAMES = {CHAT: chat_frames(), RESPONSES: responses_frames(), MESSAGES: messages_frames()}


def stream_of(dialect):
    return st.lists(st.lists(FRAMES[dialect] | comments | rubbish, min_size=1, max_size=4))


def told_by(dialect, stream):
    """Everything a stream can say, except whether skimmed frames that are gone had an id line."""
    facts = (stream.finished, stream.usage, stream.failure, stream.awaits_failed)
    if stream.failure or (stream.finished and dialect is not CHAT):
        return facts  # nothing of ours follows an ending
    return (
        *facts,
        stream.event_heartbeat("openai"),
        stream.error_frames(Failure(cause=Cause.TRUNCATED, message="m")),
    )


def check_skimming(dialect, chunks):
    looking, skimming = dialect.open_stream(), dialect.open_stream()
    looking.forwarded = skimming.forwarded = True
    output = False
    # The first chunk names the stream: were it rubbish, the name would be among the skimmed ones.
    for chunk in map(b"".join, [[b'data: {"id":"c1","choices":[]}\n\n'], *chunks]):
        must_look = not output or not skimming.skim(chunk)
        seen = look_through(looking, chunk)
        if must_look:
            assert look_through(skimming, chunk) == seen
        output = output or seen.sight is Sight.OUTPUT
        assert must_look or seen.sight not in {Sight.IDLE, None}
        assert told_by(dialect, skimming) == told_by(dialect, looking)
        if seen.final:
            assert must_look
            return


@calm
@given(chunks=stream_of(CHAT))
@example(
    chunks=[
        [b'data: {"choices":[{"index":1,"delta":{"content":"x"}}]}\n\n'],
        [b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'],
        [b'data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}\n\n'],
    ]
)
def test_skimming_a_chat_stream_tells_what_looking_tells(chunks):
    check_skimming(CHAT, chunks)


@calm
@given(chunks=stream_of(RESPONSES))
def test_skimming_a_responses_stream_tells_what_looking_tells(chunks):
    check_skimming(RESPONSES, chunks)


@calm
@given(chunks=stream_of(MESSAGES))
def test_skimming_a_messages_stream_tells_what_looking_tells(chunks):
    check_skimming(MESSAGES, chunks)


# --- and typical frames are only skimmed -------------------------------------------------------

TYPICAL = {
    "chat, compact": (
        CHAT,
        '{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"an '
        '\\"error\\" in the \\"usage\\""},"logprobs":null,"finish_reason":null}],"usage":null}',
    ),
    "chat, spaced": (
        CHAT,
        '{"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}], "usage": null}',
    ),
    "chat, second tool call": (
        CHAT,
        '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{"}}]},'
        '"finish_reason":null}]}',
    ),
    "chat, second tool call, spaced": (
        CHAT,
        '{"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {}}]}}]}',
    ),
    "responses": (
        RESPONSES,
        '{"type":"response.output_text.delta","sequence_number":5,"delta":"an \\"error\\"",'
        '"output_index":0,"content_index":0,"logprobs":[]}',
    ),
    "messages": (
        MESSAGES,
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\"usage\\""}}',
    ),
}


@pytest.mark.parametrize(("dialect", "body"), TYPICAL.values(), ids=TYPICAL)
def test_frames_that_only_carry_content_need_no_second_look(dialect, body):
    stream = dialect.open_stream()
    kind = json.loads(body).get("type", "")
    frame = (f"event: {kind}\n" if kind else "").encode() + f"data: {body}\n\n".encode()
    assert parse(frame)
    assert stream.look(frame) is Sight.OUTPUT
    assert stream.skim(frame) == 1
    assert stream.skim(frame * 300) == 300


# --- every mark that skimming searches for, on its own -------------------------------------------

TELLING = {
    "chat, [DONE]": (CHAT, b"data: [DONE]\n\n"),
    "chat, error": (CHAT, b'data: {"error" : "x"}\n\n'),
    "chat, finish": (CHAT, b'data: {"choices":[{"index":0,"finish_reason" :"stop"}]}\n\n'),
    "chat, finish, spaced": (CHAT, b'data: {"choices":[{"finish_reason": "stop"}]}\n\n'),
    "chat, usage": (CHAT, b'data: {"choices":[],"usage" : {"prompt_tokens":1}}\n\n'),
    "chat, second choice": (CHAT, b'data: {"choices":[{"index" : 1}]}\n\n'),
    "responses, completed": (RESPONSES, b'data: {"type":"response.completed"}\n\n'),
    "responses, incomplete": (RESPONSES, b'data: {"type":"response.incomplete"}\n\n'),
    "responses, failed": (RESPONSES, b'data: {"type":"response.failed"}\n\n'),
    "responses, error by type": (RESPONSES, b'data: {"type" : "error"}\n\n'),
    "responses, error by name": (RESPONSES, b"event: error\ndata: {}\n\n"),
    "responses, error by name, unspaced": (RESPONSES, b"event:error\ndata:{}\n\n"),
    "messages, stop": (MESSAGES, b"event: message_stop\ndata: {}\n\n"),
    "messages, delta": (MESSAGES, b'event: message_delta\ndata: {"usage":{}}\n\n'),
    "messages, error by type": (MESSAGES, b'data: {"type" : "error"}\n\n'),
    "messages, error by name": (MESSAGES, b"event: error\ndata: {}\n\n"),
    "messages, error by name, unspaced": (MESSAGES, b"event:error\ndata:{}\n\n"),
}


@pytest.mark.parametrize(("dialect", "frame"), TELLING.values(), ids=TELLING)
def test_frames_that_tell_something_are_found_among_others(dialect, frame):
    stream = dialect.open_stream()
    other = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    assert stream.skim(other * 2) == 2
    assert not stream.skim(other + frame + other)


NO_PROGRESS = {
    "comment": (DIALECTS, b": hb\n\n"),
    "blank line": (DIALECTS, b"\n"),
    "blank line, CR LF": (DIALECTS, b"\r\n"),
    "keepalive by name": ([RESPONSES], b"event: keepalive\ndata: {}\n\n"),
    "keepalive by name, unspaced": ([RESPONSES], b"event:keepalive\ndata:{}\n\n"),
    "keepalive by type": ([RESPONSES], b'data: {"type":"keepalive"}\n\n'),
    "ping by type": (DIALECTS, b'data: {"type":"ping"}\n\n'),
    "ping by name": (DIALECTS, b"event: ping\ndata: {}\n\n"),
    "ping by name, unspaced": (DIALECTS, b"event:ping\ndata:{}\n\n"),
}


@pytest.mark.parametrize(("dialects", "frame"), NO_PROGRESS.values(), ids=NO_PROGRESS)
def test_frames_that_are_no_progress_are_not_skimmed_over(dialects, frame):
    for dialect in dialects:
        assert dialect.open_stream().look(frame) is Sight.IDLE
        assert not dialect.open_stream().skim(frame)
