"""The real openai and anthropic SDKs through the proxy, whatever the upstream does."""

from __future__ import annotations

import pytest
from scripted.sdk import Case
from scripted.talk import PATHS

from .cases import CALLS, FAILURES, ODDITIES, REFUSALS, REPLAYS, SILENCES

pytestmark = pytest.mark.slow

BOUND = 0.5  # seconds, as in test_leaving.py
TABLES = (SILENCES, CALLS, ODDITIES, REPLAYS, REFUSALS, FAILURES)


@pytest.fixture(scope="module")
def heard(upstream, sdks):
    """Every question of every table, put at once, since most of the time goes into silences."""
    cases = [case for table in TABLES for row in table for case, _ in row.cases()]
    return dict(zip(cases, sdks.ask_all(upstream, cases), strict=True))


@pytest.fixture
def complaints(heard):
    """What was heard on the questions of a table where it is not what was promised."""

    def complaints(rows):
        promised = [pair for row in rows for pair in row.cases()]
        return {str(case): heard[case] for case, check in promised if not check(heard[case])}

    return complaints


def test_silence_in_any_phase_is_survived(complaints):
    assert complaints(SILENCES) == {}


def test_calls_of_tools_come_whole_or_not_at_all(complaints):
    assert complaints(CALLS) == {}


def test_odd_framing_changes_nothing_that_is_said(complaints):
    assert complaints(ODDITIES) == {}


def test_what_fails_before_output_is_asked_again_and_comes_out_as_one_clean_answer(complaints):
    assert complaints(REPLAYS) == {}


def test_refusals_pass_unchanged_or_are_told_on_the_stream_once_it_is_committed(complaints):
    assert complaints(REFUSALS) == {}


def test_failures_that_cannot_be_mended_are_told(complaints):
    assert complaints(FAILURES) == {}


@pytest.mark.parametrize("dialect", PATHS)
def test_closing_a_stream_lets_the_upstream_go(upstream, sdks, dialect):
    model = upstream.model("endless-tokens")
    left = sdks.leave(dialect, model)
    assert upstream.wait_for_visit(model).wait_for_left(3.0) - left < BOUND


def test_requests_one_after_the_other_share_upstream_connections(upstream, sdks):
    before = upstream.connections
    for _ in range(10):
        heard = sdks.ask("chat", upstream.model("normal"), stream=True)
        assert heard.whole
    assert upstream.connections - before <= 1


def test_retry_after_is_obeyed_in_seconds(upstream, sdks):
    (heard,) = sdks.ask_all(upstream, [Case("status-429-short,normal", "chat", True)])
    assert heard.whole
    assert heard.seconds >= 1.0
