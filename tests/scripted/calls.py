"""The same three voices, calling a tool after the text. Data only, like `talk.py`."""

from __future__ import annotations

import json
from typing import Any

from .talk import WORDS, Chat, Messages, Responses, compact, named

NAME = "count"
PIECES = ('{"upto":', '12,"unit"', ':"words"}')  # the arguments, as they are streamed
ARGUMENTS = "".join(PIECES)
CALL = f"{NAME}({ARGUMENTS})"
CALL_ID = "call_scripted"
SCHEMA = {"upto": {"type": "integer"}, "unit": {"type": "string"}}
PARAMETERS = {"type": "object", "properties": SCHEMA, "required": list(SCHEMA)}


class ChatCall(Chat):
    def ending(self):
        first = {"index": 0, "id": CALL_ID, "type": "function"}
        deltas = [first | {"function": {"name": NAME, "arguments": ""}}]
        deltas += [{"index": 0, "function": {"arguments": piece}} for piece in PIECES]
        _, *rest = super().ending()
        finish = self._chunk({}, finish="tool_calls")
        return (*(self._chunk({"tool_calls": [delta]}) for delta in deltas), finish, *rest)

    def answer(self):
        whole = json.loads(super().answer())
        (choice,) = whole["choices"]
        choice["finish_reason"] = "tool_calls"
        function = {"name": NAME, "arguments": ARGUMENTS}
        choice["message"]["tool_calls"] = [
            {"id": CALL_ID, "type": "function", "function": function}
        ]
        return compact(whole).encode()


class ResponsesCall(Responses):
    def _events(self) -> list[dict[str, Any]]:
        *text, completed = super()._events()
        item, place = self._call(), {"item_id": "fc_1", "output_index": 1}
        begun = item | {"arguments": "", "status": "in_progress"}
        events = [("output_item.added", {"output_index": 1, "item": begun})]
        events += [("function_call_arguments.delta", place | {"delta": piece}) for piece in PIECES]
        events += [
            ("function_call_arguments.done", place | {"arguments": ARGUMENTS, "name": NAME}),
            ("output_item.done", {"output_index": 1, "item": item}),
        ]
        call = [
            {"type": f"response.{name}", "sequence_number": number} | more
            for number, (name, more) in enumerate(events, len(text))
        ]
        return [*text, *call, completed | {"sequence_number": len(text) + len(call)}]

    def _response(self, status: str) -> dict[str, Any]:
        response = super()._response(status)
        if response["output"]:
            response["output"].append(self._call())
        return response

    def _call(self) -> dict[str, Any]:
        call = {"id": "fc_1", "type": "function_call", "status": "completed"}
        return call | {"call_id": CALL_ID, "name": NAME, "arguments": ARGUMENTS}


class MessagesCall(Messages):
    def ending(self):
        stop, _, message_stop = super().ending()
        block = {"type": "tool_use", "id": CALL_ID, "name": NAME, "input": {}}
        delta = {"stop_reason": "tool_use", "stop_sequence": None}
        return (
            stop,
            named({"type": "content_block_start", "index": 1, "content_block": block}),
            *(
                named(
                    {"type": "content_block_delta", "index": 1}
                    | {"delta": {"type": "input_json_delta", "partial_json": piece}}
                )
                for piece in PIECES
            ),
            named({"type": "content_block_stop", "index": 1}),
            named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": WORDS}}),
            message_stop,
        )

    def answer(self):
        whole = json.loads(super().answer())
        whole["stop_reason"] = "tool_use"
        arguments = json.loads(ARGUMENTS)
        whole["content"].append(
            {"type": "tool_use", "id": CALL_ID, "name": NAME, "input": arguments}
        )
        return compact(whole).encode()


CALLING: dict[str, type[Chat] | type[Responses] | type[Messages]] = {
    "chat": ChatCall,
    "responses": ResponsesCall,
    "messages": MessagesCall,
}
