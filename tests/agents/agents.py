"""Each agent: how it is set up against the proxy, run on a task, and called upon to use its tools.

None of them needs a key, asks for leave, or talks to anybody but the proxy: `Outside` sees to that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .install import installed
from .model import MODEL, SMALL
from .turns import Call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIMEOUT = 60.0  # seconds a run may take, beyond what it is told to wait
KEY = "a-key-that-nobody-looks-at"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent works, the home it believes to have, and what surrounds it."""

    work: Path
    home: Path
    environment: dict[str, str]
    timeout: float = TIMEOUT

    def run(self, program: str, *args: str, **environment: str) -> Ran:
        """Raises TimeoutError, with all that was said, when it does not come to an end."""
        surrounding = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        began = time.monotonic()
        process = subprocess.Popen(
            [str(installed() / program), *args],
            cwd=self.work,
            env=surrounding | self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        late = False
        try:
            out, err = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            end_all_of(process.pid)
        if late:
            out, err = process.communicate()
            raise TimeoutError(
                f"{program} does not end; it said:\n{out[-3000:]!r}\n{err[-3000:]!r}"
            )
        seconds = time.monotonic() - began
        return Ran(process.returncode, out.decode(), err.decode(), seconds)


def end_all_of(leader: int) -> None:
    """End the session that `leader` began: agents start servers and shells that outlive them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


@dataclass(slots=True)
class Ran:
    """One run of an agent. `events` are the JSON lines it printed."""

    code: int
    out: str
    err: str
    seconds: float
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        lines = [line for line in self.out.splitlines() if line.startswith("{")]
        self.events = [json.loads(line) for line in lines]


class Agent(Protocol):
    """`dialect` is the one it speaks. The calls are those of its tools: a shell command, reading the
    file, changing a line of it (which some allow only after reading), looking at the image."""

    name: str
    dialect: str

    def ask(self, place: Place, url: str, task: str, *args: str, **changes: Any) -> Ran: ...

    def shell(self, key: str, command: str) -> Call: ...

    def read(self, place: Place, key: str) -> Call: ...

    def edit(self, place: Place, key: str, old: str, new: str) -> Call: ...

    def look(self, place: Place, key: str) -> Call: ...

    def said(self, ran: Ran) -> str:
        """Its last word on the task, or an empty string."""
        ...


FILE = "greeting.txt"
IMAGE = "dot.png"


class Codex:
    """Codex learns from a catalogue what its model can do; without one there is no `apply_patch`."""

    name = "codex"
    dialect = "responses"

    def ask(
        self,
        place: Place,
        url: str,
        task: str,
        *args: str,
        provider: str = "",
        window: int = 100_000,
        mode: str | None = None,
        known: bool = True,
    ) -> Ran:
        models = place.home / "models.json"
        models.write_text(json.dumps({"models": [about_the_model(window, mode)]}))
        catalogue = f'model_catalog_json = "{models}"' if known else ""
        settings = CODEX.format(model=MODEL, catalogue=catalogue, url=url, provider=provider)
        (place.home / "config.toml").write_text(settings)
        return place.run(
            "codex",
            "exec",
            *args,
            "--json",
            "--strict-config",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            task,
            CODEX_HOME=str(place.home),
            PROXY_KEY=KEY,
        )

    def shell(self, key: str, command: str) -> Call:
        return Call(key, "exec_command", {"cmd": command})

    def read(self, place: Place, key: str) -> Call:
        return self.shell(key, f"cat {FILE}")

    def edit(self, place: Place, key: str, old: str, new: str) -> Call:
        return Call(key, "apply_patch", {"input": patch(old, new)}, custom=True)

    def look(self, place: Place, key: str) -> Call:
        return Call(key, "view_image", {"path": str(place.work / IMAGE)})

    def said(self, ran: Ran) -> str:
        return next((text for kind, text in reversed(items(ran)) if kind == "agent_message"), "")


def items(ran: Ran) -> list[tuple[str, str]]:
    """What Codex has done: the kind of each item, and its text or status."""
    done = [event["item"] for event in ran.events if event["type"] == "item.completed"]
    return [(item["type"], item.get("text") or item.get("status", "")) for item in done]


def patch(old: str, new: str) -> str:
    lines = (
        "*** Begin Patch",
        f"*** Update File: {FILE}",
        "@@",
        f"-{old}",
        f"+{new}",
        "*** End Patch",
    )
    return "\n".join(lines)


def about_the_model(window: int, mode: str | None) -> dict[str, Any]:
    """A model as Codex's catalogues describe one. `mode` "code_mode_only" is that of its newest."""
    return {
        "slug": MODEL,
        "display_name": MODEL,
        "base_instructions": "You are a coding agent.",
        "apply_patch_tool_type": "freeform",
        "shell_type": "shell_command",
        "context_window": window,
        "input_modalities": ["text", "image"],
        "supports_parallel_tool_calls": True,
        "supports_reasoning_summaries": True,
        "supported_reasoning_levels": [],
        "supported_in_api": True,
        "experimental_supported_tools": [],
        "support_verbosity": False,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "visibility": "list",
        "priority": 1,
        "tool_mode": mode,
    }


CODEX = """
model = "{model}"
model_provider = "proxy"
{catalogue}
check_for_update_on_startup = false

[analytics]
enabled = false

[feedback]
enabled = false

[otel]
exporter = "none"

[features]
plugins = false

[model_providers.proxy]
name = "trio-sse-proxy"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "PROXY_KEY"
{provider}
"""


class Claude:
    """Claude Code asks a smaller model for titles and the like: that one has a name of its own."""

    name = "claude"
    dialect = "messages"
    tools = "Bash,Edit,Write,Read"

    def ask(self, place: Place, url: str, task: str, *args: str, **environment: str) -> Ran:
        return place.run(
            "claude",
            "--print",
            task,
            *args,
            "--output-format=stream-json",
            "--verbose",
            f"--allowedTools={self.tools}",
            **{
                "ANTHROPIC_BASE_URL": url,
                "ANTHROPIC_AUTH_TOKEN": KEY,
                "ANTHROPIC_MODEL": MODEL,
                "ANTHROPIC_DEFAULT_HAIKU_MODEL": SMALL,
                "CLAUDE_CONFIG_DIR": str(place.home),
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "CLAUDE_CODE_MAX_RETRIES": "2",
            }
            | environment,
        )

    def shell(self, key: str, command: str) -> Call:
        return Call(key, "Bash", {"command": command, "description": "Look around"})

    def read(self, place: Place, key: str) -> Call:
        return Call(key, "Read", {"file_path": str(place.work / FILE)})

    def edit(self, place: Place, key: str, old: str, new: str) -> Call:
        where = {"file_path": str(place.work / FILE)}
        return Call(key, "Edit", where | {"old_string": old, "new_string": new})

    def look(self, place: Place, key: str) -> Call:
        return Call(key, "Read", {"file_path": str(place.work / IMAGE)})

    def said(self, ran: Ran) -> str:
        return result(ran)


REASONIX = """
default_model = "proxy"

[[providers]]
name = "proxy"
kind = "{kind}"
base_url = "{url}{version}"
model = "{model}"
api_key_env = "PROXY_KEY"
vision = true
{reasoning}
"""


class Reasonix:
    """Reasonix speaks each of the dialects; which one is a matter of the provider's `kind`."""

    # Without the lines for reasoning it does not send back what the model thought.
    kinds: ClassVar = {
        "chat": ("openai", "/v1", 'reasoning_protocol = "deepseek"'),
        "responses": ("responses", "/v1", ""),
        "messages": ("anthropic", "", 'thinking = "enabled"'),
    }

    def __init__(self, dialect: str) -> None:
        self.name = f"reasonix-{dialect}"
        self.dialect = dialect

    def ask(self, place: Place, url: str, task: str, *args: str) -> Ran:
        kind, version, reasoning = self.kinds[self.dialect]
        about = {"kind": kind, "version": version, "reasoning": reasoning, "model": MODEL}
        (place.home / "config.toml").write_text(REASONIX.format(url=url, **about))
        return place.run(
            "reasonix",
            "run",
            "--permission-mode=danger-full-access",
            "--output-format=stream-json",
            *args,
            task,
            REASONIX_HOME=str(place.home),
            REASONIX_TELEMETRY="off",
            PROXY_KEY=KEY,
        )

    def shell(self, key: str, command: str) -> Call:
        return Call(key, "bash", {"command": command})

    def read(self, place: Place, key: str) -> Call:
        return Call(key, "read_file", {"path": FILE})

    def edit(self, place: Place, key: str, old: str, new: str) -> Call:
        return Call(key, "edit_file", {"path": FILE, "old_string": old, "new_string": new})

    def look(self, place: Place, key: str) -> Call:
        return Call(key, "view_image", {"path": IMAGE})

    def said(self, ran: Ran) -> str:
        return result(ran)


def result(ran: Ran) -> str:
    """The last line that Claude Code and Reasonix print, if it tells of no failure."""
    last = ran.events[-1] if ran.events else {}
    return "" if last.get("is_error") else str(last.get("result", ""))


REASONIXES = tuple(map(Reasonix, ("chat", "responses", "messages")))
AGENTS: Sequence[Agent] = (Codex(), Claude(), *REASONIXES)
