"""Chat answers told in another dialect: whatever comes, however it is cut, a stream of the grammar."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace

import messages_grammar
import responses_grammar
import trio
from trio.testing import MockClock

from trio_sse_proxy.core.call import Call
from trio_sse_proxy.core.errors import UpstreamError
from trio_sse_proxy.core.failure import Refused
from trio_sse_proxy.core.sse import parse, split_frames
from trio_sse_proxy.dialects import MESSAGES, RESPONSES
from trio_sse_proxy.dialects.base import look_through
from trio_sse_proxy.dialects.translate.profile import GENERIC, PRESETS
from trio_sse_proxy.dialects.translate.ways import WAYS
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams.translated import Translated

from ..drawn import Drawn, strict_json, ways
from .streams import _CHAT as TEXT
from .streams import LOST

KEY = "k" * 24
DIALECTS = {"responses": RESPONSES, "messages": MESSAGES}
PROFILES = (
    GENERIC,
    *(PRESETS[name] for name in ("minimax", "vllm", "openrouter", "mistral")),
    replace(GENERIC, refusal_as_text=False, inline_think=True, length_as_completed=True),
)
_TOOLS = [{"type": "function", "name": "f"}, {"type": "custom", "name": "patch"}]
_TOOLS += [{"type": "tool_search", "execution": "client"}]
REQUESTS = {
    "responses": {
        "model": "m",
        "input": "hi",
        "stream": True,
        "tools": _TOOLS,
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    },
    "messages": {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "stop_sequences": ["END"],
    },
}
_CALLS = (
    b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function",'
    b'"function":{"name":"f","arguments":""}}]}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"ar'
    b'guments":"{\\"x\\""}}]}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","funct'
    b'ion":{"name":"patch",'
    b'"arguments":"{\\"input\\":\\"y\\"}"},"extra_content":{"google":1}}]}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"ar'
    b'guments":":1}"}}]}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,'
    b'"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}\n\ndata: [DONE]\n\n'
)
_THINK = (
    b'data: {"choices":[{"index":0,"delta":{"content":"<thi"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"nk>\\nhm</think>\\n\\nyes"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"refusal":"no","reasoning_details":[{"ty'
    b'pe":"reasoning.text",'
    b'"text":"a","index":0}]},"finish_reason":"length"}]}\n\n'
)
_WHOLE = (
    b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"'
    b'assistant","content":'
    b'[{"type":"thinking","thinking":[{"type":"text","text":"h"}]},{"type":"text","t'
    b'ext":"x"}],"tool_calls":'
    b'[{"id":"a","function":{"name":"f","arguments":{"x":1}}}]},"finish_reason":"stop"}],"usage":'
    b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
)
_NAMELESS = (
    b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}"}}]},'
    b'"finish_reason":"stop"}]}\n\n'
)
SEEDS = [
    bytes([way, n, 0]) + told
    for way in (0, 1)
    for n, told in enumerate((TEXT, _CALLS, _THINK, _WHOLE))
]
SEEDS += [bytes([way, 5, 3]) + told for way in (0, 1) for told in (_CALLS, _THINK)]
SEEDS += [b"\x00\x00\x00" + _NAMELESS, b"\x01\x00\x00" + _NAMELESS]
SEEDS += [bytes([2 + way, 1, 3]) + _WHOLE for way in (0, 1)]
WORDS = [
    b'"content":"x"',
    b'"tool_calls"',
    b'"function"',
    b'"arguments":"',
    b'"name":"f"',
    b'"id":"a"',
]
WORDS += [
    b'"index":1',
    b'"finish_reason":"stop"',
    b"length",
    b"content_filter",
    b"error",
    b"abort",
    b"[DONE]",
]
WORDS += [
    b"<think>",
    b"</think>",
    b'"reasoning"',
    b'"reasoning_details"',
    b'"extra_content"',
    b'"refusal"',
]
WORDS += [
    b'"usage"',
    b'"prompt_tokens"',
    b'"completion_tokens"',
    b"{}",
    b"data: ",
    b"\n\n",
    b"\r\n\r\n",
    b": c\n\n",
]
WORDS += [
    b'"message"',
    b'"function_call"',
    b"matched_stop",
    b"END",
    b"tool_search",
    b"patch",
    b"\\u2028",
    b"}",
]


class Came:
    """The answer of the upstream, and the upstream too."""

    name = "u"
    status = 200

    def __init__(self, chunks, *, events):
        self.headers = ((b"content-type", b"text/event-stream"),) if events else ()
        self._chunks = [*chunks[::-1]]

    @asynccontextmanager
    async def open(self, request, call):
        strict_json(request.body)
        yield self

    async def receive(self):
        await trio.lowlevel.checkpoint()
        return self._chunks.pop() if self._chunks else b""

    def release(self):
        raise AssertionError("nobody lets go of it here")


def run(data: bytes) -> None:
    drawn = Drawn(data)
    way, profile, seed = drawn.number(), drawn.choice(PROFILES), drawn.number()
    name, body = ("responses", "messages")[way % 2], drawn.rest()
    answers = [
        # No time passes: else a busy machine would see to a heartbeat in one of them.
        trio.run(_told, name, profile, Came(chunks, events=way < 2), clock=MockClock())
        for chunks in ways(body, seed)
    ]
    assert all(answer == answers[0] for answer in answers), "the cuts show"
    _read(name, *answers[0])
    translation = WAYS[name](_asked(name), profile, KEY, 1)
    try:
        strict_json(translation.whole(body))
    except Refused as refused:
        strict_json(translation.dialect.error_body(refused.failure))


def _asked(name):
    return json.dumps(REQUESTS[name]).encode()


async def _told(name, profile, upstream):
    """All that the relay gets, and the error in the end, if there is one."""
    translated = Translated(upstream, profile)
    request = UpstreamRequest(method="POST", target=b"/", headers=(), body=_asked(name))
    given, died = [], None
    async with translated.open(request, Call(id="1", stream_id="s", dialect=name)) as answer:
        assert answer.status == 200
        try:
            while piece := await answer.receive():
                given.append(piece)
        except UpstreamError as error:
            died = (type(error), str(error))
    return b"".join(given), died


def _read(name, given, died):
    """What a client reads; where it died the relay tells of it."""
    stream = DIALECTS[name].open_stream()
    stream.forwarded = True
    seen = look_through(stream, given)
    assert bool(died) == (seen.final is None), "neither an end nor a failure, or both"
    assert seen.data == given, "something follows the end"
    told = given + (stream.error_frames(LOST) if died else b"")
    events = [event for event in map(parse, split_frames(told)) if event]
    events = [strict_json(event.data) for event in events]
    if name == "messages":
        grammar = messages_grammar.read(events)
        assert grammar.failed or grammar.place == "after"
    else:
        if died:  # the relay repeats the response as it was told at first
            done = [event for event in events if event["type"] == "response.output_item.done"]
            done.sort(key=lambda event: event["output_index"])
            events[-1]["response"]["output"] = [event["item"] for event in done]
        responses_grammar.check(events)
