"""A real agent on the real engine: `python -m pytest -m "engine and agents"`.

The model's words are random, so the tools stay closed to it: nobody wants them run.
"""

from __future__ import annotations

import time

import pytest
from agents.agents import Claude, Codex, Place
from agents.outside import Outside

from .conftest import proxy_before

pytestmark = [pytest.mark.engine, pytest.mark.agents, pytest.mark.slow]

CLOSED = ', extra_body = { tool_choice = "none", max_tokens = 200 }'
PATIENCE = 300.0  # seconds; on a busy machine the engine needs one of them for a few hundred tokens


@pytest.mark.parametrize("agent", [Codex(), Claude()], ids=lambda agent: agent.name)
def test_an_agent_takes_what_the_engine_says(engine, tmp_path, agent):
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    with Outside() as outside, proxy_before(engine, tmp_path, CLOSED) as proxy:
        place = Place(work, home, outside.environment, PATIENCE)
        before = len(engine.stopped())
        ran = agent.ask(place, proxy.url, "Say something.")
        assert ran.code == 0, ran.err[-2000:] + ran.out[-2000:]
        assert agent.said(ran), ran.out[-2000:]
        asked = records(proxy, agent.dialect)
        assert asked
        assert {one["ending"] for one in asked} == {"completed"}
    assert len(engine.stopped()) > before


def records(proxy, dialect):
    """Those of the agent's requests; the last one may still be written when the agent has ended."""
    deadline = time.monotonic() + 5
    while True:
        told = [one for one in proxy.get("/-/records")["records"] if one["dialect"] == dialect]
        if told or time.monotonic() > deadline:
            return told
        time.sleep(0.1)
