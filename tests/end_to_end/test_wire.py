"""What SDKs do not show: the bytes and endings a bare client gets."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import PATIENCE
from scripted import WORDS, Answer, Said
from scripted.steps import Wait
from scripted.talk import PATHS

from .wire import WireClient

pytestmark = pytest.mark.slow

SILENCE = 4.0  # seconds; of which the machine may stand still for some
HEARTBEATS = re.compile(rb": hb\n\n|event: ping\ndata: \{\"type\": ?\"ping\"\}\n\n")


def without_heartbeats(body):
    """Any silence may bring one, also where the machine stands still."""
    return HEARTBEATS.sub(b"", body)


@pytest.fixture
def reply(upstream, proxy):
    def reply(scenarios, dialect="chat", stream=True):
        with WireClient(proxy.port) as client:
            return client.ask(upstream.model(scenarios), dialect=dialect, stream=stream).reply()

    return reply


@pytest.fixture
def bytes_of(upstream, proxy):
    """The body as the upstream sent it, and as the client got it."""

    def bytes_of(scenarios, dialect):
        model = upstream.model(scenarios)
        with WireClient(proxy.port) as client:
            got = client.ask(model, dialect=dialect).reply()
        said = Said(model, len(upstream.visits(model)))
        return b"".join(Answer(dialect, True, said, 0).frames()), got

    return bytes_of


@pytest.mark.parametrize("dialect", PATHS)
def test_the_bytes_are_the_upstreams_own(bytes_of, dialect):
    sent, got = bytes_of("normal", dialect)
    assert (without_heartbeats(got.body), got.ending) == (without_heartbeats(sent), "complete")
    assert len(HEARTBEATS.findall(got.body)) >= len(HEARTBEATS.findall(sent))


@pytest.mark.parametrize("dialect", PATHS)
def test_after_a_replay_the_bytes_are_those_of_the_last_attempt_alone(bytes_of, dialect):
    sent, got = bytes_of("fin-after-prelude,normal", dialect)
    assert (without_heartbeats(got.body), got.ending) == (without_heartbeats(sent), "complete")


def test_heartbeats_fill_a_silence_and_change_nothing_else(upstream, hasty):
    def ask(dialect):
        answer = Answer(dialect, True, Said("m", 1), 0)
        model = upstream.script((Wait(SILENCE), *answer.whole()))
        with WireClient(hasty.port) as client:
            return b"".join(answer.frames()), client.ask(model, dialect=dialect).reply()

    with ThreadPoolExecutor() as pool:
        both = list(pool.map(ask, PATHS))
    for sent, got in both:
        # The first says that the stream is committed.
        assert len(HEARTBEATS.findall(got.body)) >= len(HEARTBEATS.findall(sent)) + 2
        assert without_heartbeats(got.body) == without_heartbeats(sent)
        assert got.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("dialect", PATHS)
def test_a_cut_after_output_is_told_in_the_dialect_and_the_body_ends_properly(reply, dialect):
    got = reply("reset-after-output", dialect)
    assert (got.status, got.ending) == (200, "complete")
    assert b"tok5 " in got.body
    last = got.body.rstrip(b"\n").rpartition(b"\n\n")[2]
    told = json.loads(last.partition(b"data: ")[2])
    error = told["response"]["error"] if dialect == "responses" else told["error"]
    assert error["message"]


def test_a_responses_error_brings_the_failed_that_follows_it_and_no_other(reply):
    got = reply("final-error-after-output-failed", "responses")
    assert got.ending == "complete"
    assert got.body.count(b'"type":"error"') == 1
    assert got.body.count(b'"type":"response.failed"') == 1
    assert b'"sequence_number":91' in got.body


def test_a_responses_error_that_nothing_follows_is_not_told_twice(reply):
    got = reply("final-error-after-output-hang", "responses")
    assert got.ending == "complete"
    assert got.body.count(b'"type":"error"') == 1
    assert got.seconds < PATIENCE


@pytest.mark.parametrize("dialect", PATHS)
def test_nothing_follows_the_terminator_and_the_body_ends_at_once(reply, dialect):
    got = reply("endless-body", dialect)
    assert got.ending == "complete"
    assert got.seconds < PATIENCE
    assert b"late" not in reply("after-terminator", dialect).body


def test_a_quick_refusal_keeps_status_headers_and_body(reply):
    got = reply("status-429-long")
    assert (got.status, got.headers["retry-after"], got.headers["x-told"]) == (429, "60", "yes")
    assert json.loads(got.body)["error"]["message"] == "scripted 429"


def test_a_redirect_is_handed_on_not_followed(proxy, upstream):
    model = upstream.model("redirect")
    with WireClient(proxy.port) as client:
        got = client.ask(model).reply()
    assert (got.status, got.headers["location"]) == (307, "/elsewhere")
    assert [visit.target for visit in upstream.visits(model)] == [PATHS["chat"]]


@pytest.mark.parametrize("dialect", PATHS)
def test_a_quick_json_answer_to_a_streaming_request_is_handed_on(reply, dialect):
    got = reply("json-to-stream", dialect)
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert "tok11" in got.body.decode()
    json.loads(got.body)


def test_streams_have_the_headers_that_keep_middleboxes_from_buffering(upstream, proxy, hasty):
    for by in (proxy, hasty):
        with WireClient(by.port) as client:
            got = client.ask(upstream.model("normal")).reply()
        assert got.headers["content-type"].startswith("text/event-stream")
        assert got.headers["cache-control"] == "no-cache"
        assert got.headers["x-accel-buffering"] == "no"
        assert got.headers["x-proxy-stream-id"]


def test_a_request_leaves_one_record_that_counts_attempts_and_tokens(reply, proxy, upstream):
    model = upstream.model("fin-after-prelude,normal")
    with WireClient(proxy.port) as client:
        client.ask(model).reply()
    record = proxy.record_of("model", model)
    assert len(record["attempts"]) == 2
    assert record["usage"]["output_tokens"] == WORDS
