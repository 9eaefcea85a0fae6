"""The input items of a Responses request, told as a history for Chat."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from ..wire import dumps, fields, items, text
from .carried import Carried, unpack
from .history import image_part, text_part
from .refusals import Declined, unsupported
from .responses_tools import SEARCH

if TYPE_CHECKING:
    from .history import History
    from .profile import Profile
    from .tools import ToolBook

Json = dict[str, Any]

_REFUSED = {
    "item_reference": "an item_reference points into a store, and this proxy keeps none; "
    "send the item itself",
    "compaction_trigger": "this upstream cannot compact a conversation on its own",
}

_HARNESS_CALLS = {
    # Tools that OpenAI's models know by heart: the item, the tool's name, and where its input stands.
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
}
_OUTPUTS = {
    "function_call_output",
    "custom_tool_call_output",
    *(f"{kind}_output" for kind in _HARNESS_CALLS),
}
_TOOL_ITEMS = {"additional_tools": False, "tool_search_output": True}

_DATA_URL = re.compile(r"data:([^;,]*)[^,]*?(;base64)?,")


def added_tools(given: object) -> list[tuple[object, bool]]:
    """The tools that items bring, each list with whether a search found them."""
    found: list[tuple[object, bool]] = []
    for item in map(fields, items(given)):
        kind = text(item.get("type"))
        if kind in _TOOL_ITEMS:
            found.append((item.get("tools"), _TOOL_ITEMS[kind]))
    return found


class Told:
    """Enters items into a history. `dropped` collects what has no place in it."""

    def __init__(self, history: History, book: ToolBook, profile: Profile) -> None:
        self._history = history
        self._book = book
        self._profile = profile
        self.dropped: list[str] = []
        self.overrides: Json = {}
        """What the last `configuration_update` said."""

    def tell(self, given: object) -> None:
        """Enter `input`: a string, or a list of items. Raises Declined for what must not be lost."""
        if isinstance(given, str):
            self._history.user([text_part(given)])
            return
        if given is not None and not isinstance(given, list):
            raise Declined("input must be a string or a list of items", param="input")
        for number, item in enumerate(items(given)):
            if not isinstance(item, dict):
                raise Declined(f"input[{number}] is no object", param=f"input[{number}]")
            self._tell_item(fields(item), f"input[{number}]")

    def _tell_item(self, item: Json, place: str) -> None:
        kind = text(item.get("type")) or ("message" if "role" in item else "unknown")
        if kind in _REFUSED:
            raise Declined(_REFUSED[kind], param=place, code="unsupported_value")
        if kind == "message":
            self._message(item, place)
        elif kind == "reasoning":
            self._history.reasoning(_reasoning(item))
        elif kind in ("function_call", "custom_tool_call", "tool_search_call"):
            self._call(kind, item)
        elif kind in _HARNESS_CALLS:
            name, key = _HARNESS_CALLS[kind]
            self._history.call(_call_id(item), name, fields(item.get(key)))
        elif kind == "tool_search_output":
            self._history.output(_call_id(item), [text_part(self._listing(item.get("tools")))])
        elif kind in _OUTPUTS:
            self._history.output(_call_id(item), self._output(item.get("output"), place))
        elif kind == "configuration_update":
            self.overrides |= fields(item.get("configuration")) or item
        elif kind not in _TOOL_ITEMS:
            self.dropped.append(f"item:{kind}")

    def _message(self, item: Json, place: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role == "assistant":
            self._history.text(_texts(content, ""))
        elif role in ("system", "developer"):
            self._history.system(_texts(content, "\n"))
        else:
            self._history.user(self._parts(content, place))

    def _call(self, kind: str, item: Json) -> None:
        name, arguments = text(item.get("name")), item.get("arguments")
        if kind == "tool_search_call":
            name = SEARCH
        elif kind == "custom_tool_call":
            arguments = {"input": text(item.get("input"))}
        flat = self._book.flat(text(item.get("namespace")) or None, name)
        self._history.call(_call_id(item), flat, "" if arguments is None else arguments)

    def _listing(self, tools: object) -> str:
        """The tools a search found, by the names under which they may be called."""
        names: list[str] = []
        for tool in map(fields, items(tools)):
            space = text(tool.get("name")) if tool.get("type") == "namespace" else None
            inner = map(fields, items(tool.get("tools"))) if space is not None else [tool]
            names += [self._book.flat(space or None, text(one.get("name"))) for one in inner]
        return "Tools found: " + ", ".join(names) if names else "No tools found."

    def _output(self, output: object, place: str) -> list[Json]:
        listed, told = items(output), fields(output)
        if told or (listed and not any("type" in fields(part) for part in listed)):
            # A shell's: stdout, stderr, outcome.
            return [text_part(dumps(told or listed).decode())]
        return self._parts(output, place)

    def _parts(self, content: object, place: str) -> list[Json]:
        if isinstance(content, str):
            return [text_part(content)]
        told = (self._part(fields(part), place) for part in items(content))
        return [part for part in told if part]

    def _part(self, part: Json, place: str) -> Json:
        match part.get("type"):
            case "input_text" | "output_text" | "text" | "summary_text":
                return text_part(text(part.get("text")))
            case "input_image":
                return _image(part, place)
            case "input_file":
                return self._file(part, place)
            case "input_audio" if part.get("input_audio"):
                return {"type": "input_audio", "input_audio": part["input_audio"]}
            case "refusal":
                return text_part(text(part.get("refusal")))
            case kind:
                self.dropped.append(f"part:{text(kind) or 'unknown'}")
                return {}

    def _file(self, part: Json, place: str) -> Json:
        name, data = text(part.get("filename")), text(part.get("file_data"))
        if not data:
            raise unsupported("files must be sent whole, as file_data", f"{place}.file_data")
        if self._profile.files:
            return {"type": "file", "file": {"filename": name, "file_data": data}}
        content = _text_of_file(data)
        if content is None:
            raise unsupported("this upstream takes no files but texts", f"{place}.file_data")
        return text_part(f"{name}:\n{content}" if name else content)


def _image(part: Json, place: str) -> Json:
    url = text(part.get("image_url")) or text(fields(part.get("image_url")).get("url"))
    if not url:
        raise unsupported("images must be sent by image_url, which may hold them", place)
    detail = text(part.get("detail")) or None
    return image_part(url, "high" if detail == "original" else detail)


def _text_of_file(data: str) -> str | None:
    """What a text file sent as a data URL says; None for other files."""
    head = _DATA_URL.match(data)
    if head is None or not head[1].startswith("text/") or not head[2]:
        return None
    try:
        return base64.b64decode(data[head.end() :]).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def _reasoning(item: Json) -> Carried:
    """Ours if it is ours; else what can be read of it. What others encrypted stays theirs."""
    carried = unpack(item.get("encrypted_content")) or Carried()
    carried.reasoning = (
        carried.reasoning
        or _texts(item.get("content"), "\n")
        or _texts(item.get("summary"), "\n\n")
    )
    return carried


def _texts(content: object, joint: str) -> str:
    if isinstance(content, str):
        return content
    parts = map(fields, items(content))
    told = (text(part.get("text")) or text(part.get("refusal")) for part in parts)
    return joint.join(filter(None, told))


def _call_id(item: Json) -> str:
    """Searches may have no id; then they pair by their order."""
    return text(item.get("call_id")) or text(item.get("id")) or SEARCH
