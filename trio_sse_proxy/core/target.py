"""Request targets: which are refused, and where they lead at the upstream.

A target is forwarded as the client wrote it or not at all: what one side normalises and the other does
not is how requests reach paths that nobody meant to open (RFC 3986, section 6).
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from .errors import BadRequest

_VERSION_SEGMENT = re.compile(rb"v\d+(?:(?:alpha|beta)\d*)?", re.IGNORECASE)
_PLAIN = re.compile(rb"(?:/[\w-][\w.:@~-]*)+")  # what nearly all paths look like: nothing to decode
_ILLEGAL = re.compile(rb"[\x00-\x20\x7f-\xff\\#]")


def check_path(raw_path: bytes) -> None:
    """Raise BadRequest unless this is an absolute path without dot segments, encoded or not."""
    if _PLAIN.fullmatch(raw_path):
        return
    if not raw_path.startswith(b"/"):
        raise BadRequest("the request target must be a path that begins with /")
    if _ILLEGAL.search(raw_path):
        raise BadRequest("the path holds a character that must be percent-encoded")
    decoded = unquote_to_bytes(raw_path).replace(b"\\", b"/")
    for segment in decoded.split(b"/"):
        if segment in {b".", b".."}:
            raise BadRequest("the path must not hold dot segments")
    if b"\x00" in decoded:
        raise BadRequest("the path must not hold a NUL byte")


def below_root(raw_path: bytes, root_path: str) -> bytes:
    """`raw_path` without the prefix an application is mounted under.

    The prefix is compared decoded and segment by segment, since ASGI gives it decoded and the path
    may spell it with percent-encoding. A path that does not begin with it comes back unchanged:
    some servers strip it themselves.
    """
    if not root_path:
        return raw_path
    prefix = [part for part in root_path.encode().split(b"/") if part]
    if not prefix:
        return raw_path
    parts = raw_path.split(b"/")[1:]
    if [unquote_to_bytes(part) for part in parts[: len(prefix)]] != prefix:
        return raw_path
    return b"/" + b"/".join(parts[len(prefix) :])


def join(base_path: bytes, path: bytes) -> bytes:
    """Where `path` leads below `base_path`.

    Clients send /v1/…; base addresses end in the vendor's own version segment as often as not. So a
    leading /v1 is dropped if the base path already has a version segment (/v1, /v1beta, /v4, …).
    """
    base, versioned = _base(base_path)
    if versioned and (path == b"/v1" or path.startswith(b"/v1/")):
        path = path[3:]
    return (base + path) or b"/"


@lru_cache(maxsize=64)  # there are as many as there are upstreams
def _base(base_path: bytes) -> tuple[bytes, bool]:
    """Without a slash at its end; and whether it has a version segment."""
    base = base_path.rstrip(b"/")
    return base, any(_VERSION_SEGMENT.fullmatch(part) for part in base.split(b"/"))
