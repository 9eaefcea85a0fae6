from __future__ import annotations

import pytest
from end_to_end.proxy import ServedProxy
from scripted import ScriptedUpstream

# Seconds and numbers that let an attack end while a test watches.
SHORT = {
    "heartbeat": 1,
    "keep-alive": 1.0,
    "header-timeout": 0.7,
    "body-timeout": 0.7,
    "max-retries": 0,
    "max-header-fields": 100,
    "max-resets": 50,
    "max-control-frames": 500,
    "max-body-bytes": "4MiB",
}
# What is too little for a good upstream, on a machine that has other things to do.
IMPATIENT = {"first-token-timeout": 3, "idle-timeout": 3, "progress-timeout": 1}


@pytest.fixture(scope="session")
def upstream():
    """One for all tests: a model name of its own keeps each test's requests apart."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="session")
def proxy(upstream):
    """One for all attacks: at the end it has to exit, in time, without a traceback."""
    with served(upstream, SHORT) as running:
        yield running


@pytest.fixture(scope="session")
def impatient_proxy(upstream):
    """One for upstreams that never come to their end: it soon gives them up."""
    with served(upstream, SHORT | IMPATIENT) as running:
        yield running


@pytest.fixture
def port(proxy):
    return proxy.port


def served(upstream, settings):
    """A proxy with `settings`, flag -> value."""
    return ServedProxy(upstream.url, *(f"--{flag}={value}" for flag, value in settings.items()))
