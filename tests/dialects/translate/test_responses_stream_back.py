"""The stream back to a client of Responses, one row of the table after the other."""

from __future__ import annotations

import json

import pytest
from responses_frames import (
    DONE,
    GENERIC,
    KEY,
    REASONING,
    answer,
    calling,
    chunk,
    events,
    frame,
    fresh,
    kinds,
    request,
    stream,
    told,
    tool,
)

from trio_sse_proxy.core.failure import Cause, Failure, Refused
from trio_sse_proxy.dialects import RESPONSES
from trio_sse_proxy.dialects.base import look_through
from trio_sse_proxy.dialects.translate.carried import Carried, unpack
from trio_sse_proxy.dialects.translate.profile import Profile
from trio_sse_proxy.dialects.translate.responses_stream import translate_answer

TEXT = chunk({"content": "hi"})
STOP = chunk(finish="stop")
SUMMARY = {"reasoning": {"summary": "auto"}}
COUNTS = {"prompt_tokens": 5, "completion_tokens": 2}
DIED = Failure(cause=Cause.TRUNCATED, message="it died")

MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
ANSWER = [*MESSAGE, "completed"]


def thinking(text, key="reasoning_content"):
    return chunk({key: text})


def test_opening_is_created_and_in_progress_with_our_own_ids():
    back = request(stream=True, model="mine", temperature=0.5, tools=[tool("f")]).back
    created, in_progress = events(fresh(back).opening)
    assert (created["type"], created["sequence_number"]) == ("response.created", 0)
    assert (in_progress["type"], in_progress["sequence_number"]) == ("response.in_progress", 1)
    assert created["response"] == in_progress["response"]
    assert created["response"] == {
        "id": f"resp_{KEY}",
        "object": "response",
        "created_at": 7,
        "status": "in_progress",
        "model": "mine",
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "max_output_tokens": None,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [tool("f")],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


# --- what chat tells -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_text_is_a_summary(key):
    found = told(stream(**SUMMARY), thinking("a", key), thinking("b", key))
    assert kinds(found) == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
    ]
    assert found[0]["item"] == {"type": "reasoning", "id": f"rs_{KEY}0", "summary": []}
    assert [event["delta"] for event in found[2:]] == ["a", "b"]
    assert {event["summary_index"] for event in found[1:]} == {0}


def test_reasoning_text_without_summary_wish_is_only_the_item():
    found = told(stream(include=REASONING["include"]), thinking("a"), thinking("b"), TEXT)
    assert kinds(found)[:2] == ["output_item.added", "output_item.done"]
    assert found[1]["item"]["summary"] == []
    assert unpack(found[1]["item"]["encrypted_content"]) == Carried("ab")


@pytest.mark.parametrize("include", [None, [], ["message.output_text.logprobs"]])
def test_reasoning_is_carried_for_who_did_not_ask(include):
    """As Reasonix, which brings back every item that it got, and leaves the rest to the server."""
    found = told(stream(include=include), thinking("a"), TEXT)
    assert unpack(found[1]["item"]["encrypted_content"]) == Carried("a")


def test_content_text_is_a_message():
    found = told(stream(), TEXT, chunk({"content": " you"}), STOP, DONE)
    assert kinds(found)[2:5] == ["output_text.delta", "output_text.delta", "output_text.done"]
    assert found[0]["item"] == {
        "id": f"msg_{KEY}0",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert found[1]["part"] == part
    assert found[2]["delta"] == "hi"
    assert found[2]["logprobs"] == []
    assert found[4]["text"] == "hi you"
    assert found[6]["item"]["status"] == "completed"
    assert found[6]["item"]["content"] == [part | {"text": "hi you"}]


def test_close_reasoning_when_text_comes_and_close_message_when_reasoning_comes():
    found = told(stream(**REASONING), thinking("a"), TEXT, thinking("b"), STOP, DONE)
    shown = ["output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"]
    shown += ["reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"]
    assert kinds(found) == [*shown, *MESSAGE, *shown, "completed"]
    assert [event["output_index"] for event in found if "item" in event] == [0, 0, 1, 1, 2, 2]
    assert [item["type"] for item in found[-1]["response"]["output"]] == [
        "reasoning", "message", "reasoning",
    ]  # fmt: skip


def test_refusal_is_text_by_default():
    assert kinds(told(stream(), chunk({"refusal": "no"}), STOP, DONE)) == ANSWER


def test_refusal_is_a_part_of_its_own_where_the_profile_says_so():
    profile = Profile(refusal_as_text=False)
    found = told(stream(profile), TEXT, chunk({"refusal": "no"}), STOP, DONE)
    assert kinds(found)[len(MESSAGE) :] == [
        "output_item.added",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert found[-2]["item"]["content"] == [{"type": "refusal", "refusal": "no"}]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 99])
def test_think_inside_content_is_reasoning_wherever_the_tags_are_cut(size):
    whole = "<think>why</think>\n\nso <b>"
    pieces = [chunk({"content": whole[at : at + size]}) for at in range(0, len(whole), size)]
    asked = {"profile": Profile(inline_think=True), **REASONING}
    items = answer(*pieces, STOP, DONE, **asked)["output"]
    assert items[0]["summary"][0]["text"] == "why"
    assert items[1]["content"][0]["text"] == "so <b>"
    assert len(items) == 2


def test_what_might_have_become_a_tag_is_text_in_the_end():
    items = answer(chunk({"content": "a <thi"}), STOP, DONE, profile=Profile(inline_think=True))
    assert items["output"][0]["content"][0]["text"] == "a <thi"


def test_think_inside_content_is_text_where_the_profile_does_not_expect_it():
    items = answer(chunk({"content": "<think>x</think>"}), STOP, DONE)["output"]
    assert items[0]["content"][0]["text"] == "<think>x</think>"


def test_tool_delta_that_names_a_new_call_closes_what_is_active_and_adds_it():
    space = {"type": "namespace", "name": "n", "tools": [tool("f")]}
    found = told(stream(tools=[space]), TEXT, calling("", id="c1", name="f"))
    assert kinds(found) == [*MESSAGE, "output_item.added"]
    assert found[-1]["item"] == {
        "id": f"fc_{KEY}1",
        "type": "function_call",
        "call_id": "c1",
        "name": "f",
        "namespace": "n",
        "arguments": "",
        "status": "in_progress",
    }


def test_tool_delta_waits_for_the_name():
    found = told(stream(), calling('{"a"', id="c1"), calling(":1}", name="f"), calling(" "))
    assert kinds(found) == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
    ]
    assert found[1]["delta"] == '{"a":1}'


def test_tool_delta_more_is_arguments():
    found = told(stream(), calling(id="c1", name="f"), calling('{"a'), calling('":1}'))
    assert [event.get("delta") for event in found] == [None, '{"a', '":1}']
    assert {event["output_index"] for event in found} == {0}


@pytest.mark.parametrize(
    "given", [{"type": "custom", "name": "f"}, {"type": "tool_search", "execution": "client"}]
)
def test_tool_delta_more_of_custom_and_search_is_buffered_silently(given):
    name = given.get("name", "tool_search")
    translator = stream(tools=[given])
    assert kinds(told(translator, calling('{"a', id="c1", name=name))) == ["output_item.added"]
    assert told(translator, calling('":"x"}')) == []


def test_finish_closes_what_is_active_and_then_the_calls_in_order():
    found = told(
        stream(),
        calling('{"a":', id="c1", name="f"),
        calling("{}", index=1, id="c2", name="g"),
        calling("1}"),
        TEXT,
        chunk(finish="tool_calls"),
        DONE,
    )
    assert kinds(found)[-8:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    done = [event for event in found if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [2, 0, 1]
    assert [event["item"].get("arguments") for event in done] == [None, '{"a":1}', "{}"]
    assert [item["id"] for item in found[-1]["response"]["output"]] == [
        f"fc_{KEY}0", f"fc_{KEY}1", f"msg_{KEY}2",
    ]  # fmt: skip
    assert found[-5]["name"] == "f"


def test_finish_gives_a_call_without_arguments_an_empty_object_in_deltas_too():
    found = told(stream(), calling("", id="c1", name="f"), chunk(finish="tool_calls"), DONE)
    assert found[1]["delta"] == found[2]["arguments"] == found[3]["item"]["arguments"] == "{}"


def test_nothing_is_done_before_the_end_is_told():
    translator = stream()
    found = told(translator, calling("{}", id="c1", name="f"), chunk(finish="tool_calls"))
    assert "output_item.done" not in kinds(found)
    assert translator.finished
    found = events(translator.fail(DIED))
    assert kinds(found) == ["error", "failed"]


@pytest.mark.parametrize(
    "last", [DONE, frame({"choices": [], "usage": COUNTS})], ids=["[DONE]", "usage"]
)
def test_end_comes_with_done_or_a_usage_chunk(last):
    translator = stream()
    assert kinds(told(translator, TEXT, STOP, last)) == ANSWER
    assert translator.done
    assert translator.feed(DONE) == translator.end() == translator.fail(DIED) == b""


def test_end_comes_with_the_end_of_the_body_if_a_finish_reason_was_told():
    translator = stream()
    found = told(translator, TEXT, STOP) + events(translator.end())
    assert kinds(found) == ANSWER


# --- which call a delta is of --------------------------------------------------------------------


def arguments_of(*frames):
    items = answer(*frames, chunk(finish="tool_calls"), DONE)["output"]
    return {item["call_id"]: (item["name"], item["arguments"]) for item in items}


def test_call_key_is_the_index():
    assert arguments_of(
        calling('{"a":', id="c1", name="f"),
        calling('{"b":', index=1, id="c2", name="g"),
        calling("1}"),
        calling("2}", index=1),
    ) == {"c1": ("f", '{"a":1}'), "c2": ("g", '{"b":2}')}


def test_call_key_without_index_is_the_id_and_else_the_last_call():
    assert arguments_of(
        calling('{"a":', index=None, id="c1", name="f"),
        calling('{"b":', index=None, id="c2", name="g"),
        calling("1", index=None, id="c1"),
        calling("}", index=None, id="c1"),
        calling("2}", index=None, id="c2"),
    ) == {"c1": ("f", '{"a":1}'), "c2": ("g", '{"b":2}')}
    frames = (calling('{"a":', index=None, id="c1", name="f"), calling("1}", index=None))
    assert arguments_of(*frames) == {"c1": ("f", '{"a":1}')}


def test_call_of_a_known_index_with_a_new_id_and_a_name_is_a_new_one():
    frames = (calling("{}", id="c1", name="f"), calling('{"x":1}', id="c2", name="f"))
    assert arguments_of(*frames) == {"c1": ("f", "{}"), "c2": ("f", '{"x":1}')}


def test_later_names_and_repeated_ids_are_ignored():
    frames = (calling('{"a"', id="c1", name="f"), calling(":1}", id="c1", name="f"))
    assert arguments_of(*frames) == {"c1": ("f", '{"a":1}')}


def test_object_arguments_are_dumped():
    assert arguments_of(calling({"a": 1}, id="c1", name="f")) == {"c1": ("f", '{"a":1}')}


def test_missing_id_is_minted():
    (call_id,) = arguments_of(calling("{}", name="f"))
    assert call_id.startswith(f"call_{KEY}")


def test_call_that_never_gets_a_name_is_told_so_that_the_client_complains():
    assert arguments_of(calling("{}", id="c1")) == {"c1": ("unknown_tool", "{}")}


def test_call_of_which_nothing_but_an_id_came_is_none():
    items = answer(calling(id="c1"), TEXT, STOP, DONE)["output"]
    assert [item["type"] for item in items] == ["message"]


def test_old_function_call_is_a_call():
    (call,) = arguments_of(chunk({"function_call": {"name": "f", "arguments": "{}"}})).values()
    assert call == ("f", "{}")


# --- finish reasons ------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call", "eos"])
def test_finish_reason_completed(reason):
    found = told(stream(), TEXT, chunk(finish=reason), DONE)
    assert found[-1]["type"] == "response.completed"
    assert found[-1]["response"]["status"] == "completed"
    assert found[-1]["response"]["incomplete_details"] is None


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("length", "max_output_tokens"),
        ("model_length", "max_output_tokens"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
    ],
)
def test_finish_reason_incomplete(reason, why):
    found = told(stream(), TEXT, chunk(finish=reason), DONE)
    assert kinds(found) == [*MESSAGE, "incomplete"]
    assert found[-1]["response"]["status"] == "incomplete"
    assert found[-1]["response"]["incomplete_details"] == {"reason": why}
    assert found[-1]["response"]["output"] == [found[-2]["item"]]


@pytest.mark.parametrize("reason", [["length"], {"length": 1}, 1, True])
def test_finish_reason_that_is_no_word_completes_the_answer(reason):
    found = told(stream(), calling("{}", id="c1", name="f"), chunk(finish=reason), DONE)
    assert found[-1]["response"]["status"] == "completed"
    assert found[-1]["response"]["output"][0]["call_id"] == "c1"


@pytest.mark.parametrize("arguments", ['{"a', ""])
def test_finish_reason_length_leaves_a_call_with_broken_json_undone(arguments):
    frames = (
        calling("{}", id="c1", name="f"),
        calling(arguments, index=1, id="c2", name="f"),
        chunk(finish="length"),
        DONE,
    )
    found = told(stream(), *frames)
    done = [event for event in found if event["type"] == "response.output_item.done"]
    assert [event["item"]["call_id"] for event in done] == ["c1"]
    assert found[-1]["response"]["output"] == [done[0]["item"]]


def test_finish_reason_length_is_completed_where_the_profile_says_so():
    profile = Profile(length_as_completed=True)
    found = told(stream(profile), TEXT, chunk(finish="length"), DONE)
    assert kinds(found) == ANSWER
    assert found[-2]["item"]["status"] == "completed"


def test_finish_reason_content_filter_is_incomplete_whatever_the_profile_says():
    profile = Profile(length_as_completed=True)
    found = told(stream(profile), TEXT, chunk(finish="content_filter"), DONE)
    assert found[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("abort", Cause.SERVER_ERROR),
        ("error", Cause.SERVER_ERROR),
        ("insufficient_system_resource", Cause.OVERLOADED),
        ("network_error", Cause.SERVER_ERROR),
    ],
)
def test_finish_reason_of_an_error_is_a_failure_without_dones(reason, cause):
    translator = stream()
    found = told(translator, TEXT, chunk(finish=reason), DONE)
    assert kinds(found) == MESSAGE[:3]
    assert translator.failure
    assert translator.failure.cause is cause
    assert kinds(events(translator.fail(translator.failure))) == ["error", "failed"]


@pytest.mark.parametrize(
    ("frames", "whole"),
    [
        ([TEXT], True),
        ([calling("{}", id="c", name="f")], True),
        ([TEXT, calling('{"a', id="c", name="f")], False),
        ([calling("", id="c", name="f")], False),
        ([calling("{}", id="c")], False),
        ([thinking("a")], False),
        ([], False),
    ],
)
def test_done_without_finish_reason_is_complete_if_nothing_is_half_open(frames, whole):
    translator = stream()
    found = told(translator, *frames, DONE)
    assert (kinds(found)[-1:] == ["completed"]) is whole
    assert (translator.failure is None) is whole


@pytest.mark.parametrize(
    ("frames", "cause"), [([TEXT], Cause.TRUNCATED), ([chunk({"role": "x"})], Cause.UNREACHABLE)]
)
def test_end_of_the_body_without_finish_reason_is_a_failure(frames, cause):
    translator = stream()
    told(translator, *frames)
    assert translator.end() == b""
    assert translator.failure
    assert translator.failure.cause is cause


# --- failures ------------------------------------------------------------------------------------


def test_error_chunk_wins_over_done_and_over_choices():
    translator = stream()
    error = {"message": "busy", "code": 503}
    found = told(translator, TEXT, chunk({"content": "x"}, error=error), DONE)
    assert kinds(found) == MESSAGE[:3]
    assert translator.failure == Failure(cause=Cause.OVERLOADED, message="busy", status=503)


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: hello\n\n", b"data: [1]\n\n"])
def test_unparsable_data_is_a_failure(data):
    translator = stream()
    assert translator.feed(data) == b""
    assert translator.failure
    assert translator.failure.cause is Cause.PROTOCOL


def test_failed_tells_the_id_the_client_knows_and_goes_on_counting():
    translator = stream(model="mine")
    last = told(translator, TEXT)[-1]["sequence_number"]
    error, failed = events(translator.fail(DIED))
    assert error == {
        "type": "error",
        "sequence_number": last + 1,
        "error": {
            "type": "server_error",
            "code": "server_error",
            "message": "upstream_truncated: it died",
            "param": None,
        },
    }
    assert failed["sequence_number"] == last + 2
    assert failed["response"]["id"] == f"resp_{KEY}"
    assert failed["response"]["model"] == "mine"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["output"] == []
    assert failed["response"]["error"]["code"] == "server_error"


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.INVALID_REQUEST, "invalid_prompt"),
        (Cause.AUTHENTICATION, "invalid_prompt"),
        (Cause.CONTEXT_EXCEEDED, "context_length_exceeded"),
        (Cause.RATE_LIMITED, "rate_limit_exceeded"),
        (Cause.OVERLOADED, "server_error"),
    ],
)
def test_failed_code_is_one_codex_treats_right(cause, code):
    failure = Failure(cause=cause, message="no", retry_after=20)
    failed = events(stream().fail(failure))[1]
    assert failed["response"]["error"]["code"] == code
    assert failed["sequence_number"] == 3
    waits = "Please try again in 20s" in failed["response"]["error"]["message"]
    assert waits is (cause is Cause.RATE_LIMITED)


# --- heartbeats ----------------------------------------------------------------------------------


def heard(*given):
    """What the dialect knows of a client that got these bytes: heartbeats come from there."""
    client = RESPONSES.open_stream()
    client.forwarded = True
    look_through(client, b"".join(given))
    return client


def test_event_heartbeat_before_the_first_item_is_in_progress():
    translator = fresh(request(stream=True).back)
    (beat,) = events(heard(translator.opening).event_heartbeat("sdk"))
    assert (beat["type"], beat["sequence_number"]) == ("response.in_progress", 1)
    assert beat["response"]["id"] == f"resp_{KEY}"


def test_event_heartbeat_after_it_is_keepalive():
    translator = fresh(request(stream=True).back)
    client = heard(translator.opening, translator.feed(TEXT))
    (beat,) = events(client.event_heartbeat("x"))
    assert beat == {"type": "keepalive", "sequence_number": 4}
    assert events(translator.fail(DIED))[0]["sequence_number"] == 5


@pytest.mark.parametrize(
    "quiet",
    [
        b": keep-alive\n\n",
        b"data: \n\n",
        chunk({"role": "assistant", "content": None, "tool_calls": None}),
        frame({"choices": [], "prompt_filter_results": []}),
        frame({"choices": [{"index": 0, "content_filter_results": {}}]}),
        frame({"choices": [{"index": 1, "delta": {"content": "other"}}]}),
        chunk(usage=None),
    ],
)
def test_what_says_nothing_gives_nothing(quiet):
    translator = stream()
    assert translator.feed(quiet) == b""
    assert kinds(told(translator, TEXT, quiet, STOP, quiet, DONE)) == ANSWER


# --- what returns --------------------------------------------------------------------------------

SIGNED = {"extra_content": {"google": {"thought_signature": "s"}}}


def test_extras_go_with_the_reasoning_before_their_call():
    found = told(stream(**REASONING), thinking("a"), calling("{}", id="c1", name="f", **SIGNED))
    reasoning = found[5]["item"]
    assert unpack(reasoning["encrypted_content"]) == Carried("a", {"c1": SIGNED})


def test_extras_without_reasoning_get_an_item_with_an_empty_summary_before_the_call():
    call = calling("{}", id="c1", name="f", **SIGNED)
    response = answer(call, chunk(finish="stop"), DONE, **REASONING)
    reasoning, function = response["output"]
    assert reasoning["summary"] == []
    assert unpack(reasoning["encrypted_content"]) == Carried("", {"c1": SIGNED})
    assert function["call_id"] == "c1"


def test_extras_that_come_late_get_an_item_of_their_own():
    call = calling("{}", id="c1", name="f")
    late = calling("", index=0, **SIGNED)
    found = answer(call, late, chunk(finish="stop"), DONE, **REASONING)["output"]
    assert [item["type"] for item in found] == ["function_call", "reasoning"]
    assert unpack(found[1]["encrypted_content"]) == Carried("", {"c1": SIGNED})


def test_extras_go_to_who_did_not_ask_for_them_too():
    """The vendor refuses the next turn without them."""
    call = calling("{}", id="c1", name="f", **SIGNED)
    reasoning, _ = answer(call, chunk(finish="stop"), DONE)["output"]
    assert unpack(reasoning["encrypted_content"]) == Carried("", {"c1": SIGNED})


def test_reasoning_comes_back_in_the_next_request():
    first = answer(
        chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}]}),
        chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "b"}]}),
        calling("{}", id="c1", name="f", **SIGNED),
        chunk(finish="tool_calls"),
        DONE,
        **REASONING,
    )
    message = request(input=first["output"]).body["messages"][0]
    assert message["reasoning_content"] == "ab"
    assert message["reasoning_details"] == [{"type": "reasoning.text", "index": 0, "text": "ab"}]
    assert message["tool_calls"][0]["extra_content"] == SIGNED["extra_content"]


# --- usage ---------------------------------------------------------------------------------------


def usage(counts, **more):
    return answer(TEXT, STOP, frame({"choices": [], "usage": counts, **more}))["usage"]


def test_usage_input_and_output_tokens_and_their_sum():
    assert usage(COUNTS) == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }


@pytest.mark.parametrize(
    "told",
    [
        {"prompt_tokens_details": {"cached_tokens": 3}},
        {"prompt_cache_hit_tokens": 3},
        {"cached_tokens": 3},
        {"prompt_tokens_details": {"cached_tokens": 3}, "prompt_cache_hit_tokens": 9},
    ],
)
def test_usage_cached_tokens(told):
    assert usage(COUNTS | told)["input_tokens_details"]["cached_tokens"] == 3


def test_usage_cache_write_tokens():
    told = usage(COUNTS | {"prompt_tokens_details": {"cache_write_tokens": 4}})
    assert told["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 4}


def test_usage_reasoning_tokens():
    told = usage(COUNTS | {"completion_tokens_details": {"reasoning_tokens": 1}})
    assert told["output_tokens_details"] == {"reasoning_tokens": 1}


def test_usage_total_tokens_as_the_upstream_says():
    assert usage(COUNTS | {"total_tokens": 8})["total_tokens"] == 8


def test_usage_in_the_choice_or_on_every_chunk_is_the_last_one_told():
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": COUNTS}
    assert answer(TEXT, frame({"choices": [choice]}), DONE)["usage"]["total_tokens"] == 7
    earlier = chunk({"content": "x"}, usage={"prompt_tokens": 5, "completion_tokens": 1})
    assert answer(earlier, chunk(finish="stop", usage=COUNTS), DONE)["usage"]["output_tokens"] == 2


@pytest.mark.parametrize("counts", [None, {}, {"prompt_tokens": 3}, "x"])
def test_usage_is_null_where_a_required_count_is_missing(counts):
    assert answer(TEXT, STOP, frame({"choices": [], "usage": counts}), DONE)["usage"] is None


# --- not streaming -------------------------------------------------------------------------------

FUNCTION = {"name": "f", "arguments": '{"a":1}'}
COMPLETION = {
    "id": "c1",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "hi",
                "reasoning_content": "why",
                "tool_calls": [{"id": "c1", "type": "function", "function": FUNCTION}],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": COUNTS,
}


def whole(completion, profile=GENERIC, **asked):
    back = request(profile, **asked).back
    return json.loads(translate_answer(json.dumps(completion).encode(), back, KEY, 7))


def test_whole_answer_has_reasoning_then_text_then_calls():
    response = whole(COMPLETION, **REASONING)
    assert [item["type"] for item in response["output"]] == [
        "reasoning", "message", "function_call",
    ]  # fmt: skip
    assert response["status"] == "completed"
    assert response["output"][2]["arguments"] == '{"a":1}'
    assert response["usage"]["total_tokens"] == 7
    assert response["output"][0]["summary"] == [{"type": "summary_text", "text": "why"}]


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_whole_answer_may_be_incomplete(reason, why):
    choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": reason}
    response = whole({"choices": [choice]})
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": why}
    assert response["usage"] is None


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"error":{"message":"no","code":"rate_limit_exceeded"}}', Cause.RATE_LIMITED),
        (b"<html>", Cause.PROTOCOL),
        (b"{}", Cause.PROTOCOL),
        (b'{"choices":[{"index":0,"finish_reason":"abort"}]}', Cause.SERVER_ERROR),
    ],
)
def test_whole_answer_that_is_a_failure_is_raised(body, cause):
    with pytest.raises(Refused) as caught:
        translate_answer(body, request().back, KEY, 7)
    assert caught.value.failure.cause is cause


def test_whole_answer_with_blank_lines_before_it_is_read():
    body = b"\n\n" + json.dumps(COMPLETION).encode()
    assert json.loads(translate_answer(body, request().back, KEY, 7))["status"] == "completed"


def test_a_json_answer_to_a_streaming_request_becomes_a_stream():
    translator = stream(**REASONING)
    found = events(translator.whole(json.dumps(COMPLETION).encode()))
    assert kinds(found)[-1] == "completed"
    assert found[-1]["response"]["output"] == whole(COMPLETION, **REASONING)["output"]
