"""What a probe finds out about servers that differ, and what it makes of servers that are none."""

from __future__ import annotations

import re
import tomllib

import pytest
import trio
from upstreams.servers import MemoryUpstream

from trio_sse_proxy.config import Settings
from trio_sse_proxy.dialects.translate.profile import PRESETS
from trio_sse_proxy.probing.asker import Bounds
from trio_sse_proxy.probing.questions import Unasked
from trio_sse_proxy.probing.run import ask
from trio_sse_proxy.settings_upstream import DIALECTS, Upstream
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport

from .player import Player

KEY = "sk-very-secret"


class Probed:
    """The table that was printed, as our settings read it, and what was said beside it."""

    def __init__(self, table, lines):
        self.table = table
        self.lines = lines
        self.upstream = Settings(**tomllib.loads(table)).upstreams[0]

    @property
    def switches(self):
        """The profile as it was written."""
        return tomllib.loads(self.table)["upstreams"][0].get("profile")

    def said(self, begin):
        (line,) = (line for line in self.lines if line.startswith(begin))
        return line


@pytest.fixture
def probe(nursery, monkeypatch):
    monkeypatch.setenv("PROBED_KEY", KEY)

    async def probe(player, model=None, *, url="http://server.example/v1", keyed=False, **bounds):
        server = MemoryUpstream(nursery, player.play)
        place = "env:PROBED_KEY" if keyed else None
        table = Upstream(base_url=url, api_key=place)
        lines = []
        upstream, root = (
            HttpUpstream(
                name="probed",
                base_url=base,
                transport=TrioTransport(connect=server.connect),
                connect_timeout=1.0,
                api_key=KEY if keyed else None,
            )
            for base in (url, "http://server.example")
        )
        try:
            told = await ask(upstream, root, table, model, place, Bounds(**bounds), lines.append)
        except Unasked as unasked:
            lines.append(str(unasked))
            raise
        finally:
            await upstream.aclose()
            await root.aclose()
            assert KEY not in "\n".join(lines)
        assert KEY not in told
        return Probed(told, lines)

    return probe


async def test_a_server_of_chat_alone_gets_a_table_that_our_settings_take(probe):
    found = await probe(Player())
    assert found.upstream.base_url == "http://server.example/v1"
    assert found.upstream.name == "server.example"
    assert found.upstream.dialects == ("chat",)
    assert found.switches == {"base": "generic"}
    assert found.said("dialect responses") == "dialect responses: no (404: Not Found)"


async def test_the_model_is_the_first_listed_that_can_talk(probe):
    player = Player()
    found = await probe(player)
    assert found.said("model") == "model: tiny (of 2 listed)"
    assert {body["model"] for _, body, _ in player.asked if body} == {
        "tiny",
        "no-such-model-of-trio-sse-proxy",
    }


async def test_a_model_that_is_named_needs_no_list(probe):
    player = Player(models=())
    with pytest.raises(Unasked, match=r"name one with --model"):
        await probe(player)
    player.models = ("mine",)
    assert (await probe(player, "mine")).said("model") == "model: mine (of 1 listed)"


async def test_what_will_be_sent_is_said_before(probe):
    found = await probe(Player(), questions=25, tokens=2_000, total=100.0)
    assert found.lines[0] == (
        "probing http://server.example/v1 with at most 25 small requests, whose answers have at most"
        " 2000 tokens together, in at most 100 s"
    )
    assert found.lines[1] == "GET /v1/models: which models it has"


async def test_every_request_is_announced_and_limits_its_answer(probe):
    player = Player()
    found = await probe(player)
    announced = [line for line in found.lines if re.match(r"(GET|POST) /", line)]
    assert len(announced) == len(player.asked)
    limits = [
        body.get("max_tokens") or body.get("max_output_tokens")
        for _, body, _ in player.asked
        if body
    ]
    assert all(limits)
    assert sum(limits) < 700


@pytest.mark.parametrize("bounds", [{"questions": 5}, {"tokens": 100}])
async def test_bounds_are_kept_and_what_was_found_until_then_is_told(probe, bounds):
    player = Player(dialects=("chat", "responses", "messages"))
    found = await probe(player, **bounds)
    assert found.upstream.dialects == ("chat",)
    assert sum(body is not None for _, body, _ in player.asked) <= 5
    assert "not asked" in found.said("dialect messages")


@pytest.mark.parametrize(
    "dialects",
    [
        ("chat", "responses"),
        ("chat", "messages"),
        ("messages",),
        ("responses",),
        ("chat", "responses", "messages"),
    ],
)
async def test_the_dialects_it_speaks_are_told_and_a_profile_only_where_it_is_of_use(
    probe, dialects
):
    found = await probe(Player(dialects=dialects))
    assert found.upstream.dialects == dialects
    assert (found.switches is None) == ("chat" not in dialects or len(dialects) == 3)
    assert ("does not get along" in found.table) == ("chat" in dialects)


@pytest.mark.parametrize(
    ("custom_tools", "told"),
    [
        ("ignored", "custom tools, like Codex's apply_patch, are not called"),
        ("refused", "400: Cannot determine type of 'item'"),
    ],
)
async def test_responses_that_are_not_for_codex_are_left_to_the_translator(
    probe, custom_tools, told
):
    found = await probe(Player(dialects=("chat", "responses"), custom_tools=custom_tools))
    assert found.upstream.dialects == ("chat",)
    assert found.said("dialect responses") == f"dialect responses: in part ({told})"
    assert f"# responses is left out, to be translated: {told}\n" in found.table


async def test_messages_that_are_not_for_claude_code_are_left_to_the_translator(probe):
    found = await probe(Player(dialects=("chat", "messages"), system_first=True))
    assert found.upstream.dialects == ("chat",)
    assert found.said("dialect messages") == (
        "dialect messages: in part (400: a system message comes first)"
    )


async def test_without_chat_a_dialect_that_is_spoken_in_part_is_all_there_is(probe):
    player = Player(dialects=("responses", "messages"), custom_tools="refused", system_first=True)
    assert (await probe(player)).upstream.dialects == ("responses", "messages")


@pytest.mark.parametrize(
    ("url", "flaws"),
    [
        ("https://api.openai.com/v1", {"custom_tools": "refused"}),
        ("https://api.anthropic.com", {"system_first": True}),
    ],
)
async def test_whose_dialect_it_is_speaks_it(probe, url, flaws):
    spoken = ("chat", "responses" if "openai" in url else "messages")
    found = await probe(Player(dialects=spoken, **flaws), url=url.replace("https", "http"))
    assert found.upstream.dialects == spoken


async def test_a_connection_that_was_closed_behind_a_stream_is_no_answer(probe):
    """The next request cannot know, unless the news was faster than it."""
    polite, rude = (Player(dialects=DIALECTS, hangs_up=rude) for rude in (False, True))
    assert (await probe(rude)).lines == (await probe(polite)).lines
    assert [path for path, _, _ in rude.asked] == [path for path, _, _ in polite.asked]


async def test_a_server_that_speaks_none_of_them_could_not_be_asked(probe):
    with pytest.raises(Unasked, match=r"speaks none of the three dialects \(chat: 404: Not Found"):
        await probe(Player(dialects=()))


async def test_what_is_no_model_server_is_told_as_such(probe):
    with pytest.raises(Unasked, match="tells no models"):
        await probe(Player(everything=b"<html>It works!</html>"))
    with pytest.raises(Unasked, match="200, but with something else"):
        await probe(Player(everything=b"<html>It works!</html>"), "tiny")


async def test_a_wrong_key_is_told_and_not_repeated(probe):
    with pytest.raises(
        Unasked, match=r"it wants a key, or another one \(--api-key\): 401: Incorrect"
    ):
        await probe(Player(key="another"), keyed=True)
    with pytest.raises(Unasked, match="401"):
        await probe(Player(key="another"), "tiny", keyed=True)


async def test_a_key_goes_where_each_dialect_has_it_and_the_table_names_its_place(probe):
    player = Player(key=KEY, dialects=("chat", "messages"))
    found = await probe(player, keyed=True)
    assert tomllib.loads(found.table)["upstreams"][0]["api_key"] == "env:PROBED_KEY"
    assert found.upstream.dialects == ("chat", "messages")


@pytest.mark.parametrize("status", [402, 429])
async def test_a_server_that_has_no_time_could_not_be_asked(probe, status):
    with pytest.raises(Unasked, match="answers nobody's questions just now"):
        await probe(Player(status=status))


async def test_a_server_that_says_nothing_is_given_up_in_time(probe):
    began = trio.current_time()
    with pytest.raises(Unasked, match="no answer within 60 s"):
        await probe(Player(silent=True))
    assert trio.current_time() - began == pytest.approx(60)
    with pytest.raises(Unasked, match="no answer within 60 s"):
        await probe(Player(silent=True), "tiny")


async def test_a_server_that_falls_silent_leaves_what_was_found_until_then(probe):
    began = trio.current_time()
    found = await probe(Player(silent_after=4))
    assert trio.current_time() - began == pytest.approx(300)
    assert found.upstream.dialects == ("chat",)
    assert found.said("reasoning_effort") == "reasoning_effort: cannot be told"
    assert "time was up" in found.said("dialect messages")


async def test_a_server_that_nobody_reaches_could_not_be_asked(probe, monkeypatch):
    async def refuse(*_):
        raise OSError("Connection refused")

    monkeypatch.setattr(MemoryUpstream, "connect", refuse)
    with pytest.raises(Unasked, match="Connection refused"):
        await probe(Player())


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ("asked", "told if asked for (stream_options)"),
        ("always", "told, asked for or not"),
        ("never", "not told, though asked for"),
    ],
)
async def test_usage_on_streams(probe, usage, words):
    found = await probe(Player(usage=usage))
    assert found.said("usage on streams") == f"usage on streams: {words}"
    assert found.switches == {"base": "generic"}


@pytest.mark.parametrize("names", [True, False], ids=["names it", "only refuses"])
@pytest.mark.parametrize(
    ("refused", "switch", "value"),
    [
        ("stream_options", "stream_usage", False),
        ("max_tokens", "max_tokens_field", "max_completion_tokens"),
        ("tool_choice", "tool_choice_auto", False),
        ("parallel_tool_calls", "parallel_tool_calls", False),
    ],
)
async def test_a_field_that_is_refused_is_found_and_not_sent_again(
    probe, refused, switch, value, names
):
    player = Player(refuses=(refused,), names_what_it_refuses=names)
    found = await probe(player)
    assert found.switches == {"base": "generic", switch: value}
    assert getattr(found.upstream.translation, switch) == value
    chats = [body for path, body, _ in player.asked if path == "/v1/chat/completions"]
    assert sum(refused in body for body in chats) <= (1 if names else 4)
    assert refused not in chats[-1]


async def test_several_fields_that_are_refused(probe):
    player = Player(refuses=("stream_options", "max_tokens", "parallel_tool_calls"))
    found = await probe(player)
    assert set(found.switches) == {
        "base",
        "stream_usage",
        "max_tokens_field",
        "parallel_tool_calls",
    }
    assert "max_tokens is refused" in found.said("tokens are limited by")


@pytest.mark.parametrize(
    ("reasoning", "switches"),
    [
        ("", {}),
        ("reasoning_content", {}),
        ("reasoning", {"reasoning_field": "reasoning"}),
        ("thinking", {}),
        ("<think>", {"inline_think": True}),
    ],
)
async def test_where_reasoning_comes(probe, reasoning, switches):
    found = await probe(Player(reasoning=reasoning))
    assert found.switches == {"base": "generic"} | switches
    assert (reasoning or "none was seen") in found.said("reasoning:")


@pytest.mark.parametrize(
    ("player", "words"),
    [
        (Player(), "yes, in parallel, with ids, arguments in 4 pieces for 2 calls"),
        (Player(calls=1), "yes, one at a time (though asked for two), with ids"),
        (Player(ids=False), "yes, in parallel, without ids"),
        (Player(calls=0), "no call (it answered in words; others may call)"),
        (Player(refuses=("tools",)), "no call (400: Unsupported parameter: tools)"),
    ],
)
async def test_tools(probe, player, words):
    assert words in (await probe(player)).said("tools:")


async def test_reasoning_that_must_come_back(probe):
    found = await probe(Player(wants_reasoning_back=True))
    assert found.switches["reasoning_echo"] == "all"
    assert found.switches["reasoning_placeholder"]


async def test_a_call_that_needs_content(probe):
    found = await probe(Player(wants_content=True))
    assert found.switches == {"base": "generic", "empty_content": "empty"}


async def test_ids_that_must_be_short(probe):
    found = await probe(Player(wants_short_ids=True))
    assert found.switches == {"base": "generic", "tool_id_shape": "mistral9"}


async def test_images_that_are_refused(probe):
    found = await probe(Player(images=False))
    assert found.switches == {"base": "generic", "vision": False}
    assert found.said("images") == "images: no (400: this is no multimodal model)"


async def test_the_role_developer_that_is_refused(probe):
    assert (await probe(Player(developer=False))).said("role developer") == "role developer: no"
    found = await probe(Player(developer=False), url="https://api.openai.com")
    assert found.switches == {"base": "openai", "developer_role": False}


async def test_an_effort_that_is_refused(probe):
    found = await probe(Player(refuses=("reasoning_effort",)))
    assert found.switches == {"base": "generic", "thinking_style": "none"}


async def test_streams_without_a_terminator_and_answers_without_a_stream(probe):
    found = await probe(Player(terminator=False))
    assert found.said("streams end with") == "streams end with [DONE]: no"
    found = await probe(Player(streams=False))
    assert found.said("streams:") == "streams: it answered a streaming request with JSON"


@pytest.mark.parametrize(
    ("player", "url", "preset"),
    [
        (Player(owner="vllm"), "http://gpu", "vllm"),
        (Player(owner="sglang"), "http://gpu", "sglang"),
        (Player(owner="llamacpp"), "http://gpu", "llamacpp"),
        (Player(server="llama.cpp"), "http://gpu", "llamacpp"),
        (Player(owner="library"), "http://gpu", "ollama"),
        (Player(metrics="vllm:num_requests_running"), "http://gpu", "vllm"),
        (Player(), "https://api.deepseek.com", "deepseek"),
        (Player(), "https://api.moonshot.ai/v1", "kimi"),
        (Player(), "https://api.minimax.io/v1", "minimax"),
        (Player(), "https://api.mistral.ai/v1", "mistral"),
        (Player(), "https://openrouter.ai/v1", "openrouter"),
        (Player(), "https://notopenai.com/v1", "generic"),
    ],
)
async def test_the_preset_it_resembles(probe, player, url, preset):
    found = await probe(player, url=url)
    assert found.switches["base"] == preset
    assert found.said("it resembles").startswith(f"it resembles: {preset} (")


@pytest.mark.parametrize(
    "count",
    [
        "vllm:num_requests_running",
        "sglang:num_running_reqs",
        "llamacpp:requests_processing",
        "slots",
    ],
)
@pytest.mark.parametrize("notices", [True, False])
async def test_whether_a_client_that_left_is_noticed(probe, count, notices):
    found = await probe(Player(metrics=count, notices=notices))
    said = found.said("notices that a client left")
    assert f": {'yes' if notices else 'no'} (its count of running requests" in said


async def test_whether_a_client_that_left_is_noticed_cannot_be_told_without_a_count(probe):
    player = Player()
    found = await probe(player)
    said = found.said("notices that a client left")
    assert said.endswith("cannot be told (it has no metrics that would tell)")
    assert not [body for _, body, _ in player.asked if "500" in str(body)]


async def test_what_an_error_looks_like(probe):
    said = (await probe(Player())).said("error for an unknown model")
    assert said.endswith("404: no such model (JSON: error with message, type)")


async def test_words_of_a_server_cannot_break_the_table_or_the_terminal(probe):
    player = Player(models=("ti\nny = 1 \x1b[31m",), images=False)
    found = await probe(player)
    assert "\x1b" not in found.table + "".join(found.lines)
    assert found.switches["vision"] is False


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_can_be_resembled_or_is_generic(name):
    from trio_sse_proxy.probing.findings import _HOSTS, _OWNERS

    assert name in {*_HOSTS.values(), *_OWNERS.values(), "generic"}
