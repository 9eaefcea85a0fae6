"""The recipes: every file works as it is, and says what the commands say."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_sse_proxy import cli
from trio_sse_proxy.config import load
from trio_sse_proxy.connecting import claude_code, codex
from trio_sse_proxy.connecting.plan import Plan
from trio_sse_proxy.dialects.translate.profile import PRESETS

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "examples/configs/agents"
CLIENTS = ROOT / "examples/clients"
PLAN = Plan(base_url="http://127.0.0.1:8787", model="my-model")
each = pytest.mark.parametrize("preset", list(PRESETS))


def run(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def loaded(preset):
    file = RECIPES / f"{preset}.toml"
    keys = dict.fromkeys(re.findall(r"env:(\w+)", file.read_text()), "sk-hidden")
    return load(file, {}, keys)


def test_there_is_a_recipe_for_every_preset_and_no_other():
    assert {path.stem for path in RECIPES.iterdir()} == set(PRESETS)


@each
def test_a_recipe_serves_both_agents(preset):
    (upstream,) = loaded(preset).upstreams
    assert upstream.profile is PRESETS[preset]
    assert "chat" in upstream.dialects
    assert "messages" not in upstream.dialects


@each
@pytest.mark.parametrize("dialect", ["responses", "messages"])
def test_a_request_of_an_agent_is_sent_there(preset, dialect, monkeypatch):
    for name in re.findall(r"env:(\w+)", (RECIPES / f"{preset}.toml").read_text()):
        monkeypatch.setenv(name, "sk-hidden")
    asked = ("--dialect", dialect, "--model", "claude-sonnet-5")
    result = run("check", "--config", RECIPES / f"{preset}.toml", *asked)
    assert result.exit_code == 0, result.stderr
    untouched = dialect in loaded(preset).upstreams[0].dialects
    assert ("translated to chat" in result.stdout) != untouched
    assert "refused" not in result.stdout
    assert "model claude-sonnet-5" not in result.stdout.splitlines()[-1]


@each
def test_a_recipe_passes_check_and_shows_no_secret(preset, monkeypatch):
    for name in re.findall(r"env:(\w+)", (RECIPES / f"{preset}.toml").read_text()):
        monkeypatch.setenv(name, "sk-hidden")
    result = run("check", "--config", RECIPES / f"{preset}.toml")
    assert result.exit_code == 0, result.stderr
    assert f'[upstreams.profile]\nbase = "{preset}"' in result.stdout
    assert "sk-hidden" not in result.output


@each
def test_the_commands_of_a_recipe_are_commands(preset, monkeypatch, tmp_path):
    from trio_sse_proxy.connecting import command

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(command, "look", lambda _: command.Sight())
    text = (RECIPES / f"{preset}.toml").read_text()
    commands = re.findall(r"^#   (?:\w+=… )?trio-sse-proxy (.+) --write$", text, re.MULTILINE)
    assert [words.split()[:2] for words in commands] == [
        ["connect", "codex"],
        ["connect", "claude"],
    ]
    for words in commands:
        assert run(*words.split()).exit_code == 0
    assert f"serve --config {preset}.toml\n" in text


@each
def test_every_recipe_stands_in_the_table(preset):
    page = (ROOT / "docs/recipes.md").read_text()
    assert f"[{preset}.toml](../examples/configs/agents/{preset}.toml)" in page


def test_what_clients_get_is_what_the_commands_print():
    first, _, rest = (CLIENTS / "codex.toml").read_text().partition("\n")
    assert (first[:2], rest) == ("# ", codex.snippet(PLAN))
    first, _, rest = (CLIENTS / "claude-code.sh").read_text().partition("\n")
    assert (first[:2], rest) == ("# ", claude_code.snippet(PLAN))
    assert tomllib.loads((CLIENTS / "codex.toml").read_text())["model"] == "my-model"


def test_the_catalogue_has_what_codex_cannot_do_without():
    (model,) = json.loads((CLIENTS / "codex-models.json").read_text())["models"]
    assert model["slug"] == "my-model"
    # Measured with Codex 0.169: each of these left out, it refuses the file.
    assert {
        "slug",
        "display_name",
        "shell_type",
        "supported_in_api",
        "priority",
        "visibility",
        "supported_reasoning_levels",
        "base_instructions",
        "truncation_policy",
        "experimental_supported_tools",
        "support_verbosity",
    } <= set(model)


def test_the_bounds_of_a_probe_are_those_of_the_page():
    from trio_sse_proxy.probing.asker import Bounds

    page = " ".join((ROOT / "docs/recipes.md").read_text().split())
    bounds = Bounds()
    assert f"at most {bounds.questions} requests, and {bounds.tokens:,} tokens of answers" in page
    assert bounds.total == 5 * 60
