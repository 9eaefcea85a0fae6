"""A stage for one run: the scripted model, the real proxy before it, and a place for the agent."""

from __future__ import annotations

import base64
import functools
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from end_to_end.proxy import ServedProxy

from .agents import AGENTS, FILE, IMAGE, REASONIXES, TIMEOUT, Place
from .model import Model, Play
from .outside import Outside

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE = float(os.environ.get("AGENTS_SILENCE", "5"))
"""Seconds that are silent where silence is the subject; 65 and 330 are the lengths of note."""


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
"""One red dot."""

SETTINGS = """
{more}
heartbeat = 1.0
event_heartbeat = 1.0
idle_timeout = 900.0  # for the longest of silences, not to be ended by the proxy itself

[[upstreams]]
name = "model"
base_url = "{url}"
dialects = ["{dialect}"]
"""


def pytest_collection_modifyitems(config, items):
    """Leave the agents out unless they are asked for: they are downloaded, and take a minute."""
    if "agents" in config.option.markexpr:
        return
    chosen = [item for item in items if not item.get_closest_marker("agents")]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(
            items=[item for item in items if item.get_closest_marker("agents")]
        )
        items[:] = chosen


@dataclass(frozen=True, slots=True)
class Stage:
    model: Model
    proxy: ServedProxy

    @property
    def url(self) -> str:
        return self.proxy.url

    def records(self) -> list[dict[str, Any]]:
        """Of all calls of models, in order, once they have ended: agents leave a little sooner."""
        deadline = time.monotonic() + 5
        while self.proxy.streams() and time.monotonic() < deadline:
            time.sleep(0.02)
        records = self.proxy.get("/-/records")["records"][::-1]
        return [each for each in records if each["method"] == "POST"]


def pytest_generate_tests(metafunc):
    """Every agent; where what the upstream `speaks` is asked for too, Chat, and the agent's own.

    But for Reasonix, whose own dialect is Chat: the others are tried translated alone.
    """
    if any("agent" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")):
        return
    if "speaks" in metafunc.fixturenames:
        cases = [(each, "chat") for each in AGENTS]
        cases += [(each, each.dialect) for each in AGENTS if each not in REASONIXES]
        ids = [f"{each.name} on {said}" for each, said in cases]
        metafunc.parametrize(("agent", "speaks"), cases, ids=ids)
    elif "agent" in metafunc.fixturenames:
        metafunc.parametrize("agent", AGENTS, ids=lambda each: each.name)


@pytest.fixture
def outside():
    with Outside() as outside:
        yield outside


@pytest.fixture
def place(tmp_path, outside):
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    (work / FILE).write_text("helo\n")
    (work / IMAGE).write_bytes(base64.b64decode(PNG))
    return Place(work, home, outside.environment, TIMEOUT + SILENCE)


@pytest.fixture
def stage(tmp_path, outside):
    """At its end the plan is played to its last line, and nobody outside was asked for anything."""
    return functools.partial(set_up, tmp_path / "settings.toml", outside)


@contextmanager
def set_up(config, outside, *plan: Play, speaks="chat", settings="") -> Iterator[Stage]:
    with Model(*plan) as model:
        config.write_text(SETTINGS.format(url=model.url, dialect=speaks, more=settings))
        with ServedProxy(None, "--config", str(config)) as proxy:
            yield Stage(model, proxy)
        assert len(model.asked) == len(plan), [asked.body for asked in model.asked][len(plan) :]
    assert outside.wanted == []
