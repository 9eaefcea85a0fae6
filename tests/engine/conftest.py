"""The engine behind the real proxy."""

from __future__ import annotations

import pytest
from end_to_end.proxy import ServedProxy

from .engine import Engine

SETTINGS = """
heartbeat = 1.0

[[upstreams]]
name = "engine"
base_url = "{url}"
dialects = ["chat"]
profile = {{ base = "llamacpp"{more} }}
"""

ENDLESS = ", extra_body = { ignore_eos = true, max_tokens = 200000 }"


def pytest_collection_modifyitems(config, items):
    """Leave the engine out unless it is asked for: it is downloaded."""
    if "engine" in config.option.markexpr:
        return
    chosen = [item for item in items if not item.get_closest_marker("engine")]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(
            items=[item for item in items if item.get_closest_marker("engine")]
        )
        items[:] = chosen


@pytest.fixture(scope="session")
def engine():
    with Engine() as engine:
        yield engine


def proxy_before(engine, directory, more=""):
    config = directory / "settings.toml"
    config.write_text(SETTINGS.format(url=engine.url, more=more))
    return ServedProxy(None, "--config", str(config))


@pytest.fixture(scope="session")
def proxy(engine, tmp_path_factory):
    with proxy_before(engine, tmp_path_factory.mktemp("engine")) as proxy:
        yield proxy


@pytest.fixture
def endless(engine, tmp_path):
    """A proxy whose upstream never stops by itself."""
    with proxy_before(engine, tmp_path, ENDLESS) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def without_a_complaint(engine):
    """The engine has nothing to say against any request."""
    before = len(engine.complaints())
    yield
    assert engine.complaints()[before:] == []
