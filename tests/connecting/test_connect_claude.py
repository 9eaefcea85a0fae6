"""Claude Code's `settings.json` as `connect` edits it, and its variables."""

from __future__ import annotations

import json
import subprocess

import pytest

from trio_sse_proxy.connecting.claude_code import changes, edited, snippet, variables
from trio_sse_proxy.connecting.plan import NotConnected, Plan

PLAN = Plan(base_url="http://127.0.0.1:8787", model="tiny model")
KEYED = Plan(base_url="http://127.0.0.1:8787", key_variable="TEAM_KEY")
MINE = """\
{
    "permissions": {"allow": ["Bash(ls)"]},
    "env": {"EDITOR": "vi", "ANTHROPIC_BASE_URL": "http://old"},
    "model": "ö"
}
"""


def test_the_address_has_no_version_segment_and_every_model_is_named():
    told = variables(PLAN)
    assert told["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8787"
    models = {name for name in told if name.endswith("_MODEL")}
    assert len(models) == 4
    assert {told[name] for name in models} == {"tiny model"}
    assert not any(name.endswith("_MODEL") for name in variables(KEYED))


def test_it_waits_longer_than_the_proxy_does_and_leaves_repeating_to_it():
    from trio_sse_proxy.config import Settings

    settings, told = Settings(), variables(PLAN)
    assert int(told["API_TIMEOUT_MS"]) > 1_000 * settings.first_token_timeout
    assert int(told["CLAUDE_STREAM_IDLE_TIMEOUT_MS"]) > 2_000 * settings.event_heartbeat
    assert int(told["CLAUDE_CODE_MAX_RETRIES"]) < 10


@pytest.mark.slow
def test_the_lines_for_a_shell_are_what_a_shell_reads():
    script = snippet(PLAN) + 'echo "$ANTHROPIC_MODEL|$ANTHROPIC_AUTH_TOKEN"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "tiny model|any\n"
    script = snippet(KEYED) + 'echo "$ANTHROPIC_AUTH_TOKEN"'
    env = {"TEAM_KEY": "k 1"}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "k 1\n"


@pytest.mark.parametrize("before", ["", "\n", "{}"])
def test_a_file_that_is_not_there_or_empty_gets_nothing_but_ours(before):
    env = variables(PLAN) | {"ANTHROPIC_AUTH_TOKEN": "any"}
    assert json.loads(edited(before, PLAN)) == {"env": env}


def test_the_users_own_settings_stay_in_their_order():
    new = edited(MINE, PLAN)
    assert list(json.loads(new)) == ["permissions", "env", "model"]
    assert json.loads(new)["env"]["EDITOR"] == "vi"
    assert json.loads(new)["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8787"
    assert '\n    "model": "ö"\n' in new


@pytest.mark.parametrize("name", ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"])
def test_a_key_of_the_users_own_stays_and_is_not_shown(name):
    before = json.dumps({"env": {name: "sk-own"}})
    env = json.loads(edited(before, PLAN))["env"]
    assert [(key, env[key]) for key in env if key.endswith(("_TOKEN", "_KEY"))] == [
        (name, "sk-own")
    ]
    assert "sk-own" not in "\n".join(changes(before, edited(before, PLAN)))


def test_a_key_that_is_wanted_is_not_hidden_by_a_placeholder():
    assert "ANTHROPIC_AUTH_TOKEN" not in json.loads(edited("", KEYED))["env"]
    assert "ANTHROPIC_AUTH_TOKEN" not in json.loads(edited(edited("", PLAN), KEYED))["env"]


@pytest.mark.parametrize("before", ["", MINE])
def test_doing_it_again_changes_nothing(before):
    once = edited(before, PLAN)
    assert edited(once, PLAN) == once
    minified = json.dumps(json.loads(once))
    assert edited(minified, PLAN) == minified


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("{,}", "no JSON that can be read"),
        ("// mine\n{}", "no JSON that can be read"),
        ("[]", "no JSON object"),
        ('{"env": []}', "`env` is no object"),
    ],
)
def test_what_cannot_be_edited_safely_is_left_alone(before, said):
    with pytest.raises(NotConnected, match=said):
        edited(before, PLAN)


def test_what_changes_is_said():
    said = list(changes(MINE, edited(MINE, PLAN)))
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:8787 (in place of another value)" in said
    assert "ANTHROPIC_AUTH_TOKEN=any" in said
    assert not any("EDITOR" in line for line in said)
