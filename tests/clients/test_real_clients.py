"""The clients people use, from npm and PyPI, through the proxy, whatever the upstream does.

`python -m pytest -m clients tests/clients` fetches and runs them; docs/clients.md has what was seen,
client by client.
"""

from __future__ import annotations

import pytest
from scripted import TEXT
from scripted.steps import End, Fin, Frames, Headers
from scripted.talk import Chat

from .asking import Question, ask
from .cases import CUTS, ERRORS, EVENTS, NORMAL, REPLAYS, SILENCES, TABLES, TRANSLATABLE, WAYS
from .cases import promised as promised_by

pytestmark = [pytest.mark.slow, pytest.mark.clients]

BOUND = 2.0  # seconds; a busy client is late itself: `tests/end_to_end/test_leaving.py` is strict


@pytest.fixture(scope="session", params=WAYS)
def client(request):
    return request.param


@pytest.fixture(scope="session")
def put(upstream, proxies):
    """Put questions at once: {question: what its user saw}, and the models they were put to."""

    def put(client, questions):
        models = {question: upstream.model(question.scenarios) for question in questions}
        asked = [
            {
                "url": proxies[question.proxy].url,
                "model": models[question],
                "way": question.way,
                "stream": question.stream,
                "leave": question.leave,
                "headers": {"originator": "beating"} if question.events else {},
            }
            for question in questions
        ]
        seen = dict(zip(questions, ask(client, asked), strict=True))
        for question, one in seen.items():
            one.attempts = len(upstream.visits(models[question]))
        return seen, models

    return put


@pytest.fixture(scope="session")
def seen(client, put):
    """All answers of all tables, since most of the time goes into silences."""
    questions = [question for table in TABLES for question, _ in promised_by(client, table)]
    return put(client, questions)[0]


@pytest.fixture
def complaints(client, seen):
    """What was seen on the questions of a table where it is not what was promised."""

    def complaints(table):
        promised = promised_by(client, table)
        return [f"{asked}: {seen[asked]}" for asked, check in promised if not check(seen[asked])]

    return complaints


def test_answers_and_calls_come_whole(complaints):
    assert complaints(NORMAL) == []


def test_silence_in_any_phase_is_survived(complaints):
    assert complaints(SILENCES) == []


def test_event_heartbeats_change_nothing(complaints):
    assert complaints(EVENTS) == []


def test_what_fails_before_output_is_never_noticed(complaints):
    assert complaints(REPLAYS) == []


def test_half_an_answer_is_an_error_and_half_a_call_is_not_run(complaints):
    assert complaints(CUTS) == []


def test_errors_are_told_with_the_upstreams_words(complaints):
    assert complaints(ERRORS) == []


def test_leaving_closes_the_upstream(client, put, upstream):
    questions = [
        Question(client, way, scenarios, translated=translated, leave=leave)
        for way in WAYS[client]
        for translated in (False, True)[: 1 + way.startswith(TRANSLATABLE)]
        for scenarios, leave in (("endless-tokens", "output"), ("hang-before-headers", 2.4))
    ]
    seen, models = put(client, questions)
    late = {}
    for question, one in seen.items():
        (visit,) = upstream.visits(models[question])
        took = visit.wait_for_left(3.0) - one.left
        if took > BOUND or one.finish in ("stop", "end_turn", "completed"):
            late[str(question)] = took, one
    assert late == {}


# -- what an EventSource was made for -------------------------------------------------------------

CHAT = Chat("m")


def events(key, way, proxies):
    (seen,) = ask(
        "eventsource",
        [{"url": proxies["direct"].url, "model": key, "way": way, "stream": True, "leave": None}],
    )
    return seen


def test_an_eventsource_gets_a_stream_it_did_not_post_for(upstream, proxies):
    frames = CHAT.prelude() + CHAT.output() + CHAT.ending()
    key = upstream.script((Headers(), Frames(frames), End()))
    assert events(key, "get", proxies).whole
    assert [visit.target for visit in upstream.visits(key)] == ["/v1/events"]


def test_an_eventsource_that_was_cut_goes_on_where_it_was(upstream, proxies):
    """Its second request carries the last id, and the answer goes on from there."""
    first = (b"retry: 50\n\n", *CHAT.prelude(), *CHAT.output()[:5], b"id: 5\n" + CHAT.output()[5])
    key = upstream.script(
        (Headers(), Frames(first), Fin()),
        (Headers(), Frames(CHAT.output()[6:] + CHAT.ending()), End()),
    )
    seen = events(key, "get again", proxies)
    assert (seen.text, seen.error) == (TEXT, None)
    once, again = upstream.visits(key)
    assert "last-event-id" not in once.headers
    assert again.headers["last-event-id"] == "5"
