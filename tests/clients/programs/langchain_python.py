"""LangChain for Python; questions and answers as in `asking.mjs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

PROMPT = [("user", "Count.")]
SCHEMA = {"upto": {"type": "integer"}, "unit": {"type": "string"}}
PARAMETERS = {"type": "object", "properties": SCHEMA, "required": list(SCHEMA)}
FUNCTION = {"name": "count", "description": "Count.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]


def model_of(question: dict[str, Any]) -> Any:
    asked = {"model": question["model"], "api_key": "sk-scripted", "max_retries": 0}
    asked |= {"default_headers": question["headers"], "stream_usage": True}
    if question["way"] == "messages":
        model: Any = ChatAnthropic(base_url=question["url"], max_tokens=99, **asked)
    else:
        asked |= {"use_responses_api": question["way"] == "responses"}
        model = ChatOpenAI(base_url=f"{question['url']}/v1", **asked)
    return model.bind_tools(TOOLS)


async def ask(model: Any, question: dict[str, Any], seen: dict[str, Any], leave: Any) -> None:
    if question["stream"]:
        whole: Any = None
        async with contextlib.aclosing(model.astream(PROMPT)) as chunks:
            async for chunk in chunks:
                seen["text"] += chunk.text
                whole = chunk if whole is None else whole + chunk
                if seen["text"] and question["leave"] == "output":
                    leave()
                    await asyncio.sleep(0)
    else:
        whole = await model.ainvoke(PROMPT)
        seen["text"] = whole.text
    told = whole.response_metadata
    seen["ids"] = [told.get("id") or whole.id]
    seen["finish"] = told.get("finish_reason") or told.get("stop_reason") or told.get("status")
    if usage := whole.usage_metadata:
        seen["usage"] = [usage["input_tokens"], usage["output_tokens"]]
    for call in whole.tool_calls:
        arguments = json.dumps(call["args"], separators=(",", ":"))
        seen["calls"].append(f"{call['name']}({arguments})")


async def put(model: Any, question: dict[str, Any]) -> None:
    seen: dict[str, Any] = {"key": question["key"], "text": "", "calls": [], "ids": []}

    def leave() -> None:
        seen.setdefault("left", time.monotonic())
        task.cancel()

    began = time.monotonic()
    task = asyncio.create_task(ask(model, question, seen, leave))
    if isinstance(question["leave"], float):
        asyncio.get_running_loop().call_later(question["leave"], leave)
    await asyncio.wait([task])
    if task.cancelled():
        seen["error"] = {"name": "CancelledError", "message": "left", "status": None}
    elif error := task.exception():
        status = getattr(error, "status_code", None)
        name = type(error).__name__
        seen["error"] = {"name": name, "message": str(error), "status": status}
    print(json.dumps(seen | {"seconds": time.monotonic() - began}), flush=True)


async def main() -> None:
    questions = [json.loads(line) for line in sys.stdin]
    models = [model_of(question) for question in questions]  # slow, so before any clock runs
    await asyncio.gather(*map(put, models, questions))


asyncio.run(main())
