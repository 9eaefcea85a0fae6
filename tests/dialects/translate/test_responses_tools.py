"""Tools of a Responses request, one row of the table after the other."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from responses_frames import (
    DONE,
    GENERIC,
    answer,
    calling,
    chunk,
    request,
    sent,
    stream,
    told,
    tool,
)

from trio_sse_proxy.dialects.translate.profile import Profile
from trio_sse_proxy.dialects.translate.refusals import Declined
from trio_sse_proxy.dialects.translate.tools import Tool, ToolBook, flat_name

SEARCH = {
    "type": "tool_search",
    "execution": "client",
    "description": "Find.",
    "parameters": {"type": "object", "properties": {"q": {}}},
}


def functions(*tools, profile=GENERIC, **asked):
    found = sent(profile, tools=list(tools), **asked).get("tools", [])
    return [one["function"] for one in found]


def names(*tools, **asked):
    return [one["name"] for one in functions(*tools, **asked)]


def space(name, *tools, **more):
    return {"type": "namespace", "name": name, "tools": list(tools), **more}


def item_of(flat, arguments, *tools):
    """The item that a call of this flat name comes back as."""
    call = calling(arguments, id="c1", name=flat)
    return answer(call, chunk(finish="tool_calls"), DONE, tools=list(tools))["output"][0]


def test_function():
    given = tool("f", description="Do.", strict=True, output_schema={})
    assert functions(given) == [
        {"name": "f", "description": "Do.", "parameters": {"type": "object"}, "strict": True}
    ]


@pytest.mark.parametrize("strict", [False, None])
def test_function_is_strict_only_when_true(strict):
    assert "strict" not in functions(tool("f", strict=strict))[0]


def test_function_without_parameters_takes_an_empty_object():
    assert functions({"type": "function", "name": "f", "parameters": None}) == [
        {"name": "f", "parameters": {"type": "object", "properties": {}}}
    ]


def test_function_comes_back_as_function_call():
    item = item_of("f", '{"a":1}', tool("f"))
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "f", '{"a":1}')
    assert "namespace" not in item


def test_namespace_is_flattened_and_comes_back_with_its_namespace():
    given = space("n", tool("f"), {"type": "custom", "name": "p"})
    assert names(given) == ["f", "p"]
    item = item_of("f", "{}", given)
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "n", "f")
    item = item_of("p", '{"input":"x"}', given)
    assert (item["type"], item["namespace"], item["name"]) == ("custom_tool_call", "n", "p")


def test_custom_has_one_input_and_its_grammar_in_the_description():
    form = {"type": "grammar", "syntax": "regex", "definition": "a+"}
    found = functions({"type": "custom", "name": "p", "format": form})[0]
    assert found["description"] == "Input grammar (regex):\na+"
    assert found["parameters"]["required"] == ["input"]
    plain = functions({"type": "custom", "name": "p", "format": {"type": "text"}})[0]
    assert "description" not in plain


@pytest.mark.parametrize(
    ("arguments", "raw"),
    [
        ('{"input":"a\\nb"}', "a\nb"),
        ('{"patch":"a"}', "a"),
        ("*** Begin", "*** Begin"),
        ('{"input":3}', '{"input":3}'),
        ('{"input":"a","x":1}', "a"),
        ("", ""),
    ],
)
def test_custom_comes_back_as_custom_tool_call_with_raw_input(arguments, raw):
    item = item_of("p", arguments, {"type": "custom", "name": "p"})
    assert (item["type"], item["input"]) == ("custom_tool_call", raw)


def test_tool_search_of_the_client_is_a_function_and_comes_back_as_tool_search_call():
    assert functions(SEARCH) == [
        {"name": "tool_search", "description": "Find.", "parameters": SEARCH["parameters"]}
    ]
    item = item_of("tool_search", '{"q":"x"}', SEARCH)
    assert item.pop("id").startswith("tsc_")
    assert item == {
        "type": "tool_search_call",
        "call_id": "c1",
        "execution": "client",
        "arguments": {"q": "x"},
        "status": "completed",
    }


@pytest.mark.parametrize(
    "kind",
    [
        "web_search", "web_search_preview", "file_search", "code_interpreter", "image_generation",
        "computer", "computer_use_preview", "mcp", "shell", "apply_patch", "local_shell",
        "programmatic_tool_calling", "tool_search", "of_tomorrow",
    ],
)  # fmt: skip
def test_hosted_tool_is_dropped_and_refused_if_forced(kind):
    told = request(tools=[{"type": kind}, tool("f")])
    assert [one["function"]["name"] for one in told.body["tools"]] == ["f"]
    assert told.dropped == (f"tool:{kind}",)
    assert "tools" not in sent(tools=[{"type": kind}])
    with pytest.raises(Declined) as caught:
        request(tools=[{"type": kind}, tool("f")], tool_choice={"type": kind})
    assert caught.value.param == "tool_choice"


def test_web_search_may_be_a_vendors_own():
    vendors = {"type": "web_search", "web_search": {"enable": True}}
    offered = [{"type": "web_search"}, {"type": "web_search_preview"}]
    told = request(Profile(web_search_tool=vendors), tools=offered)
    assert told.body["tools"] == [vendors]
    assert told.dropped == ()


# --- flat names ----------------------------------------------------------------------------------


def test_flat_name_is_bare_when_unique_or_of_functions_and_else_qualified():
    given = [tool("f"), space("n", tool("f"), tool("g")), space("functions", tool("h"))]
    assert names(*given) == ["f", "n__f", "g", "h"]


def test_flat_name_of_functions_stays_bare_when_others_share_it():
    assert names(space("n", tool("f")), space("functions", tool("f"))) == ["n__f", "f"]


def test_flat_name_has_no_foreign_letters():
    assert names(tool("a.b/c d"), tool("grün")) == ["a_b_c_d", "gr_n"]


def test_flat_name_is_cut_and_hashed_above_64():
    name = "x" * 65
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    assert flat_name(name) == "x" * 55 + "_" + digest
    assert flat_name("x" * 64) == "x" * 64


def test_first_definition_wins():
    found = functions(tool("f", description="1"), tool("f", description="2"))
    assert [one["description"] for one in found] == ["1"]


LETTERS = st.text("ab._ ", min_size=1, max_size=3) | st.just("y" * 70)
TOOLS = st.builds(Tool, LETTERS, st.none() | st.sampled_from(["functions", "a", "a__b"]) | LETTERS)


@given(st.lists(TOOLS, max_size=8))
def test_every_tool_has_a_flat_name_of_its_own_that_leads_back(tools):
    book = ToolBook(tools)
    unique = {(tool.namespace, tool.name): tool for tool in tools[::-1]}
    flats = {key: book.flat(*key) for key in unique}
    assert len(set(flats.values())) == len(flats)
    for key, flat in flats.items():
        assert book.find(flat) == unique[key]
        assert flat_name(flat) == flat


def test_deferred_tools_wait_for_a_search_to_list_them():
    late = tool("late", defer_loading=True)
    spaced = space("n", tool("inner", defer_loading=True))
    assert names(late) == ["late"]
    assert names(SEARCH, space("n", tool("f"), defer_loading=True)) == ["tool_search"]
    assert names(SEARCH, late, spaced, tool("f")) == ["tool_search", "f"]
    listed = [{"type": "tool_search_output", "call_id": "c", "tools": [late, spaced]}]
    assert names(SEARCH, late, spaced, input=listed) == ["tool_search", "late", "inner"]


# --- tool_choice ---------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["auto", "none", "required"])
def test_tool_choice_word_passes(word):
    assert sent(tools=[tool("f")], tool_choice=word)["tool_choice"] == word


def test_tool_choice_auto_is_left_out_where_the_profile_says_so():
    profile = Profile(tool_choice_auto=False)
    assert "tool_choice" not in sent(profile, tools=[tool("f")], tool_choice="auto")
    assert sent(profile, tools=[tool("f")], tool_choice="none")["tool_choice"] == "none"


@pytest.mark.parametrize("kind", ["function", "custom"])
def test_tool_choice_of_one_tool_has_its_flat_name(kind):
    choice = {"type": kind, "name": "f", "namespace": "n"}
    body = sent(tools=[tool("f"), space("n", {"type": kind, "name": "f"})], tool_choice=choice)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "n__f"}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_tool_choice_allowed_tools_filters_the_list_and_uses_its_mode(mode):
    allowed = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "g"}]}
    body = sent(tools=[tool("f"), tool("g")], tool_choice=allowed)
    assert [one["function"]["name"] for one in body["tools"]] == ["g"]
    assert body["tool_choice"] == mode


@pytest.mark.parametrize("choice", ["any", {"type": "mcp"}, {}, {"type": "function"}, 3])
def test_tool_choice_of_another_kind_is_refused(choice):
    with pytest.raises(Declined):
        request(tools=[tool("f")], tool_choice=choice)


@pytest.mark.parametrize("allowed", [[], ["g"]])
def test_tool_choice_of_a_tool_that_is_not_offered_is_refused(allowed):
    with pytest.raises(Declined):
        request(
            tools=[tool(name) for name in allowed], tool_choice={"type": "function", "name": "f"}
        )


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
def test_tool_choice_that_no_tool_is_left_for_is_refused(choice):
    with pytest.raises(Declined):
        request(tools=[{"type": "web_search"}], tool_choice=choice)


def test_tool_choice_without_tools_is_not_sent():
    assert "tool_choice" not in sent(tool_choice="auto")
    assert "tool_choice" not in sent(tools=[], tool_choice="none")


def test_an_unknown_name_is_told_as_a_function_so_that_the_client_complains():
    found = told(stream(tools=[tool("f")]), calling("{}", name="n.f", id="c"))
    assert found[0]["item"]["type"] == "function_call"
    assert found[0]["item"]["name"] == "n.f"
