"""The real openai and anthropic SDKs through the proxy, whatever the upstream does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted.talk import PATHS

from .cases import (
    CALLS,
    FAILURES,
    HASTY,
    ODDITIES,
    PATIENT,
    REFUSALS,
    REPLAYS,
    SILENCES,
    TOO_LATE,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def heard(upstream, sdks, hasty_sdks):
    """Every question of every table, put at once, since most of the time goes into silences."""

    def ask(pair):
        clients, tables = pair
        cases = [case for table in tables for row in table for case, _ in row.cases()]
        return clients.ask_all(upstream, cases)

    with ThreadPoolExecutor(2) as pool:
        quick, late = pool.map(ask, [(sdks, PATIENT), (hasty_sdks, HASTY)])
    return quick | late


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


def test_refusals_pass_unchanged(complaints):
    assert complaints(REFUSALS) == {}


def test_what_comes_once_the_stream_is_committed_is_told_on_it(complaints):
    assert complaints(TOO_LATE) == {}


def test_failures_that_cannot_be_mended_are_told(complaints):
    assert complaints(FAILURES) == {}


@pytest.mark.parametrize("dialect", PATHS)
def test_closing_a_stream_lets_the_upstream_go(upstream, sdks, dialect):
    model = upstream.model("endless-tokens")
    sdks.leave(dialect, model)
    upstream.wait_for_visit(model).wait_for_left()


def test_requests_one_after_the_other_share_upstream_connections(upstream, sdks):
    before = upstream.connections
    for _ in range(10):
        heard = sdks.ask("chat", upstream.model("normal"), stream=True)
        assert heard.whole
    # Seldom one is not kept: it was not done with its answer in the moment that it is given for that.
    assert upstream.connections - before <= 3


def test_retry_after_is_obeyed_in_seconds(upstream, sdks):
    heard = sdks.ask("chat", upstream.model("status-429-short,normal"), stream=True)
    assert heard.whole
    assert heard.seconds >= 1.0
