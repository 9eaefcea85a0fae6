"""Codex's `config.toml`, with two marked blocks of ours in it.

TOML wants its top-level keys before the first table, so one block stands at the very beginning and the
other at the end. What the user set himself of these keys is turned into a comment. Everything else stays
byte for byte; and before anything is written the new text is read, and must mean the old settings with
ours over them, else it is not written at all.

Codex repeats failed calls itself, up to 30 times, and the proxy's repetitions come on top: so it is told
to leave most of that to the proxy. Its patience between events may stay what it is, since the proxy's
event heartbeats come in less than half of that.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from ..reference import toml_value
from .plan import NotConnected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .plan import Plan

PROVIDER = "trio-sse-proxy"
FILE = "config.toml"

_WAS = "# before trio-sse-proxy: "
_BLOCK = re.compile(
    r"^# >>> trio-sse-proxy[^\n]*\n.*?^# <<< trio-sse-proxy[^\n]*(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)


def folder(environ: Mapping[str, str], home: Path) -> Path:
    """Where Codex keeps its settings."""
    given = environ.get("CODEX_HOME")
    return home / given if given else home / ".codex"


def settings(plan: Plan) -> dict[str, Any]:
    """What is to be in force, as Codex's settings have it."""
    provider: dict[str, Any] = {
        "name": PROVIDER,
        "base_url": f"{plan.base_url}/v1",
        "wire_api": "responses",
        **({"env_key": plan.key_variable} if plan.key_variable else {}),
        "request_max_retries": 1,
        "stream_max_retries": 2,
        "stream_idle_timeout_ms": 300_000,
        "supports_websockets": False,
    }
    top = {"model": plan.model} if plan.model else {}
    return {**top, "model_provider": PROVIDER, "model_providers": {PROVIDER: provider}}


def snippet(plan: Plan) -> str:
    """The same as text, to be put in by hand: keys first, since they must stand before any table."""
    top, table = _blocks(plan, "\n")
    return f"{top}\n{table}"


def edited(before: str, plan: Plan) -> str:
    """The file with our settings in force. Raises NotConnected if that cannot be done safely."""
    old = _read(before, "it is no TOML that can be read")
    ours = settings(plan)
    kept = _kept_model(before, plan)
    if kept is not None:
        ours = {"model": kept} | ours
    line_end = "\r\n" if before.count("\r\n") == before.count("\n") > 0 else "\n"
    top, table = _blocks(plan, line_end, kept)
    rest = _BLOCK.sub("", before)
    rest = _put_aside(rest, [name for name in ours if name != "model_providers"])
    rest = rest.strip("\r\n")
    after = line_end.join(part for part in (top, rest + line_end if rest else "", table) if part)
    wanted = old | ours
    wanted["model_providers"] = old.get("model_providers", {}) | ours["model_providers"]
    by_hand = "it is written in a way that is not edited here; put in by hand what --print shows"
    if _read(after, by_hand) != wanted:
        raise NotConnected(by_hand)
    return after


def changes(before: str, after: str) -> Iterator[str]:
    """See plan.Agent."""
    yield from (line for block in _BLOCK.findall(after) for line in block.splitlines())
    aside = after.count(_WAS) - before.count(_WAS)
    if aside:
        yield f"turned into comments: {aside} lines of yours that say otherwise"
    old = tomllib.loads(before)
    chosen = old.get("profile")
    if isinstance(chosen, str) and "model_provider" in old.get("profiles", {}).get(chosen, {}):
        yield f"but your profile {chosen!r} names another model_provider, which goes before"


def _blocks(plan: Plan, line_end: str, kept: str | None = None) -> tuple[str, str]:
    ours = settings(plan)
    provider = ours.pop("model_providers")[PROVIDER]
    if kept is not None:
        ours = {"model": kept} | ours
    again = "made by `trio-sse-proxy connect codex`, which makes it anew"
    top = _block([f"{name} = {toml_value(value)}" for name, value in ours.items()], again)
    lines = [f"{name} = {toml_value(value)}" for name, value in provider.items()]
    table = _block([f"[model_providers.{PROVIDER}]", *lines], again)
    return top.replace("\n", line_end), table.replace("\n", line_end)


def _block(lines: list[str], words: str) -> str:
    return "\n".join([f"# >>> {PROVIDER}: {words}", *lines, f"# <<< {PROVIDER}", ""])


def _kept_model(before: str, plan: Plan) -> str | None:
    """The model of an earlier block of ours, if this time none is named."""
    block = _BLOCK.search(before)
    if plan.model is not None or block is None:
        return None
    model = _read(block[0], "a block of ours was changed by hand").get("model")
    return model if isinstance(model, str) else None


def _put_aside(text: str, names: list[str]) -> str:
    """Turn the user's own top-level settings of these names into comments."""
    table = _TABLE.search(text)
    end = table.start() if table else len(text)
    keys = "|".join(map(re.escape, names))
    line = re.compile(rf"^(?=[ \t]*[\"']?(?:{keys})[\"']?[ \t]*=)", re.MULTILINE)
    return line.sub(_WAS, text[:end]) + text[end:]


def _read(text: str, problem: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise NotConnected(f"{problem} ({error})") from error
