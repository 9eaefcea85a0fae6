"""Input items of a Responses request, one row of the table after the other, and the repairs."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from responses_frames import GENERIC, messages, request, tool

from trio_sse_proxy.dialects.translate.carried import Carried, unpack
from trio_sse_proxy.dialects.translate.profile import (
    EmptyContent,
    Profile,
    ReasoningEcho,
    ReasoningField,
    SystemMode,
    ToolIdShape,
    ToolImages,
)
from trio_sse_proxy.dialects.translate.refusals import Declined

PNG = "data:image/png;base64,iVBO"
IMAGE = {"type": "input_image", "image_url": PNG}
SHOWN = {"type": "image_url", "image_url": {"url": PNG}}


def says(role, *parts, **more):
    return {"type": "message", "role": role, "content": list(parts), **more}


def text(said, kind="input_text"):
    return {"type": kind, "text": said}


def user(said="go"):
    return says("user", text(said))


def assistant(said):
    return says("assistant", text(said, "output_text"))


def call(call_id="c1", name="f", arguments="{}", **more):
    return {
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        **more,
    }


def output(call_id="c1", said="out"):
    return {"type": "function_call_output", "call_id": call_id, "output": said}


def called(call_id="c1", name="f", arguments="{}"):
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def result(call_id="c1", said="out"):
    return {"role": "tool", "tool_call_id": call_id, "content": said}


def thought(said):
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": said}]}


# --- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["hi", [text("hi")]])
@pytest.mark.parametrize("kind", [{"type": "message"}, {}])
def test_message_user_of_text_only_is_a_string(content, kind):
    item = {**kind, "role": "user", "content": content}
    assert messages(item) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("detail", "told"), [(None, {}), ("low", {"detail": "low"}), ("original", {"detail": "high"})]
)
def test_message_user_image(detail, told):
    found = messages(says("user", text("see"), {**IMAGE, "detail": detail}))
    image = {"type": "image_url", "image_url": {"url": PNG, **told}}
    assert found[0]["content"] == [{"type": "text", "text": "see"}, image]


def test_message_user_image_alone_gets_a_text_beside_it():
    assert messages(says("user", IMAGE))[0]["content"] == [{"type": "text", "text": " "}, SHOWN]


def test_message_user_image_without_vision_is_named_in_words():
    found = messages(says("user", text("see"), IMAGE), profile=Profile(vision=False))
    assert found[0]["content"] == "see\n[image omitted: model has no vision]"


def test_message_user_image_by_file_id_is_refused():
    with pytest.raises(Declined):
        messages(says("user", {"type": "input_image", "file_id": "file_1"}))


def test_message_user_file_is_sent_where_the_profile_allows_it():
    part = {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": "data:application/pdf;base64,AA",
    }
    found = messages(says("user", text("see"), part), profile=Profile(files=True))
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}
    assert found[0]["content"][1] == {"type": "file", "file": file}
    with pytest.raises(Declined):
        messages(says("user", part))


def test_message_user_file_of_text_is_read():
    data = "data:text/plain;base64," + base64.b64encode("grün".encode()).decode()
    part = {"type": "input_file", "filename": "a.txt", "file_data": data}
    assert messages(says("user", part))[0]["content"] == "a.txt:\ngrün"


@pytest.mark.parametrize("key", ["file_id", "file_url"])
def test_message_user_file_elsewhere_is_refused(key):
    with pytest.raises(Declined) as caught:
        messages(says("user", {"type": "input_file", key: "x"}))
    assert caught.value.code == "unsupported_parameter"


def test_message_user_audio_passes():
    audio = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
    assert messages(says("user", text("hear"), audio))[0]["content"][1] == audio


def test_message_user_part_of_unknown_type_is_dropped_and_reported():
    told = request(input=[says("user", text("a"), {"type": "input_smell"})])
    assert told.body["messages"] == [{"role": "user", "content": "a"}]
    assert told.dropped == ("part:input_smell",)


def test_message_system_and_developer_that_lead_are_one():
    found = messages(says("developer", text("a")), says("system", text("b")), user("c"))
    assert found == [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "c"}]


@pytest.mark.parametrize(
    ("mode", "later"),
    [
        (SystemMode.USER, [{"role": "user", "content": "<system>b</system>"}]),
        (SystemMode.KEEP, [{"role": "system", "content": "b"}]),
        (SystemMode.LEADING, []),
    ],
)
def test_message_system_later_by_profile(mode, later):
    found = messages(
        says("developer", text("a")),
        user(),
        says("developer", text("b")),
        profile=Profile(system_mode=mode),
    )
    first = "a\n\nb" if mode is SystemMode.LEADING else "a"
    assert found == [
        {"role": "system", "content": first},
        {"role": "user", "content": "go"},
        *later,
    ]


def test_message_system_is_developer_where_the_profile_says_so():
    profile = Profile(developer_role=True)
    assert messages(says("system", text("a")), profile=profile)[0]["role"] == "developer"


def test_message_assistant_joins_its_parts_and_tells_refusals_as_text():
    item = says(
        "assistant",
        text("a", "output_text"),
        text("b", "output_text"),
        {"type": "refusal", "refusal": "c"},
        phase="final_answer",
    )
    assert messages(item) == [{"role": "assistant", "content": "abc"}]


def test_message_parts_that_are_no_text_leave_no_trace_in_system_messages():
    found = messages(says("system", text("a"), IMAGE, text("b")))
    assert found == [{"role": "system", "content": "a\nb"}]


def test_message_assistant_in_a_row_are_one():
    assert messages(assistant("a"), assistant("b")) == [{"role": "assistant", "content": "a\n\nb"}]


# --- reasoning -----------------------------------------------------------------------------------

ECHO = Profile(reasoning_echo=ReasoningEcho.ALL)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"encrypted_content": Carried("ours").pack(), "content": [text("b")]}, "ours"),
        ({"encrypted_content": "gAAAA", "content": [text("b")]}, "b"),
        ({"content": [text("b")], "summary": [text("c")]}, "b"),
        ({"content": None, "summary": [text("c"), text("d")]}, "c\n\nd"),
        ({"encrypted_content": Carried("", {"c": {}}).pack(), "summary": [text("c")]}, "c"),
    ],
)
def test_reasoning_is_the_first_that_can_be_read(item, told):
    found = messages({"type": "reasoning", **item}, assistant("x"), profile=ECHO)
    assert found == [{"role": "assistant", "content": "x", "reasoning_content": told}]


def test_reasoning_that_cannot_be_read_is_ignored():
    item = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}
    assert messages(item, assistant("x"), profile=ECHO) == [{"role": "assistant", "content": "x"}]


def test_reasoning_texts_of_one_turn_are_joined():
    found = messages(thought("a"), assistant("x"), thought("b"), call(), output(), profile=ECHO)
    assert found[0]["reasoning_content"] == "a\n\nb"
    assert found[0]["content"] == "x"


@pytest.mark.parametrize(
    ("echo", "plain", "calling"),
    [
        (ReasoningEcho.ALL, "a", "b"),
        (ReasoningEcho.TOOL_TURNS, None, "b"),
        (ReasoningEcho.NEVER, None, None),
    ],
)
def test_reasoning_echo(echo, plain, calling):
    items = [thought("a"), assistant("x"), user(), thought("b"), call(), output()]
    found = messages(*items, profile=Profile(reasoning_echo=echo))
    assert found[0].get("reasoning_content") == plain
    assert found[2].get("reasoning_content") == calling


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "none"])
def test_reasoning_field(name):
    found = messages(thought("a"), call(), profile=Profile(reasoning_field=ReasoningField(name)))
    assert found[0].keys() - {"role", "tool_calls"} == {name} - {"none"}


def test_reasoning_placeholder_stands_in_where_there_is_none():
    profile = replace(ECHO, reasoning_placeholder="?")
    found = messages(assistant("x"), user(), thought("a"), assistant("y"), profile=profile)
    assert [one.get("reasoning_content") for one in found] == ["?", None, "a"]


def test_reasoning_alone_is_a_message_where_it_is_echoed_and_else_no_message():
    found = messages(thought("a"), user(), profile=ECHO)
    assert found[0] == {"role": "assistant", "content": "", "reasoning_content": "a"}
    assert messages(thought("a"), user()) == [{"role": "user", "content": "go"}]
    unreadable = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}
    profile = replace(ECHO, reasoning_placeholder="?")
    assert messages(unreadable, user(), profile=profile) == [{"role": "user", "content": "go"}]


def test_extras_return_on_their_call_and_details_on_their_message():
    extra = {"extra_content": {"google": {"thought_signature": "s"}}}
    carried = Carried("", {"c2": extra}, [{"type": "reasoning.text", "text": "t"}])
    item = {"type": "reasoning", "summary": [], "encrypted_content": carried.pack()}
    message = messages(item, call("c1"), call("c2"))[0]
    assert message["tool_calls"] == [called("c1"), {**extra, **called("c2")}]
    assert message["reasoning_details"] == [{"type": "reasoning.text", "text": "t"}]


@given(st.text(), st.dictionaries(st.text(), st.dictionaries(st.text(), st.text())))
def test_what_is_packed_is_unpacked(reasoning, extras):
    packed = Carried(reasoning, extras).pack()
    assert packed.startswith("tssp1.")
    assert unpack(packed) == Carried(reasoning, extras)


@given(st.none() | st.text() | st.text().map("tssp1.".__add__) | st.integers())
def test_what_is_not_ours_is_not_unpacked(packed):
    assert unpack(packed) is None


def test_what_would_unpack_to_very_much_is_not_ours():
    assert unpack(Carried("x" * (9 * 2**20)).pack()) is None


# --- calls and outputs ---------------------------------------------------------------------------


def test_function_call_and_its_output():
    found = messages(user(), call(arguments='{"a": 1}'), output())
    assert found[1:] == [
        {"role": "assistant", "tool_calls": [called(arguments='{"a": 1}')]},
        result(),
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", {}),
        (" \n", {}),
        ("{bad", {"__invalid_json": "{bad"}),
        ("3", {"__invalid_json": "3"}),
        ({"a": 1}, {"a": 1}),
        (None, {}),
    ],
)
def test_function_call_arguments_are_always_an_object(arguments, told):
    found = messages(call(arguments=arguments))[0]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(found) == told


def test_function_call_of_a_namespace_has_its_flat_name():
    space = {"type": "namespace", "name": "n", "tools": [tool("f")]}
    asked = {"tools": [tool("f"), space]}
    found = messages(call("a"), call("b", namespace="n"), **asked)[0]["tool_calls"]
    assert [one["function"]["name"] for one in found] == ["f", "n__f"]


def test_function_call_of_a_tool_no_longer_offered_has_the_name_it_would_have():
    found = messages(call("a", "gone"), call("b", "g", namespace="n o"))[0]["tool_calls"]
    assert [one["function"]["name"] for one in found] == ["gone", "n_o__g"]


def test_function_call_output_of_a_list_joins_its_texts():
    assert messages(call(), output(said=[text("a"), text("b")]))[1] == result(said="a\nb")


def test_function_call_output_with_an_image_shows_it_to_the_user_after_all_tool_messages():
    found = messages(
        call("c1"), call("c2"), output("c1", [text("a"), IMAGE]), output("c2", "b"), user("go on")
    )
    assert found[1:] == [
        result("c1", "a\n[image follows]"),
        result("c2", "b"),
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Image from tool call c1:"},
                SHOWN,
                {"type": "text", "text": "go on"},
            ],
        },
    ]


def test_function_call_output_with_an_image_at_the_end_or_before_an_assistant():
    found = messages(
        call(), output(said=[IMAGE]), assistant("x"), call("c2"), output("c2", [IMAGE])
    )
    assert [one["role"] for one in found] == [
        "assistant", "tool", "user", "assistant", "tool", "user",
    ]  # fmt: skip
    assert found[2]["content"][1] == found[5]["content"][1] == SHOWN


def test_function_call_output_with_an_image_stands_before_a_later_system_message():
    found = messages(call(), output(said=[IMAGE]), says("developer", text("b")))
    assert found[2]["content"][1] == SHOWN
    assert found[3] == {"role": "user", "content": "<system>b</system>"}


def test_function_call_output_with_an_image_names_the_id_the_model_knows():
    profile = Profile(tool_id_shape=ToolIdShape.MISTRAL9)
    found = messages(call(), output(said=[IMAGE]), profile=profile)
    label = f"Image from tool call {found[1]['tool_call_id']}:"
    assert found[2]["content"][0] == {"type": "text", "text": label}


@pytest.mark.parametrize(
    ("mode", "content"),
    [
        (ToolImages.INLINE, [{"type": "text", "text": "a"}, SHOWN]),
        (ToolImages.DROP, "a\n[image omitted]"),
    ],
)
def test_function_call_output_with_an_image_by_profile(mode, content):
    profile = Profile(tool_images=mode)
    found = messages(call(), output(said=[text("a"), IMAGE]), profile=profile)
    assert found[1:] == [result(said=content)]


def test_function_call_output_with_an_image_without_vision():
    found = messages(call(), output(said=[text("a"), IMAGE]), profile=Profile(vision=False))
    assert found[1:] == [result(said="a\n[image omitted: model has no vision]")]


def test_custom_tool_call_and_its_output():
    found = messages(
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": 'a "b"'},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        tools=[{"type": "custom", "name": "patch"}],
    )
    assert found[0]["tool_calls"] == [called("c1", "patch", '{"input":"a \\"b\\""}')]
    assert found[1] == result(said="done")


def test_tool_search_call_and_output_list_names_and_offer_tools():
    search = {"type": "tool_search", "execution": "client", "description": "Find."}
    space = {"type": "namespace", "name": "n", "tools": [tool("f"), tool("g")]}
    told = request(
        tools=[search],
        input=[
            {"type": "tool_search_call", "call_id": "c1", "arguments": {"query": "x"}},
            {"type": "tool_search_output", "call_id": "c1", "tools": [tool("f"), space]},
        ],
    )
    found = told.body["messages"]
    assert found[0]["tool_calls"] == [called("c1", "tool_search", '{"query":"x"}')]
    assert found[1] == result(said="Tools found: f, n__f, g")
    names = [one["function"]["name"] for one in told.body["tools"]]
    assert names == ["tool_search", "f", "n__f", "g"]


def test_tool_search_without_ids_pairs_by_order():
    items = []
    for name in ("f", "g"):
        items.append({"type": "tool_search_call", "call_id": None, "arguments": {}})
        items.append({"type": "tool_search_output", "call_id": None, "tools": [tool(name)]})
    found = messages(*items)
    assert [one["content"] for one in found[1::2]] == ["Tools found: f", "Tools found: g"]


def test_additional_tools_join_the_list_and_say_nothing():
    told = request(
        tools=[tool("f")], input=[{"type": "additional_tools", "tools": [tool("g")]}, user()]
    )
    assert [one["function"]["name"] for one in told.body["tools"]] == ["f", "g"]
    assert told.body["messages"] == [{"role": "user", "content": "go"}]


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        ("local_shell_call", "local_shell", "action"),
        ("shell_call", "shell", "action"),
        ("apply_patch_call", "apply_patch", "operation"),
    ],
)
def test_harness_calls_are_history(kind, name, key):
    found = messages(
        {"type": kind, "call_id": "c1", key: {"command": ["ls"]}},
        {"type": f"{kind}_output", "call_id": "c1", "output": [{"stdout": "a", "stderr": ""}]},
    )
    assert found[0]["tool_calls"] == [called("c1", name, '{"command":["ls"]}')]
    assert json.loads(found[1]["content"]) == [{"stdout": "a", "stderr": ""}]


@pytest.mark.parametrize("kind", ["item_reference", "compaction_trigger"])
def test_item_that_points_elsewhere_is_refused(kind):
    with pytest.raises(Declined) as caught:
        messages(user(), {"type": kind, "id": "x"})
    assert caught.value.param == "input[1]"


@pytest.mark.parametrize(
    "kind",
    [
        "compaction", "web_search_call", "file_search_call", "code_interpreter_call",
        "image_generation_call", "computer_call", "computer_call_output", "mcp_call",
        "mcp_list_tools", "mcp_approval_request", "program", "program_output", "of_tomorrow",
    ],
)  # fmt: skip
def test_item_without_counterpart_is_dropped_and_reported_once(kind):
    told = request(input=[user(), {"type": kind}, {"type": kind}])
    assert told.body["messages"] == [{"role": "user", "content": "go"}]
    assert told.dropped == (f"item:{kind}",)


# --- repairs -------------------------------------------------------------------------------------


def test_repair_1_ids_used_twice_in_one_turn_are_told_apart_and_pair_by_order():
    found = messages(call("x", "f"), call("x", "g"), output("x", "1"), output("x", "2"))
    assert found[0]["tool_calls"] == [called("x", "f"), called("x_2", "g")]
    assert found[1:] == [result("x", "1"), result("x_2", "2")]


def test_repair_1_ids_used_again_in_a_later_turn_pair_within_it():
    found = messages(call("x"), output("x", "1"), call("x"), output("x", "2"))
    assert [one["content"] for one in found[1::2]] == ["1", "2"]
    assert found[0]["tool_calls"] == found[2]["tool_calls"] == [called("x")]


def test_repair_2_outputs_move_behind_their_calls_in_call_order():
    found = messages(
        call("a"), call("b"), user("wait"), output("b", "2"), output("a", "1"), assistant("x")
    )
    assert found[1:3] == [result("a", "1"), result("b", "2")]
    assert found[3:] == [{"role": "user", "content": "wait"}, {"role": "assistant", "content": "x"}]


def test_repair_2_an_output_that_moved_away_does_not_part_a_turn():
    found = messages(call("a"), user("wait"), assistant("x"), output("a"), assistant("y"))
    assert found[-1] == {"role": "assistant", "content": "x\n\ny"}


def test_repair_3_an_output_without_a_call_becomes_a_user_message():
    found = messages(output("z", "lost"), output("y", [IMAGE]))
    assert found[0] == {"role": "user", "content": "Tool result z: lost"}
    assert found[1]["content"] == [{"type": "text", "text": "Tool result y: "}, SHOWN]


def test_repair_4_a_call_without_output_gets_one():
    found = messages(call(), user())
    assert found[1:] == [result(said="[no output recorded]"), {"role": "user", "content": "go"}]


@pytest.mark.parametrize(
    ("empty", "told"),
    [
        (EmptyContent.OMIT, {}),
        (EmptyContent.EMPTY, {"content": ""}),
        (EmptyContent.NULL, {"content": None}),
    ],
)
def test_repair_5_content_of_an_assistant_that_only_called(empty, told):
    found = messages(call(), profile=Profile(empty_content=empty))
    assert found[0] == {"role": "assistant", "tool_calls": [called()], **told}


def test_repair_6_ids_for_mistral_match_at_both_ends():
    profile = Profile(tool_id_shape=ToolIdShape.MISTRAL9)
    found = messages(call("call_long_1"), call("aB3456789"), output("call_long_1"), profile=profile)
    first, second = [one["id"] for one in found[0]["tool_calls"]]
    assert len(first) == 9
    assert first.isalnum()
    assert second == "aB3456789"
    assert [one["tool_call_id"] for one in found[1:]] == [first, second]
    again = messages(call("call_long_1"), profile=profile)
    assert again[0]["tool_calls"][0]["id"] == first


ITEMS = st.one_of(
    st.sampled_from([user(), says("developer", text("s")), assistant("a"), thought("t")]),
    st.sampled_from("abc").map(call),
    st.sampled_from("abc").map(output),
)


@given(st.lists(ITEMS, max_size=12))
def test_whatever_the_history_each_call_is_answered_right_behind_it_and_nothing_is_lost(items):
    found = messages(*items, profile=GENERIC)
    waiting: list[str] = []
    for number, message in enumerate(found):
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
            continue
        assert not waiting
        waiting = [one["id"] for one in message.get("tool_calls", ())]
        assert len(set(waiting)) == len(waiting)
        assert message["role"] != "system" or number == 0
        if number and message["role"] == "assistant":
            assert found[number - 1]["role"] != "assistant"
    assert not waiting
    outputs = sum("output" in item for item in items)
    spoken = [(m["role"], m.get("content", "")) for m in found]
    results = [c for role, c in spoken if role == "tool" and "no output" not in c]
    orphans = [c for role, c in spoken if role == "user" and "Tool result" in c]
    assert len(results) + len(orphans) == outputs
    calls = sum(item.get("type") == "function_call" for item in items)
    assert sum(len(m.get("tool_calls", ())) for m in found) == calls
