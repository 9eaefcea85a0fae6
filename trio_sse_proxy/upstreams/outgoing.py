"""What goes out to one server: its address and key, its names for models, and the ids it is given.

A request is the client's own in all else. Its body is touched only where the server calls the model
by another name, or takes an id from us; then it goes on decoded, since it had to be, and what was
said of its bytes before (length, coding, digests) no longer holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import trio

from ..codings import decode_aside
from ..core import headers as fields
from ..core.members import with_members
from ..core.routing import rename
from ..core.target import join
from .head import RequestHead
from .transport import origin_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Mapping

    from ..core.call import Call
    from ..core.headers import Headers
    from ..ports import UpstreamRequest
    from .aborts import AbortMessage

LARGEST_BODY = 64 * 2**20
"""Bytes of a request, decoded, that are looked into."""

AT_ONCE = 2**20
"""Bytes of a body that are changed while everybody else waits: it takes 6 to 10 ms. On a thread, 16 MB
in many small messages hold up the others for 60 ms at most (one search does not let go of the
interpreter) in place of 130 ms, 4 MB for 16 ms in place of 32, and long texts a quarter of that."""

_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))  # even if it is empty (RFC 9110, section 8.6)


class Destination:
    """One server, as `HttpUpstream` is told of it. `member` is what bodies call the id we give."""

    def __init__(
        self,
        *,
        base_url: str,
        connect_timeout: float,
        api_key: str | None,
        models: Mapping[str, str],
        add_headers: Headers,
        drop_headers: frozenset[bytes],
        member: str | None,
    ) -> None:
        parts = urlsplit(base_url)
        self._url = httpx.URL(f"{parts.scheme}://{parts.netloc}/")
        self.origin = origin_of(self._url)
        self._base_path = parts.path.encode("ascii")
        self._host = self._url.netloc
        self.connect_timeout = connect_timeout or None
        self._api_key = api_key.encode("ascii") if api_key else None
        self._models = models
        self._added = add_headers
        self._dropped = drop_headers | {name for name, _ in add_headers}
        self._member = member

    def members(self, call: Call) -> dict[str, object]:
        """What this server wants changed in the body of a request."""
        members: dict[str, object] = {}
        if call.model is not None and self._models:
            name = rename(self._models, call.model)
            if name != call.model:
                members["model"] = name
        if self._member is not None and call.dialect is not None:
            members[self._member] = call.id
        return members

    def head(self, request: UpstreamRequest) -> RequestHead:
        """The head of the same request, addressed to this server."""
        path, mark, query = request.target.partition(b"?")
        headers: list[tuple[bytes, bytes]] = [(b"host", self._host), *request.headers]
        if self._api_key is not None:
            headers = [field for field in headers if field[0] not in fields.CREDENTIALS]
            # Count_tokens and batches lie below /messages and take the same key; Anthropic's list of
            # models has no path of its own.
            if b"/messages" in path or fields.get(headers, b"anthropic-version") is not None:
                headers.append((b"x-api-key", self._api_key))
            else:
                headers.append((b"authorization", b"Bearer " + self._api_key))
        if self._dropped:
            headers = [field for field in headers if field[0] not in self._dropped]
            headers += self._added
        if fields.get(headers, b"content-length") is None:
            if not isinstance(request.body, bytes):
                headers.append((b"transfer-encoding", b"chunked"))
            elif request.body or request.method in _WITH_BODY:
                headers.append((b"content-length", b"%d" % len(request.body)))
        return RequestHead(
            method=request.method.encode("ascii", "replace"),
            target=join(self._base_path, path) + mark + query,
            headers=headers,
        )

    def request(self, request: UpstreamRequest, call: Call) -> httpx.Request:
        """All of it, as transports of httpx's take it."""
        head, body = self.head(request), request.body
        # Given a stream, httpx takes the fields as they are; given content, it works on them twice.
        return httpx.Request(
            request.method,
            self._url,
            headers=list(head.headers),
            stream=httpx.ByteStream(body) if isinstance(body, bytes) else Once(body),
            extensions={
                "target": head.target,
                "timeout": {"connect": self.connect_timeout},
                "on_send": call.begin,
            },
        )

    def credentials(self, headers: Headers) -> Headers:
        """What tells this server who asks: our key, or what a request with `headers` brings along."""
        if self._api_key is not None:
            own: Headers = ((b"authorization", b"Bearer " + self._api_key),)
        else:
            own = tuple(field for field in headers if field[0] in fields.CREDENTIALS)
        return (*(field for field in own if field[0] not in self._dropped), *self._added)

    def abort_request(self, message: AbortMessage, credentials: Headers) -> httpx.Request:
        """`message` as a request, with `credentials` if it goes to this server, and only then.

        What the message itself brings takes their place. Raises httpx.InvalidURL.
        """
        url, target = self._url, message.target.encode("ascii")
        if message.url is not None:
            url = httpx.URL(message.url)
            target = url.raw_path
        headers = list(message.headers)
        if (url.scheme, url.netloc) == (self._url.scheme, self._host):
            given = {name for name, _ in headers}
            headers += [field for field in credentials if field[0] not in given]
        headers += [(b"host", url.netloc), (b"content-length", b"%d" % len(message.body))]
        return httpx.Request(
            message.method,
            url,
            headers=headers,
            stream=httpx.ByteStream(message.body),
            extensions={"target": target, "timeout": {"connect": self.connect_timeout}},
        )


async def change(
    request: UpstreamRequest, body: bytes, members: dict[str, object], call: Call
) -> UpstreamRequest:
    """`request` with other members in its `body`; the very same if that is no JSON object.

    Raises Overloaded if there is no room for it decoded.
    """
    coding = (fields.get(request.headers, b"content-encoding") or b"").decode("latin-1")
    decoded = await decode_aside(body, coding, LARGEST_BODY) or b""
    call.make_room(len(decoded))
    if len(decoded) <= AT_ONCE:
        changed = _changed(decoded, members)
    else:
        changed = await trio.to_thread.run_sync(_changed, decoded, members, abandon_on_cancel=True)
    if changed is None:
        return request
    headers = fields.without(request.headers, *fields.OF_THE_BYTES)
    return replace(request, headers=headers, body=changed)


def _changed(body: bytes, members: dict[str, object]) -> bytes | None:
    try:
        return with_members(body, members)
    except ValueError:
        return None


class Once(httpx.AsyncByteStream):
    """A body that can be read once. httpx would wrap it in a generator, which nobody closes."""

    resumable = True  # see Upload; ports.UpstreamRequest asks for it

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._pieces)

    async def aclose(self) -> None:
        """Nobody reads on; whoever feeds the body is told, if that is wanted."""
        aclose = getattr(self._pieces, "aclose", None)
        if aclose is not None:
            await aclose()
