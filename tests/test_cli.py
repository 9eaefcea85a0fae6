"""The command line: what is refused, what is said, and how it ends."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_sse_proxy import cli, reference
from trio_sse_proxy.config import Settings, SettingsError
from trio_sse_proxy.listening import BindError
from trio_sse_proxy.version import __version__

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples" / "configs").glob("*.toml"))

WRONG = {
    "bind": "nowhere",
    "certfile": "/nowhere/cert.pem",
    "keyfile": "/nowhere/key.pem",
    "on_failure": "shout",
    "log_level": "loud",
    "on_disconnect": "shrug",
    "event_heartbeat_clients": "two words",
    "allowed_hosts": "http://a.example",
    "allowed_origins": "a.example",
}
FLAGS = [name for name in Settings.model_fields if reference.has_flag(name)]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("TRIO_SSE_PROXY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def served(monkeypatch):
    """`serve` without a server: collects the settings it would run with."""
    ran = []

    def run(settings, *, announce, read_again):
        ran.append(settings)
        announce("http://127.0.0.1:8787")
        return 0

    wiring = types.ModuleType("trio_sse_proxy.wiring")
    wiring.run = run
    monkeypatch.setitem(sys.modules, "trio_sse_proxy.wiring", wiring)
    return ran


def run(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def assert_refused(result, said):
    """One line that says it, no traceback, exit code 2."""
    assert result.exit_code == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("trio-sse-proxy: ")
    assert said in line


@pytest.mark.parametrize("name", [name for name in FLAGS if name != "json_heartbeat"])
def test_a_wrong_flag_is_refused_in_one_line_with_exit_code_2(name, served):
    result = run("serve", f"{reference.flag(name)}={WRONG.get(name, 'nan')}")
    assert_refused(result, f"(from {reference.flag(name)})")
    assert not served


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_wrong_variable_is_refused_in_one_line_with_exit_code_2(name, served, monkeypatch):
    variable = f"TRIO_SSE_PROXY_{name.upper()}"
    monkeypatch.setenv(variable, WRONG.get(name, "not allowed"))
    assert_refused(run("serve"), f"(from {variable})")
    assert not served


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("heartbeat = 0.5", "heartbeat = 0.5: must be 0 (off) or at least 1 second"),
        ("heartbeet = 5", "heartbeet: no such setting; the nearest is heartbeat"),
        ("heartbeat =", "is not TOML"),
        ('bind = "0.0.0.0:8787"', "client_keys are required"),
        ("[[upstreams]]\nname = 'a'", "upstreams.base_url: is required"),
        ("[[upstreams]]\nbase_url = 'http://a'\n" * 2, "two are called a"),
        ("[[routes]]\nupstreams = ['a']", "routes.upstreams = a: no such upstream, there are none"),
        ("[[upstreams]]\nbase_url = 'http://a'\napi_key = 'env:NO_SUCH'", "NO_SUCH is not set"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_with_exit_code_2(
    command, content, said, tmp_path, served
):
    file = tmp_path / "proxy.toml"
    file.write_text(content)
    assert_refused(run(command, "--config", file), said)
    assert not served


def test_a_missing_file_is_refused_in_one_line_with_exit_code_2(tmp_path):
    assert_refused(run("check", "--config", tmp_path / "missing.toml"), "cannot be read")


def test_every_setting_that_is_no_secret_has_a_flag():
    flags = {option.name for option in cli.settings_flags()}
    assert set(Settings.model_fields) - flags == {"upstreams", "routes", "client_keys", "admin_key"}


def test_flags_reach_the_settings(served):
    result = run(
        "serve", "--heartbeat", "2", "--json-heartbeat", "--upstream", "http://a", "--max-streams=7"
    )
    assert result.exit_code == 0
    [settings] = served
    assert (settings.heartbeat, settings.json_heartbeat, settings.max_streams) == (2.0, True, 7)
    assert settings.upstreams[0].base_url == "http://a"


def test_a_switch_can_be_turned_off_again(served, monkeypatch):
    monkeypatch.setenv("TRIO_SSE_PROXY_JSON_HEARTBEAT", "true")
    run("serve")
    run("serve", "--no-json-heartbeat")
    assert [settings.json_heartbeat for settings in served] == [True, False]


def test_serve_says_in_one_line_where_it_listens_and_where_requests_go(served):
    result = run("serve", "--upstream", "https://api.example.com/v1")
    assert result.stderr == (
        "trio-sse-proxy listening on http://127.0.0.1:8787, "
        "upstream api.example.com (https://api.example.com/v1)\n"
    )
    assert result.stdout == ""


def test_serve_without_an_upstream_says_what_to_try(served):
    first, *more = run("serve").stderr.splitlines()
    assert first == "trio-sse-proxy listening on http://127.0.0.1:8787, upstream demo (built in)"
    assert any("curl -N http://127.0.0.1:8787/v1/chat/completions" in line for line in more)


def test_an_address_in_use_is_told_in_one_line_with_exit_code_1(monkeypatch):
    def run_without_luck(settings, *, announce, read_again):
        raise BindError("cannot listen on 127.0.0.1:8787: Address already in use")

    wiring = types.ModuleType("trio_sse_proxy.wiring")
    wiring.run = run_without_luck
    monkeypatch.setitem(sys.modules, "trio_sse_proxy.wiring", wiring)
    result = run("serve")
    assert result.exit_code == 1
    assert result.stderr == (
        "trio-sse-proxy: cannot listen on 127.0.0.1:8787: Address already in use\n"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_passes_check_and_shows_no_secret(example, monkeypatch):
    for name in re.findall(r"env:(\w+)", example.read_text("utf-8")):
        monkeypatch.setenv(name, "sk-hidden")
    result = run("check", "--config", example)
    assert result.exit_code == 0, result.stderr
    assert "base_url" in result.stdout
    assert "sk-hidden" not in result.output


def test_check_counts_the_environment_in(monkeypatch):
    monkeypatch.setenv("TRIO_SSE_PROXY_HEARTBEAT", "3")
    assert "heartbeat = 3.0\n" in run("check").stdout


ROUTED = """
[[upstreams]]
name = "a"
base_url = "http://127.0.0.1:9001"
dialects = ["chat"]
models = { "deepseek-*" = "local" }
[[upstreams]]
name = "b"
base_url = "http://127.0.0.1:9002"
[[upstreams]]
name = "c"
base_url = "http://127.0.0.1:9003"
dialects = ["responses", "messages"]
[[routes]]
client = "sk-hidden"
upstreams = ["b"]
[[routes]]
model = "deepseek-*"
upstreams = ["b", "a"]
balance = "round_robin"
sticky = "X-Session"
[[routes]]
model = "own-dialects"
upstreams = ["c"]
[[routes]]
model = "mixed"
upstreams = ["c", "a"]
[[routes]]
client = "sk-hidden"
path = "/*"
model = "deepseek-*"
upstreams = ["a"]
"""


@pytest.fixture
def routed(tmp_path):
    """`check` of a file with routes: what it says beside the part about the client's key."""
    file = tmp_path / "proxy.toml"
    file.write_text(ROUTED)

    def check(*arguments):
        result = run("check", "--config", file, *arguments)
        assert result.exit_code == 0, result.output
        assert "sk-hidden" not in result.output
        first, keyed, *rest = result.stdout.split("\n\n")
        assert keyed.startswith("for the client whose key it is:\nroute 1, ")
        return [first, *rest]

    return check


def test_check_shows_where_a_model_would_go_and_under_which_name(routed):
    first, route = routed("--model", "deepseek-v3")
    assert first == "model deepseek-v3, dialect chat, path /v1/chat/completions"
    assert route.splitlines() == [
        'route 2, balance = "round_robin", sticky on x-session',
        "  1. b (http://127.0.0.1:9002), model deepseek-v3",
        "  2. a (http://127.0.0.1:9001), model local",
    ]


def test_check_shows_which_upstreams_are_left_out_for_their_dialect(routed):
    _, route = routed("--model", "mixed", "--dialect", "chat")
    assert route.splitlines()[1:] == [
        "  1. a (http://127.0.0.1:9001), model mixed",
        "  left out: c does not speak chat",
    ]


def test_check_shows_which_upstreams_are_translated_for(routed):
    _, route = routed("--model", "deepseek-v3", "--dialect", "messages")
    assert route.splitlines()[1:] == [
        "  1. b (http://127.0.0.1:9002), model deepseek-v3",
        "  2. a (http://127.0.0.1:9001), model local, translated to chat",
    ]


def test_check_shows_that_a_request_nobody_speaks_the_dialect_of_is_refused(routed):
    _, route = routed("--model", "own-dialects", "--path", "/v1/chat/completions")
    assert route.splitlines()[1:] == [
        "  refused with 400: no upstream of route 3 speaks the chat dialect:"
        " c speaks responses and messages"
    ]


def test_check_shows_the_default_route(routed):
    _, route = routed("--model", "other")
    assert route.splitlines()[0] == 'the default route, balance = "ordered"'


def test_check_knows_no_model_of_a_call_in_none_of_the_dialects(routed):
    first, route = routed("--model", "deepseek-v3", "--path", "/v1/embeddings")
    assert first == "model (none), dialect (none), path /v1/embeddings"
    assert route.splitlines()[1:] == ["  1. a (http://127.0.0.1:9001)"]


def test_check_shows_that_lists_of_models_are_one_unless_a_route_has_their_path(routed, tmp_path):
    _, route = routed("--path", "/v1/models")
    assert route.splitlines() == [
        'the default route, balance = "ordered"',
        "  with GET: what a, b, c have, as one list; with other methods:",
        "  1. a (http://127.0.0.1:9001)",
    ]
    file = tmp_path / "proxy.toml"
    file.write_text(ROUTED + "[[routes]]\npath = '/v1/models'\nupstreams = ['b']")
    said = run("check", "--config", file, "--path", "/v1/models").stdout
    assert "with GET" not in said[said.index("route 6") :]


def test_check_shows_a_hedge(tmp_path):
    file = tmp_path / "proxy.toml"
    file.write_text(
        ROUTED + "[[routes]]\nmodel = 'hedged'\nupstreams = ['a', 'b']\nhedge_after = 2"
    )
    said = run("check", "--config", file, "--model", "hedged").stdout
    assert 'route 6, balance = "ordered", another beside it after 2 s\n' in said


def test_serve_can_read_its_settings_again_with_the_same_flags(served, monkeypatch, tmp_path):
    file = tmp_path / "proxy.toml"
    file.write_text("heartbeat = 3\nrecords = 7")
    again = []

    def run_and_keep(settings, *, announce, read_again):
        again.append(read_again)
        return 0

    sys.modules["trio_sse_proxy.wiring"].run = run_and_keep
    run("serve", "--config", file, "--heartbeat", "4")
    file.write_text("heartbeat = 5\nrecords = 8")
    settings = again[0]()
    assert (settings.heartbeat, settings.records) == (4.0, 8)
    file.write_text("bind = '0.0.0.0:1'")
    with pytest.raises(SettingsError, match="client_keys are required"):
        again[0]()


def test_check_of_a_model_without_any_upstream_names_the_demo():
    assert "built-in demo upstream" in run("check", "--model", "m").stdout


def test_version():
    assert run("--version").stdout == f"trio-sse-proxy, version {__version__}\n"


def test_help_explains_every_flag():
    said = " ".join(run("serve", "--help").stdout.split())
    for name in FLAGS:
        assert reference.flag(name) in said
    assert "Default: 5.0; allowed: 0 (off) or at least 1 second." in said


@pytest.mark.slow
def test_the_module_can_be_run_and_help_comes_without_the_heavy_imports():
    code = (
        "import sys; from trio_sse_proxy.cli import main\n"
        "heavy = {'httpx', 'hypercorn', 'httptools'}\n"
        "try: main(['serve', '--help'])\n"
        "finally: print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    done = subprocess.run(
        [sys.executable, "-m", "trio_sse_proxy", "serve", "--heartbeat", "nan"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
