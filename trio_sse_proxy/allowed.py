"""What a setting may be, in words and in code, the same for flags, environment, file and Python.

Every value passes here, since the usual parsers are too kind for us: `nan` is a float to click and
to pydantic, and a comparison with it is false for ever. The words end up in the error message and
in the reference page, so that these two and the code cannot disagree.
"""

from __future__ import annotations

import json
import re
import ssl
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, urlsplit

from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import GetCoreSchemaHandler


class Refused(ValueError):
    """A value that fits the words of its rule and is refused all the same: says why."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """One rule, put into a field's annotation.

    `parse` returns the value to keep, or raises ValueError or TypeError. A `hidden` value is a
    secret: no message shows it.
    """

    words: str
    parse: Callable[[object], object]
    hidden: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_quiet(self.parse), handler(source))


def _quiet(parse: Callable[[object], object]) -> Callable[[object], object]:
    """pydantic takes a ValueError for a refusal and lets everything else through.

    Beside a TypeError there is a whole number too large for a float (OverflowError), JSON nested too
    deeply (RecursionError), and the home of a user who has none (RuntimeError).
    """

    def parse_or_refuse(value: object) -> object:
        try:
            return parse(value)
        except (TypeError, OverflowError, RuntimeError) as error:
            raise ValueError(str(error)) from error

    return parse_or_refuse


def number(value: object) -> float:
    """A finite number, also from text. True is no number here."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    result = float(value)
    if not isfinite(result):
        raise ValueError
    return result


def whole(value: object) -> int:
    """A whole number of at most 18 digits, also from text.

    Python has longer ones, which it can neither compare with the clock nor always print.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    result = int(value)
    if abs(result) >= 10**18:
        raise ValueError
    return result


def seconds(*, zero: str = "off", least: float = 0.0) -> Allowed:
    """A duration: 0, which means `zero`, or at least `least` seconds."""

    def parse(value: object) -> float:
        result = number(value)
        if result < 0 or 0 < result < least:
            raise ValueError
        return result

    words = f"at least {least:g} second" if least else "more seconds"
    return Allowed(f"0 ({zero}) or {words}", parse)


def seconds_or_none(words: str) -> Allowed:
    """A duration of 0 or more, or None."""
    return Allowed(words, lambda value: None if value is None else seconds().parse(value))


def seconds_above_zero() -> Allowed:
    """A duration that cannot be switched off."""
    return Allowed("more than 0 seconds", _above_zero)


def weight() -> Allowed:
    """How much of something, compared with others."""
    return Allowed("a number above 0", _above_zero)


def _above_zero(value: object) -> float:
    result = number(value)
    if result <= 0:
        raise ValueError
    return result


def seconds_up_to(most: float) -> Allowed:
    """A duration above 0 and not above `most`."""

    def parse(value: object) -> float:
        result = number(value)
        if not 0 < result <= most:
            raise ValueError
        return result

    return Allowed(f"more than 0 and at most {most:g} seconds", parse)


def share() -> Allowed:
    """A part of a whole."""

    def parse(value: object) -> float:
        result = number(value)
        if not 0 <= result <= 1:
            raise ValueError
        return result

    return Allowed("a number from 0 to 1", parse)


def count(*, least: int = 0, zero: str = "") -> Allowed:
    """A whole number."""

    def parse(value: object) -> int:
        result = whole(value)
        if result < least:
            raise ValueError
        return result

    return Allowed(f"0 ({zero}) or more" if zero else f"a whole number, at least {least}", parse)


def or_none(rule: Allowed) -> Allowed:
    """What `rule` allows, or None, which stands for a value from elsewhere."""
    return Allowed(
        rule.words, lambda value: None if value is None else rule.parse(value), rule.hidden
    )


_SIZE = re.compile(r"(\d+) ?(KiB|MiB|GiB)?", re.ASCII | re.IGNORECASE)
_UNITS = {None: 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def size(*, least: int) -> Allowed:
    """A number of bytes, also as "64MiB"."""

    def parse(value: object) -> int:
        result = _bytes(value) if isinstance(value, str) else whole(value)
        if result < least:
            raise ValueError
        return result

    return Allowed(f"a number of bytes, at least {least} (also as 512KiB, 64MiB, 1GiB)", parse)


def _bytes(text: str) -> int:
    matched = _SIZE.fullmatch(text.strip())
    if matched is None:
        raise ValueError
    digits, unit = matched.groups()
    return whole(digits) * _UNITS[unit and unit.lower()]


def switch() -> Allowed:
    """True or false."""
    meanings = {"true": True, "1": True, "on": True, "yes": True}
    meanings |= {"false": False, "0": False, "off": False, "no": False}

    def parse(value: object) -> bool:
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or value.strip().lower() not in meanings:
            raise ValueError
        return meanings[value.strip().lower()]

    return Allowed("true or false", parse)


def one_of(*names: str) -> Allowed:
    """One of a few words, or the member of an Enum that has it for a value."""

    def parse(value: object) -> str:
        word = value.value if isinstance(value, Enum) else value
        if not isinstance(word, str) or word.strip().lower() not in names:
            raise ValueError
        return word.strip().lower()

    return Allowed(f"{', '.join(names[:-1])} or {names[-1]}", parse)


def members(value: object) -> tuple[object, ...]:
    """The items of a list or tuple, or of a text that separates them by commas."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(cast("Iterable[object]", value))


def words(what: str, pattern: str) -> Allowed:
    """Any number of words in lower case, each of which fits `pattern` from end to end."""

    def parse_one(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value.lower(), re.ASCII):
            raise ValueError
        return value.lower()

    return Allowed(what, lambda value: tuple(parse_one(item) for item in members(value)))


def label() -> Allowed:
    """A short name that is safe in logs and metrics."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[\w.:@/+-]{1,100}", value, re.ASCII):
            raise ValueError
        return value

    return Allowed("1 to 100 letters, digits, or . : @ / + - _", parse)


def address() -> Allowed:
    """HOST:PORT to listen on."""

    def parse(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError
        split_address(value)
        return value

    return Allowed(
        "HOST:PORT, an IPv6 host in brackets, a port from 0 (any free one) to 65535", parse
    )


def split_address(text: str) -> tuple[str, int]:
    """Host, without brackets, and port. Raises ValueError."""
    matched = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w.-]+)):(\d{1,5})", text, re.ASCII)
    if matched is None or int(matched[3]) > 65535:
        raise ValueError
    return matched[1] or matched[2], int(matched[3])


def base_url() -> Allowed:
    """An upstream's root, kept without a slash at its end."""

    def parse(value: object) -> str:
        url = split_url(value, "http", "https")
        if url.query or url.fragment or "?" in str(value) or "#" in str(value):
            raise Refused("must have no query and no fragment")
        if "@" in url.netloc:
            raise Refused("must have no user and no password in it: give the key as api_key")
        if any(part in (".", "..") for part in url.path.split("/")):
            raise Refused("must have no dot segments in its path")
        return str(value).rstrip("/")

    return Allowed("a URL such as https://api.example.com/v1 (http or https)", parse)


def proxy_url(text: str) -> str:
    """`text` if it is an outbound proxy's URL. Raises ValueError."""
    url = split_url(text, "http", "https", "socks5", "socks5h")
    if url.path.strip("/") or url.query or url.fragment:
        raise ValueError
    return text


def split_url(value: object, *schemes: str) -> SplitResult:
    """The parts of an absolute URL. Raises TypeError and ValueError."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        raise TypeError
    url = urlsplit(value)
    if url.scheme not in schemes or not url.hostname or url.port == 0:  # .port raises ValueError
        raise ValueError
    return url


def file_or_none() -> Allowed:
    """The path of a file that can be read, or None."""

    def parse(value: object) -> Path | None:
        if value is None:
            return None
        if not isinstance(value, str | Path):
            raise TypeError
        path = Path(value).expanduser()
        try:
            path.open("rb").close()
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from error
        return path

    return Allowed("the path of a file that can be read", parse)


def authorities_or_none() -> Allowed:
    """The path of a PEM file with certificates to trust, or None."""
    readable = file_or_none()

    def parse(value: object) -> object:
        path = readable.parse(value)
        if path is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(str(path))
            except ssl.SSLError as error:
                raise Refused("must be a PEM file with at least one certificate") from error
        return path

    return Allowed("the path of a PEM file with at least one certificate", parse)


def check_certificate(certfile: Path, keyfile: Path | None) -> None:
    """Raise Refused, in words, unless a server can use this certificate with this key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would make OpenSSL ask for its password on the terminal.
        context.load_cert_chain(certfile, keyfile, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Refused(
            f"must be a certificate with its unencrypted key, in PEM: {reason}"
        ) from error


def tables(what: str) -> Allowed:
    """A list of tables, also as JSON; one table alone is a list of one."""

    def parse(value: object) -> tuple[object, ...]:
        found = json.loads(value) if isinstance(value, str) else value
        if isinstance(found, list | tuple):
            return tuple(cast("Iterable[object]", found))
        return (found,)

    return Allowed(what, parse, hidden=True)  # api_key may be among it
