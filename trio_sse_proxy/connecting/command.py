"""The command: looks whether the proxy is there, says what would change, asks, writes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from ..dialects.wire import fields, items, text
from . import claude_code, codex, files
from .plan import NotConnected, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ..settings_upstream import Upstream as Table
    from .plan import Agent

AGENTS: dict[str, Agent] = {"codex": codex, "claude": claude_code}
KEY_VARIABLES = {"codex": "OPENAI_API_KEY", "claude": "ANTHROPIC_AUTH_TOKEN"}
"""What is usual for each, where a key is wanted and nobody said where it is."""

PATIENCE = 3.0  # seconds for one answer of a proxy that is mostly on the same machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What can be seen of the proxy. None: that cannot be told."""

    there: bool = False
    problem: str = ""
    wants_key: bool | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    """One agent being connected. `confirm` asks people; None: there is nobody who could be asked."""

    agent: str
    table: Table
    model: str | None
    key_variable: str | None
    environ: Mapping[str, str]
    home: Path
    say: Callable[[str], None]
    confirm: Callable[[str], bool] | None
    look: Callable[[Table], Sight]

    @property
    def path(self) -> Path:
        """The agent's file."""
        agent = AGENTS[self.agent]
        return agent.folder(self.environ, self.home) / agent.FILE

    def print(self) -> str:
        """The settings, to be put where they belong by hand."""
        told = AGENTS[self.agent].snippet(self._plan())
        what = self.path if self.agent == "codex" else "your shell"
        self.say(f"for {what}; `trio-sse-proxy connect {self.agent} --write` writes {self.path}")
        return told

    def write(self) -> None:
        """Put them into the agent's file. Raises NotConnected."""
        agent, path, plan = AGENTS[self.agent], self.path, self._plan()
        before = files.read(path)
        try:
            after = agent.edited(before or "", plan)
        except NotConnected as error:
            raise NotConnected(f"{path} was left as it is: {error}") from error
        if after == before:
            self.say(f"{path} says all of that already")
            return
        self.say(f"{path} will say:")
        for line in agent.changes(before or "", after):
            self.say(f"  {line}")
        if self.confirm is None:
            raise NotConnected("nobody is there to ask: say --yes to have it written")
        if not self.confirm(
            f"Write it{'' if before is None else ', and keep a copy of the old one'}?"
        ):
            raise NotConnected("nothing was written")
        copy = files.replace(path, before, after, datetime.now(UTC))
        undo = f"mv {copy} {path}" if copy else f"rm {path}"
        self.say(f"written. To undo it: {undo}")
        if self.agent == "claude" and plan.key_variable not in (None, KEY_VARIABLES["claude"]):
            usual = KEY_VARIABLES["claude"]
            self.say(f"it looks for its key in {usual}: start it with {usual}=${plan.key_variable}")

    def _plan(self) -> Plan:
        sight = self.look(self.table)
        url = self.table.base_url.rstrip("/").removesuffix("/v1")
        variable = self.key_variable
        if not sight.there:
            self.say(
                f"warning: no proxy answers at {url} ({sight.problem}); settings are made all the same"
            )
        elif sight.wants_key and variable is None:
            variable = KEY_VARIABLES[self.agent]
            self.say(f"requests need a key: the agent looks for it in the variable {variable}")
        if self.model and sight.models and self.model not in sight.models:
            few = ", ".join(sight.models[:8])
            self.say(f"warning: {self.model} is not among the models it lists ({few})")
        return Plan(base_url=url, model=self.model, key_variable=variable)


def look(table: Table) -> Sight:
    """Ask the proxy at that address how it is, and whether it wants a key."""
    return trio.run(_look, table)


async def _look(table: Table) -> Sight:
    from ..making import http_upstream
    from ..probing.asker import Asker, Bounds

    base_url = table.base_url.rstrip("/").removesuffix("/v1")
    upstream = http_upstream(table.model_copy(update={"base_url": base_url}), PATIENCE)
    bounds = Bounds(patience=PATIENCE, total=2 * PATIENCE)
    asker = Asker(upstream, upstream, bounds, lambda _: None)
    asker.begin()
    try:
        health = await asker.get("/-/healthz", "is it there")
        if health.status != 200:
            return Sight(problem=health.told())
        listed = await asker.get("/v1/models", "does it want a key")
    finally:
        with trio.CancelScope(shield=True):
            await upstream.aclose()
    names = [text(fields(one).get("id")) for one in items(listed.document.get("data"))]
    return Sight(
        there=True,
        wants_key=None if listed.status is None else listed.status in (401, 403),
        models=tuple(name for name in names if name),
    )


def at_a_terminal() -> bool:
    """True if there is somebody who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()
