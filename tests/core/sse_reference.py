"""An independent reading of an event stream: the standard's own steps, a byte at a time, no cleverness.

WHATWG HTML, "Interpreting an event stream". It never looks ahead and keeps no state that the standard
does not name, so it is slow and easy to believe.
"""

from __future__ import annotations


def read_lines(stream: bytes) -> tuple[list[bytes], bytes]:
    """The complete lines, without their ends, and what is left."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines, line, after_cr = [], bytearray(), False
    for byte in stream:
        if after_cr and byte == 0x0A:
            after_cr = False
            continue
        after_cr = byte == 0x0D
        if byte in (0x0A, 0x0D):
            lines.append(bytes(line))
            line.clear()
        else:
            line.append(byte)
    return lines, bytes(line)


def read_events(stream: bytes) -> list[tuple[str, bytes]]:
    """(type, data) of every event a client dispatches."""
    events, kind, data = [], "", []
    for line in read_lines(stream)[0]:
        if not line:
            if data:
                events.append((kind or "message", b"\n".join(data)))
            kind, data = "", []
            continue
        if line.startswith(b":"):
            continue
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ") if colon else b""
        if name == b"event":
            kind = value.decode("utf-8", "replace")
        elif name == b"data":
            data.append(value)
    return events
