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
    "first-token-timeout": 1,
    "idle-timeout": 1,
    "progress-timeout": 1,
    "max-retries": 0,
    "max-header-fields": 100,
    "max-resets": 50,
    "max-control-frames": 500,
    "max-body-bytes": "4MiB",
}


@pytest.fixture(scope="session")
def upstream():
    """One for all tests: a model name of its own keeps each test's requests apart."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="session")
def proxy(upstream):
    """One for all attacks: at the end it has to exit, in time, without a traceback."""
    flags = [f"--{name}={value}" for name, value in SHORT.items()]
    with ServedProxy(upstream.url, *flags) as running:
        yield running


@pytest.fixture
def patient_port(upstream):
    """That of a proxy which gives upstreams the usual time, as a flooded machine needs it."""
    usual = ("first-token-timeout", "idle-timeout", "progress-timeout")
    flags = [f"--{name}={value}" for name, value in SHORT.items() if name not in usual]
    with ServedProxy(upstream.url, *flags) as running:
        yield running.port


@pytest.fixture
def port(proxy):
    return proxy.port
