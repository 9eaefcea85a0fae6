"""The findings in words, and as a table `[[upstreams]]` for the settings."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..reference import toml_value
from ..settings_upstream import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .findings import Findings


def as_table(found: Findings, api_key: str | None) -> str:
    """What to paste into a file with settings. `api_key` is the place of the key, not the key."""
    name = urlsplit(found.base_url).hostname or "upstream"
    spoken = found.spoken
    lines = [
        f"# Found by asking for the model {in_one_line(found.model)}.",
        "[[upstreams]]",
        f"name = {toml_value(name)}",
        f"base_url = {toml_value(found.base_url)}",
        *([f"api_key = {toml_value(api_key)}"] if api_key else []),
        f"dialects = {toml_value(spoken)}",
    ]
    lines += [
        f"# {name} is left out, to be translated: {in_one_line(why)}"
        for name, why in found.in_part.items()
    ]
    if "chat" in spoken and len(spoken) > 1:
        others = " and ".join(name for name in spoken if name != "chat")
        lines.append(f'# where an agent does not get along with its {others}: dialects = ["chat"],')
        lines.append(f"# and then profile = {toml_value(found.preset[0])}")
    if "chat" in spoken and len(spoken) < len(DIALECTS):
        lines += _profile(found)
    return "\n".join(lines) + "\n"


def _profile(found: Findings) -> Iterator[str]:
    base, why = found.preset
    yield ""
    yield "[upstreams.profile]"
    yield f"base = {toml_value(base)}  # {in_one_line(why)}"
    for name, value, because in found.overrides():
        told = value.value if isinstance(value, Enum) else value
        yield f"{name} = {toml_value(told)}  # {in_one_line(because)}"


def in_words(found: Findings) -> Iterator[str]:
    """One line for each thing that was looked at."""
    yield f"model: {found.model} (of {found.models} listed)"
    for name in DIALECTS:
        said = found.in_part.get(name) or found.reasons.get(name)
        word = "in part" if name in found.in_part else _word(found.dialects.get(name))
        yield f"dialect {name}: {word}{f' ({said})' if said else ''}"
    if not found.dialects.get("chat"):
        return
    if "stream" in found.reasons:
        yield f"streams: {found.reasons['stream']}"
    yield f"streams end with [DONE]: {_word(found.terminated)}"
    yield f"usage on streams: {_usage(found)}"
    where = ", ".join(found.reasoning) or "none was seen"
    yield f"reasoning: {'in the text, as <think>; ' if found.inline_think else ''}{where}"
    yield f"tokens are limited by: {_limit(found)}"
    yield f"role developer: {_word(found.developer)}"
    yield f"reasoning_effort: {_word(found.effort)}"
    yield f"tools: {_tools(found)}"
    yield f"an earlier call without text or reasoning: {_history(found)}"
    why = f" ({found.reasons['images']})" if "images" in found.reasons else ""
    yield f"images: {_word(found.images)}{why}"
    yield f"notices that a client left: {_word(found.abort)} ({found.abort_words})"
    yield f"error for an unknown model: {found.error or 'cannot be told'}"
    base, why = found.preset
    yield f"it resembles: {base} ({why})"


def _word(found: bool | None) -> str:
    return "cannot be told" if found is None else "yes" if found else "no"


def _usage(found: Findings) -> str:
    if "stream_options" in found.refused:
        return f"stream_options are refused; told unasked: {_word(found.usage_unasked)}"
    if not found.usage_asked:
        return "not told, though asked for"
    if found.usage_unasked:
        return "told, asked for or not"
    return "told if asked for (stream_options)"


def _limit(found: Findings) -> str:
    if "max_tokens" in found.refused:
        return f"max_completion_tokens; max_tokens is refused ({found.refused['max_tokens']})"
    return "max_tokens"


def _tools(found: Findings) -> str:
    if found.tools is None:
        return f"cannot be told ({found.reasons.get('tools', 'not asked')})"
    if not found.tools:
        return f"no call ({found.reasons.get('tools', 'it answered in words; others may call')})"
    ids = "with ids" if found.call_ids else "without ids"
    parallel = "in parallel" if found.calls > 1 else "one at a time (though asked for two)"
    return f"yes, {parallel}, {ids}, arguments in {found.pieces} pieces for {found.calls} calls"


def _history(found: Findings) -> str:
    if found.echo_needed:
        return f"refused, reasoning is wanted ({found.reasons.get('history', '')})"
    why = f" ({found.reasons['history']})" if "history" in found.reasons else ""
    return f"{_word(found.history)}, content: {found.empty_content.value}{why}"


def in_one_line(words: str) -> str:
    """`words` as a comment or a terminal may have them: in one line, without control characters."""
    line = " ".join(words.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)
