from __future__ import annotations

import os

import pytest
from patience import NEVER
from scripted import ScriptedUpstream
from scripted.sdk import Sdks

from .proxy import ServedProxy

# How long the upstream is silent, in seconds. Longer than a heartbeat, so that the proxy beats
# meanwhile; set it to 30 to see the same with a silence that balancers cut.
SILENCE = float(os.environ.get("END_TO_END_SILENCE", "1.5"))
HEARTBEAT = "1"  # seconds; the shortest that is allowed


@pytest.fixture(scope="session")
def upstream():
    """One for all tests: a model name of its own keeps each test's requests apart."""
    with ScriptedUpstream(silence=SILENCE) as running:
        yield running


@pytest.fixture(scope="session")
def proxy(upstream):
    """One for all tests that do not end it. It waits for the upstream's own status, however long."""
    with ServedProxy(
        upstream.url, "--heartbeat", HEARTBEAT, "--commit-after", str(NEVER)
    ) as running:
        yield running


@pytest.fixture(scope="session")
def hasty(upstream):
    """One that waits for no status: what it has not heard of at once is too late for one.

    How long it waits by default is a matter of virtual time; here a quick answer is never
    late, and a late one never quick, also if the machine stood still meanwhile.
    """
    with ServedProxy(upstream.url, "--heartbeat", HEARTBEAT, "--commit-after", "0") as running:
        yield running


@pytest.fixture(scope="session")
def sdks(proxy):
    with Sdks(proxy.url) as clients:
        yield clients


@pytest.fixture(scope="session")
def hasty_sdks(hasty):
    with Sdks(hasty.url) as clients:
        yield clients
