"""A dialect's stream: skimming any cut must tell what looking at each frame tells."""

from __future__ import annotations

from trio_sse_proxy.core.failure import Cause, Failure
from trio_sse_proxy.core.sse import FrameScanner, has_id, parse, split_frames
from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES, Sight
from trio_sse_proxy.dialects.base import look_through

from ..drawn import Drawn, pieces, strict_json

DIALECTS = (CHAT, RESPONSES, MESSAGES)
LOST = Failure(cause=Cause.TRUNCATED, message="m")

_CHAT = (
    b'data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":'
    b'{"role":"assistant","content":""},"finish_reason":null}],"usage":null}\n\n'
    + b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    * 3
    + b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"\\"y\\\\"},'
    b'"finish_reason":null}]}\n\n'
    b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)
_RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":'
    b'{"id":"resp_1","status":"in_progress","output":[]}}\n\n'
    + b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"sequence_number":5,"delta":"x"}\n\n'
    + b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"sequence_number":6,"delta":"y"}\n\n'
    + b'event: response.completed\ndata: {"type":"response.completed","sequence_number":9,"response":'
    b'{"usage":{"input_tokens":1,"output_tokens":2}}}\n\n'
)
_MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m1","usage":'
    b'{"input_tokens":3,"output_tokens":1}}}\n\nevent: ping\ndata: {"type": "ping"}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":'
    b'{"type":"text","text":""}}\n\n'
    + b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    b'{"type":"text_delta","text":"x"}}\n\n'
    * 3
    + b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":5}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_PADDED = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"obfuscation":"abc"}\n\n'
_OTHERS = (
    b'data: {"choices":[{"index":1,"delta":{"content":"x"}}]}\n\n',
    b'data: {"error":{"message":"m","code":"slow_down"}}\n\n',
    b'event: error\ndata: {"type":"error","error":{"message":"m"}}\n\n',
    b'event: response.failed\ndata: {"type":"response.failed","response":{"error":{"code":"x"}}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{}}]}}]}\n\n',
    b": hb\n\n",
    b'event: keepalive\ndata: {"type":"keepalive","sequence_number":7}\n\n',
    _PADDED,
)
SEEDS = [b"\x00\x00" + _CHAT, b"\x01\x00" + _RESPONSES, b"\x02\x00" + _MESSAGES]
_CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
_HIDDEN = _CONTENT.replace(b'"x"', b'"x"}}],"error":{"m":1},"choices":[{"delta":{"content":"x"')
SEEDS += [bytes([1, n]) + _RESPONSES for n in range(1, 6)]
SEEDS += [bytes([2, n]) + _MESSAGES for n in range(1, 6)]
SEEDS += [
    b"\x01\x00"
    b'data: {"type":"response.output_item.added","sequence_number":4,"item":{"type":"message"}}\n\n'
]
SEEDS += [b"\x00\x05" + _CONTENT * 9 + _HIDDEN + _CONTENT, b"\x00\x06" + _CONTENT * 4 + _HIDDEN]
SEEDS += [b"\x00\x05" + _CHAT[:300] + _PADDED * 4 + other for other in _OTHERS]
WORDS = [
    *_OTHERS,
    b'"finish_reason"',
    b'"stop"',
    b'"error"',
    b'"usage"',
    b"[DONE]",
    b'"index"',
    b"null",
]
WORDS += [
    b"event: ",
    b"data: ",
    b"\n\n",
    b"\r\n\r\n",
    b"\r",
    b"\\",
    b'\\"',
    b"ping",
    b"keepalive",
    b"id: 1",
]
WORDS += [
    b'"obfuscation": "',
    b'"content":"',
    b'"text":"',
    b"message_stop",
    b"response.completed",
    b" ",
]
WORDS += [
    b'"sequence_number"',
    b"response.incomplete",
    b'"type"',
    b'"refusal"',
    b'"arguments":"',
    b"[]",
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    dialect, seed, stream = drawn.choice(DIALECTS), drawn.number(), drawn.rest()
    _however_it_is_cut(dialect, stream, seed)
    dialect.answer_usage(stream)


def _however_it_is_cut(dialect, stream, seed):
    looking, skimming = dialect.open_stream(), dialect.open_stream()
    looking.forwarded = skimming.forwarded = True
    output, had_id = False, False
    scanner = FrameScanner(2**20)
    every = (1, 1, 4, 30)[seed % 4]
    for number, chunk in enumerate(pieces(stream, seed)):
        if not (ready := scanner.cut(chunk)):
            continue
        must_look = not output or not skimming.skim(ready)
        seen = look_through(looking, ready)
        assert ready.startswith(seen.data)
        if must_look:
            assert look_through(skimming, ready) == seen
        output = output or seen.sight is Sight.OUTPUT
        if not must_look:
            assert seen.final is None, "skimmed over an ending"
            # A frame that is no event at all, such as a lone `retry`, may pass for progress; so may a
            # `[DONE]` where the dialect has none, and pings by the dozen or behind such a frame.
            events = [parse(frame) for frame in split_frames(ready)]
            told = len(ready) < 256 and all(event and _is_told(event.data) for event in events)
            assert seen.sight is not Sight.IDLE or not told, f"skimmed: {ready!r}"
            assert seen.data == ready
        # Whether skimmed frames had an id line is not kept for ever.
        had_id = had_id or has_id(ready)
        # Asking makes it look: much may be skimmed before.
        if seen.final or not number % every:
            _tell_the_same(dialect, looking, skimming, exact=not had_id)
        if seen.final:
            assert seen.final is not Sight.ERROR or looking.failure
            return
    _tell_the_same(dialect, looking, skimming, exact=not had_id)


def _data(frames):
    return [event.data for event in map(parse, split_frames(frames)) if event]


def _is_told(data):
    return data.strip() and not data.strip().startswith(b"[DONE]")


def _tell_the_same(dialect, looking, skimming, *, exact):
    for fact in ("finished", "usage", "failure", "awaits_failed"):
        assert getattr(looking, fact) == getattr(skimming, fact), fact
    for stream in (looking, skimming):
        assert stream.byte_heartbeat().startswith((b":", b"event: ping"))
        _ = stream.answer_id
    if looking.failure or (looking.finished and dialect is not CHAT):
        return  # nothing of ours follows an ending
    named = looking.answer_id == skimming.answer_id
    for agent in ("codex", "claude-cli/2", "openai"):
        told = looking.event_heartbeat(agent)
        if named:
            assert told == skimming.event_heartbeat(agent)
        _ours(told or b"")
    told = looking.error_frames(LOST)
    if named and exact:
        assert told == skimming.error_frames(LOST)
    reader = dialect.open_stream()
    for frame in split_frames(told):
        assert reader.look(frame) is Sight.ERROR
    _ours(told)


def _ours(frames):
    for data in _data(frames):
        strict_json(data)
