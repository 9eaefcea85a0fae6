"""HTTP/1.1 requests as nearly all clients write them, read at a stroke.

`Http1` stands where Hypercorn's H11Protocol keeps its `h11.Connection`, and offers of that what is used
there. A request whose head arrived in one piece and holds nothing unusual is matched by one regular
expression; everything else goes to h11, from its first byte: heads in pieces, chunked bodies, HTTP/1.0,
other methods than GET and POST, upgrades, `Expect`, and whatever is wrong. So what is refused, and how,
is h11's word alone; what is let through here, h11 would have let through with the same meaning.

The point is the first token. h11 takes some 40 µs for a request and its answer while it runs hot, but a
proxy that has been waiting runs cold, and then it takes 200: there is a lot of it to fetch.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, cast

import h11

if TYPE_CHECKING:
    from collections.abc import Iterable

    Field = tuple[bytes, bytes]

# RFC 9112 sections 3 and 5, narrower: no empty target, no control characters.
HEAD = re.compile(
    rb"(GET|POST) ([\x21-\x7e]+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)+)\r\n"
)
FIELD = re.compile(rb"([^:]+):[\t ]*([^\r]*)\r\n")
FRAMING = {b"connection", b"content-length", b"transfer-encoding"}
UNUSUAL = {b"transfer-encoding", b"upgrade", b"expect"}
DIGITS = 18  # of a content-length; h11 allows 20

NO_BODY = {204, 304}


# h11's own expressions for these lines take quadratic time to find out that a line is none which has a
# long run of blanks in it: 12 s for 64 KiB, during which nobody is served. These match the same.
h11_readers: Any = sys.modules["h11._readers"]
h11_readers.header_field_re = re.compile(
    rb"(?P<field_name>[-!#$%&'*+.^_`|~0-9a-zA-Z]+):[ \t]*+"
    rb"(?P<field_value>(?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?)[ \t]*"
)
h11_readers.chunk_header_re = re.compile(
    rb"(?P<chunk_size>[0-9A-Fa-f]{1,20})(?:(?P<chunk_ext>;.*)|[ \t]*)\r\n"
)


def chunk(data: bytes) -> bytes:
    """One chunk of a body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class PlainRequest(h11.Request):
    """What h11 would have made of it, not looked at once more."""

    def __init__(self, method: bytes, target: bytes, fields: list[Field]) -> None:
        put = object.__setattr__  # it is frozen
        put(self, "method", method)
        put(self, "target", target)
        put(self, "headers", fields)
        put(self, "http_version", b"1.1")


class Http1:
    """One connection's requests and what is said of their answers, without the bytes of chunks."""

    __slots__ = ("_buffer", "_closing", "_h11", "_limit", "_owed", "_to_come", "our", "their")

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of a head."""
        self._limit = limit
        self._buffer = b""  # read, and not yet looked at
        self._h11: h11.Connection | None = None  # at work since the current request, if it is
        self._to_come = 0  # bytes of the request's body
        self._owed: int | None = None  # bytes of the answer's body; None: it comes in chunks
        self._closing = False
        self.their: Any = h11.IDLE
        self.our: Any = h11.IDLE

    # What the client sends.

    @property
    def their_state(self) -> Any:
        """As in h11."""
        return self._h11.their_state if self._h11 is not None else self.their

    @property
    def our_state(self) -> Any:
        """As in h11."""
        return self._h11.our_state if self._h11 is not None else self.our

    @property
    def in_head(self) -> bool:
        """True if some of a head is here, and not all: h11 has taken it over by then."""
        return self._h11 is not None and self._h11.their_state is h11.IDLE

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """As in h11."""
        return self._h11 is not None and self._h11.they_are_waiting_for_100_continue

    @property
    def trailing_data(self) -> tuple[bytes, bool]:
        """As in h11."""
        return self._h11.trailing_data if self._h11 is not None else (self._buffer, False)

    def receive_data(self, data: bytes) -> None:
        """As in h11; never called at the end of the stream."""
        if self._h11 is not None:
            self._h11.receive_data(data)
        else:
            self._buffer = self._buffer + data if self._buffer else data

    def next_event(self) -> Any:
        """As in h11."""
        if self.their_state is h11.MUST_CLOSE:
            self._buffer = b""  # no request any more, the client or the answer has said so
            return h11.NEED_DATA
        if self._h11 is not None:
            return self._h11.next_event()
        if self.their is h11.SEND_BODY:
            return self._next_of_body()
        if not self._buffer:
            return h11.NEED_DATA
        if self.their is not h11.IDLE:
            return h11.PAUSED
        return self._read_head() or self._leave_to_h11()

    def take_whole(self) -> tuple[PlainRequest, bytes] | None:
        """A plain request and its body if both are there, which is the usual case; else None."""
        if self._h11 is not None or self.their is not h11.IDLE or not self._buffer:
            return None
        kept = self._buffer
        request = self._read_head()
        if request is None:
            return None
        if len(self._buffer) < self._to_come:
            self._buffer, self.their = kept, h11.IDLE
            return None
        body, self._buffer = self._buffer[: self._to_come], self._buffer[self._to_come :]
        self._to_come = 0
        self.their = h11.MUST_CLOSE if self._closing else h11.DONE
        return request, body

    def _next_of_body(self) -> Any:
        if not self._to_come:
            self.their = h11.MUST_CLOSE if self._closing else h11.DONE
            return h11.EndOfMessage()
        if not self._buffer:
            return h11.NEED_DATA
        piece, self._buffer = self._buffer[: self._to_come], self._buffer[self._to_come :]
        self._to_come -= len(piece)
        return h11.Data(data=piece)

    def _read_head(self) -> PlainRequest | None:
        """The request, if it is a plain one."""
        match = HEAD.match(self._buffer)
        if match is None:
            return None
        method, target, block = match.groups()
        fields = [(name.lower(), value.rstrip(b" \t")) for name, value in FIELD.findall(block)]
        names = [name for name, _ in fields]
        if names.count(b"host") != 1 or not UNUSUAL.isdisjoint(names):
            return None
        length, closing = b"0", False
        for name, value in fields:
            if name == b"content-length":
                if names.count(name) > 1 or not value.isdigit() or len(value) > DIGITS:
                    return None
                length = value
            elif name == b"connection":
                if value.lower() not in {b"keep-alive", b"close"} or names.count(name) > 1:
                    return None
                closing = value.lower() == b"close"
        self._closing = closing
        self._to_come = int(length)
        self._buffer = self._buffer[match.end() :]
        self.their, self.our = h11.SEND_BODY, h11.SEND_RESPONSE
        return PlainRequest(method, target, fields)

    def _leave_to_h11(self) -> Any:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limit)
        self._h11.receive_data(self._buffer)
        self._buffer = b""
        return self._h11.next_event()

    # What is sent to it.

    def send(self, event: Any) -> bytes | None:
        """As in h11, also for what it has to say. Raises h11.LocalProtocolError."""
        if self._h11 is not None:
            return cast("bytes | None", self._h11.send(event))
        if isinstance(event, h11.Response):
            return self._begin(event.status_code, event.headers)
        if isinstance(event, h11.Data):
            return self._continue(bytes(event.data))
        if isinstance(event, h11.EndOfMessage):
            return self._end()
        raise h11.LocalProtocolError(f"{type(event).__name__} is not for plain requests")

    def head(self, status: int, headers: list[Field]) -> bytes:
        """`send` of a response with these headers, which are known to be one line each.

        h11 is told of what bears on the framing alone, and adds what it finds missing; it would look
        at each of the others four times.
        """
        if self._h11 is None:
            return self._begin(status, headers)
        told = [field for field in headers if field[0].lower() in FRAMING]
        rest = [field for field in headers if field not in told] if told else headers
        head = self._h11.send(h11.Response(status_code=status, headers=told)) or b""
        if not (head and rest):
            return head
        line, framing = head.split(b"\r\n", 1)
        return b"%b\r\n%b%b" % (line, b"".join([b"%b: %b\r\n" % field for field in rest]), framing)

    @property
    def in_chunks(self) -> bool | None:
        """Whether the answer's body comes in chunks; None where h11 knows."""
        return None if self._h11 is not None else self._owed is None

    def start_next_cycle(self) -> None:
        """As in h11."""
        if self._h11 is not None:
            self._h11.start_next_cycle()
            # It is not needed for the next request, or will be asked again.
            self._buffer, self._h11 = self._h11.trailing_data[0], None
        self.their = self.our = h11.IDLE

    def _begin(self, status: int, headers: Iterable[Field]) -> bytes:
        if self.our is not h11.SEND_RESPONSE:
            raise h11.LocalProtocolError(f"no response in {self.our}")
        if not 200 <= status < 1000:
            raise h11.LocalProtocolError(f"{status} is no status of an answer")
        lines = [b"HTTP/1.1 %d \r\n" % status]
        length, chunked, closes = b"", False, False
        for name, value in headers:
            known = name.lower()
            if known in FRAMING:
                if known == b"connection":
                    closes = closes or b"close" in value.lower()
                elif known == b"content-length":
                    if not value.isdigit() or length not in (b"", value):
                        raise h11.LocalProtocolError("bad or conflicting Content-Length")
                    length = value
                    continue  # void if the body is chunked
                else:
                    chunked = True
                    continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if status in NO_BODY:
            self._owed = 0
        elif chunked or not length:
            self._owed = None
            lines.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self._owed = int(length)
        if self._owed is not None and length:
            lines.append(b"content-length: %b\r\n" % length)
        if self._closing and not closes:
            lines.append(b"Connection: close\r\n")
        self._closing = self._closing or closes
        if self._closing:
            self._expect_no_more()
        lines.append(b"\r\n")
        self.our = h11.SEND_BODY
        return b"".join(lines)

    def _continue(self, data: bytes) -> bytes:
        if self.our is not h11.SEND_BODY:
            raise h11.LocalProtocolError(f"no body in {self.our}")
        if self._owed is None:
            return chunk(data) if data else b""
        self._owed -= len(data)
        if self._owed < 0:
            raise self._broken("Too much data for declared Content-Length")
        return data

    def _end(self) -> bytes:
        if self.our is not h11.SEND_BODY:
            raise h11.LocalProtocolError(f"no end in {self.our}")
        if self._owed:
            raise self._broken("Too little data for declared Content-Length")
        self.our = h11.MUST_CLOSE if self._closing else h11.DONE
        return b"" if self._owed == 0 else b"0\r\n\r\n"

    def _broken(self, words: str) -> h11.LocalProtocolError:
        self.our = h11.ERROR
        self._expect_no_more()
        return h11.LocalProtocolError(words)

    def _expect_no_more(self) -> None:
        if self.their is h11.DONE:
            self.their = h11.MUST_CLOSE
