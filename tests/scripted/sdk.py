"""One question asked with the real SDKs, and everything that can be said of the answer."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import anthropic
import httpx2
import openai

from .calls import CALL, NAME, PARAMETERS
from .talk import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .server import ScriptedUpstream

PROMPT = [{"role": "user", "content": "Count."}]
FUNCTION = {"name": NAME, "parameters": PARAMETERS}
TOOLS: dict[str, Any] = {
    "chat": [{"type": "function", "function": FUNCTION}],
    "responses": [{"type": "function", "strict": False} | FUNCTION],
    "messages": [{"name": NAME, "input_schema": PARAMETERS}],
}
THREADS = 40  # more of them would wait for the interpreter, not for the server
TIMEOUT = 60.0  # seconds between bytes; a test that waits for it has failed


@dataclass(frozen=True, slots=True)
class Case:
    """One question: which scenarios, one per attempt, in which dialect, streamed or not."""

    scenarios: str
    dialect: str
    stream: bool

    def __str__(self) -> str:
        return f"{self.scenarios} {self.dialect} {'stream' if self.stream else 'json'}"


@dataclass(slots=True)
class Heard:
    """`starts` counts the preludes, `ids` the different answers the client believes
    it had, `attempts` the requests the upstream got (set by `ask_all`).

    `calls` is what it has of calls of tools, closed by a bracket where it takes them for whole.
    `told` is what the client learned of a failure: the SDK's exception, or a failure event it was
    handed. A whole answer has the text once, one start, one finish and nothing told.
    """

    text: str = ""
    calls: str = ""
    starts: int = 0
    finishes: int = 0
    ids: set[str] = field(default_factory=set)
    usage: bool = False
    told: Exception | None = None
    attempts: int = 0
    seconds: float = 0.0

    @property
    def status(self) -> int | None:
        """The HTTP status of the SDK's exception; None where it speaks of the stream."""
        return getattr(self.told, "status_code", None)

    @property
    def whole(self) -> bool:
        rest = (self.starts, self.finishes, len(self.ids), self.usage, self.told)
        right = self.text == TEXT and self.calls in ("", CALL)
        return right and rest == (1, 1, 1, True, None)

    @property
    def honest_part(self) -> bool:
        """A failure told as one, after no more than the right beginning of the text."""
        told = isinstance(self.told, TOLD) and CALL[:-1].startswith(self.calls)
        return told and TEXT.startswith(self.text) and self.starts <= 1 and self.finishes == 0


class FailedEvent(Exception):
    """A failure that the SDK hands over as an event like any other."""


class Sdks:
    """The SDKs' clients for one server. Any number of threads may `ask` at a time."""

    def __init__(self, url: str) -> None:
        key = {"api_key": "sk-scripted", "max_retries": 0, "timeout": TIMEOUT}
        self._openai = openai.OpenAI(base_url=f"{url}/v1", **key)
        self._anthropic = anthropic.Anthropic(base_url=url, **key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._openai.close()
        self._anthropic.close()

    def ask(self, dialect: str, model: str, *, stream: bool) -> Heard:
        """Put one question; what the SDK raises is part of the answer."""
        heard, began = Heard(), time.monotonic()
        asking = {"chat": self._chat, "responses": self._responses, "messages": self._messages}
        try:
            asking[dialect](model, stream, heard)
        except Exception as error:
            heard.told = error
        heard.seconds = time.monotonic() - began
        return heard

    def ask_all(self, upstream: ScriptedUpstream, cases: Iterable[Case]) -> dict[Case, Heard]:
        """Put many questions at once, each under a model name of its own."""

        def put(case: Case) -> Heard:
            model = upstream.model(case.scenarios)
            heard = self.ask(case.dialect, model, stream=case.stream)
            heard.attempts = len(upstream.visits(model))
            return heard

        with ThreadPoolExecutor(THREADS) as pool:
            cases = list(cases)
            return dict(zip(cases, pool.map(put, cases), strict=True))

    def leave(self, dialect: str, model: str) -> float:
        """Ask for a stream and close it amid the text; a reading of `time.monotonic` just before."""
        asked: dict[str, Any] = {"model": model, "stream": True}
        match dialect:
            case "chat":
                stream = self._openai.chat.completions.create(messages=PROMPT, **asked)
            case "responses":
                stream = self._openai.responses.create(input="Count.", **asked)
            case _:
                stream = self._anthropic.messages.create(messages=PROMPT, max_tokens=9, **asked)
        with stream:
            for event in stream:
                if "tok0 " in event.to_json():
                    return time.monotonic()
        raise AssertionError("it ended before there was any text")

    def _chat(self, model: str, stream: bool, heard: Heard) -> None:
        create = self._openai.chat.completions.create
        if not stream:
            answer = create(model=model, messages=PROMPT, tools=TOOLS["chat"])
            message = answer.choices[0].message
            take_answer(heard, answer.id, message.content, answer.usage)
            for call in message.tool_calls or ():
                heard.calls += f"{call.function.name}({call.function.arguments})"
            return
        for chunk in create(model=model, messages=PROMPT, tools=TOOLS["chat"], stream=True):
            heard.ids.add(chunk.id)
            heard.usage |= chunk.usage is not None
            for choice in chunk.choices:
                heard.starts += choice.delta.role is not None
                heard.text += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    heard.calls += f"{call.function.name}(" if call.function.name else ""
                    heard.calls += call.function.arguments or ""
                heard.finishes += choice.finish_reason is not None
                heard.calls += ")" if choice.finish_reason == "tool_calls" else ""

    def _responses(self, model: str, stream: bool, heard: Heard) -> None:
        create = self._openai.responses.create
        if not stream:
            answer = create(model=model, input="Count.", tools=TOOLS["responses"])
            take_answer(heard, answer.id, answer.output_text, answer.usage)
            for item in answer.output:
                if item.type == "function_call":
                    heard.calls += f"{item.name}({item.arguments})"
            return
        for event in create(model=model, input="Count.", tools=TOOLS["responses"], stream=True):
            match event.type:
                case "response.created":
                    heard.starts += 1
                    heard.ids.add(event.response.id)
                case "response.output_text.delta":
                    heard.text += event.delta
                case "response.output_item.added" if event.item.type == "function_call":
                    heard.calls += f"{event.item.name}("
                case "response.function_call_arguments.delta":
                    heard.calls += event.delta
                case "response.output_item.done" if event.item.type == "function_call":
                    heard.calls += ")"
                case "response.completed":
                    heard.finishes += 1
                    heard.ids.add(event.response.id)
                    heard.usage |= event.response.usage is not None
                case "error" | "response.failed":
                    raise FailedEvent(event)

    def _messages(self, model: str, stream: bool, heard: Heard) -> None:
        create = self._anthropic.messages.create
        asked = {"model": model, "messages": PROMPT, "max_tokens": 99, "tools": TOOLS["messages"]}
        if not stream:
            answer = create(**asked)
            take_answer(heard, answer.id, answer.content[0].text, answer.usage)
            for block in answer.content[1:]:
                heard.calls += f"{block.name}({json.dumps(block.input, separators=(',', ':'))})"
            return
        calling = False
        for event in create(**asked, stream=True):
            match event.type:
                case "message_start":
                    heard.starts += 1
                    heard.ids.add(event.message.id)
                case "content_block_start" if calling := event.content_block.type == "tool_use":
                    heard.calls += f"{event.content_block.name}("
                case "content_block_delta" if calling:
                    heard.calls += event.delta.partial_json
                case "content_block_delta":
                    heard.text += event.delta.text
                case "content_block_stop" if calling:
                    heard.calls += ")"
                case "message_delta":
                    heard.usage |= event.usage is not None
                case "message_stop":
                    heard.finishes += 1


def take_answer(heard: Heard, name: str, text: str | None, usage: Any) -> None:
    heard.text, heard.ids, heard.usage = text or "", {name}, usage is not None
    heard.starts = heard.finishes = 1


# What a client takes for a failure of the server; all else (a JSON error, say) is a client
# broken by what it was sent. anthropic lets transport errors amid a body through as they are.
TOLD = (openai.APIError, anthropic.APIError, httpx2.TransportError, FailedEvent)
