"""Translation profiles as settings tell them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trio_sse_proxy.config import Settings, Upstream
from trio_sse_proxy.core.call import Call
from trio_sse_proxy.dialects.translate.profile import GENERIC, PRESETS, ReasoningEcho
from trio_sse_proxy.ports import UpstreamRequest
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
            "tokenizer_url": "/count",
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
        tokenizer_url="/count",
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
        ({"tokenizer_url": "tokenize"}, "tokenizer_url must be a path such as /tokenize"),
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


def shown(profile, **more):
    """The lines of `check` for the profile of one upstream."""
    table = Upstream(base_url="http://a", dialects=("chat",), profile=profile, **more)
    return as_toml(Settings(upstreams=[table])).partition("[upstreams.profile]\n")[2].splitlines()


def test_check_says_which_switches_come_from_the_preset_and_which_were_set():
    lines = shown({"base": "deepseek", "reasoning_echo": "tool_turns", "max_output_tokens": 5})
    assert 'base = "deepseek"' in lines
    assert 'thinking_style = "thinking_type"  # from deepseek' in lines
    assert 'reasoning_echo = "tool_turns"  # set here; deepseek has "all"' in lines
    assert "max_output_tokens = 5  # set here; deepseek has none" in lines
    assert "vision = true" in lines


def test_check_shows_the_profile_of_an_upstream_that_names_none():
    lines = shown(None)
    assert lines[0] == '# base = "generic"'
    assert len(lines) == len(shown("generic"))
    assert all(line.startswith("# ") and "  #" not in line for line in lines)


def test_check_shows_no_profile_where_nothing_is_translated():
    said = as_toml(Settings(upstreams=[Upstream(base_url="http://a")]))
    assert "# profile is not set\n" in said
    assert "[upstreams.profile]" not in said


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_shown_and_can_be_read_again(name):
    import tomllib

    one = upstream(name)
    (table,) = tomllib.loads(as_toml(Settings(upstreams=[one])))["upstreams"]
    assert upstream(table["profile"]).translation == one.translation == PRESETS[name]


@pytest.mark.parametrize(
    ("name", "abort"), [("sglang", "sglang"), ("exo", "exo"), ("vllm", "none")]
)
def test_an_abort_that_is_left_out_is_that_of_the_server_the_profile_is_named_after(name, abort):
    assert upstream(name).abort == abort
    assert upstream({"base": name, "vision": False}).abort == abort
    table = Upstream(base_url="http://a", dialects=("chat",), profile=name, abort="textgen")
    assert table.abort == "textgen"
    assert Upstream(base_url="http://a").abort == "none"


def test_a_tokenizer_is_asked_at_the_servers_root():
    """vLLM has `/tokenize` beside `/v1`, and not below it."""
    from trio_sse_proxy.fleet import Fleet

    table = Upstream(base_url="http://a/v1", dialects=("chat",), profile="vllm", api_key="sk-own")
    (member,) = Fleet(Settings(upstreams=[table])).members.values()
    counting = member.endpoint.upstream.tokenizer.destination
    request = UpstreamRequest(method="POST", target=b"/tokenize", headers=(), body=b"{}")
    sent = counting.request(request, Call(id="1", stream_id="1"))
    assert sent.extensions["target"] == b"/tokenize"
    assert sent.headers["authorization"] == "Bearer sk-own"
