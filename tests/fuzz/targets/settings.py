"""Settings from code, TOML and environment: a configuration, or one line that says what is wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from trio_sse_proxy.config import PREFIX, Route, Settings, Upstream, check_door, load
from trio_sse_proxy.settings_error import SettingsError

from ..drawn import Drawn

WAYS = ("code", "file", "environment")
SECRET = "SEKRET"
_CODE = (
    b'{"bind":"127.0.0.1:0","heartbeat":5,"max_body_bytes":"64MiB","on_failure":"cut'
    b'","client_keys":["SEKRET"],'
    b'"upstreams":[{"name":"a","base_url":"https://a/v1","api_key":"SEKRET","headers":{"x-a":"SEKRET"},'
    b'"proxy":"http://u:SEKRET@p:1","abort":{"url":"/cancel/{id}","method":"POST","b'
    b'ody":{"id":"{id}"}}}],'
    b'"routes":[{"upstreams":["a"],"model":"gpt-*","dialect":"chat","path":["/v1/*"]'
    b',"client":"SEKRET"}]}'
)
_TOML = (
    b'bind = "127.0.0.1:8787"\nheartbeat = 5.0\nmax_retries = 3\nallowed_hosts = ["a.b"]\n'
    b'[[upstreams]]\nname = "a"\nbase_url = "http://a"\ntranslate = true\nprofile = "deepseek"\n'
    b'api_key = "SEKRET"\n[upstreams.breaker]\nfailures = 3\n[[routes]]\nupstreams ='
    b' ["a"]\nmodel = "m"\n'
)
_ENVIRONMENT = (
    b'{"HEARTBEAT":"7","UPSTREAM":"http://a","CLIENT_KEYS":"a,b","MAX_BODY_BYTES":"1 GiB"}'
)
SEEDS = [b"\x00" + _CODE, b"\x01" + _TOML, b"\x02" + _ENVIRONMENT]
SEEDS += [b"\x00" + b'{"client_keys":["SEKRET two"]}', b"\x00" + b'{"a\\nb":1}']
SEEDS += [
    b"\x02" + b'{"UPSTREAMS":"[{\\"base_url\\":\\"http://a\\"}]","ROUTES":"[]","LOG_LEVEL":"debug"}'
]
WORDS = [
    b"SEKRET",
    b"nan",
    b"inf",
    b"-1",
    b"1e400",
    b"env:X",
    b"file:~x/y",
    b"~nobody/x",
    b"{id}",
    b"{x}",
]
WORDS += [
    b"[[upstreams]]\n",
    b"[[routes]]\n",
    b"base_url",
    b"api_key",
    b"headers",
    b"proxy",
    b"abort",
    b"profile",
]
WORDS += [
    b"http://[",
    b"https://a:99999",
    b"socks5://a",
    b"..",
    b"1979-05-27T07:32:00Z",
    b"true",
    b"0x7fffffffffffffffff",
]
WORDS += [name.encode() for model in (Settings, Upstream, Route) for name in model.model_fields]
_SECRETS = ("client_keys", "admin_key", "upstreams", "routes", "routes.client")
_SECRETS += tuple(f"upstreams.{name}" for name in ("api_key", "headers", "proxy"))
_NEVER = (b"/dev", b"/proc", b"/sys", b"stdin")  # a file without an end would be read to it


def run(data: bytes) -> None:
    drawn = Drawn(data)
    way, told = drawn.choice(WAYS), drawn.rest()
    if any(place in told for place in _NEVER):
        return
    try:
        settings = _made(way, told)
        if settings is not None:
            _is_sound(settings)
            check_door(settings)
    except SettingsError as error:
        _is_clear(error)


def _made(way, told):
    if way == "file":
        with tempfile.NamedTemporaryFile(
            dir="/dev/shm" if Path("/dev/shm").is_dir() else None
        ) as file:
            file.write(told)
            file.flush()
            return load(Path(file.name), {}, {})
    try:
        values = json.loads(told)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    if way == "code":
        return Settings(**{name: value for name, value in values.items() if name != "self"})
    environ = {PREFIX + name: str(value) for name, value in values.items()}
    return load(None, {}, environ)


def _is_sound(settings):
    assert settings.limits.commit_after >= 0
    assert settings.address[1] <= 65535
    assert settings.routing
    for upstream in settings.upstreams:
        settings.breaker(upstream)
    assert SECRET not in str(settings.client_keys)


def _is_clear(error):
    line = str(error)
    assert line.isprintable(), "one line that any terminal can show"
    assert len(line) < 1500
    if error.setting in _SECRETS:
        assert SECRET not in line
