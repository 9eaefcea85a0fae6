"""Each oracle can fail: deliberate bugs, one at a time, and a few hundred inputs find them."""

from __future__ import annotations

import random
import re

import pytest

from trio_sse_proxy import allowed, codings, plain_http1, settings_error
from trio_sse_proxy.core import calm, headers, members, sse, target
from trio_sse_proxy.dialects import chat, errors, messages, responses, template, wire
from trio_sse_proxy.dialects.translate import history, messages_blocks, responses_items, tools
from trio_sse_proxy.upstreams import head, reply

from . import targets
from .mutating import mutate
from .test_fuzz import beginnings

TRIED = 300

BUGS = {
    "a frame end in CR is not seen": (
        "frames",
        (sse.FrameScanner, "_last_end", lambda self, chunk: chunk.rfind(b"\n\n") + 2),
    ),
    "an oversized frame is held": (
        "frames",
        (sse.FrameScanner, "_let_through", lambda self: b""),
    ),
    "skimming a Chat stream sees nothing": (
        "streams",
        (chat.ChatStream, "_tells", lambda self, frames: False),
    ),
    "skimming a Messages stream sees nothing": (
        "streams",
        (messages, "_tells", lambda frames: False),
    ),
    "skimming a Responses stream forgets the numbers": (
        "streams",
        (responses.ResponsesStream, "_last_sequence", lambda self: self._sequence),
    ),
    "a quote inside the text of a template passes": (
        "streams",
        (template.Template, "_hides_nothing", lambda self, texts: True),
    ),
    "errors are written with lone surrogates": (
        "errors",
        (wire, "_SEPARATORS", ((b'"', b"'"),)),
    ),
    "a message of any length is told on": ("errors", (errors, "_clip", lambda message: message)),
    "a block is not closed": ("answers", (messages_blocks.Blocks, "_stop", lambda self, kind: b"")),
    "an item is not begun": ("answers", (responses_items.TextItem, "begin", lambda self: b"")),
    "a call without a name is told": ("answers", (messages_blocks, "NAMELESS", "")),
    "arguments are sent as they are": ("requests", (history, "sound_arguments", lambda raw: raw)),
    "names are sent as they are": ("requests", (tools, "flat_name", lambda name: name)),
    "ids used twice stay so": (
        "requests",
        (history._Turn, "untaken", lambda self, call_id: call_id),
    ),
    "escaped quotes end a string": ("members", (members, "_mask", lambda body: body)),
    "a request with two framings is taken for plain": (
        "heads",
        (plain_http1, "UNUSUAL", {b"upgrade", b"expect"}),
    ),
    "a blank before the colon belongs to the name": (
        "heads",
        (plain_http1, "HEAD", re.compile(plain_http1.HEAD.pattern.replace(b"+:", b"+ ?:"))),
    ),
    "a length of any size is taken": ("heads", (plain_http1, "DIGITS", 99)),
    "any blank may stand in a line": (
        "heads",
        (
            plain_http1.h11_readers,
            "header_field_re",
            re.compile(rb"(?P<field_name>[^:]+):\s*(?P<field_value>.*?)\s*", re.DOTALL),
        ),
    ),
    "what Connection names is passed on": (
        "headers",
        (headers, "get_all", lambda fields, name: []),
    ),
    "dot segments in percent-encoding pass": (
        "headers",
        (target, "unquote_to_bytes", lambda raw: raw),
    ),
    "a length that is not the body's goes out": (
        "headers",
        (head, "_framing", lambda fields: (None, True)),
    ),
    "a bomb comes in one piece": ("codings", (codings, "PIECE", 2**30)),
    "the limit of a whole body is not kept": (
        "codings",
        (codings, "decode_whole", lambda body, coding, limit: body),
    ),
    "the body of a second response is added": (
        "replies",
        (reply.Reply, "on_message_begin", lambda self: None),
    ),
    "any transfer coding is taken": (
        "replies",
        (reply.Reply, "_note", lambda self, name, value: self.headers.append((name, value))),
    ),
    "pieces of a body are lost": (
        "wires",
        (reply.Reply, "take", lambda self: self._pieces.pop()),
    ),
    "the begin of a frame's head is forgotten": (
        "calm",
        (calm.Calm, "_head", property(lambda self: b"", lambda self, begun: None)),
    ),
    "what is large is counted, too": ("calm", (calm, "_CONTINUATION", 10)),
    "a line is broken": ("settings", (settings_error, "_printable", lambda line: line)),
    "a key is shown": (
        "settings",
        (settings_error, "rule_of", lambda model, name: allowed.Allowed("x", str)),
    ),
}


@pytest.mark.parametrize(("name", "bug"), BUGS.values(), ids=list(BUGS))
def test_a_deliberate_bug_is_found(monkeypatch, name, bug):
    module = targets.load(name)
    place, attribute, wrong = bug
    monkeypatch.setattr(place, attribute, wrong)
    if hasattr(module, attribute):  # what the target has imported by name
        monkeypatch.setattr(module, attribute, wrong)
    assert any(fails(module.run, data) for data in inputs(name))


def fails(run, data):
    try:
        run(data)
    except Exception:  # whatever the bug makes of it
        return True
    return False


def inputs(name):
    """What is kept, and changes of it: the same ones each time."""
    draw, known, words = random.Random(1), beginnings(name), targets.load(name).WORDS
    yield from known
    for _ in range(TRIED):
        data = draw.choice(known)
        for _ in range(draw.randrange(1, 6)):
            data = mutate(data, words, draw.randrange(2**32))
        yield data
