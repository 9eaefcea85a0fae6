from __future__ import annotations

import json
import time

import pytest

from trio_sse_proxy.dialects import CHAT, MESSAGES, RESPONSES, Peek, peek, recognise


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", CHAT),
        ("/chat/completions", CHAT),
        ("/api/paas/v4/chat/completions", CHAT),
        ("/v1beta/openai/chat/completions", CHAT),
        ("/openai/deployments/gpt 4/chat/completions", CHAT),
        ("/v1/responses", RESPONSES),
        ("/responses", RESPONSES),
        ("/backend-api/codex/responses", RESPONSES),
        ("/v1/messages", MESSAGES),
        ("/messages", MESSAGES),
        ("/anthropic/v1/messages", MESSAGES),
    ],
)
def test_calls_are_recognised_by_their_last_segments(path, dialect):
    assert recognise("POST", path) is dialect


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions/chatcmpl-1/messages/",
        "/v1/chatcompletions",
        "/v1/mychat/completions/x",
        "/v1/Chat/Completions",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/compact",
        "/v1/responses/input_tokens",
        "/v1/myresponses",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1/batches",
        "/v1/threads/thread_1/messages",
        "/v1/embeddings",
    ],
)
def test_other_calls_are_not(path):
    assert recognise("POST", path) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"])
def test_only_a_post_is_a_call(method):
    assert recognise(method, "/v1/responses") is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"stream":true,"model":"m"}', Peek(stream=True, model="m")),
        (b' \n{ "model" : "m" , "stream" : true }\n', Peek(stream=True, model="m")),
        (b'{"background":true}', Peek(background=True)),
        (b'{"stream":false}', Peek()),
        (b'{"stream":null}', Peek()),
        (b'{"stream":1}', Peek()),
        (b'{"stream":"true"}', Peek()),
        (b'{"stream":[true]}', Peek()),
        (b'{"model":5,"stream":true}', Peek(stream=True)),
        (b'{"background":"true","stream":true}', Peek(stream=True)),
        (b'{"stream":false,"stream":true}', Peek(stream=True)),
        (b'{"x":{"stream":true}}', Peek()),
        (b'{"x":"\\ud83d","stream":true}', Peek(stream=True)),
        (b'{"temperature":NaN,"stream":true}', Peek(stream=True)),
        (b'{"x":"\xff","stream":true}', Peek(stream=True)),
        (b'{"seed":1e999,"stream":true}', Peek(stream=True)),
        (b'{"stream":true', Peek()),
        (b'[{"stream":true}]', Peek()),
        (b"null", Peek()),
        (b"", Peek()),
        (b"\x1f\x8b\x08", Peek()),
        (b"[" * 1_000_000, Peek()),
        (b'{"x":' * 100_000, Peek()),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_peek(body, expected):
    assert peek(body) == expected


def test_peeking_into_a_large_body_builds_nothing_of_it():
    message = {"role": "user", "content": 'a "quoted" line\n' * 1_000}
    body = json.dumps({"messages": [message] * 1_000, "stream": True}).encode()
    best = min(_time(lambda: peek(body)) for _ in range(3))
    whole = min(_time(lambda: json.loads(body)) for _ in range(3))
    assert best < whole / 2


def _time(call):
    began = time.process_time()
    call()
    return time.process_time() - began
