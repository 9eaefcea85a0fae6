from __future__ import annotations

import pytest

from scripted import ScriptedUpstream
from scripted.sdk import Sdks


@pytest.fixture(scope="session")
def upstream():
    """One for all tests: a model name of its own keeps each test's requests apart."""
    with ScriptedUpstream(silence=0.3) as running:
        yield running


@pytest.fixture(scope="session")
def sdks(upstream):
    with Sdks(upstream.url) as clients:
        yield clients
