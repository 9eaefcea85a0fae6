from __future__ import annotations

import os

import pytest
from scripted import ScriptedUpstream
from scripted.sdk import Sdks

from .proxy import ServedProxy

# How long the upstream is silent, in seconds. Longer than a heartbeat, so that the proxy commits
# and beats meanwhile; set it to 30 to see the same with a silence that balancers cut.
SILENCE = float(os.environ.get("END_TO_END_SILENCE", "1.5"))
HEARTBEAT = "1"  # seconds; the shortest that is allowed


@pytest.fixture(scope="session")
def upstream():
    """One for all tests: a model name of its own keeps each test's requests apart."""
    with ScriptedUpstream(silence=SILENCE) as running:
        yield running


@pytest.fixture(scope="session")
def proxy(upstream):
    """One for all tests that do not end it."""
    with ServedProxy(upstream.url, "--heartbeat", HEARTBEAT) as running:
        yield running


@pytest.fixture(scope="session")
def sdks(proxy):
    with Sdks(proxy.url) as clients:
        yield clients
