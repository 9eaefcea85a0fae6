"""The blocks of a message, as parts of a Chat message."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from ..wire import fields, items, text
from .history import image_part, text_part
from .refusals import unsupported

if TYPE_CHECKING:
    from .messages_dropped import Dropped
    from .profile import Profile

Json = dict[str, Any]

ERROR_PREFIX = "ERROR: "
"""Chat has no other way to say that a tool failed."""


def blocks_of(content: object) -> list[Json]:
    """The blocks of a content, which may be a string."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [fields(block) for block in items(content)]


def text_of_blocks(content: object, dropped: Dropped) -> list[str]:
    """The texts of a content that can be nothing but text; what is none is dropped."""
    texts: list[str] = []
    for block in blocks_of(content):
        if block.get("type") != "text":
            dropped.block(block)
        elif told := text(block.get("text")):
            texts.append(told)
    return texts


def part_of_block(block: Json, profile: Profile, dropped: Dropped) -> list[Json]:
    """A block of a user's message or of a tool's result; nothing if it has no counterpart.

    Raises Declined for what a model was to see and cannot be shown: files elsewhere.
    """
    match block.get("type"):
        case "text":
            told = text(block.get("text"))
            return [text_part(told)] if told else []
        case "image":
            return [image_part(_image_url(fields(block.get("source"))))]
        case "document":
            return _document(block, profile, dropped)
        case "search_result":
            texts = text_of_blocks(block.get("content"), dropped)
            return [text_part(_titled(block, "\n".join(texts)))]
        case "tool_reference":
            return [text_part(text(block.get("tool_name")))]
        case _:
            dropped.block(block)
            return []


def parts_of_result(block: Json, profile: Profile, dropped: Dropped) -> list[Json]:
    """What a tool gave back, marked if it is an error."""
    parts: list[Json] = []
    for inner in blocks_of(block.get("content")):
        parts += part_of_block(inner, profile, dropped)
    if block.get("is_error") is not True:
        return parts
    if parts and parts[0]["type"] == "text":
        return [text_part(ERROR_PREFIX + parts[0]["text"]), *parts[1:]]
    return [text_part(ERROR_PREFIX), *parts]


def _image_url(source: Json) -> str:
    match source.get("type"):
        case "base64":
            media = text(source.get("media_type")) or "image/png"
            return f"data:{media};base64,{text(source.get('data'))}"
        case "url":
            return text(source.get("url"))
        case other:
            raise unsupported(f"images by {other!r} cannot be fetched from here", "messages")


def _document(block: Json, profile: Profile, dropped: Dropped) -> list[Json]:
    source = fields(block.get("source"))
    media = text(source.get("media_type"))
    match source.get("type"):
        case "text":
            return [text_part(_titled(block, text(source.get("data"))))]
        case "content":
            parts: list[Json] = []
            for inner in blocks_of(source.get("content")):
                parts += part_of_block(inner, profile, dropped)
            title = _titled(block, "")
            return [text_part(title), *parts] if title else parts
        case "base64" if media.startswith("text/"):
            return [text_part(_titled(block, _decoded(text(source.get("data")))))]
        case "base64" if profile.files:
            name = text(block.get("title")) or "document.pdf"
            url = f"data:{media or 'application/pdf'};base64,{text(source.get('data'))}"
            return [{"type": "file", "file": {"filename": name, "file_data": url}}]
        case "base64":
            raise unsupported("this model takes no files, only texts and images", "messages")
        case other:
            raise unsupported(f"documents by {other!r} cannot be fetched from here", "messages")


def _titled(block: Json, told: str) -> str:
    """A text with what is known of where it is from, each on a line of its own."""
    places = (text(block.get(key)) for key in ("title", "source", "context"))
    return "\n".join(filter(None, (*places, told)))


def _decoded(data: str) -> str:
    try:
        return base64.b64decode("".join(data.split()), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError) as error:
        raise unsupported("a document's data is no base64", "messages") from error
