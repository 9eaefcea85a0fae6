"""A real agent on the real engine: `python -m pytest -m "engine and agents"`.

The model's words are random, so the tools stay closed to it: nobody wants them run. Codex has the one
prompt short enough for an engine that reads it byte by byte; Claude Code's would take many minutes.
"""

from __future__ import annotations

import pytest
from agents.agents import Codex, Place
from agents.outside import Outside

from .conftest import proxy_before

pytestmark = [pytest.mark.engine, pytest.mark.agents, pytest.mark.slow]

CLOSED = ', extra_body = { tool_choice = "none", max_tokens = 200 }'
PATIENCE = 300.0  # seconds; the engine reads their prompts byte by byte


def test_codex_takes_what_the_engine_says(engine, tmp_path):
    agent = Codex()
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    with Outside() as outside, proxy_before(engine, tmp_path, CLOSED) as proxy:
        place = Place(work, home, outside.environment, PATIENCE)
        before = len(engine.stopped())
        ran = agent.ask(place, proxy.url, "Say something.")
        assert ran.code == 0, ran.err[-2000:] + ran.out[-2000:]
        assert agent.said(ran), ran.out[-2000:]
        asked = [
            one for one in proxy.get("/-/records")["records"] if one["dialect"] == agent.dialect
        ]
        assert asked
        assert {one["ending"] for one in asked} == {"completed"}
    assert len(engine.stopped()) > before
