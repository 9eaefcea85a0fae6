"""What upstreams of the simulation say: every frame carries the tag of its attempt.

So a frame that is lost, doubled, or of another attempt shows, whatever it went through. Nothing here is
the package's: the simulation must not learn from it what is right.
"""

from __future__ import annotations

import json
import re
from functools import cache

BEATS = {
    "chat": b": hb\n\n",
    "responses": b": hb\n\n",
    "messages": b'event: ping\ndata: {"type":"ping"}\n\n',
}
BEAT_AFTER_ID = b": hb\n"
"""A line in front of the next frame, once a stream has had ids: strict clients take a blank line for an
event then."""
EVENT_BEATS = {
    "chat": (),
    "responses": (b"event: keepalive\n", b"event: response.in_progress\n"),
    "messages": (
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":null,',
    ),
}
"""How they begin; none of the upstreams here sends such."""
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
INPUT = 7
TAG = re.compile(rb"tag(\d+)x")
WORD = re.compile(r"tag(\d+)xw(\d+)\. ")


FRAME = re.compile(rb": hb\n(?!\n)|.+?(?:\r\n|\r(?!\n)|\n){2}|.+\Z", re.DOTALL)
ENDED = re.compile(rb"(?:\r\n|\r|\n){2}\Z|\A: hb\n\Z")
LINE_ENDS = {"crlf": b"\r\n", "cr": b"\r"}
"""What is written in place of each LF."""


def ask(dialect, number, *, stream, prompt) -> bytes:
    """A request's body; its prompt is so long."""
    asked = {"messages": [{"role": "user", "content": "?" * prompt}], "max_tokens": 9}
    if dialect == "responses":
        asked = {"input": "?" * prompt}
    return compact({"model": f"c{number}", "stream": stream} | asked).encode()


def beats_in(dialect, frames) -> tuple[list[bytes], int, int]:
    """The frames without heartbeats, and how many of those there were: of bytes, and of events."""
    beats, events = (BEATS[dialect], BEAT_AFTER_ID), EVENT_BEATS[dialect]
    left = [frame for frame in frames if frame not in beats]
    rest = [frame for frame in left if not (events and frame.startswith(events))]
    return rest, len(frames) - len(left), len(left) - len(rest)


def cut(body: bytes) -> list[bytes]:
    """A body's frames, each with its end as it came, and what is behind the last end."""
    if b"\r" in body or BEAT_AFTER_ID in body:
        frames = FRAME.findall(body)
        return frames if frames and not ENDED.search(frames[-1]) else [*frames, b""]
    frames = body.split(b"\n\n")
    return [frame + b"\n\n" for frame in frames[:-1]] + [frames[-1]]


def in_lf(data: bytes) -> bytes:
    """The same with all line ends as LF; that of a CRLF may be lost where a heartbeat came between."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def compact(value) -> str:
    return json.dumps(value, separators=(",", ":"))


def unnamed(value) -> bytes:
    return f"data: {compact(value)}\n\n".encode()


def named(kind: str, **more) -> bytes:
    return f"event: {kind}\ndata: {compact({'type': kind} | more)}\n\n".encode()


class Chat:
    terminator = b"data: [DONE]\n\n"

    def closing(self, tag):
        """What is said behind the last word, and is no ending yet."""
        return []

    def prelude(self, tag):
        return [self._chunk(tag, {"role": "assistant", "content": ""})]

    def word(self, tag, number, padding=""):
        return self._chunk(tag, {"content": f"{tag}w{number}. {padding}"})

    def ending(self, tag, words, usage):
        told = {"prompt_tokens": INPUT, "completion_tokens": words, "total_tokens": INPUT + words}
        head = {"id": tag, "object": "chat.completion.chunk", "choices": []}
        frames = [self._chunk(tag, {}, "stop")]
        return frames + ([unnamed(head | {"usage": told})] if usage else [])

    def error(self, tag, code):
        return [unnamed({"error": {"message": tag, "type": self._kind(code), "code": None}})]

    def error_body(self, tag, code):
        return compact({"error": {"message": tag, "type": self._kind(code), "code": None}})

    def whole(self, tag, words):
        message = {"role": "assistant", "content": f"{tag}w0. "}
        told = {"prompt_tokens": INPUT, "completion_tokens": words, "total_tokens": INPUT + words}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return compact({"id": tag, "object": "chat.completion", "choices": [choice], "usage": told})

    def spent(self, tag):
        """The body of a 429 that waiting does not mend."""
        kind = "insufficient_quota"
        return compact({"error": {"message": tag, "type": kind, "code": kind}})

    def _kind(self, code):
        return "invalid_request_error" if code == 400 else "server_error"

    def _chunk(self, tag, delta, finish=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return unnamed({"id": tag, "object": "chat.completion.chunk", "choices": [choice]})


class Responses(Chat):
    terminator = b""

    def prelude(self, tag):
        start = self._response(tag, "in_progress")
        item = {"id": tag, "type": "message", "role": "assistant", "content": []}
        return [
            named("response.created", sequence_number=0, response=start),
            named("response.output_item.added", sequence_number=1, output_index=0, item=item),
        ]

    def word(self, tag, number, padding=""):
        place = {"item_id": tag, "output_index": 0, "content_index": 0}
        told = {"delta": f"{tag}w{number}. {padding}"}
        return named("response.output_text.delta", sequence_number=number + 2, **place, **told)

    def ending(self, tag, words, usage):
        done = self._response(tag, "completed", words if usage else None)
        return [named("response.completed", sequence_number=words + 2, response=done)]

    def error(self, tag, code):
        told = {"type": self._kind(code), "code": self._kind(code), "message": tag}
        failed = self._response(tag, "failed") | {"error": told}
        return [
            named("error", sequence_number=90, error=told),
            named("response.failed", sequence_number=91, response=failed),
        ]

    def whole(self, tag, words):
        text = {"type": "output_text", "text": f"{tag}w0. ", "annotations": []}
        item = {"id": tag, "type": "message", "role": "assistant", "content": [text]}
        return compact(self._response(tag, "completed", words) | {"output": [item]})

    def _response(self, tag, status, words=None):
        told = {"input_tokens": INPUT, "output_tokens": words, "total_tokens": INPUT + (words or 0)}
        usage = told if words is not None else None
        return {"id": tag, "object": "response", "status": status, "output": [], "usage": usage}


class Messages(Chat):
    terminator = named("message_stop")

    def prelude(self, tag):
        message = self._message(tag, None)
        block = {"type": "text", "text": ""}
        return [
            named("message_start", message=message),
            named("content_block_start", index=0, content_block=block),
        ]

    def word(self, tag, number, padding=""):
        delta = {"type": "text_delta", "text": f"{tag}w{number}. {padding}"}
        return named("content_block_delta", index=0, delta=delta)

    def ending(self, tag, words, usage):
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        told = {"usage": {"output_tokens": words}} if usage else {}
        stop = named("content_block_stop", index=0)
        return [stop, named("message_delta", delta=delta, **told)]

    def error(self, tag, code):
        return [named("error", error=self._error(tag, code))]

    def error_body(self, tag, code):
        return compact({"type": "error", "error": self._error(tag, code)})

    def whole(self, tag, words):
        return compact(self._message(tag, words))

    def _error(self, tag, code):
        kind = "invalid_request_error" if code == 400 else "overloaded_error"
        return {"type": kind, "message": tag}

    def _message(self, tag, words):
        usage = {"input_tokens": INPUT, "output_tokens": words or 1}
        stop = {"stop_reason": "end_turn" if words else None, "stop_sequence": None}
        kind = {"type": "message", "role": "assistant", "model": "m", "content": []}
        return {"id": tag, "usage": usage} | kind | stop


class ChatCall(Chat):
    """Its words are in the arguments of a call, which are JSON as a whole."""

    def word(self, tag, number, padding=""):
        name = {} if number else {"name": f"{tag}w"}
        call = {"index": 0, "function": name | {"arguments": argument(tag, number, padding)}}
        return self._call(tag, call if number else {"id": tag, "type": "function"} | call)

    def closing(self, tag):
        return [self._call(tag, {"index": 0, "function": {"arguments": '"}'}})]

    def ending(self, tag, words, usage):
        return [self._chunk(tag, {}, "tool_calls"), *super().ending(tag, words, usage)[1:]]

    def _call(self, tag, call):
        return self._chunk(tag, {"tool_calls": [call]})


class ResponsesCall(Responses):
    def prelude(self, tag):
        item = {"id": tag, "type": "function_call", "call_id": tag, "name": "f", "arguments": ""}
        added = named("response.output_item.added", sequence_number=1, output_index=0, item=item)
        return [super().prelude(tag)[0], added]

    def word(self, tag, number, padding=""):
        return self._delta(tag, number + 2, argument(tag, number, padding))

    def closing(self, tag):
        return [self._delta(tag, 80, '"}')]

    def _delta(self, tag, number, text):
        told = {"item_id": tag, "output_index": 0, "delta": text}
        return named("response.function_call_arguments.delta", sequence_number=number, **told)


class MessagesCall(Messages):
    def prelude(self, tag):
        block = {"type": "tool_use", "id": tag, "name": f"{tag}w", "input": {}}
        begun = named("content_block_start", index=0, content_block=block)
        return [super().prelude(tag)[0], begun]

    def word(self, tag, number, padding=""):
        return self._delta(argument(tag, number, padding))

    def closing(self, tag):
        return [self._delta('"}')]

    def ending(self, tag, words, usage):
        frames = super().ending(tag, words, usage)
        return [frame.replace(b"end_turn", b"tool_use") for frame in frames]

    def _delta(self, text):
        delta = {"type": "input_json_delta", "partial_json": text}
        return named("content_block_delta", index=0, delta=delta)


def argument(tag, number, padding):
    return f"{'' if number else OPENED}{tag}w{number}. {padding}"


OPENED = '{"a":"'


class Formed:
    """The same, with every frame written in another form."""

    def __init__(self, plain, change) -> None:
        self._plain, self._change = plain, change
        self.terminator = change(plain.terminator)

    def word(self, *what):
        return self._change(self._plain.word(*what))

    def __getattr__(self, name):
        say = getattr(self._plain, name)
        if name not in FRAMES:
            return say
        return lambda *what: list(map(self._change, say(*what)))


FRAMES = {"prelude", "closing", "ending", "error"}


def in_lines(frame: bytes) -> bytes:
    """Its data in several lines, parted where JSON may be."""
    return frame.replace(b',"', b',\ndata: "')


def with_fields(frame: bytes) -> bytes:
    """With fields that no dialect has; "message" is how an event without a name is called."""
    name = b"" if frame.startswith(b"event: ") else b"event: message\n"
    return b"id: 7\nretry: 3000\n" + name + frame if frame else frame


def tightly(frame: bytes) -> bytes:
    """Without the space behind the colon of data."""
    return frame.replace(b"data: ", b"data:", 1)


FORMS = {"lines": in_lines, "fields": with_fields, "tight": tightly}
SPEECH = {"chat": Chat(), "responses": Responses(), "messages": Messages()}
CALLS = {"chat": ChatCall(), "responses": ResponsesCall(), "messages": MessagesCall()}


@cache
def speech(dialect: str, form: str = "", *, calls: bool = False):
    """How an upstream speaks that dialect."""
    plain = (CALLS if calls else SPEECH)[dialect]
    return Formed(plain, FORMS[form]) if form in FORMS else plain
