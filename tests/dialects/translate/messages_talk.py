"""Requests, upstream frames and readers for the tests of Messages on a Chat upstream."""

from __future__ import annotations

import json

from trio_sse_proxy.core.sse import parse, split_frames
from trio_sse_proxy.dialects.translate.chat_stream import ChatStream
from trio_sse_proxy.dialects.translate.messages_back import WayBack
from trio_sse_proxy.dialects.translate.messages_request import translate_request
from trio_sse_proxy.dialects.translate.messages_stream import ToMessages
from trio_sse_proxy.dialects.translate.profile import GENERIC
from trio_sse_proxy.dialects.translate.tools import ToolBook

KEY = "d0"
DONE = b"data: [DONE]\n\n"


def request(*messages, profile=GENERIC, model=None, **more):
    """The translated request with these messages; "hi" from the user where there are none."""
    said = list(messages) or [{"role": "user", "content": "hi"}]
    whole = {"model": "claude-x", "max_tokens": 100, "messages": said, **more}
    return translate_request(json.dumps(whole).encode(), profile, model=model)


def told(*messages, **more):
    """The Chat messages it becomes."""
    return request(*messages, **more).body["messages"]


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def text(told):
    return {"type": "text", "text": told}


def use(call_id="c1", name="Bash", **arguments):
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def result(call_id="c1", content="ok", **more):
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def image(data="iVBO"):
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return {"type": "image", "source": source}


def way_back(**more):
    return WayBack(**{"model": "claude-x", "stream": True, "book": ToolBook([]), **more})


def frame(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(delta=None, finish=None, **more):
    """A Chat chunk; `more` goes into the choice."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **more}
    return frame({"id": "c9", "object": "chat.completion.chunk", "choices": [choice]})


def counts(**usage):
    return frame({"id": "c9", "choices": [], "usage": usage})


def call(index=0, call_id=None, name=None, arguments=None, **more):
    """A delta with a piece of one call."""
    function = {"name": name, "arguments": arguments}
    function = {key: value for key, value in function.items() if value is not None}
    piece = {"index": index, "id": call_id, "function": function, **more}
    return {"tool_calls": [{key: value for key, value in piece.items() if value is not None}]}


def events(frames):
    """The events of a Messages stream, each checked to be named as its type says."""
    found = []
    for one in split_frames(frames):
        event = parse(one)
        assert event is not None
        data = json.loads(event.data)
        assert data["type"] == event.type
        found.append(data)
    return found


def fresh(back=None, key=KEY):
    """A translator that was given nothing yet."""
    back = back or way_back()
    return ChatStream(ToMessages(back, key), inline_think=back.inline_think)


def stream_of(*frames, end=True, back=None):
    """The translator that was fed with these, and all it gave."""
    stream = fresh(back)
    given = stream.opening
    for one in frames:
        given += stream.feed(one)
    if end:
        given += stream.end()
    if stream.failure:
        given += stream.fail(stream.failure)
    return stream, given


def blocks(frames):
    """The blocks a client puts together, and the event that stopped the message (None: none)."""
    content, stop = [], None
    for event in events(frames):
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(content)
                content.append({**event["content_block"], "_": ""})
            case "content_block_delta":
                delta = dict(event["delta"])
                kind = delta.pop("type")
                (piece,) = delta.values()
                if kind == "signature_delta":
                    content[-1]["signature"] += piece
                else:
                    content[-1]["_"] += piece
            case "message_delta":
                stop = event
            case _:
                pass
    return [_whole(block) for block in content], stop


def _whole(block):
    piece = block.pop("_")
    if block["type"] == "tool_use":
        return block | ({"input": piece} if piece else {})
    return block | {block["type"]: piece}
