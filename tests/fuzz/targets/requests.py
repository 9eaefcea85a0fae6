"""Requests of any JSON shape: a Chat request that upstreams accept, or the one clear refusal."""

from __future__ import annotations

import re
from dataclasses import replace

from trio_sse_proxy.core.headers import get
from trio_sse_proxy.dialects.translate.messages_count import count_answer, estimate, tokenizer_count
from trio_sse_proxy.dialects.translate.messages_request import translate_count
from trio_sse_proxy.dialects.translate.profile import GENERIC, PRESETS, SystemMode, ToolImages
from trio_sse_proxy.dialects.translate.refusals import Declined
from trio_sse_proxy.dialects.translate.ways import WAYS
from trio_sse_proxy.upstreams.head import RequestHead, frame
from trio_sse_proxy.upstreams.told_back import _headers, decline

from ..drawn import Drawn, strict_json

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
PROFILES = (
    *(PRESETS[name] for name in ("generic", "deepseek", "mimo", "mistral", "openai", "vllm")),
    replace(
        GENERIC,
        vision=False,
        files=True,
        tool_images=ToolImages.INLINE,
        web_search_tool={"type": "w"},
    ),
    replace(GENERIC, system_mode=SystemMode.KEEP, tool_images=ToolImages.DROP, max_output_tokens=5),
)
_RESPONSES = (
    b'{"model":"m","stream":true,"instructions":"be","max_output_tokens":9,"reasoning":{"effort":"high"},'
    b'"include":["reasoning.encrypted_content"],"tools":[{"type":"function","name":"f","parameters":{}},'
    b'{"type":"custom","name":"p","format":{"type":"grammar","syntax":"lark","definition":"x"}},'
    b'{"type":"namespace","name":"n","tools":[{"type":"function","name":"f","defer_loading":true}]},'
    b'{"type":"tool_search","execution":"client"},{"type":"web_search"}],"tool_choice":"auto","input":['
    b'{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"},{"type":"input_image",'
    b'"image_url":"data:image/png;base64,AA=="}]},{"type":"reasoning","summary":[{"type":"summary_text",'
    b'"text":"s"}],"encrypted_content":"tssp1.x"},{"type":"function_call","call_id":"a","name":"f",'
    b'"arguments":"{}"},{"type":"custom_tool_call","call_id":"b","name":"p","input":"i"},'
    b'{"type":"function_call_output","call_id":"a","output":"o"},{"type":"custom_tool_call_output",'
    b'"call_id":"b","output":[{"type":"input_text","text":"t"}]},{"type":"tool_search_call","arguments":{}},'
    b'{"type":"tool_search_output","tools":[{"type":"function","name":"g"}]}]}'
)
_MORE = (
    b'{"model":"m","input":[{"type":"local_shell_call","call_id":"a","action":{"command":["ls"]}},'
    b'{"type":"local_shell_call_output","call_id":"a","output":[{"stdout":"x"}]},{"role":"developer",'
    b'"content":"d"},{"type":"configuration_update","configuration":{"reasoning":{"effort":"low"}}},'
    b'{"type":"message","role":"user","content":[{"type":"input_file","filename":"a.txt","file_data":'
    b'"data:text/plain;base64,aGk="}]}],"text":{"format":{"type":"json_schema","name":"n","schema":{}}},'
    b'"tool_choice":{"type":"allowed_tools","mode":"required","tools":[]},"top_logprobs":2}'
)
_MESSAGES = (
    b'{"model":"m","max_tokens":9,"stream":true,"system":[{"type":"text","text":"s"}],"thinking":{"type":'
    b'"enabled","budget_tokens":5000},"stop_sequences":["END"],"metadata":{"user_id":"u"},"tools":[{"name":"f",'
    b'"description":"d","input_schema":{"type":"object"}},{"type":"web_search_20250305","name":"web_search"}],'
    b'"tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},"messages":[{"role":"user",'
    b'"content":"hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"h","signature":"tssp1.x"},'
    b'{"type":"text","text":"t"},{"type":"tool_use","id":"a","name":"f","input":{"x":1}}]},{"role":"user",'
    b'"content":[{"type":"tool_result","tool_use_id":"a","is_error":true,"content":[{"type":"text","text":"r"},'
    b'{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}}]},{"type":"document",'
    b'"title":"T","source":{"type":"text","data":"d"}}]}]}'
)
_TWICE = (
    b'{"model":"m","max_tokens":9,"tools":[{"name":"a b.c"}],"messages":[{"role":"assistant","content":['
    b'{"type":"tool_use","id":"a","name":"a b.c"},{"type":"tool_use","id":"a","name":"f","input":[]}]},'
    b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"b","content":"x"}]}]}'
)
SEEDS = [b"\x00" + bytes([n]) + told for n in (0, 1, 3, 6) for told in (_RESPONSES, _MORE)]
SEEDS += [b"\x01" + bytes([n]) + _MESSAGES for n in (0, 1, 3, 4, 6)] + [b"\x01\x00" + _TWICE]
WORDS = [
    b'"type"',
    b'"role"',
    b'"content"',
    b'"text"',
    b'"name"',
    b'"id"',
    b'"call_id"',
    b'"input"',
    b'"output"',
]
WORDS += [
    b"message",
    b"reasoning",
    b"function_call",
    b"custom_tool_call",
    b"function_call_output",
    b"namespace",
]
WORDS += [
    b"user",
    b"assistant",
    b"system",
    b"tool_use",
    b"tool_result",
    b"image",
    b"document",
    b"base64",
    b"url",
]
WORDS += [
    b"input_file",
    b"input_image",
    b"input_audio",
    b"refusal",
    b"tool_search",
    b"tool_search_output",
    b"f",
]
WORDS += [
    b"additional_tools",
    b"apply_patch_call",
    b"shell_call",
    b"item_reference",
    b"allowed_tools",
    b"required",
]
WORDS += [
    b"a",
    b"b",
    b'"tools"',
    b'"tool_choice"',
    b"search_result",
    b"tool_reference",
    b"content",
    b"file_data",
]
WORDS += [
    b"data:text/plain;base64,",
    b"data:,",
    b"title",
    b"source",
    b"data",
    b"media_type",
    b"detail",
    b"original",
]


def run(data: bytes) -> None:
    drawn = Drawn(data)
    dialect = drawn.choice(("responses", "messages"))
    profile, body = drawn.choice(PROFILES), drawn.rest()
    try:
        translation = WAYS[dialect](body, profile, "k" * 24, 1)
    except Declined as declined:
        _is_told(dialect, declined)
    else:
        chat = strict_json(translation.body)
        _is_chat(chat, profile)
        _fits_a_header(translation)
        translation.open()
    _is_counted(body, profile)


def _is_told(dialect, declined):
    answer = decline(dialect, declined)
    assert answer.status == 400
    assert strict_json(answer._body)["error"]["message"]


def _is_chat(chat, profile):
    assert chat["model"]
    assert isinstance(chat["stream"], bool)
    waiting = []
    for message in chat["messages"]:
        role = message["role"]
        if role == "tool":
            assert message["tool_call_id"] == waiting.pop(0), (
                "outputs stand in the order of their calls"
            )
            assert isinstance(message["content"], str | list)
            continue
        assert not waiting, "something stands between a call and its output"
        assert role in ("system", "developer", "user", "assistant")
        calls = message.get("tool_calls", [])
        waiting = [call["id"] for call in calls]
        assert len(set(waiting)) == len(waiting)
        for call in calls:
            assert isinstance(strict_json(call["function"]["arguments"].encode()), dict)
            assert isinstance(call["function"]["name"], str)
        assert calls or message.get("content") is not None or role == "assistant"
        _texts(message.get("content"))
    assert not waiting, "a call without an output"
    names = [
        tool["function"]["name"] for tool in chat.get("tools", ()) if tool["type"] == "function"
    ]
    assert len(set(names)) == len(names)
    assert all(_NAME.fullmatch(name) for name in names)
    assert "tools" in chat or "tool_choice" not in chat
    assert chat.get(profile.max_tokens_field, 1) >= 1


def _texts(content):
    for part in content if isinstance(content, list) else ():
        assert isinstance(part["type"], str)
        if part["type"] == "text":
            assert isinstance(part["text"], str)


class _Came:
    headers = ((b"content-type", b"application/json"), (b"x-request-id", b"r"))


def _fits_a_header(translation):
    headers = _headers(_Came, translation)
    assert (get(headers, b"x-proxy-dropped") is None) == (not translation.dropped)
    frame(RequestHead(method=b"GET", target=b"/", headers=headers), 0)


def _is_counted(body, profile):
    try:
        tokens = estimate(translate_count(body, profile))
    except Declined:
        return
    assert tokens >= 0
    assert strict_json(count_answer(tokens))
    assert (tokenizer_count(body) or 0) >= 0
