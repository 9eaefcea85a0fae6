"""Values nobody means: each gives the one error, in one line, and no traceback."""

from __future__ import annotations

import pytest

from trio_sse_proxy.config import PREFIX, Settings, load
from trio_sse_proxy.settings_error import SettingsError

UPSTREAM = {"base_url": "http://a"}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"heartbeat": 10**400}, id="a number too large for a float"),
        pytest.param({"retry_budget": 10**400}, id="a share too large for a float"),
        pytest.param({"max_retries": 16**6000}, id="a number too long to be printed"),
        pytest.param({"max_body_bytes": 10**30}, id="more bytes than there are"),
        pytest.param({"max_body_bytes": f"{10**30}GiB"}, id="as text"),
        pytest.param({"upstreams": "[" * 100_000}, id="nested too deeply"),
        pytest.param({"certfile": "~nobody-of-this-name/x"}, id="a home that is not there"),
        pytest.param({"client_keys": "file:~nobody-of-this-name/x"}, id="a key in such a home"),
        pytest.param({"upstreams": [{**UPSTREAM, 1: 2}]}, id="a name that is a number"),
        pytest.param({"a\nb\x1b[31m": 1}, id="a name with control characters"),
        pytest.param({"x" * 100_000: 1}, id="an endless name"),
    ],
)
def test_a_value_nobody_means_is_refused_in_one_line(values):
    with pytest.raises(SettingsError) as caught:
        Settings(**values)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_file_nested_too_deeply_is_no_toml(tmp_path):
    file = tmp_path / "deep.toml"
    file.write_text("a = " + "[" * 5000)
    with pytest.raises(SettingsError, match="is not TOML"):
        load(file, {}, {})


def test_a_variable_with_a_strange_name_is_told_in_one_line():
    with pytest.raises(SettingsError, match="no such variable") as caught:
        load(None, {}, {f"{PREFIX}A\nB": "1"})
    assert str(caught.value).isprintable()
