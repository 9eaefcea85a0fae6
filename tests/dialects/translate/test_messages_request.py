"""A Messages request on Chat, one test for each row of the table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from messages_talk import assistant, request, result, text, told, use, user

from trio_sse_proxy.core.failure import Cause, Refused
from trio_sse_proxy.dialects import MESSAGES
from trio_sse_proxy.dialects.translate.messages_request import translate_request
from trio_sse_proxy.dialects.translate.profile import GENERIC, PRESETS, ThinkingStyle

TOOL = {"name": "Bash", "description": "Run", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}


def refused(*messages, **more):
    """The message that the client is refused with; checked to be an invalid request on Messages."""
    with pytest.raises(Refused) as caught:
        request(*messages, **more)
    failure = caught.value.failure
    assert failure.cause is Cause.INVALID_REQUEST
    assert MESSAGES.http_status(failure) == 400
    error = json.loads(MESSAGES.error_body(failure))["error"]
    assert error["type"] == "invalid_request_error"
    return error["message"]


# --- model, stream, numbers ----------------------------------------------------------------------


def test_model_goes_up_by_the_upstreams_name_and_back_by_the_clients():
    translated = request(model="deepseek-y")
    assert translated.body["model"] == "deepseek-y"
    assert translated.back.model == "claude-x"
    assert request().body["model"] == "claude-x"


def test_a_model_is_required():
    with pytest.raises(Refused, match="model"):
        translate_request(b'{"max_tokens":1,"messages":[{"role":"user","content":"x"}]}', GENERIC)


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense"])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(Refused, match="JSON object"):
        translate_request(body, GENERIC)


def test_stream_asks_for_usage_unless_the_profile_forbids_it():
    streaming = request(stream=True)
    assert streaming.body["stream"] is True
    assert streaming.body["stream_options"] == {"include_usage": True}
    assert streaming.back.stream
    silent = request(stream=True, profile=replace(GENERIC, stream_usage=False)).body
    assert silent["stream"] is True
    assert "stream_options" not in silent


@pytest.mark.parametrize("stream", [False, None, "true", 1])
def test_only_true_asks_for_a_stream(stream):
    translated = request(stream=stream)
    assert translated.body["stream"] is False
    assert "stream_options" not in translated.body
    assert not translated.back.stream


def test_temperature_and_top_p_stay_what_they_are():
    body = request(temperature=0.2, top_p=0.9).body
    assert (body["temperature"], body["top_p"]) == (0.2, 0.9)
    assert "temperature" not in request(temperature=None).body


def test_top_k_is_sent_where_the_profile_says_so():
    assert request(top_k=5).dropped == ("field:top_k",)
    passing = request(top_k=5, profile=replace(GENERIC, pass_fields=("top_k",)))
    assert passing.body["top_k"] == 5
    assert passing.dropped == ()


def test_max_tokens_has_the_name_and_the_bound_of_the_profile():
    assert request(max_tokens=64_000).body["max_tokens"] == 64_000
    bounded = replace(PRESETS["openai"], max_output_tokens=8_000)
    body = request(max_tokens=64_000, profile=bounded).body
    assert body["max_completion_tokens"] == 8_000
    assert "max_tokens" not in body


@pytest.mark.parametrize("limit", [None, 0, -1, "many", True])
def test_max_tokens_is_required(limit):
    assert "max_tokens" in refused(max_tokens=limit)


# --- system --------------------------------------------------------------------------------------


def test_system_string_is_the_first_message():
    assert told(system="Be brief.")[0] == {"role": "system", "content": "Be brief."}


def test_system_blocks_are_joined_by_a_blank_line_and_lose_cache_control():
    blocks = [text("One.") | {"cache_control": {"type": "ephemeral"}}, text("Two.")]
    assert told(system=blocks)[0] == {"role": "system", "content": "One.\n\nTwo."}


def test_system_block_of_claude_codes_billing_is_dropped():
    blocks = [text("x-anthropic-billing-header: cc_version=2"), text("You code.")]
    assert told(system=blocks)[0] == {"role": "system", "content": "You code."}


@pytest.mark.parametrize("system", [None, "", [], [text("")]])
def test_no_system_is_no_message(system):
    assert told(system=system) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("mode", "middle"),
    [
        ("user", {"role": "user", "content": "<system>Now.</system>"}),
        ("keep", {"role": "system", "content": "Now."}),
        ("leading", None),
    ],
)
def test_system_in_mid_conversation_goes_by_system_mode(mode, middle):
    from trio_sse_proxy.dialects.translate.profile import SystemMode

    profile = replace(GENERIC, system_mode=SystemMode(mode))
    messages = [user(text("a")), {"role": "system", "content": [text("Now.")]}, user(text("b"))]
    first = "Be.\n\nNow." if middle is None else "Be."
    assert told(*messages, system="Be.", profile=profile) == [
        {"role": "system", "content": first},
        {"role": "user", "content": "a"},
        *([middle] if middle else []),
        {"role": "user", "content": "b"},
    ]


def test_an_unknown_role_is_refused():
    assert "critic" in refused({"role": "critic", "content": "x"})


@pytest.mark.parametrize("content", [None, 1, {}])
def test_a_message_without_content_is_refused(content):
    assert "content" in refused({"role": "user", "content": content})


def test_a_conversation_without_messages_is_refused():
    with pytest.raises(Refused, match="at least one"):
        translate_request({"model": "m", "max_tokens": 1, "messages": []}, GENERIC)


# --- the assistant's turns -----------------------------------------------------------------------


def test_tool_use_becomes_tool_calls_behind_the_text():
    messages = told(user(text("a")), assistant(use(p=1), text("Then."), text("So.")))
    assert messages[1] == {
        "role": "assistant",
        "content": "Then.\n\nSo.",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "Bash", "arguments": '{"p":1}'},
            }
        ],
    }


def test_an_assistant_of_several_messages_is_one_turn():
    """Claude Code's history has one message for every block."""
    messages = told(
        user(text("a")), assistant(text("b")), assistant(use("c1")), assistant(use("c2"))
    )
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]


def test_a_trailing_assistant_message_is_forwarded():
    assert told(user(text("a")), assistant(text("{")))[-1] == {"role": "assistant", "content": "{"}


@pytest.mark.parametrize("kind", ["server_tool_use", "container_upload", "compaction", "novelty"])
def test_blocks_of_servers_are_dropped_with_a_word(kind):
    said = assistant(text("b"), {"type": kind, "id": "srvtoolu_1", "name": "x", "input": {}})
    translated = request(user(text("a")), said)
    assert translated.body["messages"][1] == {"role": "assistant", "content": "b"}
    assert translated.dropped == (f"block:{kind}",)


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_result",
    ],
)
@pytest.mark.parametrize("turn", [user, assistant])
def test_results_of_servers_tools_are_dropped_with_a_word(kind, turn):
    said = turn(text("b"), {"type": kind, "tool_use_id": "srvtoolu_1", "content": []})
    translated = request(user(text("a")), said)
    assert translated.body["messages"][1]["content"] == "b"
    assert translated.dropped == (f"block:{kind}",)


# --- results -------------------------------------------------------------------------------------


def test_results_come_before_the_rest_of_their_message():
    messages = told(user(text("a")), assistant(use()), user(text("and"), result()))
    assert messages[2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
        {"role": "user", "content": "and"},
    ]


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("plain", "plain"),
        ([text("one"), text("two")], "one\ntwo"),
        ("", ""),
        ([], ""),
        (None, ""),
    ],
)
def test_result_texts_are_joined(content, seen):
    messages = told(user(text("a")), assistant(use()), user(result(content=content)))
    assert messages[2] == {"role": "tool", "tool_call_id": "c1", "content": seen}


@pytest.mark.parametrize(
    ("content", "seen"),
    [("Exit 1", "ERROR: Exit 1"), ([text("Exit 1")], "ERROR: Exit 1"), ("", "ERROR: ")],
)
def test_result_that_is_an_error_says_so(content, seen):
    said = user(result(content=content, is_error=True))
    assert told(user(text("a")), assistant(use()), said)[2]["content"] == seen


def test_tool_reference_is_its_name():
    content = [{"type": "tool_reference", "tool_name": "Grep"}]
    messages = told(user(text("a")), assistant(use()), user(result(content=content)))
    assert messages[2]["content"] == "Grep"


# --- repairs -------------------------------------------------------------------------------------


def test_repair_1_ids_used_twice_in_a_turn_are_told_apart_in_order():
    messages = told(
        user(text("a")),
        assistant(use("c"), use("c")),
        user(result("c", "first"), result("c", "second")),
    )
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c", "c_2"]
    assert [(m["tool_call_id"], m["content"]) for m in messages[2:]] == [
        ("c", "first"),
        ("c_2", "second"),
    ]


def test_repair_2_results_stand_behind_their_calls_in_the_order_of_the_calls():
    messages = told(
        user(text("a")),
        assistant(use("c1"), use("c2")),
        user(result("c2", "second"), text("late")),
        user(result("c1", "first")),
    )
    assert [m.get("tool_call_id") for m in messages] == [None, None, "c1", "c2", None]


def test_repair_3_a_result_without_a_call_is_told_by_the_user():
    assert told(user(result("gone", "ok")))[0]["role"] == "user"
    assert "Tool result gone" in told(user(result("gone", "ok")))[0]["content"]


def test_repair_4_a_call_without_a_result_gets_one_that_says_so():
    messages = told(user(text("a")), assistant(use()), user(text("stop")))
    assert messages[2] == {
        "role": "tool",
        "tool_call_id": "c1",
        "content": "[no output recorded]",
    }


def test_repair_5_content_of_a_turn_that_only_calls_is_the_profiles_choice():
    from trio_sse_proxy.dialects.translate.profile import EmptyContent

    messages = [user(text("a")), assistant(use()), user(result())]
    assert "content" not in told(*messages)[1]
    for choice, content in ((EmptyContent.EMPTY, ""), (EmptyContent.NULL, None)):
        profile = replace(GENERIC, empty_content=choice)
        assert told(*messages, profile=profile)[1]["content"] == content


def test_repair_6_ids_have_the_vendors_shape_at_both_ends():
    messages = told(
        user(text("a")),
        assistant(use("toolu_01ABC")),
        user(result("toolu_01ABC")),
        profile=PRESETS["mistral"],
    )
    (call,) = messages[1]["tool_calls"]
    assert len(call["id"]) == 9
    assert call["id"].isalnum()
    assert messages[2]["tool_call_id"] == call["id"]


# --- tools ---------------------------------------------------------------------------------------


def test_tools_with_a_schema_are_functions():
    assert request(tools=[TOOL]).body["tools"] == [
        {
            "type": "function",
            "function": {"name": "Bash", "description": "Run", "parameters": {"type": "object"}},
        }
    ]
    assert request(tools=[{**TOOL, "type": "custom"}]).body == request(tools=[TOOL]).body


def test_tools_keep_strict_and_lose_what_only_anthropic_knows():
    odd = {
        "strict": True,
        "cache_control": {"type": "ephemeral"},
        "eager_input_streaming": True,
        "input_examples": [{}],
        "allowed_callers": ["direct"],
        "defer_loading": True,
    }
    (tool,) = request(tools=[TOOL | odd]).body["tools"]
    assert set(tool["function"]) == {"name", "description", "parameters", "strict"}
    assert "strict" not in request(tools=[TOOL | {"strict": False}]).body["tools"][0]["function"]


def test_tools_with_long_names_find_home():
    name = "mcp__" + "x" * 100
    translated = request(
        user(text("a")), assistant(use(name=name)), user(result()), tools=[TOOL | {"name": name}]
    )
    flat = translated.body["tools"][0]["function"]["name"]
    assert len(flat) == 64
    assert translated.body["messages"][1]["tool_calls"][0]["function"]["name"] == flat
    assert translated.back.book.find(flat).name == name


def test_the_first_of_two_definitions_of_a_tool_wins():
    (tool,) = request(tools=[TOOL, TOOL | {"description": "Other"}]).body["tools"]
    assert tool["function"]["description"] == "Run"


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_20250305",
        "web_fetch_20250910",
        "code_execution_20250825",
        "tool_search_tool_regex_20251119",
        "bash_20250124",
        "text_editor_20250728",
        "memory_20250818",
        "mcp_toolset",
    ],
)
def test_typed_tools_are_dropped_with_a_word(kind):
    translated = request(tools=[TOOL, {"type": kind, "name": kind[:4]}])
    assert len(translated.body["tools"]) == 1
    assert translated.dropped == (f"tool:{kind}",)


def test_typed_tools_alone_are_refused():
    assert "web_search" in refused(tools=[SEARCH])


def test_typed_tools_that_tool_choice_names_are_refused():
    choice = {"type": "tool", "name": "web_search"}
    assert "this model has no tool 'web_search'" in refused(
        tools=[TOOL, SEARCH], tool_choice=choice
    )


def test_web_search_may_be_a_tool_of_the_vendor():
    vendor = {"type": "web_search", "web_search": {"enable": True}}
    profile = replace(GENERIC, web_search_tool=vendor)
    translated = request(tools=[SEARCH], profile=profile)
    assert translated.body["tools"] == [vendor]
    assert translated.dropped == ()


@pytest.mark.parametrize(
    ("choice", "chat"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "Bash"}, {"type": "function", "function": {"name": "Bash"}}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_tool_choice(choice, chat):
    assert request(tools=[TOOL], tool_choice=choice).body["tool_choice"] == chat


def test_tool_choice_auto_is_left_out_where_the_vendor_rejects_it():
    body = request(tools=[TOOL], tool_choice={"type": "auto"}, profile=PRESETS["minimax"]).body
    assert "tool_choice" not in body


def test_tool_choice_is_left_out_where_there_are_no_tools():
    assert "tool_choice" not in request(tool_choice={"type": "auto"}).body


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "Nope"}, {"type": "whatever"}])
def test_tool_choice_of_what_is_not_there_is_refused(choice):
    assert "tool_choice" in refused(tools=[TOOL], tool_choice=choice)


def test_disable_parallel_tool_use():
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert request(tools=[TOOL], tool_choice=choice).body["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in request(tool_choice=choice).body
    profile = replace(GENERIC, parallel_tool_calls=False)
    assert (
        "parallel_tool_calls" not in request(tools=[TOOL], tool_choice=choice, profile=profile).body
    )


# --- the rest ------------------------------------------------------------------------------------


def test_stop_sequences_are_four_at_most():
    assert request(stop_sequences=["a", "b"]).body["stop"] == ["a", "b"]
    many = request(stop_sequences=list("abcdef"))
    assert many.body["stop"] == list("abcd")
    assert many.dropped == ("field:stop_sequences",)
    assert "stop" not in request(stop_sequences=[]).body


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max"),
        ({"output_config": {"effort": "medium"}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "high"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9_999}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5_000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4_999}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2_000}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1_999}}, "minimal"),
    ],
)
def test_thinking_is_an_effort(fields, effort):
    assert request(**fields).body["reasoning_effort"] == effort


@pytest.mark.parametrize("fields", [{}, {"thinking": {"type": "adaptive"}}])
def test_thinking_left_to_the_model_is_not_asked_for(fields):
    assert "reasoning_effort" not in request(**fields).body


@pytest.mark.parametrize(
    ("style", "on", "off"),
    [
        ("thinking_type", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
        ("enable_thinking", {"enable_thinking": True}, {"enable_thinking": False}),
        ("none", {}, {}),
    ],
)
def test_thinking_is_written_in_the_profiles_style(style, on, off):
    profile = replace(GENERIC, thinking_style=ThinkingStyle(style))
    plain = request(profile=profile).body
    high = request(profile=profile, thinking={"type": "enabled", "budget_tokens": 20_000}).body
    none = request(profile=profile, thinking={"type": "disabled"}).body
    assert (high, none) == (plain | on, plain | off)


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_output_format_is_a_response_format(place):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "schema": schema}
    body = request(**{place: {"format": wanted} if place == "output_config" else wanted}).body
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


@pytest.mark.parametrize(
    "field",
    [
        *("metadata", "service_tier", "speed", "container", "context_management", "mcp_servers"),
        *("diagnostics", "inference_geo", "fallbacks", "betas", "cache_control", "brand_new"),
    ],
)
def test_fields_without_a_counterpart_are_dropped_with_a_word(field):
    plain, translated = request(), request(**{field: {"user_id": "u"}})
    assert translated.body == plain.body
    assert translated.dropped == (f"field:{field}",)
    assert request(**{field: None}).dropped == ()


def test_metadata_user_id_is_the_user_where_the_profile_says_so():
    profile = replace(GENERIC, pass_fields=("user",))
    assert request(metadata={"user_id": "u1"}, profile=profile).body["user"] == "u1"


def test_extra_body_wins():
    profile = replace(GENERIC, extra_body={"temperature": 0, "rid": "r"})
    body = request(temperature=1, profile=profile).body
    assert (body["temperature"], body["rid"]) == (0, "r")


def test_a_request_as_claude_code_sends_it():
    translated = request(
        user(text("hi") | {"cache_control": {"type": "ephemeral"}}),
        stream=True,
        max_tokens=32_000,
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        context_management={"edits": []},
        metadata={"user_id": "{}"},
        tools=[TOOL],
        temperature=1,
    )
    assert translated.dropped == ("field:context_management", "field:metadata")
    assert "cache_control" not in json.dumps(translated.body)
