"""The record as plain values."""

from __future__ import annotations

import json

import pytest

from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.record import Attempt, Record
from trio_sse_proxy.core.usage import Usage


def record(**more):
    return Record(id="1", method="POST", path="/v1/x", began=1.23456, **more)


def test_a_record_is_plain_json():
    full = record(
        ending=Ending.CLIENT_LEFT,
        usage=Usage(input_tokens=0),
        attempts=[Attempt(upstream="u", started=0.1234567, usage=Usage(output_tokens=2))],
        time_to_headers=0.12345678,
    )
    told = json.loads(json.dumps(full.as_json()))
    assert (told["ending"], told["side"]) == ("client_left", "downstream")
    assert told["time_to_headers"] == 0.123457
    assert told["began"] == 1.235
    assert told["attempts"][0]["usage"]["output_tokens"] == 2


def test_unknown_is_null_and_zero_is_zero():
    told = record(usage=Usage(input_tokens=0)).as_json()
    assert told["usage"]["input_tokens"] == 0
    assert told["usage"]["output_tokens"] is None
    assert record().as_json()["usage"] is None


@pytest.mark.parametrize("name", ["ending", "side", "status", "duration", "time_to_first_token"])
def test_what_has_not_happened_yet_is_null(name):
    assert record().as_json()[name] is None


def test_records_share_no_list_of_attempts():
    assert record().attempts is not record().attempts
