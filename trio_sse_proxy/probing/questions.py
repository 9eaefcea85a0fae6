"""What is asked of a server, and in which order.

Cheap questions come first, and what one answer tells is heeded in the next: a field that was refused
is not sent again. Each question sets a limit on the tokens of its answer.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio

from ..core import headers as fields_of
from ..core.errors import ProxyError
from ..dialects.translate.profile import EmptyContent
from ..dialects.wire import fields, items, loads, text
from .findings import is_mistrals_complaint

if TYPE_CHECKING:
    from .asker import Asker
    from .findings import Findings
    from .reply import Json, Reply

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"

FEW, SOME, MANY = 16, 64, 512
"""Tokens: 16 is the least that OpenAI takes on Responses; a call of two tools needs more; a long answer
is left at its first token, if the server notices."""

CALLING = 256

_OPTIONAL = ("stream_options", "max_tokens", "tool_choice", "parallel_tool_calls")
"""Fields that some servers refuse, and that we can do without."""

_REFUSALS = (400, 422)
_NO_MODEL_FOR_CHAT = re.compile(r"embed|whisper|tts|rerank|moderation|dall-e|image|audio", re.I)
_RUNNING = re.compile(
    rb"^(vllm:num_requests_running|sglang:num_running_reqs|llamacpp:requests_processing)"
    rb"(?:\{[^}\n]*\})?[ \t]+(\S+)",
    re.MULTILINE,
)
_FALL = (0.25, 0.75, 1.0, 3.0)  # seconds between two looks at what runs


class Unasked(ProxyError):
    """The server could not be asked: says why, in words for people."""


@dataclass(slots=True)
class Interview:
    """One server being asked. `run` fills in the findings, and raises Unasked."""

    asker: Asker
    found: Findings

    async def run(self) -> None:
        """Ask everything that the bounds allow."""
        self.asker.begin()
        await self._models()
        if await self._hello():
            await self._usage()
            await self._developer()
            await self._effort()
            await self._tools()
            await self._history()
            await self._images()
            await self._error()
        await self._responses()
        await self._messages()
        if self.found.dialects["chat"]:
            await self._leaving()
        if not self.found.spoken:
            told = "; ".join(f"{name}: {said}" for name, said in self.found.reasons.items())
            raise Unasked(f"it speaks none of the three dialects ({told})")

    async def _models(self) -> None:
        found = self.found
        reply = await self.asker.get("/v1/models", "which models it has")
        listed = [fields(one) for one in items(reply.document.get("data"))]
        names = [text(one.get("id")) for one in listed if text(one.get("id"))]
        found.models = len(names)
        found.owners = {text(one.get("owned_by")) for one in listed} - {""}
        found.server = (fields_of.get(reply.headers, b"server") or b"").decode("latin-1")
        if not found.model:
            _may_go_on(reply)
            talkative = [name for name in names if not _NO_MODEL_FOR_CHAT.search(name)]
            if not (talkative or names):
                raise Unasked(
                    f"it tells no models ({reply.told()}): name one with --model, and see whether"
                    " the address is right"
                )
            found.model = (talkative or names)[0]

    async def _hello(self) -> bool:
        """Does it speak Chat at all? If so, what a plain stream tells."""
        found = self.found
        body = self._body("Say OK.", SOME, stream=True, stream_options={"include_usage": True})
        reply = await self._chat(body, "a stream, with usage", SOME)
        _may_go_on(reply)
        if reply.status is None:
            raise Unasked(reply.told())
        speaks = reply.good and bool(reply.deltas) and any(reply.deltas)
        # A refusal of what every server takes says nothing about the dialect.
        unclear = reply.status not in (200, 404, 405)
        found.dialects["chat"] = True if speaks else None if unclear else False
        if not speaks:
            found.reasons["chat"] = _why_not(reply)
            return False
        found.terminated = reply.finished if reply.streamed else None
        found.usage_asked = reply.usage
        self._heed_reasoning(reply)
        if not reply.streamed:
            found.reasons["stream"] = "it answered a streaming request with JSON"
        return True

    async def _usage(self) -> None:
        if "stream_options" in self.found.refused:
            self.found.usage_unasked = self.found.usage_asked
            return
        body = self._body("Say OK.", FEW, stream=True)
        reply = await self._chat(body, "whether it tells usage unasked", FEW)
        self.found.usage_unasked = reply.usage if reply.good else None

    async def _developer(self) -> None:
        body = self._body("Say OK.", FEW)
        body["messages"].insert(0, {"role": "developer", "content": "Be brief."})
        reply = await self._chat(body, "whether it takes the role developer", FEW)
        self.found.developer = _accepted(reply)

    async def _effort(self) -> None:
        body = self._body("Say OK.", FEW) | {"reasoning_effort": "low"}
        reply = await self._chat(body, "whether it takes reasoning_effort", FEW)
        self.found.effort = _accepted(reply)
        self._heed_reasoning(reply)

    async def _tools(self) -> None:
        found = self.found
        asked = "What is the weather in Paris and in Rome? Call the tool for both at once."
        body = self._body(asked, CALLING, stream=True) | {
            "tools": [_TOOL],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
        }
        reply = await self._chat(body, "tools, several at a time", CALLING)
        if not reply.good:
            found.tools = False if reply.status is not None else None
            found.reasons["tools"] = reply.told()
            return
        self._heed_reasoning(reply)
        calls = reply.calls
        named = [call for call in calls if text(fields(call.get("function")).get("name"))]
        found.tools, found.calls, found.pieces = bool(calls), len(named), len(calls)
        found.call_ids = [text(call.get("id")) for call in calls if text(call.get("id"))]

    async def _history(self) -> None:
        """An earlier turn that only called, as agents send it, without any reasoning."""
        found = self.found
        if found.tools is False and "tools" in found.reasons:
            return
        for content in EmptyContent:
            reply = await self._chat(
                self._past(content, found.short_ids), "an earlier call and its result", FEW
            )
            found.history = _accepted(reply)
            if found.history is not False:
                found.empty_content = content
                return
            said = reply.error_message.lower()
            found.reasons["history"] = reply.told()
            if "reasoning" in said or "thinking" in said:
                found.echo_needed = True
                return
            if is_mistrals_complaint(said) and not found.short_ids:
                found.short_ids = True
                reply = await self._chat(self._past(content, True), "the same, with short ids", FEW)
                found.history = _accepted(reply)
                found.short_ids = found.history is True
                return
            if "content" not in said:
                return

    async def _images(self) -> None:
        body = self._body("Which colour is this?", FEW)
        body["messages"][0]["content"] = [
            {"type": "text", "text": "Which colour is this?"},
            {"type": "image_url", "image_url": {"url": _red_square()}},
        ]
        reply = await self._chat(body, "an image of 32 by 32 points", FEW)
        # llama.cpp answers 500 where it has no eyes.
        self.found.images = False if reply.status in (404, 415, 500, 501) else _accepted(reply)
        if not reply.good:
            self.found.reasons["images"] = reply.told()

    async def _error(self) -> None:
        body = self._body("Say OK.", FEW) | {"model": "no-such-model-of-trio-sse-proxy"}
        reply = await self._chat(body, "what an unknown model brings", FEW)
        if reply.good:
            self.found.error = "none: it answers whatever model is named"
        elif fields(reply.document.get("error")):
            keys = ", ".join(fields(reply.document["error"]))
            self.found.error = f"{reply.told()} (JSON: error with {keys})"
        else:
            kind = "JSON of another shape" if reply.document else "no JSON"
            self.found.error = f"{reply.told()} ({kind})"

    async def _responses(self) -> None:
        found = self.found
        body = {"model": found.model, "input": "Say OK.", "stream": True}
        body |= {"max_output_tokens": FEW}
        reply = await self.asker.post(RESPONSES, body, "whether it speaks Responses", tokens=FEW)
        told = any(text(one.get("type")).startswith("response.") for one in reply.events)
        self._speaks("responses", reply, told or reply.document.get("object") == "response")
        if not self._wants_more("responses", "openai.com"):
            return
        reply = await self.asker.post(
            RESPONSES, _as_codex(found.model), "the same, as Codex asks", tokens=CALLING
        )
        items_of = [fields(one.get("item")) for one in reply.events]
        ended = any(one.get("type") == "response.completed" for one in reply.events)
        called = any(item.get("type") == "custom_tool_call" for item in items_of)
        if reply.good and ended and not called:
            found.in_part["responses"] = "custom tools, like Codex's apply_patch, are not called"
        self._heed_refusal("responses", reply)

    async def _messages(self) -> None:
        body: Json = {"model": self.found.model, "max_tokens": FEW, "stream": True}
        body["messages"] = [{"role": "user", "content": "Say OK."}]
        reply = await self.asker.post(MESSAGES, body, "whether it speaks Messages", tokens=FEW)
        told = any(one.get("type") == "message_start" for one in reply.events)
        self._speaks("messages", reply, told or reply.document.get("type") == "message")
        if self._wants_more("messages", "anthropic.com"):
            asked = _as_claude_code(self.found.model)
            why = "the same, as Claude Code asks"
            self._heed_refusal("messages", await self.asker.post(MESSAGES, asked, why, tokens=FEW))

    def _wants_more(self, dialect: str, vendor: str) -> bool:
        """Is it worth a question more? Not of whose dialect it is, nor where there is no choice."""
        host = urlsplit(self.found.base_url).hostname or ""
        others = f".{host}".endswith(f".{vendor}")
        return bool(self.found.dialects[dialect] and self.found.dialects["chat"]) and not others

    def _heed_refusal(self, dialect: str, reply: Reply) -> None:
        if reply.status is not None and not reply.good:
            self.found.in_part[dialect] = reply.told()

    def _speaks(self, dialect: str, reply: Reply, told: bool) -> None:
        self.found.dialects[dialect] = told and reply.status == 200
        if not self.found.dialects[dialect]:
            self.found.reasons[dialect] = _why_not(reply)

    async def _leaving(self) -> None:
        """Does its work end when we leave? Its own count of what runs may tell."""
        found = self.found
        before = await self._running("what runs, before")
        if before is None:
            return
        seen: list[int | None] = []

        async def look() -> None:
            seen.append(await self._running("what runs, while it answers us"))

        body = self._body("Count from 1 to 500, in words.", MANY, stream=True)
        reply = await self.asker.post(
            CHAT,
            self._adapted(body),
            "a long answer, left at its beginning",
            tokens=MANY,
            until=_has_output,
            amid=look,
        )
        if not reply.left or not seen or seen[0] is None or seen[0] <= before:
            found.abort_words = "its count of running requests did not show ours"
            return
        waited = 0.0
        for pause in _FALL:
            await trio.sleep(pause)
            waited += pause
            now = await self._running("what runs, after we left")
            if now is not None and now <= before:
                found.abort = True
                found.abort_words = f"its count of running requests fell within {waited:g} s"
                return
        found.abort = False
        found.abort_words = f"its count of running requests did not fall within {waited:g} s"

    async def _running(self, why: str) -> int | None:
        if self.found.metrics != "slots":
            reply = await self.asker.get("/metrics", why, root=True)
            counted = _RUNNING.findall(reply.body) if reply.status == 200 else []
            if counted:
                self.found.metrics = counted[0][0].decode().partition(":")[0] + ":"
                return sum(int(float(value)) for _, value in counted)
        if self.found.metrics in ("", "slots"):
            reply = await self.asker.get("/slots", why, root=True)
            slots = items(loads(reply.body)) if reply.status == 200 else []
            if slots:
                self.found.metrics = "slots"
                return sum(fields(slot).get("is_processing") is True for slot in slots)
        return None

    def _heed_reasoning(self, reply: Reply) -> None:
        found = self.found
        found.reasoning = list(dict.fromkeys([*found.reasoning, *reply.reasoning_names]))
        found.inline_think = found.inline_think or reply.words.lstrip().startswith("<think>")

    def _body(self, words: str, tokens: int, **more: Any) -> Json:
        messages = [{"role": "user", "content": words}]
        return {"model": self.found.model, "messages": messages, "max_tokens": tokens, **more}

    def _past(self, content: EmptyContent, short: bool) -> Json:
        called: Json = {"id": "Pr0be1234" if short else "call_probe_0123456789", "type": "function"}
        called["function"] = {"name": "get_weather", "arguments": _ARGUMENTS}
        turn: Json = {"role": "assistant", "tool_calls": [called]}
        if content is not EmptyContent.OMIT:
            turn["content"] = "" if content is EmptyContent.EMPTY else None
        body = self._body("What is the weather in Paris?", FEW) | {"tools": [_TOOL]}
        result = {"role": "tool", "tool_call_id": called["id"], "content": "Sunny."}
        body["messages"] += [turn, result]
        return body

    def _adapted(self, body: Json) -> Json:
        for refused in self.found.refused:
            body = _without(body, refused)
        return body

    async def _chat(self, body: Json, why: str, tokens: int) -> Reply:
        """Ask; and if that is refused, again without what may be to blame, which is then known."""
        body = self._adapted(body)
        first = reply = await self.asker.post(CHAT, body, why, tokens=tokens)
        blamed: dict[str, str] = {}
        while reply.status in _REFUSALS and (named := _named(body, reply.error_message)):
            blamed[named] = reply.told()
            body = _without(body, named)
            reply = await self.asker.post(CHAT, body, f"{why}, without {named}", tokens=tokens)
        if reply.status in _REFUSALS and not blamed:
            for suspect in (name for name in _OPTIONAL if name in body):
                other = _without(body, suspect)
                reply = await self.asker.post(
                    CHAT, other, f"{why}, without {suspect}", tokens=tokens
                )
                if reply.good:
                    blamed[suspect] = first.told()
                    break
        if not reply.good:
            return first
        self.found.refused |= blamed
        return reply


_ARGUMENTS = json.dumps({"city": "Paris"})
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def _as_codex(model: str) -> Json:
    """The second turn of a task, with a tool that takes free text and must be called again."""
    called: Json = {"type": "custom_tool_call", "call_id": "call_probe_0", "name": "note"}
    tool = {"type": "custom", "name": "note", "description": "Notes a text."}
    return {
        "model": model,
        "input": [
            {"role": "developer", "content": "Take notes with the tool.", "type": "message"},
            {"role": "user", "content": "Note that the sun shines.", "type": "message"},
            called | {"input": "The sun shines."},
            {"type": "custom_tool_call_output", "call_id": "call_probe_0", "output": "Noted."},
            {"role": "user", "content": "Note that it rains.", "type": "message"},
        ],
        "tools": [tool],
        "tool_choice": "required",
        "store": False,
        "stream": True,
        "max_output_tokens": CALLING,
    }


def _as_claude_code(model: str) -> Json:
    """The second turn of a task, with a word of the system between the messages."""
    called: Json = {"type": "tool_use", "id": "toolu_probe_0", "name": "note"}
    result = {"type": "tool_result", "tool_use_id": "toolu_probe_0", "content": "Noted."}
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    cached = {"cache_control": {"type": "ephemeral"}}
    return {
        "model": model,
        "max_tokens": FEW,
        "stream": True,
        "system": [{"type": "text", "text": "Take notes with the tool.", **cached}],
        "tools": [{"name": "note", "description": "Notes a text.", "input_schema": schema}],
        "messages": [
            {"role": "user", "content": "Note that the sun shines."},
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": [called | {"input": {"text": "The sun shines."}}]},
            {"role": "user", "content": [result, {"type": "text", "text": "Go on."}]},
        ],
    }


def _may_go_on(reply: Reply) -> None:
    """Raises Unasked where no other question could fare better."""
    match reply.status:
        case None:
            raise Unasked(reply.told())
        case 401 | 403:
            raise Unasked(f"it wants a key, or another one (--api-key): {reply.told()}")
        case 402 | 429:
            raise Unasked(f"it answers nobody's questions just now: {reply.told()}")
        case _:
            pass


def _accepted(reply: Reply) -> bool | None:
    if reply.good:
        return True
    return False if reply.status in _REFUSALS else None


def _why_not(reply: Reply) -> str:
    if reply.status == 200 and not reply.error_message:
        return reply.problem or "200, but with something else"
    return reply.told()


def _named(body: Json, said: str) -> str:
    """The field of `body` that an error names, of those that can be left out."""
    return next((name for name in _OPTIONAL if name in body and name in said), "")


def _without(body: Json, name: str) -> Json:
    rest = {key: value for key, value in body.items() if key != name}
    if name == "max_tokens" and name in body:
        rest["max_completion_tokens"] = body[name]
    return rest


def _has_output(body: bytes) -> bool:
    return re.search(rb'"(?:content|reasoning\w*|thinking)"\s*:\s*"[^"]', body) is not None


def _red_square(size: int = 32) -> str:
    """A PNG as a data URL: the smallest that picky servers take has 28 points a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    rows = (b"\0" + b"\xff\0\0" * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{b64encode(png).decode()}"
