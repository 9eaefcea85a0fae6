"""Who may come in: hosts, origins and keys.

A proxy on loopback is open to every page the user's browser shows, in two ways: a page may simply
send requests there (it has an Origin), or its name may be pointed at 127.0.0.1 after it was loaded
(DNS rebinding: then the Host is the page's). So on loopback both must name loopback, unless listed.
What a page only embeds or links to (an image, a form that is a GET) has no Origin; there the browser
says by Sec-Fetch-Site that another site asks.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from .failure import Cause, Failure
from .headers import Headers, get, get_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The rules at the entrance. `loopback` says that the listening address is loopback."""

    loopback: bool
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    client_keys: tuple[str, ...] = ()

    def refuses(self, headers: Headers) -> Failure | None:
        """Why this request may not pass; None if it may."""
        refused = self.refuses_site(headers)
        if refused is not None:
            return refused
        if self.client_keys:
            if not matches_key(headers, self.client_keys):
                message = "a valid client key is required (Authorization: Bearer, or x-api-key)"
                return Failure(cause=Cause.AUTHENTICATION, message=message)
        elif not self.loopback:
            message = "this proxy wants client_keys before it serves beyond loopback"
            return Failure(cause=Cause.FORBIDDEN, message=message)
        return None

    def refuses_site(self, headers: Headers) -> Failure | None:
        """The same as far as it depends on where the request comes from, not on who sends it."""
        message = None
        if not self._host_fits(headers):
            message = "the Host header does not name this proxy (see allowed_hosts)"
        elif not self._origin_fits(headers):
            message = "requests from this Origin or site are not allowed (see allowed_origins)"
        return Failure(cause=Cause.FORBIDDEN, message=message) if message else None

    def _host_fits(self, headers: Headers) -> bool:
        host = (get(headers, b"host") or b"").decode("latin-1")
        name = host_name(host)
        if not self.allowed_hosts:
            return not self.loopback or is_loopback(name)
        return (
            "*" in self.allowed_hosts
            or name in self.allowed_hosts
            or host in self.allowed_hosts
            or (self.loopback and is_loopback(name))
        )

    def _origin_fits(self, headers: Headers) -> bool:
        origin = get(headers, b"origin")
        if origin is None:
            from_afar = self.loopback and get(headers, b"sec-fetch-site") == b"cross-site"
            return not from_afar or "*" in self.allowed_origins
        text = origin.decode("latin-1")
        if "*" in self.allowed_origins or text in self.allowed_origins:
            return True
        if self.allowed_origins or self.loopback:
            return self.loopback and is_loopback(_host_of(text))
        return True


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:  # such as an unclosed bracket: nobody we know
        return ""


def matches_key(headers: Headers, keys: tuple[str, ...]) -> bool:
    """True if the request carries one of `keys`."""
    return bool(key_headers(headers, keys))


def key_headers(headers: Headers, keys: tuple[str, ...]) -> frozenset[bytes]:
    """The names of the header fields that carry one of `keys`; each is compared in constant time."""
    offered = [(b"x-api-key", value) for value in get_all(headers, b"x-api-key")]
    for value in get_all(headers, b"authorization"):
        scheme, _, token = value.partition(b" ")
        if scheme.lower() == b"bearer":
            offered.append((b"authorization", token.strip()))
    found: set[bytes] = set()
    for name, token in offered:
        for key in keys:
            if hmac.compare_digest(token, key.encode()):
                found.add(name)
    return frozenset(found)


def host_name(host: str) -> str:
    """The name in a Host value: without port, brackets and trailing dot, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower().rstrip(".") if ":" in host else host.lower().rstrip(".")


@lru_cache(maxsize=64)  # a client names the same host every time, and parsing addresses is slow
def is_loopback(name: str) -> bool:
    """True for localhost and for every loopback address."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
