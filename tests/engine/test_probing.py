"""`trio-sse-proxy probe`, asking the real engine: its table is one to serve agents with.

The engine speaks all three dialects. But of Responses it knows only functions, and between messages no
word of the system: agents are better off translated.
"""

from __future__ import annotations

import subprocess
import sys

import anthropic
import openai
import pytest
from end_to_end.proxy import ROOT, ServedProxy

from trio_sse_proxy.config import load

from .asked import CLAUDE_CALLED, CODEX_CALLED, claude, codex
from .test_engine import sent

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def told(engine, tmp_path_factory):
    """The file that was printed, and what was said beside it."""
    command = [sys.executable, "-m", "trio_sse_proxy", "probe", "--upstream", engine.url]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    file = tmp_path_factory.mktemp("probed") / "proxy.toml"
    file.write_text(done.stdout)
    return file, done.stderr


def test_the_table_fits_the_engine(told):
    file, said = told
    (upstream,) = load(file, {}, {}).upstreams
    assert upstream.dialects == ("chat",)
    assert upstream.profile.base == "llamacpp"
    assert upstream.profile.vision is False
    for line in (
        "dialect chat: yes",
        "dialect responses: in part (400: ",
        "dialect messages: in part (400: ",
        "streams end with [DONE]: yes",
        "usage on streams: told if asked for (stream_options)",
        "role developer: yes",
        "an earlier call without text or reasoning: yes",
        "images: no (500: ",
        "notices that a client left: yes",
    ):
        assert f"\n{line}" in said


def test_agents_are_served_by_that_table(told):
    file, _ = told
    with (
        ServedProxy(None, "--config", str(file)) as proxy,
        openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="k", max_retries=0) as codex_like,
        anthropic.Anthropic(base_url=proxy.url, api_key="k", max_retries=0) as claude_like,
    ):
        events = list(codex_like.responses.create(**sent(codex(*CODEX_CALLED)), stream=True))
        assert events[-1].type == "response.completed"
        with claude_like.messages.stream(**sent(claude(*CLAUDE_CALLED))) as stream:
            assert stream.get_final_message().stop_reason in ("end_turn", "tool_use")
