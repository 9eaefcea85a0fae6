"""Translation profiles as settings tell them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trio_sse_proxy.config import Settings, Upstream
from trio_sse_proxy.dialects.translate.profile import GENERIC, PRESETS, ReasoningEcho
from trio_sse_proxy.reference import as_toml
from trio_sse_proxy.settings_error import SettingsError


def upstream(profile, dialects=("chat",)):
    return Upstream(base_url="http://a", dialects=dialects, profile=profile)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_goes_by_its_name(name):
    assert upstream(name).translation is PRESETS[name]


def test_switches_are_set_over_a_preset():
    profile = upstream(
        {
            "base": "deepseek",
            "reasoning_echo": "tool_turns",
            "max_output_tokens": 8192,
            "pass_fields": ["service_tier"],
            "effort_map": {"low": "high"},
            "extra_body": {"top_k": 5},
            "web_search_tool": {"type": "web_search"},
            "reasoning_placeholder": "-",
            "vision": False,
        }
    ).translation
    assert profile == replace(
        PRESETS["deepseek"],
        reasoning_echo=ReasoningEcho.TOOL_TURNS,
        max_output_tokens=8192,
        pass_fields=("service_tier",),
        effort_map={"low": "high"},
        extra_body={"top_k": 5},
        web_search_tool={"type": "web_search"},
        reasoning_placeholder="-",
        vision=False,
    )


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("depseek", "there is no preset 'depseek'; the nearest is deepseek"),
        ({"base": "vlm"}, "there is no preset 'vlm'; the nearest is vllm"),
        ({"base": 1}, "base must be the name of a preset"),
        (
            {"reasoning_eco": "all"},
            "there is no switch 'reasoning_eco'; the nearest is reasoning_echo",
        ),
        ({"reasoning_echo": "some"}, "reasoning_echo must be tool_turns or all or never"),
        ({"vision": "yes"}, "the switch vision must be true or false"),
        ({"max_output_tokens": 0}, "max_output_tokens must be a whole number, at least 1"),
        ({"effort_map": {"low": 1}}, "effort_map must be a table from efforts to words"),
        ({"extra_body": "x"}, "extra_body must be a table"),
        ({"web_search_tool": 1}, "web_search_tool must be a table"),
        ({"pass_fields": "x"}, "pass_fields must be a list of field names"),
        ({"reasoning_placeholder": {}}, "reasoning_placeholder must be a text"),
        (7, "must be generic, "),
    ],
)
def test_what_is_no_profile_is_refused_in_words(profile, words):
    with pytest.raises(SettingsError) as caught:
        upstream(profile)
    assert words in str(caught.value)


@pytest.mark.parametrize("dialects", [("messages",), ("chat", "responses", "messages")])
def test_a_profile_of_no_use_is_refused(dialects):
    with pytest.raises(SettingsError, match="say which dialects it speaks"):
        upstream("deepseek", dialects)
    assert upstream(None, dialects).translation is None


def test_chat_alone_is_translated_by_the_generic_profile():
    assert upstream(None).translation is GENERIC
    assert upstream(None, ("chat", "messages")).translation is GENERIC


def test_the_profile_in_force_is_shown_and_can_be_read_again():
    import tomllib

    settings = Settings(upstreams=[upstream({"base": "mimo", "max_output_tokens": 5})])
    (table,) = tomllib.loads(as_toml(settings))["upstreams"]
    assert upstream(table["profile"]).translation == settings.upstreams[0].translation


def test_every_switch_is_listed_and_no_other():
    import re
    from dataclasses import fields
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs/dialects.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", page.partition("\n## Profiles\n")[2], re.MULTILINE)
    assert rows == [field.name for field in fields(GENERIC)]
