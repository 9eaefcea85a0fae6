"""The real SDKs for Responses and Messages on an upstream that speaks Chat alone.

What is promised is what `cases` promises of upstreams that speak these dialects, but for a few.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from patience import NEVER
from scripted.sdk import Sdks

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
    refused,
    whole,
)
from .proxy import ServedProxy
from .wire import WireClient

pytestmark = pytest.mark.slow

SETTINGS = """
heartbeat = 1.0
commit_after = {commit_after}
event_heartbeat = 1.0
event_heartbeat_clients = ["openai", "anthropic"]

[[upstreams]]
name = "chat-only"
base_url = "{url}"
dialects = ["chat"]
"""

OTHERWISE = {
    # Chat may end without its terminator once there was a finish_reason.
    ("finished-without-terminator", "messages"): whole(),
    # Messages has a status of its own for a quota that is spent, which nobody asks again on.
    ("status-429-quota", "messages"): refused(402),
    # A whole completion can be told as a stream.
    ("late-json-to-stream", "responses"): whole(),
    ("late-json-to-stream", "messages"): whole(),
}
TRANSLATED = ("responses", "messages")
SAID = {"role": "user", "content": "Count."}


def promised(rows):
    for row in rows:
        for case, check in row.cases():
            if case.dialect in TRANSLATED:
                yield case, OTHERWISE.get((case.scenarios, case.dialect), check)


@contextmanager
def served(upstream, folder, commit_after):
    config = folder / f"{commit_after}.toml"
    config.write_text(SETTINGS.format(url=upstream.url, commit_after=commit_after))
    with ServedProxy(None, "--config", str(config)) as running:
        yield running


@pytest.fixture(scope="module")
def translating(upstream, tmp_path_factory):
    """Waits for the upstream's own status, however long."""
    with served(upstream, tmp_path_factory.mktemp("translated"), NEVER) as running:
        yield running


@pytest.fixture(scope="module")
def hasty_one(upstream, tmp_path_factory):
    """Waits for none."""
    with served(upstream, tmp_path_factory.mktemp("translated"), 0.0) as running:
        yield running


@pytest.fixture(scope="module")
def heard(upstream, translating, hasty_one):
    """Every question of every table, put at once, since most of the time goes into silences."""
    begun = len(upstream.log)  # others have asked it too

    def ask(pair):
        proxy, tables = pair
        with Sdks(proxy.url) as sdks:
            return sdks.ask_all(upstream, [case for table in tables for case, _ in promised(table)])

    with ThreadPoolExecutor(2) as pool:
        quick, late = pool.map(ask, [(translating, PATIENT), (hasty_one, HASTY)])
    assert {visit.target for visit in upstream.log[begun:]} == {"/v1/chat/completions"}
    return quick | late


@pytest.fixture
def complaints(heard):
    """What was heard on the questions of a table where it is not what was promised."""

    def complaints(rows):
        return {str(case): heard[case] for case, check in promised(rows) if not check(heard[case])}

    return complaints


def test_silence_in_any_phase_is_survived_event_heartbeats_included(complaints):
    assert complaints(SILENCES) == {}


def test_calls_of_tools_come_whole_or_not_at_all(complaints):
    assert complaints(CALLS) == {}


def test_odd_framing_changes_nothing_that_is_said(complaints):
    assert complaints(ODDITIES) == {}


def test_what_fails_before_output_is_asked_again_and_comes_out_as_one_clean_answer(complaints):
    assert complaints(REPLAYS) == {}


def test_refusals_have_the_clients_shape(complaints):
    assert complaints(REFUSALS) == {}


def test_what_comes_once_the_stream_is_committed_is_told_on_it(complaints):
    assert complaints(TOO_LATE) == {}


def test_failures_that_cannot_be_mended_are_told(complaints):
    assert complaints(FAILURES) == {}


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_leaving_ends_the_upstreams_work(upstream, translating, dialect):
    model = upstream.model("endless-tokens")
    with WireClient(translating.port) as client:
        asked = {"input" if dialect == "responses" else "messages": [SAID]}
        client.ask(model, dialect=dialect, **asked)
        visit = upstream.wait_for_visit(model)
        client.read_until(b"tok")
        client.leave("reset")
        visit.wait_for_left()


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_closing_an_sdks_stream_does_too(upstream, translating, dialect):
    model = upstream.model("endless-tokens")
    with Sdks(translating.url) as sdks:
        sdks.leave(dialect, model)
    upstream.wait_for_visit(model).wait_for_left()


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_a_request_too_large_for_one_turn_is_translated_all_the_same(
    upstream, translating, dialect
):
    model = upstream.model("normal")
    with WireClient(translating.port) as client:
        said = [SAID | {"content": "x" * 1_500_000}]
        asked = {"input" if dialect == "responses" else "messages": said}
        client.ask(model, dialect=dialect, **asked)
        assert b"tok11" in client.read_until(b"tok11")
    assert upstream.visits(model)[0].json()["messages"] == said
