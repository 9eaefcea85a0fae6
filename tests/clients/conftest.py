"""These tests fetch what they need from npm and PyPI, so they run only when asked for: `-m clients`."""

from __future__ import annotations

import pytest
from end_to_end.proxy import ServedProxy
from scripted import ScriptedUpstream

from .installing import install

SILENCE = 2.4  # seconds; two heartbeats and some
SETTINGS = """
heartbeat = 1.0
event_heartbeat = 1.0
event_heartbeat_clients = ["beating"]

[[upstreams]]
name = "scripted"
base_url = "{url}"
"""


def pytest_configure(config):
    config.addinivalue_line("markers", "clients: real clients, from npm and PyPI (docs/clients.md)")


def pytest_collection_modifyitems(config, items):
    if "clients" in config.option.markexpr:
        return
    left = [item for item in items if item.get_closest_marker("clients")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("clients")]


@pytest.fixture(scope="session")
def upstream():
    with ScriptedUpstream(silence=SILENCE) as running:
        yield running


@pytest.fixture(scope="session")
def installed():
    install()


@pytest.fixture(scope="session")
def proxies(installed, upstream, tmp_path_factory):
    """By name; "translated" has an upstream of Chat alone, "spaced" sends white space before JSON."""
    folder = tmp_path_factory.mktemp("clients")
    direct, translated = folder / "direct.toml", folder / "translated.toml"
    settings = SETTINGS.format(url=upstream.url)
    direct.write_text(settings)
    translated.write_text(settings + 'dialects = ["chat"]\n')
    with (
        ServedProxy(None, "--config", str(direct)) as one,
        ServedProxy(None, "--config", str(translated)) as other,
        ServedProxy(None, "--config", str(direct), "--json-heartbeat") as third,
    ):
        yield {"direct": one, "translated": other, "spaced": third}
