"""Secrets in settings: given as they are, or by the name of the place where they lie.

`env:NAME` is read from the environment and `file:PATH` from a file, once, when the settings are
made. What comes out is a `SecretStr`, which shows itself as asterisks wherever it is printed.
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import SecretStr

from .allowed import Allowed, Refused, members, proxy_url
from .allowed_in_tables import TOKEN, entries, with_placeholders
from .core.headers import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Mapping

environment: ContextVar[Mapping[str, str]] = ContextVar("environment", default=os.environ)
"""Where `env:NAME` is looked up. `config.load` sets it, since it is told its environment."""

MASK = "***"
"""What stands in the place of a secret wherever settings are shown."""

# What the transport sets itself, from what it really sends.
_NOT_TO_SET = HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding", b"expect"}

_KEY = "printable ASCII without spaces, env:NAME or file:PATH"


def key_or_none() -> Allowed:
    """One key that a header can carry, or None."""
    return Allowed(_KEY, lambda value: None if value is None else _key(value), hidden=True)


def keys() -> Allowed:
    """Any number of keys; in one text they are separated by commas."""
    return Allowed(
        f"a list of keys, each {_KEY}",
        lambda value: tuple(_key(item) for item in members(value)),
        hidden=True,
    )


def headers() -> Allowed:
    """A table of header fields to set: names in lower case, values kept as secrets."""
    return Allowed(
        "a table of header names and values (text, env:NAME or file:PATH), other than Host,"
        " Content-Length, Accept-Encoding, Expect and what ends at each hop",
        lambda value: dict(_header(*entry) for entry in entries(value).items()),
        hidden=True,
    )


def headers_with_placeholders() -> Allowed:
    """The same; the values may have placeholders."""
    plain = headers()

    def parse(value: object) -> dict[str, SecretStr]:
        fields = cast("dict[str, SecretStr]", plain.parse(value))
        for secret in fields.values():
            with_placeholders(secret.get_secret_value())
        return fields

    return Allowed(plain.words, parse, hidden=True)


def _header(name: str, value: object) -> tuple[str, SecretStr]:
    text = _resolve(value)
    if not re.fullmatch(TOKEN, name, re.ASCII) or name.lower().encode() in _NOT_TO_SET:
        raise ValueError
    if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", text):
        raise ValueError
    return name.lower(), SecretStr(text)


def proxy_or_none() -> Allowed:
    """An outbound proxy's URL, which may hold a password, or None."""
    return Allowed(
        "a URL such as http://host:3128 (http, https, socks5 or socks5h), env:NAME or file:PATH",
        lambda value: None if value is None else SecretStr(proxy_url(_resolve(value))),
        hidden=True,
    )


def _key(value: object) -> SecretStr:
    key = _resolve(value)
    # A header carries nothing else, and a space or a line end in a key is a slip in copying it.
    if not key or not all("!" <= letter <= "~" for letter in key):
        raise ValueError
    return SecretStr(key)


def _resolve(value: object) -> str:
    """The text that `value` is or refers to. Raises Refused in words that do not hold it."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise TypeError
    kind, _, place = text.partition(":")
    match kind:
        case "env":
            return _from_environment(place)
        case "file":
            return _from_file(place)
        case _:
            return text


def _from_environment(name: str) -> str:
    value = environment.get().get(name, "").strip()
    if not value:
        raise Refused(f"the environment variable {name or '(no name)'} is not set or empty")
    return value


def _from_file(place: str) -> str:
    try:
        value = Path(place).expanduser().read_text("utf-8").strip()
    except OSError as error:
        raise Refused(f"the file {place} cannot be read: {error.strerror}") from error
    if not value:
        raise Refused(f"the file {place} is empty")
    return value
