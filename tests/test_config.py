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
from trio_sse_proxy.config import Settings, SettingsError, Upstream, check_door, load
from trio_sse_proxy.core.limits import Limits, OnFailure

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
)
DURATIONS = (*DURATIONS_OFF_BY_ZERO, "commit_after", "prelude_hold")
COUNTS = ("max_retries", "max_streams", "records")
SIZES = ("max_body_bytes", "max_frame_bytes", "max_held_bytes")

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


def test_more_than_one_upstream_is_refused_in_words():
    both = [Upstream(base_url="http://a"), Upstream(base_url="http://b", api_key=SecretStr("sk-b"))]
    with pytest.raises(SettingsError, match="one upstream is supported") as caught:
        Settings(upstreams=both)
    assert "sk-b" not in str(caught.value)


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
    ],
)
def test_a_value_of_an_upstream_that_is_not_allowed_is_refused(name, value):
    with pytest.raises(SettingsError, match=rf"^upstreams\.{name}.*: (must be|cannot be read)"):
        load(None, {"upstreams": [{"base_url": "http://a", name: value}]}, {})


def test_an_upstream_without_base_url_is_refused():
    with pytest.raises(SettingsError, match=r"^upstreams\.base_url: is required"):
        load(None, {"upstreams": [{"name": "a"}]}, {})


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
            )
        ],
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
        upstreams=[Upstream(base_url="http://a/v1", name="a", max_connections=5)],
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
    for model in (Settings, Upstream):
        assert all(reference.meaning(model, name).endswith(".") for name in model.model_fields)


@pytest.mark.parametrize(
    "example", sorted((ROOT / "examples" / "configs").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_example_loads(example):
    names = set(re.findall(r"env:(\w+)", example.read_text("utf-8")))
    settings = load(example, {}, dict.fromkeys(names, "sk-1"))
    check_door(settings)
    assert len(settings.upstreams) == 1
