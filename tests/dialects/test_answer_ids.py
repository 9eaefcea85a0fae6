"""What an upstream calls its answer, as far as its frames have told."""

from __future__ import annotations

import pytest
from scripted.answers import Answer
from scripted.talk import PATHS, Said

from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES

DIALECTS = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}
IDS = {"chat": "chatcmpl-7", "responses": "resp_7", "messages": "msg_7"}
ODD = {
    "chat": b'data: {"id":5,"choices":[]}\n\n',
    "responses": b'data: {"type":"response.created","response":{"id":5}}\n\n',
    "messages": b'data: {"type":"message_start","message":{"id":5}}\n\n',
}


def frames_of(name, **said):
    return Answer(name, True, Said("m", 7, **said), 0.0).frames()


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("echo", [0, 200_000])
def test_the_first_frame_tells_the_id_and_it_stays(name, echo):
    stream = DIALECTS[name].open_stream()
    assert stream.answer_id is None
    for frame in frames_of(name, echo=echo):
        stream.look(frame)
        assert stream.answer_id == IDS[name]


@pytest.mark.parametrize("name", PATHS)
def test_an_id_that_is_no_text_is_none(name):
    stream = DIALECTS[name].open_stream()
    stream.look(ODD[name])
    assert stream.answer_id is None
