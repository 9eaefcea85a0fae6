"""Text, images, documents and thinking of a Messages conversation on Chat."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from messages_talk import assistant, image, request, result, text, told, use, user

from trio_sse_proxy.core.failure import Refused
from trio_sse_proxy.dialects.translate.carried import Carried
from trio_sse_proxy.dialects.translate.profile import (
    GENERIC,
    PRESETS,
    ReasoningEcho,
    ReasoningField,
    ToolImages,
)

URL = "data:image/png;base64,iVBO"
PART = {"type": "image_url", "image_url": {"url": URL}}
CALLED = (user(text("a")), assistant(use()))


def document(source, **more):
    return {"type": "document", "source": source, **more}


# --- text and images -----------------------------------------------------------------------------


def test_text_alone_is_a_string():
    assert told(user(text("one"), text("two"))) == [{"role": "user", "content": "one\ntwo"}]
    assert told({"role": "user", "content": "one"}) == [{"role": "user", "content": "one"}]


def test_image_by_base64_is_a_data_url():
    assert told(user(text("see"), image()))[0]["content"] == [text("see"), PART]


def test_image_by_url_stays_a_url():
    picture = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    parts = told(user(text("see"), picture))[0]["content"]
    assert parts[1] == {"type": "image_url", "image_url": {"url": "https://x/y.png"}}


@pytest.mark.parametrize("source", [{"type": "file", "file_id": "f"}, {}, None])
def test_image_by_file_is_refused(source):
    with pytest.raises(Refused, match="images by"):
        told(user({"type": "image", "source": source}))


def test_image_alone_has_a_text_part_beside_it():
    """MiMo rejects messages of images only."""
    assert told(user(image()))[0]["content"] == [text(" "), PART]


def test_image_is_told_of_where_the_model_is_blind():
    blind = replace(GENERIC, vision=False)
    assert told(user(text("see"), image()), profile=blind)[0]["content"] == (
        "see\n[image omitted: model has no vision]"
    )


@pytest.mark.parametrize(
    ("mode", "content", "follows"),
    [
        (ToolImages.USER_MESSAGE, "shot\n[image follows]", True),
        (ToolImages.INLINE, [text("shot"), PART], False),
        (ToolImages.DROP, "shot\n[image omitted]", False),
    ],
)
def test_image_in_a_result_goes_where_the_profile_says(mode, content, follows):
    said = user(result(content=[text("shot"), image()]))
    messages = told(*CALLED, said, profile=replace(GENERIC, tool_images=mode))
    assert messages[2]["content"] == content
    after = [text("Image from tool call c1:"), PART]
    assert [message["content"] for message in messages[3:]] == ([after] if follows else [])


def test_image_in_a_result_that_is_an_error():
    messages = told(*CALLED, user(result(content=[image()], is_error=True)))
    assert messages[2]["content"] == "ERROR: \n[image follows]"
    assert messages[3]["content"][1] == PART


# --- documents -----------------------------------------------------------------------------------


def test_document_of_text_is_text_under_its_title():
    said = document({"type": "text", "media_type": "text/plain", "data": "body"}, title="T.txt")
    assert told(user(said))[0]["content"] == "T.txt\nbody"


def test_document_of_content_is_its_blocks_under_its_title():
    said = document({"type": "content", "content": [text("body"), image()]}, title="T")
    assert told(user(said))[0]["content"] == [text("T"), text("body"), PART]
    plain = document({"type": "content", "content": "body"})
    assert told(user(plain))[0]["content"] == "body"


def test_document_of_encoded_text_is_text():
    data = base64.b64encode("größer".encode()).decode()
    said = document({"type": "base64", "media_type": "text/plain", "data": data})
    assert told(user(said))[0]["content"] == "größer"
    broken = document({"type": "base64", "media_type": "text/plain", "data": "!"})
    with pytest.raises(Refused, match="base64"):
        told(user(broken))


def test_document_of_pdf_is_a_file_part_where_the_profile_allows_it():
    said = document(
        {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}, title="a.pdf"
    )
    with pytest.raises(Refused, match="no files"):
        told(user(said))
    parts = told(user(text("see"), said), profile=replace(GENERIC, files=True))[0]["content"]
    assert parts[1] == {
        "type": "file",
        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
    }


@pytest.mark.parametrize("kind", ["url", "file"])
def test_document_elsewhere_is_refused(kind):
    with pytest.raises(Refused, match="documents by"):
        told(user(document({"type": kind})))


def test_search_result_is_text():
    said = {
        "type": "search_result",
        "title": "T",
        "source": "https://x",
        "content": [text("one"), text("two")],
        "citations": {"enabled": True},
    }
    assert told(user(said))[0]["content"] == "T\nhttps://x\none\ntwo"


@pytest.mark.parametrize("turn", [user, assistant])
def test_blocks_of_unknown_type_are_dropped_with_a_word(turn):
    translated = request(user(text("a")), turn(text("b"), {"type": "novelty"}, {}))
    assert translated.body["messages"][1]["content"] == "b"
    assert translated.dropped == ("block:novelty", "block:?")


# --- thinking ------------------------------------------------------------------------------------


def thinking(told="Hm.", signature=""):
    return {"type": "thinking", "thinking": told, "signature": signature}


def turn_of(*blocks, **more):
    """The assistant's message with these blocks and a call."""
    return told(user(text("a")), assistant(*blocks, use()), user(result()), **more)[1]


@pytest.mark.parametrize("signature", ["", "EqQBCgIYAhIM", Carried().pack(), "tssp1.broken"])
def test_thinking_is_the_reasoning_of_its_turn(signature):
    assert turn_of(thinking("Hm.", signature))["reasoning_content"] == "Hm."


def test_thinking_of_several_blocks_is_joined():
    assert turn_of(thinking("a"), thinking("b"))["reasoning_content"] == "a\n\nb"


def test_thinking_that_is_only_in_our_signature_comes_back():
    assert turn_of(thinking("", Carried("Hm.").pack()))["reasoning_content"] == "Hm."


def test_redacted_thinking_is_dropped():
    translated = request(
        user(text("a")), assistant({"type": "redacted_thinking", "data": "x"}, text("b"))
    )
    assert translated.body["messages"][1] == {"role": "assistant", "content": "b"}
    assert translated.dropped == ("block:redacted_thinking",)


def test_gemini_gets_its_thought_signature_back_on_the_call():
    extras = {"extra_content": {"google": {"thought_signature": "sig"}}}
    carried = Carried(extras={"c1": extras})
    message = turn_of(thinking("", carried.pack()), profile=PRESETS["gemini"])
    (called,) = message["tool_calls"]
    assert called["extra_content"] == extras["extra_content"]
    assert called["id"] == "c1"


def test_openrouter_gets_its_reasoning_details_back_on_the_message():
    details = [{"type": "reasoning.encrypted", "data": "xyz", "index": 0}]
    message = turn_of(
        thinking("Hm.", Carried(details=details).pack()), profile=PRESETS["openrouter"]
    )
    assert message["reasoning_details"] == details
    assert message["reasoning"] == "Hm."


@pytest.mark.parametrize("preset", ["deepseek", "mimo"])
def test_deepseek_and_mimo_get_reasoning_for_every_turn(preset):
    """400 "reasoning_content must be passed back" otherwise."""
    messages = told(
        user(text("a")),
        assistant(thinking("Hm."), text("b")),
        user(text("c")),
        assistant(text("d")),
        user(text("e")),
        profile=PRESETS[preset],
    )
    reasoning = [message.get("reasoning_content") for message in messages]
    assert reasoning == [None, "Hm.", None, "(no reasoning recorded)", None]


@pytest.mark.parametrize(
    ("echo", "seen"),
    [
        (ReasoningEcho.TOOL_TURNS, [False, True]),
        (ReasoningEcho.ALL, [True, True]),
        (ReasoningEcho.NEVER, [False, False]),
    ],
)
def test_thinking_goes_up_as_the_profile_says(echo, seen):
    messages = told(
        user(text("a")),
        assistant(thinking("Hm."), text("b")),
        user(text("c")),
        assistant(thinking("Hm."), use()),
        user(result()),
        profile=replace(GENERIC, reasoning_echo=echo),
    )
    turns = [message for message in messages if message["role"] == "assistant"]
    assert ["reasoning_content" in turn for turn in turns] == seen


def test_thinking_goes_up_under_the_profiles_name_or_not_at_all():
    assert turn_of(thinking(), profile=PRESETS["vllm"])["reasoning"] == "Hm."
    nowhere = replace(GENERIC, reasoning_field=ReasoningField.NONE)
    assert not {"reasoning", "reasoning_content"} & set(turn_of(thinking(), profile=nowhere))
