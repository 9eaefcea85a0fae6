"""Settings for people to read: the page in the documentation, and the values in force.

`python -m trio_sse_proxy.reference` prints `docs/settings.md`; a test compares the two.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from .config import NEED_RESTART, PREFIX, AbortCall, Route, Settings, Upstream
from .dialects.translate.profile import GENERIC, PRESETS, Profile
from .secrets import MASK
from .settings_error import rule_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAPTERS = {
    "The listener": ("bind", "certfile", "keyfile"),
    "Where requests go": ("upstreams", "routes", "on_disconnect", "finish_timeout"),
    "Keeping clients company": (
        "heartbeat",
        "commit_after",
        "event_heartbeat",
        "event_heartbeat_clients",
        "json_heartbeat",
    ),
    "Giving up on an upstream": (
        "connect_timeout",
        "first_token_timeout",
        "idle_timeout",
        "progress_timeout",
        "total_timeout",
        "on_failure",
    ),
    "Asking again": (
        "max_retries",
        "retry_deadline",
        "retry_after_cap",
        "retry_budget",
        "prelude_hold",
    ),
    "Bounds": (
        "write_stall_timeout",
        "drain_timeout",
        "keep_alive",
        "header_timeout",
        "body_timeout",
        "max_connections",
        "max_streams",
        "max_header_bytes",
        "max_header_fields",
        "max_body_bytes",
        "max_frame_bytes",
        "max_held_bytes",
        "max_resets",
        "max_control_frames",
    ),
    "The door": ("client_keys", "admin_key", "allowed_hosts", "allowed_origins"),
    "Looking in": ("records", "log_level"),
}

TABLES: dict[str, type[BaseModel]] = {
    "One upstream: `[[upstreams]]`": Upstream,
    "An abort call of your own: `abort`": AbortCall,
    "One route: `[[routes]]`": Route,
}


def _late() -> str:
    *names, last = (f"`{name}`" for name in NEED_RESTART)
    return f"{', '.join(names)} and {last}"


_OPENING = f"""\
<!-- Made by `python -m trio_sse_proxy.reference`; change the descriptions in the code instead. -->
# Settings

A value is taken from the first of these that has it:

1. a flag: `trio-sse-proxy serve --heartbeat 5`
2. the environment: `{PREFIX}HEARTBEAT=5` (an empty variable counts as not set)
3. the TOML file that `--config` or `{PREFIX}CONFIG` names: `heartbeat = 5`
4. the default

```toml
bind = "127.0.0.1:8787"
heartbeat = 5.0

[[upstreams]]
name = "own"
base_url = "http://127.0.0.1:8000"
max_inflight = 4

[[upstreams]]
name = "deepseek"
base_url = "https://api.deepseek.com"
api_key = "env:DEEPSEEK_API_KEY"

[[routes]]
model = "deepseek-*"
upstreams = ["own", "deepseek"]   # in this order
```

Durations are in seconds, sizes in bytes; lists are written `a,b` in flags and variables. A secret
may be given as `env:NAME` or `file:PATH`; a path may begin with `~` and is otherwise relative to
the directory the proxy was started in. An unknown name is refused, and so is a value that is not
allowed: in one line, before anything listens. `trio-sse-proxy check --config FILE` says what is
wrong, or prints the values in force with the secrets masked. With `--model NAME` it shows where a
request for that model would go.

## Changing them while it runs

On SIGHUP, `trio-sse-proxy serve` reads file, environment and `file:` secrets again, under the same
flags; Windows has no such signal. New requests are served by what is there then, and streams that
run keep what they began with. Upstreams of which the settings say the same keep their connections;
one that is still of that name and `base_url` keeps its queue and, under the same rules, its breaker.
The others are closed when their last request has ended. Settings that are wrong are told in the
log, and the old ones stay. If the terminal is closed that it runs in, SIGHUP ends it.

Some things are read at the start only; the log names such settings if they have changed:
{_late()}.
The contents of `certfile` are too, and those of a `ca_file` until something changes of its upstream.
"""


def page() -> str:
    """The reference page, in Markdown."""
    parts = [_OPENING]
    for chapter, names in CHAPTERS.items():
        parts.append(f"\n## {chapter}\n")
        parts.extend(_entry(Settings, name) for name in names)
    for title, model in TABLES.items():
        parts.append(f"\n## {title}\n\n{' '.join((model.__doc__ or '').split())}\n")
        parts.extend(_entry(model, name) for name in model.model_fields)
    return "".join(parts)


def _entry(model: type[BaseModel], name: str) -> str:
    value = default(model, name)
    shown = value if value.startswith("none") else f"`{value}`"
    facts = [f"Default: {shown}", f"allowed: {rule_of(model, name).words}"]
    if model is Settings:
        if has_flag(name):
            facts.append(f"flag: `{flag(name)}`")
        facts.append(f"variable: `{PREFIX}{name.upper()}`")
    return f"\n### `{name}`\n\n{meaning(model, name)}\n\n" + "; ".join(facts) + ".\n"


def meaning(model: type[BaseModel], name: str) -> str:
    """What a setting is for, without line breaks."""
    return " ".join((model.model_fields[name].description or "").split())


def has_flag(name: str) -> bool:
    """Secrets have no flag: every user of a machine can read its command lines."""
    return not rule_of(Settings, name).hidden


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def default(model: type[BaseModel], name: str) -> str:
    """What a setting is if nobody sets it, as TOML, or "none"."""
    field = model.model_fields[name]
    if field.is_required():
        return "none, it is required"
    if field.default_factory is not None or field.default in (None, ()):
        return "none"
    return toml_value(field.default)


def as_toml(settings: Settings) -> str:
    """The values in force as a TOML file, secrets masked. What has no value is a comment."""
    names = [name for name in Settings.model_fields if name not in ("upstreams", "routes")]
    lines = [_line(name, getattr(settings, name)) for name in names]
    if not settings.upstreams:
        lines.append("\n# no upstream: the built-in demo upstream answers")
    for table, models in (("upstreams", settings.upstreams), ("routes", settings.routes)):
        for model in models:
            lines.append(f"\n[[{table}]]")
            lines.extend(_line(name, value) for name, value in model if name != "profile")
            lines.extend(_profiled(model) if isinstance(model, Upstream) else [])
    return "\n".join(lines) + "\n"


def _profiled(upstream: Upstream) -> list[str]:
    """The switches by which an upstream is translated for, as the table that ends its own.

    Where the upstream names no profile the table is a comment.
    """
    if upstream.translation is None:
        return ["# profile is not set"]
    if upstream.profile is not None:
        return ["", "[upstreams.profile]", *_switches(upstream.profile)]
    return ["", "# [upstreams.profile]", *(f"# {line}" for line in _switches(GENERIC))]


def _switches(profile: Profile) -> Iterator[str]:
    """Each says where it comes from, unless it is what servers have that nothing is known of."""
    preset = PRESETS.get(profile.base, GENERIC)
    for name in (field.name for field in fields(profile)):
        told, before = getattr(profile, name), getattr(preset, name)
        said = ""
        if told != before:
            said = f"  # set here; {profile.base} has {'none' if before is None else toml_value(before)}"
        elif told != getattr(GENERIC, name) and name != "base":
            said = f"  # from {profile.base}"
        yield _line(name, told) + said


def _line(name: str, value: object) -> str:
    if value is None:
        return f"# {name} is not set"
    if name == "proxy" and isinstance(value, SecretStr):
        return f"{name} = {toml_value(_without_password(value.get_secret_value()))}"
    return f"{name} = {toml_value(value)}"


def _without_password(url: str) -> str:
    """Where an outbound proxy is may be shown; who we are to it may not."""
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{MASK}@{host}" if at else host).geturl()


def toml_value(value: object) -> str:
    if isinstance(value, tuple | list):
        items = cast("tuple[object, ...]", value)
        return f"[{', '.join(toml_value(item) for item in items)}]"
    match value:
        case BaseModel():
            return toml_value(dict(value))
        case dict():
            table = cast("dict[str, object]", value)
            inside = ", ".join(
                f"{toml_value(name)} = {toml_value(one)}" for name, one in table.items()
            )
            return f"{{ {inside} }}" if inside else "{}"
        case bool() | int() | float():
            return json.dumps(value)
        case SecretStr():
            return json.dumps(MASK)
        case Enum():
            return toml_value(value.value)
        case _:
            # A TOML basic string is a JSON string, but for escapes beyond the basic plane.
            return json.dumps(str(value), ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(page())
