"""What tests of the Responses translator send and read."""

from __future__ import annotations

import json

from trio_sse_proxy.dialects.translate.chat_stream import ChatStream
from trio_sse_proxy.dialects.translate.profile import PRESETS
from trio_sse_proxy.dialects.translate.responses_request import translate_request
from trio_sse_proxy.dialects.translate.responses_stream import ToResponses

KEY = "0123456789abcdef01234567"
GENERIC = PRESETS["generic"]
DONE = b"data: [DONE]\n\n"

REASONING = {
    "reasoning": {"effort": "medium", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
}


def request(profile=GENERIC, **asked):
    return translate_request({"model": "m", "input": "hi", **asked}, profile)


def sent(profile=GENERIC, **asked):
    """The Chat request."""
    return request(profile, **asked).body


def messages(*items, profile=GENERIC, **asked):
    return sent(profile, input=list(items), **asked)["messages"]


def tool(name, **more):
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **more}


def fresh(back):
    """A translator that was given nothing yet."""
    return ChatStream(ToResponses(back, KEY, 7), inline_think=back.profile.inline_think)


def stream(profile=GENERIC, **asked):
    """A translator for such a request."""
    return fresh(request(profile, stream=True, **asked).back)


def chunk(delta=None, finish=None, **more):
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return frame({"id": "c1", "model": "up", "choices": choices, **more})


def frame(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def calling(arguments=None, *, index=0, **more):
    """A chunk with a piece of a call."""
    function = {key: more.pop(key) for key in ("name",) if key in more}
    if arguments is not None:
        function["arguments"] = arguments
    place = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**place, **more, "function": function}]})


def events(frames):
    """The JSON of each frame, whose name must agree with it."""
    found = []
    for one in frames.decode().removesuffix("\n\n").split("\n\n") if frames else ():
        name, data = one.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def told(translator, *frames):
    """All events that these frames come to."""
    return events(b"".join(map(translator.feed, frames)))


def kinds(found):
    return [event["type"].removeprefix("response.") for event in found]


def answer(*frames, profile=GENERIC, **asked):
    """The response in the last event of a stream."""
    return told(stream(profile, **asked), *frames)[-1]["response"]
