"""Comments are passed over without being looked at, and change nothing of what is seen."""

from __future__ import annotations

import pytest

from trio_sse_proxy.dialects import CHAT
from trio_sse_proxy.dialects.base import Sight, look_through

TOKEN = (
    b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"},'
    b'"finish_reason":null}]}\n\n'
)


class Counting:
    """A stream that counts what it is asked to look at."""

    def __init__(self):
        self.stream = CHAT.open_stream()
        self.looked = 0

    def look(self, frame):
        self.looked += 1
        return self.stream.look(frame)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_a_flood_of_comments_is_not_looked_at():
    stream = Counting()
    assert look_through(stream, b": x\n\n" * 1000).sight is Sight.IDLE
    assert stream.looked == 0


@pytest.mark.parametrize("comment", [b":\n\n", b": x\n\n"])
def test_output_among_comments_is_seen(comment):
    seen = look_through(CHAT.open_stream(), comment + TOKEN + comment)
    assert (seen.sight, seen.data) == (Sight.OUTPUT, comment + TOKEN + comment)


@pytest.mark.parametrize("frame", [b": x\ndata: [DONE]\n\n", b": x\r\ndata: [DONE]\r\n\r\n"])
def test_a_comment_line_hides_nothing_of_its_frame(frame):
    assert look_through(CHAT.open_stream(), frame).final is Sight.END
