"""Codex's `config.toml` as `connect` edits it."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sse_proxy.connecting.codex import changes, edited, settings, snippet
from trio_sse_proxy.connecting.plan import NotConnected, Plan

PLAN = Plan(base_url="http://127.0.0.1:8787", model="tiny")
NO_MODEL = Plan(base_url="http://127.0.0.1:8787")
MINE = """\
# mine
model = "gpt-5"   # the best
approval_policy = "on-request"
model_provider = "openai"

[features]
plugins = false

[model_providers.other]
name = "other"
model = "not this one"
base_url = "http://other"
"""


def test_the_snippet_is_toml_that_says_what_is_wanted():
    assert tomllib.loads(snippet(PLAN)) == settings(PLAN)


def test_a_file_that_is_not_there_gets_nothing_but_ours():
    assert tomllib.loads(edited("", PLAN)) == settings(PLAN)


def test_codex_speaks_responses_to_the_proxy_and_leaves_repeating_to_it():
    (provider,) = settings(PLAN)["model_providers"].values()
    assert provider["base_url"] == "http://127.0.0.1:8787/v1"
    assert provider["wire_api"] == "responses"
    assert provider["request_max_retries"] * provider["stream_max_retries"] < 4
    assert provider["stream_idle_timeout_ms"] == 300_000  # event heartbeats come after 120 s
    assert "env_key" not in provider


def test_a_key_is_named_only_where_one_is_needed():
    plan = Plan(base_url="http://a", key_variable="TEAM_KEY")
    assert settings(plan)["model_providers"]["trio-sse-proxy"]["env_key"] == "TEAM_KEY"


def test_the_users_own_settings_stay_and_ours_are_in_force():
    old, new = tomllib.loads(MINE), tomllib.loads(edited(MINE, PLAN))
    assert new["model_providers"] == old["model_providers"] | settings(PLAN)["model_providers"]
    assert (new["model"], new["model_provider"]) == ("tiny", "trio-sse-proxy")
    assert {name: new[name] for name in ("approval_policy", "features")} == {
        name: old[name] for name in ("approval_policy", "features")
    }


def test_every_line_of_the_user_is_there_unchanged_or_as_a_comment():
    lines = edited(MINE, PLAN).splitlines()
    for line in MINE.splitlines():
        assert line in lines or f"# before trio-sse-proxy: {line}" in lines
    assert '# before trio-sse-proxy: model = "gpt-5"   # the best' in lines
    assert 'model = "not this one"' in lines


def test_without_a_model_the_users_own_stays():
    new = edited(MINE, NO_MODEL)
    assert 'model = "gpt-5"   # the best' in new.splitlines()
    assert tomllib.loads(new)["model"] == "gpt-5"


@pytest.mark.parametrize("before", ["", MINE, MINE.replace("\n", "\r\n"), MINE.rstrip("\n")])
def test_doing_it_again_changes_nothing(before):
    once = edited(before, PLAN)
    assert edited(once, PLAN) == once


def test_doing_it_again_with_other_wishes_changes_our_blocks_alone():
    other = Plan(base_url="http://elsewhere", model="large", key_variable="KEY")
    assert edited(edited(MINE, PLAN), other) == edited(MINE, other)


def test_doing_it_again_without_a_model_keeps_the_one_it_was_told_before():
    again = edited(edited(MINE, PLAN), Plan(base_url="http://elsewhere"))
    assert tomllib.loads(again)["model"] == "tiny"
    assert (
        tomllib.loads(again)["model_providers"]["trio-sse-proxy"]["base_url"]
        == "http://elsewhere/v1"
    )


def test_line_ends_stay_what_they_were():
    new = edited(MINE.replace("\n", "\r\n"), PLAN)
    assert new.count("\r\n") == new.count("\n")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("model = ", "no TOML that can be read"),
        ('model_providers = { a = { name = "a" } }', "put in by hand"),
        ('[model_providers.trio-sse-proxy]\nname = "mine"', "put in by hand"),
        ('notes = """\nmodel = 1\n"""\nmodel = "x"\n', "put in by hand"),
        ("[a]\nb = 1\n# >>> trio-sse-proxy\n[c]\n# <<< trio-sse-proxy\nd = 2\n", "put in by hand"),
    ],
)
def test_what_cannot_be_edited_safely_is_left_alone(before, said):
    with pytest.raises(NotConnected, match=said):
        edited(before, PLAN)


KEYS = st.sampled_from(["model", "model_provider", "profile", "a", "'model'", '"b"'])
VALUES = st.sampled_from(
    ['"x"', "1", "[1,\n  [2]]", '"""\nmodel = 1\n[t]\n"""', "{ c = 1 }", "'''y'''"]
)
LINES = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    st.sampled_from(["[t]", "[[u]]", "[model_providers.z]", "# model = 1", "", "  "]),
)


@given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_whatever_the_file_it_is_left_alone_or_means_the_same_with_ours_over_it(lines, end, last):
    before = end.join(lines) + end * last
    try:
        old = tomllib.loads(before)
        new = edited(before, PLAN)
    except (ValueError, NotConnected):
        return
    ours = settings(PLAN)
    providers = old.get("model_providers", {}) | ours["model_providers"]
    assert tomllib.loads(new) == old | ours | {"model_providers": providers}
    assert edited(new, PLAN) == new


def test_what_changes_is_said():
    said = list(changes(MINE, edited(MINE, PLAN)))
    assert 'model_provider = "trio-sse-proxy"' in said
    assert said[-1] == "turned into comments: 2 lines of yours that say otherwise"
    mine = 'profile = "p"\n[profiles.p]\nmodel_provider = "other"\n'
    assert "goes before" in list(changes(mine, edited(mine, PLAN)))[-1]
