"""What one question brought. Read loosely: whoever is asked may be any server, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import headers as fields_of
from ..core.sse import parse, split_frames
from ..dialects.translate.chat_delta import calls_of, first_choice
from ..dialects.wire import fields, items, loads, text

Json = dict[str, Any]

REASONING = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thoughts")
"""Names under which servers are known to send what a model thinks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, as far as it came. `status` is None if there was none; then `problem` says why.

    `problem` may also say why a body is not whole. `left` means that we went away amid it.
    """

    status: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    problem: str = ""
    left: bool = False

    @property
    def good(self) -> bool:
        """It is an answer, and not an error."""
        return self.status == 200 and not self.problem and not self.error_message

    @property
    def streamed(self) -> bool:
        """It is an event stream."""
        return fields_of.is_event_stream(self.headers)

    @property
    def document(self) -> Json:
        """The body as a JSON object; empty where it is none."""
        return fields(loads(self.body))

    @property
    def events(self) -> list[Json]:
        """The JSON objects of its events."""
        found = [parse(frame) for frame in split_frames(self.body + b"\n\n")]
        documents = [loads(event.data) for event in found if event is not None]
        return [fields(one) for one in documents if isinstance(one, dict)]

    @property
    def finished(self) -> bool:
        """A Chat stream that came to its terminator."""
        return b"data: [DONE]" in self.body or b"data:[DONE]" in self.body

    @property
    def deltas(self) -> list[Json]:
        """What the chunks of a Chat stream add; the one message, where a completion came instead."""
        documents = self.events if self.streamed else [self.document]
        choices = [first_choice(one.get("choices")) for one in documents]
        return [fields(one.get("delta")) or fields(one.get("message")) for one in choices]

    @property
    def calls(self) -> list[Json]:
        """The pieces of tool calls."""
        return [call for delta in self.deltas for call in calls_of(delta)]

    @property
    def words(self) -> str:
        """The text."""
        return "".join(text(delta.get("content")) for delta in self.deltas)

    @property
    def reasoning_names(self) -> list[str]:
        """Under which names reasoning came."""
        return [name for name in REASONING if any(delta.get(name) for delta in self.deltas)]

    @property
    def usage(self) -> bool:
        """It told how many tokens were used."""
        documents = self.events if self.streamed else [self.document]
        choices = [first_choice(one.get("choices")) for one in documents]
        return any(fields(one.get("usage")) for one in (*documents, *choices))

    @property
    def error_message(self) -> str:
        """What an error says, on a stream too; "" where there is none."""
        if self.streamed:
            return next((_message(one) for one in self.events if one.get("error")), "")
        if self.status is not None and self.status < 400 and not self.document.get("error"):
            return ""
        return _message(self.document) or self.body[:300].decode("utf-8", "replace").strip()

    def told(self) -> str:
        """The outcome in a few words, for people."""
        if self.status is None:
            return self.problem
        said = self.error_message or self.problem
        return f"{self.status}: {_short(said)}" if said else str(self.status)


def _message(document: Json) -> str:
    error = document.get("error")
    if isinstance(error, str):
        return error
    found = text(fields(error).get("message")) or text(document.get("message"))
    detail = document.get("detail")
    if isinstance(detail, list):  # FastAPI's, which names the field
        told = [fields(one) for one in items(detail)]
        return "; ".join(f"{one.get('loc')}: {text(one.get('msg'))}" for one in told)
    return found or text(detail) or text(fields(error).get("type"))


def _short(said: str) -> str:
    line = " ".join(said.split())
    return line if len(line) <= 160 else f"{line[:157]}..."
