"""Making connections: TCP by happy eyeballs (RFC 8305, trio's), then TLS."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import trio

from ..core.errors import Unreachable
from .failures import ConnectTimedOut
from .lines import SocketLine
from .tls import TlsLine, default_ssl_context

if TYPE_CHECKING:
    from .lines import Line
    from .pool import Origin


async def connect_line(
    origin: Origin, within: float | None, ssl_context: ssl.SSLContext | None
) -> Line:
    """Connect by TCP (happy eyeballs, TCP_NODELAY), then by TLS if the scheme is https.

    Raises Unreachable; ConnectTimedOut if both together take more than `within` seconds.
    """
    try:
        if within is None:
            return await _connect_line(origin, ssl_context)
        with trio.fail_after(within):
            return await _connect_line(origin, ssl_context)
    except trio.TooSlowError as error:
        message = f"no connection to {origin.host}:{origin.port} in {within} s"
        raise ConnectTimedOut(message) from error
    except (OSError, trio.BrokenResourceError, ValueError) as error:
        # ValueError: a host name that cannot be one, as IDNA and ssl see it.
        message = f"cannot connect to {origin.host}:{origin.port}: {_reason(error)}"
        raise Unreachable(message) from error


async def _connect_line(origin: Origin, ssl_context: ssl.SSLContext | None) -> Line:
    line = SocketLine(await trio.open_tcp_stream(origin.host, origin.port))
    if origin.scheme == "http":
        return line
    try:
        context = ssl_context or default_ssl_context()
        tls = TlsLine(line, context, origin.server_name or origin.host)
        await tls.handshake()
        if tls.ssl_object.selected_alpn_protocol() not in (None, "http/1.1"):
            raise ssl.SSLError("the TLS context offered another protocol than HTTP/1.1")
    except BaseException:
        line.close()
        raise
    return tls


def _reason(error: BaseException) -> str:
    """What went wrong, in words: trio hides the reasons of several attempts in a group."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        reasons = [_reason(each) for each in cause.exceptions]  # pyright: ignore
        return "; ".join(dict.fromkeys(reasons))
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        number = error.errno
        return os.strerror(number) if number and number > 0 else str(error)
    return str(error)
