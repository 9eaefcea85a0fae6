"""Which dialect a request speaks, and the little of its body that decides how it is treated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from .chat import CHAT
from .messages import MESSAGES
from .responses import RESPONSES
from .wire import read

if TYPE_CHECKING:
    from .base import Dialect

_SUFFIXES: tuple[tuple[str, Dialect], ...] = (
    ("/chat/completions", CHAT),
    ("/responses", RESPONSES),
    ("/messages", MESSAGES),
)

# OpenAI's Assistants have a call that ends alike, and is no model call.
_THREAD = re.compile(r"/threads/[^/]+/messages$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peek:
    """What a request asks for. `model` is None where it names none."""

    stream: bool = False
    model: str | None = None
    background: bool = False


class _Request(msgspec.Struct):
    stream: Any = None
    model: Any = None
    background: Any = None


_REQUEST = msgspec.json.Decoder(_Request)


def recognise(method: str, path: str) -> Dialect | None:
    """The dialect of a call; None for whatever is to be passed through plainly.

    `path` is percent-decoded and without query. Vendors put all kinds of prefixes before the
    dialect's own last segments, so only these count, and exactly these: what stands below them
    (`…/messages/count_tokens`, `…/responses/{id}/cancel`) is another call.
    """
    if method != "POST":
        return None
    for suffix, dialect in _SUFFIXES:
        if path.endswith(suffix):
            return None if _THREAD.search(path) else dialect
    return None


def peek(body: bytes) -> Peek:
    """Read three fields of a request; what is no JSON object asks for nothing.

    Only `true` means streaming. The rest of the body is passed over without building it: a body of
    60 MiB takes some 20 ms.
    """
    request = read(_REQUEST, body)
    if request is None:
        return Peek()
    return Peek(
        stream=request.stream is True,
        model=request.model if isinstance(request.model, str) else None,
        background=request.background is True,
    )
