"""Top-level fields of a Responses request, one row of the table after the other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from responses_frames import DONE, GENERIC, answer, chunk, messages, request, sent, tool

from trio_sse_proxy.core.failure import Cause, Refused
from trio_sse_proxy.dialects.translate.profile import PRESETS, Profile, ThinkingStyle
from trio_sse_proxy.dialects.translate.refusals import Declined
from trio_sse_proxy.dialects.translate.responses_request import translate_request


def refused(**asked):
    with pytest.raises(Declined) as caught:
        request(**asked)
    assert isinstance(caught.value, Refused)
    assert caught.value.failure.cause is Cause.INVALID_REQUEST
    assert caught.value.failure.status == 400
    return caught.value


def test_model_is_the_routed_name_upstream_and_the_clients_name_on_the_way_back():
    told = translate_request({"model": "mine", "input": "hi"}, GENERIC, model="theirs")
    assert told.body["model"] == "theirs"
    assert told.back.model == "mine"


def test_instructions_are_the_first_system_message_and_an_input_string_a_user_message():
    assert sent(instructions="Be brief.")["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def test_stream_asks_for_usage():
    assert sent(stream=True)["stream"] is True
    assert sent(stream=True)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("value", [None, False, "true", 1])
def test_stream_is_wanted_only_if_true(value):
    assert sent(stream=value)["stream"] is False
    assert "stream_options" not in sent(stream=value)


def test_stream_options_are_left_out_where_the_profile_says_so():
    assert "stream_options" not in sent(replace(GENERIC, stream_usage=False), stream=True)


def test_max_output_tokens_has_the_name_the_profile_says():
    assert sent(max_output_tokens=9)["max_tokens"] == 9
    assert sent(PRESETS["openai"], max_output_tokens=9)["max_completion_tokens"] == 9
    assert not {"max_tokens", "max_output_tokens"} & sent(max_output_tokens=None).keys()


def test_max_output_tokens_is_clipped_to_what_the_profile_allows():
    profile = Profile(max_output_tokens=100)
    assert sent(profile, max_output_tokens=500)["max_tokens"] == 100
    assert sent(profile, max_output_tokens=50)["max_tokens"] == 50


def test_temperature_and_top_p_pass():
    assert sent(temperature=0, top_p=0.5).items() >= {"temperature": 0, "top_p": 0.5}.items()
    assert not {"temperature", "top_p"} & sent(temperature=None).keys()


def test_top_logprobs_asks_for_logprobs_too():
    assert sent(top_logprobs=2).items() >= {"logprobs": True, "top_logprobs": 2}.items()
    assert "logprobs" not in sent(top_logprobs=0)


@pytest.mark.parametrize("value", [True, False])
def test_parallel_tool_calls_are_sent_only_with_tools(value):
    assert "parallel_tool_calls" not in sent(parallel_tool_calls=value)
    assert sent(parallel_tool_calls=value, tools=[tool("f")])["parallel_tool_calls"] is value
    silent = Profile(parallel_tool_calls=False)
    assert "parallel_tool_calls" not in sent(silent, parallel_tool_calls=value, tools=[tool("f")])


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_reasoning_effort_passes_where_the_profile_says_nothing(effort):
    assert sent(reasoning={"effort": effort})["reasoning_effort"] == effort


def test_reasoning_effort_goes_through_the_profiles_map():
    profile = Profile(effort_map={"max": "high", "minimal": ""})
    assert sent(profile, reasoning={"effort": "max"})["reasoning_effort"] == "high"
    assert "reasoning_effort" not in sent(profile, reasoning={"effort": "minimal"})


@pytest.mark.parametrize(
    ("style", "on", "off"),
    [
        ("thinking_type", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
        ("enable_thinking", {"enable_thinking": True}, {"enable_thinking": False}),
        (
            "chat_template_kwargs",
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
        ("none", {}, {}),
    ],
)
def test_reasoning_effort_is_a_switch_in_other_styles(style, on, off):
    profile = Profile(thinking_style=ThinkingStyle(style))
    plain = sent(profile)
    assert sent(profile, reasoning={"effort": "high"}) == plain | on
    assert sent(profile, reasoning={"effort": "none"}) == plain | off


@pytest.mark.parametrize(
    ("reasoning", "wanted"),
    [(None, False), ({}, False), ({"summary": None}, False), ({"summary": "auto"}, True)],
)
def test_reasoning_summary_says_whether_reasoning_is_shown(reasoning, wanted):
    assert request(reasoning=reasoning).back.summary is wanted


def test_reasoning_context_and_mode_are_dropped():
    asked = {"effort": "low", "context": "all", "mode": "x"}
    assert sent(reasoning=asked) == sent(reasoning={"effort": "low"})


def test_text_format():
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True, "description": None}
    whole = {"type": "json_schema", **schema}
    assert "response_format" not in sent(text={"format": {"type": "text"}})
    assert sent(text={"format": {"type": "json_object"}})["response_format"] == {
        "type": "json_object"
    }
    assert sent(text={"format": whole})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }


def test_text_verbosity_is_sent_where_the_profile_passes_it():
    assert "verbosity" not in sent(text={"verbosity": "low"})
    assert sent(PRESETS["openai"], text={"verbosity": "low"})["verbosity"] == "low"


def test_previous_response_id_is_refused_with_the_code_clients_know():
    error = refused(previous_response_id="resp_1")
    assert json.loads(error.openai_body())["error"] == {
        "message": error.failure.message,
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
    assert "store" in error.failure.message


@pytest.mark.parametrize(
    ("key", "value"), [("conversation", "conv_1"), ("prompt", {"id": "p"}), ("background", True)]
)
def test_what_needs_a_store_is_refused(key, value):
    error = refused(**{key: value})
    assert (error.param, error.code) == (key, "unsupported_parameter")


@pytest.mark.parametrize("key", ["previous_response_id", "conversation", "prompt", "background"])
def test_what_needs_a_store_may_be_null(key):
    assert sent(**{key: None}) == sent()
    assert sent(background=False) == sent()


SILENT = {
    "store": True,
    "truncation": "auto",
    "metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "service_tier": "flex",
}


@pytest.mark.parametrize("key", SILENT)
def test_what_is_about_storage_and_accounting_is_accepted_and_passed_by_profile(key):
    told = request(**{key: SILENT[key]})
    assert told.body == sent()
    assert told.dropped == ()
    assert sent(Profile(pass_fields=(key,)), **{key: SILENT[key]})[key] == SILENT[key]


def test_metadata_is_echoed_and_the_response_says_it_is_not_stored():
    response = answer(chunk({"content": "x"}, "stop"), DONE, metadata={"a": "b"}, store=True)
    assert response["metadata"] == {"a": "b"}
    assert response["store"] is False


def test_include_changes_nothing():
    """What it could ask for is told anyhow, or not at all; either way nothing is dropped."""
    told = request(include=["reasoning.encrypted_content", "message.output_text.logprobs"])
    assert (told.body, told.dropped) == (request().body, ())


@pytest.mark.parametrize(
    "key",
    [
        "max_tool_calls", "context_management", "prompt_cache_options", "prompt_cache_retention",
        "moderation", "access_programs", "image", "client_metadata", "stream_options", "of_tomorrow",
    ],
)  # fmt: skip
def test_other_fields_are_dropped_and_reported(key):
    told = request(**{key: {"a": 1}})
    assert told.body == sent()
    assert told.dropped == (f"field:{key}",)


def test_extra_body_is_added_and_wins():
    profile = Profile(extra_body={"seed": 1, "temperature": 0.1})
    assert sent(profile, temperature=1).items() >= {"seed": 1, "temperature": 0.1}.items()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"input":"x"}', b'{"model":3}'])
def test_what_is_no_request_is_refused(body):
    with pytest.raises(Declined):
        translate_request(body, GENERIC)


@pytest.mark.parametrize("given", [3, {"role": "user"}, ["x"], [None]])
def test_an_input_that_is_no_list_of_objects_is_refused(given):
    assert refused(input=given).param.startswith("input")


def test_what_codex_sends_is_translated():
    """As measured with 0.169: no instructions, prompts as developer messages."""
    told = request(
        stream=True,
        input=[
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "a"}],
            },
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "b"}]},
        ],
        tools=[tool("shell", strict=False)],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"summary": "auto"},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        client_metadata={"x": "y"},
    )
    assert told.dropped == ("field:client_metadata",)
    assert told.body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
        "tools": [
            {"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    }


def test_newest_codex_brings_its_tools_in_an_item_and_calls_them_with_or_without_namespace():
    exec_tool = {"type": "custom", "name": "exec", "description": "Run."}
    space = {"type": "namespace", "name": "functions", "tools": [exec_tool]}
    told = request(
        input=[
            {"type": "additional_tools", "tools": [space]},
            {"role": "user", "content": "x"},
            {"type": "custom_tool_call", "call_id": "a", "name": "exec", "input": "1"},
            {
                "type": "custom_tool_call",
                "call_id": "b",
                "name": "exec",
                "namespace": "functions",
                "input": "2",
            },
        ]
    )
    assert [one["function"]["name"] for one in told.body["tools"]] == ["exec"]
    calls = told.body["messages"][1]["tool_calls"]
    assert [call["function"] for call in calls] == [
        {"name": "exec", "arguments": '{"input":"1"}'},
        {"name": "exec", "arguments": '{"input":"2"}'},
    ]


def test_configuration_update_overrides_effort_and_format():
    update = {"type": "configuration_update", "reasoning": {"effort": "low"}}
    later = {
        "type": "configuration_update",
        "reasoning": {"effort": "high"},
        "text": {"format": {"type": "json_object"}},
    }
    body = sent(reasoning={"effort": "max"}, input=[update, later])
    assert body["reasoning_effort"] == "high"
    assert body["response_format"] == {"type": "json_object"}
    assert messages(update, {"role": "user", "content": "x"}) == [{"role": "user", "content": "x"}]
