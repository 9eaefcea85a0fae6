"""The grammar of a Responses stream, written down without a look at what writes it.

`created (in_progress | keepalive)* (items) (completed | incomplete | failed | error failed)`; items may
overlap, but each is added once, grows as its type may, and is done at most once.
"""

from __future__ import annotations

import re

SUMMARY = re.compile(
    r"added( summary_part\.added( summary_text\.delta)* summary_text\.done summary_part\.done)? done"
)
TEXT = re.compile(r"added part\.added( text\.delta)* text\.done part\.done done")
REFUSAL = re.compile(r"added part\.added( refusal\.delta)* refusal\.done part\.done done")
FUNCTION = re.compile(r"added( arguments\.delta)* arguments\.done done")
CUSTOM = re.compile(r"added( input\.delta)* input\.done done")
SEARCH = re.compile(r"added done")

SHAPES = {
    "reasoning": [SUMMARY],
    "message": [TEXT, REFUSAL],
    "function_call": [FUNCTION],
    "custom_tool_call": [CUSTOM],
    "tool_search_call": [SEARCH],
}
SHORT = {
    "response.output_item.added": "added",
    "response.output_item.done": "done",
    "response.content_part.added": "part.added",
    "response.content_part.done": "part.done",
    "response.output_text.delta": "text.delta",
    "response.output_text.done": "text.done",
    "response.refusal.delta": "refusal.delta",
    "response.refusal.done": "refusal.done",
    "response.reasoning_summary_part.added": "summary_part.added",
    "response.reasoning_summary_part.done": "summary_part.done",
    "response.reasoning_summary_text.delta": "summary_text.delta",
    "response.reasoning_summary_text.done": "summary_text.done",
    "response.function_call_arguments.delta": "arguments.delta",
    "response.function_call_arguments.done": "arguments.done",
    "response.custom_tool_call_input.delta": "input.delta",
    "response.custom_tool_call_input.done": "input.done",
}
PREFIX = {
    "reasoning": "rs_",
    "message": "msg_",
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
    "tool_search_call": "tsc_",
}
ENDS = ("response.completed", "response.incomplete", "response.failed")


class Item:
    def __init__(self, event):
        self.item = event["item"]
        self.id = self.item["id"]
        self.kind = self.item["type"]
        self.told = []
        self.deltas = ""
        self.whole = None
        self.final = None
        assert self.id.startswith(PREFIX[self.kind])

    def take(self, event):
        assert self.final is None, "an event for an item that is done"
        short = SHORT[event["type"]]
        self.told.append(short)
        if short == "done":
            self.final = event["item"]
            assert self.final["id"] == self.id
            assert self.final["type"] == self.kind
        elif short != "added":
            assert event["item_id"] == self.id
        if short.endswith(".delta"):
            self.deltas += event["delta"]
        if short in ("text.done", "refusal.done", "summary_text.done"):
            self.whole = event.get("text", event.get("refusal"))
        if short in ("arguments.done", "input.done"):
            self.whole = event.get("arguments", event.get("input"))
        if self.whole is not None:
            assert self.whole == self.deltas

    def check(self):
        """Whole, or cut: then what was told is the beginning of what could be."""
        told = " ".join(self.told)
        if self.final is not None:
            assert any(shape.fullmatch(told) for shape in SHAPES[self.kind]), told
            self.check_final()
        else:
            assert "done" not in self.told

    def check_final(self):
        final = self.final
        match self.kind:
            case "message":
                (part,) = final["content"]
                assert part.get("text", part.get("refusal")) == self.whole
            case "reasoning":
                assert [part["text"] for part in final["summary"]] == (
                    [] if self.whole is None else [self.whole]
                )
            case "function_call":
                assert final["arguments"] == self.whole
                assert isinstance(final["call_id"], str)
            case "custom_tool_call":
                assert final["input"] == self.whole
            case _:
                assert isinstance(final["arguments"], dict)


def check(events):
    """Assert that these events are a whole stream; the last one's response."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] in ENDS
    ids = {event["response"]["id"] for event in events if "response" in event}
    assert len(ids) == 1
    failed = events[-1]["type"] == "response.failed"
    body = events[1 : -2 if failed else -1]
    if failed:
        assert events[-2]["type"] == "error"
        assert events[-2]["error"]["message"]
    items = {}
    for event in body:
        if event["type"] in ("response.in_progress", "keepalive"):
            assert event["type"] == "keepalive" or not items
            continue
        index = event["output_index"]
        if event["type"] == "response.output_item.added":
            assert index == len(items)
            items[index] = Item(event)
        items[index].take(event)
    for item in items.values():
        item.check()
    response = events[-1]["response"]
    assert response["status"] == events[-1]["type"].removeprefix("response.")
    done = [items[index].final for index in sorted(items) if items[index].final is not None]
    assert response["output"] == done
    if response["status"] == "completed":
        kinds = {item.kind for item in items.values() if item.final is None}
        assert kinds <= {"function_call", "custom_tool_call", "tool_search_call"}
    return response
