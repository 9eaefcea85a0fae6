from __future__ import annotations

from contextlib import ExitStack

import pytest
from end_to_end.proxy import ServedProxy
from scripted import ScriptedUpstream

# Numbers that let an attack end while a test watches.
LOW = {
    "heartbeat": 1,
    "body-timeout": 0.7,  # seconds; good clients send all of theirs in one write
    "max-retries": 0,
    "max-header-fields": 100,
    "max-resets": 50,
    "max-control-frames": 500,
    "max-body-bytes": "4MiB",
}
# Seconds that do, each for a proxy of its own: what is too little for a good client, or a good upstream,
# of a machine that stands still for a moment is only for those that are to be given up.
BRISK = {"keep-alive": 1.0, "header-timeout": 0.7}
IMPATIENT = {
    "first_token_timeout": {"first-token-timeout": 1},
    "progress_timeout": {"progress-timeout": 1},
}


@pytest.fixture(scope="session")
def upstream():
    """One for all tests: a model name of its own keeps each test's requests apart."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="session")
def proxy(upstream):
    """One for all attacks: at the end it has to exit, in time, without a traceback."""
    with served(upstream, LOW) as running:
        yield running


@pytest.fixture(scope="session")
def brisk_port(upstream):
    """That of one for clients that never come to their end: it soon gives them up."""
    with served(upstream, LOW | BRISK) as running:
        yield running.port


@pytest.fixture(scope="session")
def impatient(upstream):
    """One for each ending of upstreams that never come to theirs: it soon gives them up."""
    with ExitStack() as running:
        yield {
            ending: running.enter_context(served(upstream, LOW | seconds))
            for ending, seconds in IMPATIENT.items()
        }


@pytest.fixture
def port(proxy):
    return proxy.port


def served(upstream, settings):
    """A proxy with `settings`, flag -> value."""
    return ServedProxy(upstream.url, *(f"--{flag}={value}" for flag, value in settings.items()))
