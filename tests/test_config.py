"""Settings: where they come from, what they may be, and how a wrong one is told."""

import re
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import SecretStr

from trio_sse_proxy import reference
from trio_sse_proxy.config import (
    AbortCall,
    Route,
    Settings,
    SettingsError,
    Upstream,
    check_door,
    load,
)
from trio_sse_proxy.core.balance import Balance
from trio_sse_proxy.core.breaker import BreakerRules
from trio_sse_proxy.core.limits import Limits, OnFailure
from trio_sse_proxy.core.routing import OnDisconnect, Rules
from trio_sse_proxy.core.routing import Route as CoreRoute

ROOT = Path(__file__).parent.parent
DURATIONS_OFF_BY_ZERO = (
    "heartbeat",
    "event_heartbeat",
    "connect_timeout",
    "first_token_timeout",
    "idle_timeout",
    "progress_timeout",
    "total_timeout",
    "retry_deadline",
    "retry_after_cap",
    "write_stall_timeout",
    "drain_timeout",
    "finish_timeout",
    "keep_alive",
    "header_timeout",
    "body_timeout",
)
DURATIONS = (*DURATIONS_OFF_BY_ZERO, "commit_after", "prelude_hold")
COUNTS = (
    "max_retries",
    "max_streams",
    "records",
    "max_connections",
    "max_header_fields",
    "max_resets",
    "max_control_frames",
)
SIZES = ("max_body_bytes", "max_frame_bytes", "max_held_bytes", "max_header_bytes")

NOT_ALLOWED = [
    *[(name, value) for name in DURATIONS for value in ("nan", "inf", "-inf", "-1", "5s", "true")],
    *[(name, value) for name in DURATIONS for value in (float("nan"), float("inf"), -1, True)],
    *[(name, value) for name in COUNTS for value in ("-1", "1.5", "many", True, 1.5)],
    *[
        (name, value)
        for name in SIZES
        for value in ("0", "-1", "64MB", "MiB", "1.5MiB", 1023, True)
    ],
    ("heartbeat", "0.99"),
    ("event_heartbeat", "0.99"),
    ("prelude_hold", "0"),
    ("prelude_hold", "240.1"),
    ("max_streams", "0"),
    ("retry_budget", "1.01"),
    ("retry_budget", "-0.01"),
    ("retry_budget", "nan"),
    ("on_failure", "shout"),
    ("on_failure", 1),
    ("json_heartbeat", "maybe"),
    ("json_heartbeat", 2),
    ("log_level", "loud"),
    ("event_heartbeat_clients", 5),
    ("event_heartbeat_clients", ["two words"]),
    ("bind", "127.0.0.1"),
    ("bind", ":8787"),
    ("bind", "::1:8787"),
    ("bind", "127.0.0.1:65536"),
    ("bind", "http://127.0.0.1:8787"),
    ("bind", 8787),
    ("allowed_hosts", "http://a.example"),
    ("allowed_origins", "a.example"),
    ("allowed_origins", "https://a.example/path"),
    ("certfile", "/nowhere/cert.pem"),
    ("keyfile", "/nowhere/key.pem"),
    ("client_keys", "with a space"),
    ("client_keys", [""]),
    ("client_keys", 5),
    ("admin_key", ""),
    ("admin_key", "schlüssel"),
    ("upstreams", "not json"),
    ("upstreams", 5),
    ("routes", "not json"),
    ("routes", 5),
    ("on_disconnect", "shrug"),
]


@pytest.mark.parametrize(("name", "value"), NOT_ALLOWED)
def test_a_value_that_is_not_allowed_is_refused_in_one_line_that_names_the_setting(name, value):
    with pytest.raises(SettingsError) as caught:
        load(None, {name: value}, {})
    line = str(caught.value)
    assert line.startswith(name)
    assert "\n" not in line
    assert "must be" in line or "cannot be read" in line
    assert line.endswith(f"(from --{name.replace('_', '-')})")


def test_every_setting_has_a_value_that_is_refused():
    assert {name for name, _ in NOT_ALLOWED} == set(Settings.model_fields)


def test_the_line_names_setting_value_and_what_is_allowed():
    with pytest.raises(SettingsError) as caught:
        Settings(heartbeat=float("nan"))
    assert str(caught.value) == "heartbeat = nan: must be 0 (off) or at least 1 second"


@pytest.mark.parametrize("name", DURATIONS_OFF_BY_ZERO)
@pytest.mark.parametrize("value", ["0", 0, 0.0])
def test_zero_is_a_duration(name, value):
    assert getattr(load(None, {name: value}, {}), name) == 0.0


@pytest.mark.parametrize(
    ("text", "size"), [("1024", 1024), ("64MiB", 2**26), ("1 GiB", 2**30), ("2kib", 2048)]
)
def test_sizes_may_carry_a_unit(text, size):
    assert load(None, {"max_body_bytes": text}, {}).max_body_bytes == size


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8787", ("127.0.0.1", 8787)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_the_address_is_split_into_host_and_port(text, address):
    assert Settings(bind=text).address == address


def test_an_unknown_setting_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError) as caught:
        load(None, {"heartbeet": "5"}, {})
    assert str(caught.value).startswith("heartbeet: no such setting; the nearest is heartbeat")


def test_an_unknown_setting_of_an_upstream_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError) as caught:
        load(None, {"upstreams": '[{"base_url": "http://a", "api_kye": "sk-secret"}]'}, {})
    line = str(caught.value)
    assert line.startswith("upstreams.api_kye: no such setting; the nearest is api_key")
    assert "sk-secret" not in line


def test_an_unknown_variable_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError) as caught:
        load(None, {}, {"TRIO_SSE_PROXY_HEARTBEET": "5"})
    assert str(caught.value) == (
        "TRIO_SSE_PROXY_HEARTBEET: no such variable; the nearest is TRIO_SSE_PROXY_HEARTBEAT"
    )


def test_variables_that_kubernetes_makes_of_a_service_name_are_left_alone():
    kubernetes = {
        "TRIO_SSE_PROXY_PORT": "tcp://10.0.0.1:8787",
        "TRIO_SSE_PROXY_PORT_8787_TCP_ADDR": "10.0.0.1",
        "TRIO_SSE_PROXY_SERVICE_HOST": "10.0.0.1",
        "TRIO_SSE_PROXY_SERVICE_PORT_HTTP": "8787",
    }
    assert load(None, {}, kubernetes) == Settings()


def test_flags_come_before_environment_before_file_before_defaults(tmp_path):
    file = tmp_path / "proxy.toml"
    file.write_text("heartbeat = 2\nidle_timeout = 2\nmax_retries = 2\n")
    environ = {"TRIO_SSE_PROXY_HEARTBEAT": "3", "TRIO_SSE_PROXY_IDLE_TIMEOUT": "3"}
    settings = load(file, {"heartbeat": "4", "max_retries": None}, environ)
    assert (settings.heartbeat, settings.idle_timeout, settings.max_retries) == (4.0, 3.0, 2)
    assert settings.total_timeout == 0.0


def test_an_empty_variable_counts_as_not_set():
    assert load(None, {}, {"TRIO_SSE_PROXY_HEARTBEAT": ""}) == Settings()


def test_the_environment_may_name_the_file_and_a_flag_overrules_it(tmp_path):
    (tmp_path / "a.toml").write_text("heartbeat = 2")
    (tmp_path / "b.toml").write_text("heartbeat = 3")
    environ = {"TRIO_SSE_PROXY_CONFIG": str(tmp_path / "a.toml")}
    assert load(None, {}, environ).heartbeat == 2
    assert load(tmp_path / "b.toml", {}, environ).heartbeat == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"heartbeat = ", "is not TOML"), (b"\xff", "is not TOML"), (None, "cannot be read")],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path, content, said):
    file = tmp_path / "proxy.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=said) as caught:
        load(file, {}, {})
    assert "\n" not in str(caught.value)


def test_the_line_says_which_file_or_variable_the_value_came_from(tmp_path):
    file = tmp_path / "proxy.toml"
    file.write_text("heartbeat = -1")
    with pytest.raises(SettingsError, match=r"\(from .*proxy\.toml\)"):
        load(file, {}, {})
    with pytest.raises(SettingsError, match=r"\(from TRIO_SSE_PROXY_HEARTBEAT\)"):
        load(None, {}, {"TRIO_SSE_PROXY_HEARTBEAT": "-1"})


def test_settings_built_in_code_do_not_read_the_environment(monkeypatch):
    monkeypatch.setenv("TRIO_SSE_PROXY_HEARTBEAT", "9")
    assert Settings().heartbeat == 5.0


def test_lists_are_separated_by_commas_in_text():
    settings = load(None, {}, {"TRIO_SSE_PROXY_EVENT_HEARTBEAT_CLIENTS": "Codex, opencode"})
    assert settings.event_heartbeat_clients == ("codex", "opencode")


# Upstreams


def test_one_upstream_may_be_given_by_its_url_alone():
    for settings in (
        load(None, {"upstream": "https://api.example.com/v1/"}, {}),
        load(None, {}, {"TRIO_SSE_PROXY_UPSTREAM": "https://api.example.com/v1/"}),
    ):
        [upstream] = settings.upstreams
        assert upstream.base_url == "https://api.example.com/v1"
        assert upstream.name == "api.example.com"


def test_upstreams_may_be_json_in_the_environment():
    environ = {"TRIO_SSE_PROXY_UPSTREAMS": '[{"name": "a", "base_url": "http://a", "http2": true}]'}
    assert load(None, {}, environ).upstreams == (
        Upstream(name="a", base_url="http://a", http2=True),
    )


def test_both_forms_of_upstream_in_the_environment_are_refused():
    environ = {"TRIO_SSE_PROXY_UPSTREAM": "http://a", "TRIO_SSE_PROXY_UPSTREAMS": "[]"}
    with pytest.raises(SettingsError, match="cannot stand beside"):
        load(None, {}, environ)


def test_two_upstreams_of_one_host_need_names():
    one = {"base_url": "http://a:1", "api_key": "sk-a"}
    with pytest.raises(SettingsError, match="two are called a ") as caught:
        load(None, {"upstreams": [one, {"base_url": "http://a:2"}]}, {})
    assert "sk-a" not in str(caught.value)
    two = load(None, {"upstreams": [one, {"base_url": "http://a:2", "name": "b"}]}, {}).upstreams
    assert [upstream.name for upstream in two] == ["a", "b"]


def test_of_several_tables_the_line_says_which_one_is_wrong():
    with pytest.raises(SettingsError) as caught:
        load(None, {"upstreams": [{"base_url": "http://a"}, {"base_url": "b"}]}, {})
    assert "(table 2 of 2) (from --upstreams)" in str(caught.value)
    with pytest.raises(SettingsError, match=r"^upstreams: must be a table \(table 1 of 2\)"):
        load(None, {"upstreams": [1, {"base_url": "http://a"}]}, {})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https:///v1",
        "https://a b",
        "https://api.example.com:99999",
        "https://api.example.com:x",
        "https://api.example.com?x=1",
        "https://api.example.com/#x",
        "https://api.example.com/../v1",
        "https://bücher.example",
        "https://[::1",
        5,
    ],
)
def test_a_base_url_that_is_none_is_refused(url):
    with pytest.raises(SettingsError, match=r"^upstreams\.base_url"):
        load(None, {"upstream": url}, {})


def test_the_password_in_a_base_url_is_not_repeated():
    with pytest.raises(SettingsError, match="api_key") as caught:
        Upstream(base_url="https://user:hunter2@api.example.com")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", "two words"),
        ("proxy", "ftp://h"),
        ("proxy", "http://h/path"),
        ("ca_file", "/nowhere"),
        ("http2", "perhaps"),
        ("max_connections", -1),
        ("keepalive_expiry", "nan"),
        ("api_key", 5),
        ("dialects", []),
        ("dialects", ["chat", "chat"]),
        ("dialects", ["gemini"]),
        ("models", ["a"]),
        ("models", {"a": ""}),
        ("models", {"a": 1}),
        ("add_headers", "x-a: b"),
        ("add_headers", {"x a": "b"}),
        ("add_headers", {"x-a": "b\r\nx-c: d"}),
        ("add_headers", {"x-a": ""}),
        ("add_headers", {"x-a": 5}),
        ("add_headers", {"Host": "b"}),
        ("add_headers", {"content-length": "5"}),
        ("add_headers", {"Transfer-Encoding": "chunked"}),
        ("drop_headers", ["a b"]),
        ("drop_headers", 5),
        ("weight", 0),
        ("weight", "inf"),
        ("max_inflight", -1),
        ("max_queued", 1.5),
        ("queue_timeout", -1),
        ("abort", "hope"),
        ("abort", 5),
        ("abort", None),
        ("abort_timeout", 0),
        ("breaker_failures", -1),
        ("breaker_rate", 1.1),
        ("breaker_window", 0),
        ("breaker_cooldown", "nan"),
        ("health_path", "health"),
        ("health_path", "//elsewhere/health"),
        ("health_interval", 0),
        ("health_timeout", 0),
    ],
)
def test_a_value_of_an_upstream_that_is_not_allowed_is_refused(name, value):
    with pytest.raises(SettingsError, match=rf"^upstreams\.{name}.*: (must be|cannot be read)"):
        load(None, {"upstreams": [{"base_url": "http://a", name: value}]}, {})


def test_an_upstream_without_base_url_is_refused():
    with pytest.raises(SettingsError, match=r"^upstreams\.base_url: is required"):
        load(None, {"upstreams": [{"name": "a"}]}, {})


def upstream_with(**values):
    given = {"base_url": "https://a.example/v1", **values}
    [upstream] = load(None, {"upstreams": [given]}, {"KEY": "sk-hidden"}).upstreams
    return upstream


def test_every_new_value_of_an_upstream_comes_through():
    upstream = upstream_with(
        dialects=["messages"],
        models={"gpt-*": "qwen"},
        add_headers={"X-Team": "blue team", "X-Key": "env:KEY"},
        drop_headers=["X-Debug"],
        breaker_failures=0,
    )
    assert upstream.dialects == ("messages",)
    assert upstream.models == {"gpt-*": "qwen"}
    assert upstream.add_headers == {
        "x-team": SecretStr("blue team"),
        "x-key": SecretStr("sk-hidden"),
    }
    assert upstream.drop_headers == ("x-debug",)
    assert upstream.breaker_failures == 0


@pytest.mark.parametrize("name", ["none", "sglang", "exo", "kobold", "responses", "textgen"])
def test_an_abort_call_may_be_a_name(name):
    assert upstream_with(abort=name).abort == name
    assert upstream_with(abort=name).abort_url is None


def test_an_abort_call_may_be_a_table():
    call = {
        "url": "/cancel/{id}?of={stream_id}",
        "method": "delete",
        "body": {"id": "{id}", "model": "{model}"},
        "headers": {"X-Key": "env:KEY", "x-id": "{id}"},
    }
    upstream = upstream_with(abort=call)
    assert upstream.abort == AbortCall(
        url="/cancel/{id}?of={stream_id}",
        method="DELETE",
        body='{"id": "{id}", "model": "{model}"}',
        headers={"x-key": SecretStr("sk-hidden"), "x-id": SecretStr("{id}")},
    )
    assert upstream.abort_url == "https://a.example/cancel/{id}?of={stream_id}"
    assert upstream_with(abort={"url": "http://b:1/stop"}).abort_url == "http://b:1/stop"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({}, r"^upstreams\.abort\.url: is required"),
        ({"url": "/x", "verb": "GET"}, r"^upstreams\.abort\.verb: no such setting; the nearest is"),
        ({"url": "cancel"}, r"^upstreams\.abort\.url = cancel: must be a path"),
        ({"url": "//b/stop"}, r"^upstreams\.abort\.url = .*: must be a path"),
        ({"url": "http://{model}/x"}, r"^upstreams\.abort\.url = .*: must be a path"),
        ({"url": "/{rid}"}, r"^upstreams\.abort\.url = /\{rid\}: must have no other placeholders"),
        ({"url": "/", "body": "{user}"}, r"^upstreams\.abort\.body = .*no other placeholders than"),
        ({"url": "/", "body": ["a"]}, r"^upstreams\.abort\.body = .*: must be a text, or a table"),
        ({"url": "/", "method": "CUT"}, r"^upstreams\.abort\.method = CUT: must be POST"),
        ({"url": "/", "headers": {"a": "{b}"}}, r"^upstreams\.abort\.headers: must have no other"),
    ],
)
def test_an_abort_call_that_cannot_be_made_is_refused(call, said):
    with pytest.raises(SettingsError, match=said):
        upstream_with(abort=call)


def test_health_is_asked_for_at_the_root_of_the_server():
    assert upstream_with(health_path="/health").health_url == "https://a.example/health"
    assert upstream_with().health_url is None


def breaker_of(values, others):
    upstreams = [{"base_url": "http://a", **values}, *others]
    settings = load(None, {"upstreams": upstreams}, {})
    rules = settings.breaker(settings.upstreams[0])
    return rules.failures, rules.rate


def test_the_breaker_is_off_for_a_single_upstream_unless_set():
    several = [{"base_url": "http://b"}]
    assert breaker_of({}, []) == (0, 0.0)
    assert breaker_of({}, several) == (5, 0.5)
    assert breaker_of({"breaker_failures": 3}, []) == (3, 0.5)
    assert breaker_of({"breaker_failures": 0}, several) == (0, 0.5)
    assert breaker_of({"breaker_rate": 0}, several) == (5, 0.0)


def test_the_breaker_has_the_same_defaults_as_the_core():
    settings = Settings(upstreams=[Upstream(base_url="http://a"), Upstream(base_url="http://b")])
    assert settings.breaker(settings.upstreams[0]) == BreakerRules()


# Routes


AS_DOCUMENTED = """
[[upstreams]]
name = "a"
base_url = "http://127.0.0.1:9001"
max_inflight = 4
[[upstreams]]
name = "b"
base_url = "http://127.0.0.1:9002"
abort = "sglang"
[[routes]]
model = "deepseek-*"          # glob; also: dialect, path, client
upstreams = ["a", "b"]        # in this order
hedge_after = 2.0
on_disconnect = "abort"
"""


def test_upstreams_and_routes_stand_in_the_file_as_documented(tmp_path):
    file = tmp_path / "proxy.toml"
    file.write_text(AS_DOCUMENTED)
    settings = load(file, {}, {})
    assert [(u.name, u.max_inflight, u.abort) for u in settings.upstreams] == [
        ("a", 4, "none"),
        ("b", 0, "sglang"),
    ]
    assert settings.routing == (
        CoreRoute(
            number=1, upstreams=("a", "b"), models=("deepseek-*",), rules=Rules(hedge_after=2.0)
        ),
        CoreRoute(number=0, upstreams=("a",)),
    )


def routes_of(*routes, **flags):
    upstreams = [{"base_url": "http://alpha"}, {"base_url": "http://beta"}]
    return load(None, {"upstreams": upstreams, "routes": list(routes), **flags}, {"KEY": "sk-k"})


def test_routes_may_be_json_in_the_environment():
    environ = {
        "TRIO_SSE_PROXY_UPSTREAMS": '[{"base_url": "http://alpha"}]',
        "TRIO_SSE_PROXY_ROUTES": '[{"path": "/v1/*", "client": "env:KEY", "upstreams": "alpha"}]',
        "KEY": "sk-k",
    }
    route, _ = load(None, {}, environ).routing
    assert (route.paths, route.client, route.upstreams) == (("/v1/*",), "sk-k", ("alpha",))
    assert "sk-k" not in repr(route)


def test_a_route_has_the_global_rules_where_it_has_none_of_its_own():
    settings = routes_of(
        {"upstreams": ["beta"], "on_disconnect": "abort", "finish_timeout": 0},
        {
            "upstreams": ["beta"],
            "balance": "weighted",
            "sticky": "X-Session",
            "hedge_max": 3,
            "hedge_share": 0.5,
        },
        on_disconnect="finish",
        finish_timeout="60",
    )
    own, inherited, rest = (route.rules for route in settings.routing)
    assert own == Rules(on_disconnect=OnDisconnect.ABORT, finish_timeout=0)
    assert inherited == Rules(
        balance=Balance.WEIGHTED,
        sticky=b"x-session",
        hedge_max=3,
        hedge_share=0.5,
        on_disconnect=OnDisconnect.FINISH,
        finish_timeout=60,
    )
    assert rest == Rules(on_disconnect=OnDisconnect.FINISH, finish_timeout=60)


def test_without_routes_everything_goes_to_the_first_upstream():
    assert [route.upstreams for route in routes_of().routing] == [("alpha",)]
    assert [route.upstreams for route in Settings().routing] == [()]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("upstreams", []),
        ("upstreams", ["alpha", "alpha"]),
        ("model", []),
        ("model", ""),
        ("model", 5),
        ("dialect", "gemini"),
        ("path", "v1/*"),
        ("client", "two words"),
        ("balance", "fair"),
        ("sticky", "two words"),
        ("hedge_after", -1),
        ("hedge_max", 1),
        ("hedge_share", 2),
        ("on_disconnect", "shrug"),
        ("finish_timeout", "nan"),
    ],
)
def test_a_value_of_a_route_that_is_not_allowed_is_refused(name, value):
    with pytest.raises(SettingsError, match=rf"^routes\.{name}.*: must be .*\(from --routes\)"):
        routes_of({"upstreams": ["alpha"], name: value})


def test_a_route_to_an_unknown_upstream_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError) as caught:
        routes_of({"upstreams": ["alpha", "betta"]})
    assert str(caught.value) == (
        "routes.upstreams = betta: no such upstream; the nearest is beta (from --routes)"
    )


def test_a_route_without_upstreams_is_refused():
    with pytest.raises(SettingsError, match=r"^routes\.upstreams: is required"):
        routes_of({"model": "a"})


def test_a_route_for_a_key_that_the_door_refuses_is_refused():
    route = {"upstreams": ["alpha"], "client": "env:KEY"}
    assert len(routes_of(route, client_keys="sk-k,sk-2").routes) == 1
    with pytest.raises(SettingsError, match="of route 1: must be one of client_keys") as caught:
        routes_of(route, client_keys="sk-2")
    assert "sk-k" not in str(caught.value)


# Secrets


def upstream_with_key(key, environ=None):
    given = [{"base_url": "http://a", "api_key": key}]
    [upstream] = load(None, {"upstreams": given}, environ or {}).upstreams
    return upstream.api_key.get_secret_value()


def test_a_secret_may_lie_in_the_environment():
    assert upstream_with_key("env:KEY", {"KEY": "sk-1"}) == "sk-1"


def test_a_secret_may_lie_in_a_file_and_its_line_end_is_not_part_of_it(tmp_path):
    (tmp_path / "key").write_text("sk-1\n")
    assert upstream_with_key(f"file:{tmp_path / 'key'}") == "sk-1"


def test_settings_built_in_code_look_secrets_up_too(monkeypatch):
    monkeypatch.setenv("KEY", "sk-1")
    settings = Settings(client_keys=[SecretStr("env:KEY"), SecretStr("sk-2")])
    assert [key.get_secret_value() for key in settings.client_keys] == ["sk-1", "sk-2"]


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}, {"KEY": "  "}])
def test_a_secret_missing_from_the_environment_is_told_by_its_name(environ):
    with pytest.raises(SettingsError, match="the environment variable KEY is not set or empty"):
        upstream_with_key("env:KEY", environ)


def test_a_secret_missing_from_its_file_is_told_by_its_path(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(SettingsError, match=r"the file .*empty is empty"):
        upstream_with_key(f"file:{tmp_path / 'empty'}")
    with pytest.raises(SettingsError, match=r"the file .*missing cannot be read"):
        upstream_with_key(f"file:{tmp_path / 'missing'}")


def test_no_secret_is_ever_shown(tmp_path):
    (tmp_path / "bad").write_text("sk-hidden second-line")
    for key in ("sk-hidden space", f"file:{tmp_path / 'bad'}"):
        with pytest.raises(SettingsError) as caught:
            upstream_with_key(key)
        chain = [caught.value, caught.value.__cause__, caught.value.__cause__.__cause__]
        assert not any("sk-hidden" in str(error) or "sk-hidden" in repr(error) for error in chain)
    settings = Settings(
        upstreams=[
            Upstream(
                base_url="http://a",
                api_key=SecretStr("sk-hidden"),
                proxy=SecretStr("http://me:sk-hidden@proxy:3128"),
                add_headers={"x-key": SecretStr("sk-hidden")},
                abort=AbortCall(url="/", headers={"x-key": SecretStr("sk-hidden")}),
            )
        ],
        routes=[Route(upstreams=["a"], client=SecretStr("sk-hidden"))],
        client_keys=[SecretStr("sk-hidden")],
        admin_key=SecretStr("sk-hidden"),
    )
    for shown in (repr(settings), settings.model_dump_json(), reference.as_toml(settings)):
        assert "sk-hidden" not in shown


# What is made of them


def test_the_commit_comes_with_the_first_heartbeat_unless_set():
    assert Settings(heartbeat=7).limits.commit_after == 7
    assert Settings(heartbeat=7, commit_after=2).limits.commit_after == 2


def test_the_core_has_the_same_defaults():
    assert Settings().limits == Limits()


def test_on_failure_may_be_the_word_or_the_member():
    assert load(None, {"on_failure": "cut"}, {}).on_failure is OnFailure.CUT
    assert Settings(on_failure=OnFailure.CUT).limits.on_failure is OnFailure.CUT


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().heartbeat = 1


def test_a_key_file_wants_a_certificate(tmp_path):
    (tmp_path / "key.pem").touch()
    with pytest.raises(SettingsError, match="keyfile: needs certfile"):
        Settings(keyfile=tmp_path / "key.pem")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A directory with chain.pem, key.pem, both.pem and locked.pem (a key with a password)."""
    made = tmp_path_factory.mktemp("certificate")
    issued = trustme.CA().issue_cert("localhost")
    key = issued.private_key_pem.bytes()
    (made / "chain.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (made / "key.pem").write_bytes(key)
    (made / "both.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    (made / "locked.pem").write_bytes(
        load_pem_private_key(key, None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
        )
    )
    return made


def test_a_certificate_may_bring_its_key_or_have_it_in_a_file_of_its_own(certificate):
    both = Settings(certfile=certificate / "both.pem")
    assert both.keyfile == both.certfile
    Settings(certfile=certificate / "chain.pem", keyfile=certificate / "key.pem")


def test_no_certificate_is_left_without_a_key(certificate):
    with pytest.raises(SettingsError, match="keyfile: needs certfile"):
        Settings(certfile=certificate / "both.pem", keyfile=None)


@pytest.mark.parametrize(
    ("certfile", "keyfile"),
    [
        ("chain.pem", None),
        ("key.pem", None),
        ("chain.pem", "locked.pem"),
        ("chain.pem", "chain.pem"),
    ],
)
def test_a_certificate_that_no_server_could_use_is_refused(certificate, certfile, keyfile):
    files = {"certfile": str(certificate / certfile)}
    if keyfile:
        files["keyfile"] = str(certificate / keyfile)
    with pytest.raises(SettingsError, match=r"^certfile = .*: must be a certificate with its") as c:
        load(None, files, {})
    assert "\n" not in str(c.value)


def test_a_file_of_authorities_must_hold_a_certificate(certificate):
    Upstream(base_url="https://a", ca_file=certificate / "chain.pem")
    with pytest.raises(SettingsError, match=r"^upstreams\.ca_file = .*: must be a PEM file"):
        Upstream(base_url="https://a", ca_file=certificate / "key.pem")


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_the_door_on_loopback_needs_no_keys(bind):
    check_door(Settings(bind=bind))


@pytest.mark.parametrize("bind", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "proxy.example:1"])
def test_the_door_elsewhere_needs_keys(bind):
    with pytest.raises(SettingsError, match="client_keys are required"):
        check_door(Settings(bind=bind))
    check_door(Settings(bind=bind, client_keys=[SecretStr("k")]))


def test_the_effective_settings_are_toml_that_means_the_same(tmp_path):
    settings = Settings(
        upstreams=[
            Upstream(
                base_url="http://a/v1",
                name="a",
                max_connections=5,
                models={'gpt "4"*': "qwen"},
                abort=AbortCall(url="/cancel/{id}", body='{"id": "{id}"}'),
            ),
            Upstream(base_url="http://b", dialects=["chat"], abort="exo", breaker_failures=0),
        ],
        routes=[Route(model=["a*", "b"], upstreams=["b", "a"], balance="weighted", hedge_after=1)],
        heartbeat=2.5,
        on_failure=OnFailure.CUT,
        allowed_hosts=("a.example", "b.example"),
        json_heartbeat=True,
    )
    file = tmp_path / "effective.toml"
    file.write_text(reference.as_toml(settings))
    assert load(file, {}, {}) == settings


# The reference page


def test_the_reference_page_is_up_to_date():
    """If not: python -m trio_sse_proxy.reference > docs/settings.md"""
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == reference.page()


def test_every_setting_is_explained_in_one_chapter():
    listed = [name for names in reference.CHAPTERS.values() for name in names]
    assert sorted(listed) == sorted(Settings.model_fields)
    for model in (Settings, Upstream, Route, AbortCall):
        assert all(reference.meaning(model, name).endswith(".") for name in model.model_fields)


@pytest.mark.parametrize(
    "example", sorted((ROOT / "examples" / "configs").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_example_loads(example):
    names = set(re.findall(r"env:(\w+)", example.read_text("utf-8")))
    settings = load(example, {}, dict.fromkeys(names, "sk-1"))
    check_door(settings)
    assert len(settings.upstreams) == (2 if example.stem == "own-and-vendor" else 1)
