"""The grammar of a Messages stream, written from its description and not from the translator.

message_start  block*  message_delta+  message_stop      `ping` anywhere, `error` anywhere and final
block = content_block_start  content_block_delta*  content_block_stop
"""

from __future__ import annotations

FILLED_BY = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}
BEGINS = {
    "text": {"type", "text"},
    "thinking": {"type", "thinking", "signature"},
    "tool_use": {"type", "id", "name", "input"},
}
STOPS = (  # noqa: SIM905
    "end_turn max_tokens stop_sequence tool_use pause_turn refusal model_context_window_exceeded"
).split()


class Grammar:
    """Takes events one by one; an AssertionError is a stream no client should get."""

    def __init__(self):
        self.place = "before"  # before, between, inside, stopping, after
        self.index = 0
        self.kind = None
        self.failed = False

    def take(self, event):
        assert not self.failed, "nothing follows an error"
        assert self.place != "after", "nothing follows message_stop"
        kind = event["type"]
        if kind == "ping":
            return
        if kind == "error":
            assert set(event["error"]) == {"type", "message"}
            self.failed = True
            return
        getattr(self, kind)(event)

    def message_start(self, event):
        assert self.place == "before"
        message = event["message"]
        assert message["role"] == "assistant"
        assert message["content"] == []
        assert message["stop_reason"] is None
        assert {"input_tokens", "output_tokens"} <= set(message["usage"])
        self.place = "between"

    def content_block_start(self, event):
        assert self.place == "between"
        assert event["index"] == self.index
        block = event["content_block"]
        self.kind = block["type"]
        assert set(block) == BEGINS[self.kind]
        assert not any(block.get(key) for key in ("text", "thinking", "signature", "input"))
        if self.kind == "tool_use":
            assert block["id"]
            assert block["name"]
        self.place = "inside"

    def content_block_delta(self, event):
        assert self.place == "inside"
        assert event["index"] == self.index
        delta = event["delta"]
        assert delta["type"] in FILLED_BY[self.kind]
        assert all(isinstance(value, str) and value for value in delta.values())

    def content_block_stop(self, event):
        assert self.place == "inside"
        assert event["index"] == self.index
        self.index += 1
        self.place = "between"

    def message_delta(self, event):
        assert self.place in {"between", "stopping"}
        assert event["delta"]["stop_reason"] in STOPS
        assert all(count >= 0 for count in event["usage"].values() if isinstance(count, int))
        assert {"input_tokens", "output_tokens"} <= set(event["usage"])
        self.place = "stopping"

    def message_stop(self, event):
        assert self.place == "stopping"
        self.place = "after"


def read(events):
    """The state after these events; an AssertionError if they break the grammar."""
    grammar = Grammar()
    for event in events:
        grammar.take(event)
    return grammar
