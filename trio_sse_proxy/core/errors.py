"""What may go wrong, by whose side it came from and whether asking again is safe."""

from __future__ import annotations


class ProxyError(Exception):
    """The root of everything this package raises on purpose."""


class RequestError(ProxyError):
    """The client's fault: answered with a 4xx."""


class BadRequest(RequestError):
    """The request cannot be forwarded as it is."""


class UpstreamError(ProxyError):
    """An attempt failed on the upstream's side.

    `reused` says that the connection had served an earlier request: it may simply have been closed
    by the upstream while it lay idle, so asking again needs no backoff.
    `sent` says that at least one byte of the request went out: the upstream may have acted on it.
    `responded` says that at least one byte of an answer came back.
    """

    def __init__(
        self, message: str, *, reused: bool = False, sent: bool = True, responded: bool = False
    ) -> None:
        super().__init__(message)
        self.reused = reused
        self.sent = sent
        self.responded = responded


class Unreachable(UpstreamError):
    """No connection: name not found, refused, timed out, TLS failed. Nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class Overloaded(Unreachable):
    """There was no room for it here. It says nothing against the upstream, and another may have some."""


class Broken(UpstreamError):
    """The connection ended where the message did not: a reset, or an end of stream too early."""


class Garbled(UpstreamError):
    """What came is not what the standard allows. Asking again would bring the same."""


class ClientGone(ProxyError):
    """A write found that the client has left. Only some ASGI servers say so."""
