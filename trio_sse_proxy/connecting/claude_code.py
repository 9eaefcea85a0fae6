"""Claude Code's variables: as lines for a shell, or in the `env` of its `settings.json`.

A key that stands there already is kept: it may be the user's own, which then goes through the proxy.
Claude Code repeats failed calls ten times; the proxy's repetitions come on top, so it is told to leave
most of that to the proxy. It must wait longer for an answer in one piece than the proxy does
(`first_token_timeout`), or nobody hears from the proxy what went wrong.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, cast

from .plan import NotConnected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .plan import Plan

FILE = "settings.json"

_KEYS = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")
_ANY = "any"
"""Claude Code asks people to log in if it has no key at all."""

_MODELS = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
)
"""All of them: what is called by a name that the upstream does not know fails in the background."""


def folder(environ: Mapping[str, str], home: Path) -> Path:
    """Where Claude Code keeps its settings."""
    given = environ.get("CLAUDE_CONFIG_DIR")
    return home / given if given else home / ".claude"


def variables(plan: Plan) -> dict[str, str]:
    """What is to be in force, but for a key."""
    return {
        "ANTHROPIC_BASE_URL": plan.base_url,
        **(dict.fromkeys(_MODELS, plan.model) if plan.model else {}),
        "API_TIMEOUT_MS": "900000",
        "CLAUDE_CODE_MAX_RETRIES": "2",
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "300000",
    }


def snippet(plan: Plan) -> str:
    """Lines for a shell."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables(plan).items()]
    key = f'"${plan.key_variable}"' if plan.key_variable else _ANY
    return "\n".join([*lines, f"export {_KEYS[0]}={key}", ""])


def edited(before: str, plan: Plan) -> str:
    """The file with our variables in force. Raises NotConnected if it is none that can be edited."""
    settings = _read(before) if before.strip() else {}
    env = settings.get("env", {})
    if not isinstance(env, dict):
        raise NotConnected("its `env` is no object")
    env = cast("dict[str, Any]", env) | variables(plan)
    if plan.key_variable is not None:
        # What stands in the file goes before the variable that holds the key.
        env = {name: value for name, value in env.items() if (name, value) != (_KEYS[0], _ANY)}
    elif not any(env.get(name) for name in _KEYS):
        env[_KEYS[0]] = _ANY
    settings["env"] = env
    # It is a file that Claude Code itself writes anew, so its layout is kept and no more.
    indent = re.search(r"^([ \t]+)\S", before, re.MULTILINE)
    after = json.dumps(settings, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"
    return before if before.strip() and _read(before) == settings else after


def changes(before: str, after: str) -> Iterator[str]:
    """See plan.Agent."""
    old: dict[str, Any] = _read(before).get("env", {}) if before.strip() else {}
    for name, value in _read(after)["env"].items():
        if old.get(name) != value:
            yield f"{name}={value}" + (" (in place of another value)" if name in old else "")


def _read(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise NotConnected(f"it is no JSON that can be read ({error})") from error
    if not isinstance(settings, dict):
        raise NotConnected("it is no JSON object")
    return cast("dict[str, Any]", settings)
