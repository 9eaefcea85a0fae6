"""What one HTTP/1.1 response says, however its bytes are cut. Pure: bytes in, head and body out.

llhttp (through httptools) does the parsing in C, strictly: bare line feeds, folded headers, two
lengths, or a length beside a transfer coding are refused, as nginx refuses them, since a proxy that
passed them on would help whoever smuggles responses. What llhttp leaves open is settled here:

- A parser that is told nothing of the request cannot know that the answer to HEAD has no body.
- Only we see the end of stream, so only we know whether a body may end there.
- llhttp puts no bound on anything. We bound the head, the number of its fields, the interim (1xx)
  responses, and the bytes that come in a row without one byte of body among them: trailers and
  chunk extensions could otherwise go on for ever.
- Bytes after a complete response belong to nothing we asked for. They do not spoil the response,
  but the connection must not carry another one.
"""

from __future__ import annotations

import httptools

from ..core.errors import Garbled
from .failures import EndedEarly

MAX_HEAD = 65_536  # bytes of field names and values, interim responses and trailers included
MAX_FIELDS = 256
MAX_INTERIM = 16  # 1xx responses ahead of the final one
MAX_OVERHEAD = 2 * 65_536  # bytes fed in a row without one of body; one read past MAX_HEAD


class Reply:
    """One response being read: `feed` what came, then look.

    `touched` is true once a byte came, `started` once the final head is there, `complete` once
    nothing more belongs to this response. `status`, `reason`, `version` and `headers` (raw names,
    order and duplicates kept) are valid from `started` on.
    """

    __slots__ = (
        "_chunked",
        "_fault",
        "_has_length",
        "_head_size",
        "_interim",
        "_keep_alive",
        "_no_body",
        "_overhead",
        "_own",
        "_parser",
        "_pieces",
        "_surplus",
        "complete",
        "headers",
        "on_body",
        "reason",
        "started",
        "status",
        "touched",
        "version",
    )

    def __init__(self, *, to_head: bool) -> None:
        """`to_head`: the request was a HEAD, so the response has no body whatever it says."""
        self.touched = False
        self.started = False
        self.complete = False
        self.status = 0
        self.reason = b""
        self.version = b"HTTP/1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self._no_body = to_head
        self._has_length = False
        self._chunked = False
        self._keep_alive = False
        self._surplus = False
        self._fault: str | None = None
        self._head_size = 0
        self._interim = 0
        self._overhead = 0
        self._pieces: list[bytes] = []
        self._own: int | None = None  # pieces of this response, once another one follows it
        # The parser keeps the callback it finds here: list.append itself, no Python frame between.
        self.on_body = self._pieces.append
        # Made for the first byte: until then, which may be minutes, it would only take room.
        self._parser: httptools.HttpResponseParser | None = None

    @property
    def has_body(self) -> bool:
        """True while body bytes wait in `take`."""
        return bool(self._pieces)

    @property
    def steady(self) -> bool:
        """True while nothing is known of the response but that more is to come."""
        return not self.complete and self._fault is None

    @property
    def reusable(self) -> bool:
        """True if the response is complete, asks for no close, and nothing came after it."""
        return self.complete and self._keep_alive and not self._surplus and self._fault is None

    def feed(self, data: bytes) -> None:
        """Take in what one read brought; `data` is not empty.

        Raises Garbled, but hands out first what came whole before the fault: while body bytes wait,
        the error waits too, for `check`.
        """
        if not self.touched:
            self.touched = True
            self._parser = httptools.HttpResponseParser(self)
        parser = self._parser
        if parser is None:
            self._surplus = True
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.complete:
                self._surplus = True
            else:
                self._fault = self._fault or str(error)
        if self._pieces and self.started and not self.complete:
            self._overhead = 0  # nearly always
            return
        self._bound(len(data))
        if self.complete:
            # What the parser holds of a body that is none, such as half a chunk's size, it tells nobody.
            self._surplus = self._surplus or (self._no_body and not _ends_a_head(data))
            self._finish()
        elif not self.started or not self._pieces:
            self.check()

    def feed_eof(self) -> None:
        """Take in the end of stream: the end of a body that lasts until close, else EndedEarly."""
        if not self.started:
            raise EndedEarly("the upstream closed the connection without sending a response")
        if self._has_length or self._chunked:
            raise EndedEarly("the upstream closed the connection in the middle of the body")
        self.complete = True
        self._finish()

    def take(self) -> bytes:
        """The body bytes that wait, in one piece; one piece alone is handed over without a copy."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    def check(self) -> None:
        """Raise Garbled if the response broke the standard or a limit."""
        if self._fault is not None:
            raise Garbled(self._fault)

    def drop(self) -> None:
        """Let go of the parser; a cycle otherwise, which would wait for the collector."""
        self._parser = None

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete and self._own is None:
            self._surplus = True
            self._own = len(self._pieces)

    def on_status(self, piece: bytes) -> None:
        if not self.complete:
            self.reason += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        self._head_size += len(name) + len(value) + 4
        if self._head_size > MAX_HEAD:
            self._fault = self._fault or f"the response's header fields take over {MAX_HEAD} bytes"
        elif not self.started:
            self._note(name, value)

    def _note(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))
        if len(self.headers) > MAX_FIELDS:
            self._fault = self._fault or f"the response has over {MAX_FIELDS} header fields"
        elif len(name) == 14 and name.lower() == b"content-length":
            self._has_length = True
        elif len(name) == 17 and name.lower() == b"transfer-encoding":
            self._chunked = True
            if value.strip().lower() != b"chunked":
                self._fault = self._fault or f"transfer coding nobody asked for: {value[:80]!r}"

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self.complete or parser is None:
            return
        status = parser.get_status_code()
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._fault = self._fault or f"HTTP/{version} where HTTP/1.1 was spoken"
        elif status == 101 or status < 100:
            self._fault = self._fault or f"status {status}, which nothing in the request asked for"
        elif status >= 200:
            self.status = status
            self.version = b"HTTP/1.1" if version == "1.1" else b"HTTP/1.0"
            self._keep_alive = parser.should_keep_alive()
            self.started = self._fault is None
            self.complete = self._no_body and self.started

    def on_message_complete(self) -> None:
        if self.started:
            self.complete = self._fault is None
            return
        self._interim += 1
        self.headers.clear()
        self.reason = b""
        self._has_length = self._chunked = False
        if self._interim > MAX_INTERIM:
            self._fault = self._fault or f"over {MAX_INTERIM} interim responses"

    def _bound(self, fed: int) -> None:
        self._overhead = 0 if self._pieces else self._overhead + fed
        if self._overhead > MAX_OVERHEAD and not self.complete:
            self._fault = self._fault or "the response goes on without a head or a body"

    def _finish(self) -> None:
        if self._no_body and self._pieces:
            self._surplus = True
            self._pieces.clear()
        elif self._own is not None:
            del self._pieces[self._own :]
        self.drop()


def _ends_a_head(data: bytes) -> bool:
    """True if nothing but empty lines follows the head whose end came in `data`."""
    return data.endswith((b"\n\r\n", b"\n\n")) or b"\r\n".endswith(data)
