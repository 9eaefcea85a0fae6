"""Several attempts at one request where some, or all, are translated: the client sees one stream."""

from __future__ import annotations

import json

import pytest

from trio_sse_proxy.core.errors import Broken, Unreachable
from trio_sse_proxy.core.routing import Rules
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.upstreams.translated import Translated

from .frames import (
    BLOCK_DELTA,
    BLOCK_START,
    BLOCK_STOP,
    COMPLETED,
    CREATED,
    DELTA,
    DONE,
    FINISH,
    HELLO,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGE_STOP,
    ROLE,
    WHOLE,
    events_in,
)
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, ScriptedUpstream, answers
from .test_translated import COMPLETION, LAST, Seen, client, dialects, kinds, text_of, wish
from .world import World

CUT = Broken("cut", responded=True)
NATIVE = {
    "responses": (CREATED, DELTA, COMPLETED),
    "messages": (
        *(MESSAGE_START, BLOCK_START, BLOCK_DELTA, BLOCK_STOP),
        *(MESSAGE_DELTA, MESSAGE_STOP),
    ),
}
PRELUDE = {"responses": CREATED, "messages": MESSAGE_START}
STARTS = ("response.created", "message_start")


def chat_only(*attempts, name="chat"):
    upstream = Seen(ScriptedUpstream(*attempts, name=name))
    return Endpoint(upstream=upstream, dialects=frozenset({"chat"}))


def native(dialect, *attempts, name="native"):
    """An upstream that speaks the client's dialect, and Chat beside it: the first is preferred."""
    spoken = frozenset({"chat", dialect})
    upstream = Seen(ScriptedUpstream(*attempts, name=name), dialects=spoken)
    return Endpoint(upstream=upstream, dialects=spoken)


def assert_one_stream(c, dialect):
    """One opening, one text, one end; and all lifecycle events bear one id."""
    assert [kind for kind in kinds(c) if kind in STARTS] == [STARTS[dialect == "messages"]]
    assert (text_of(c), kinds(c)[-1]) == ("hello", LAST[dialect])
    told = [event.get("response") or event.get("message") or {} for event in events_in(c.body)]
    assert len({one["id"] for one in told if "id" in one}) == 1


# --- both kinds on one route -----------------------------------------------------------------------


@dialects
async def test_pass_through_is_preferred_where_the_dialect_is_spoken(dialect):
    w = World(native(dialect, answers(*NATIVE[dialect])))
    c = await w.ask(client(dialect), dialect=dialect)
    assert c.body == b"".join(NATIVE[dialect])
    ((_, target, _),) = w.calls[0].received
    assert target == b"/v1/" + dialect.encode()


@dialects
@pytest.mark.parametrize(
    "fails",
    [
        (Unreachable("no"),),
        (b"", CUT),
        ("prelude", CUT),
        ("prelude",),
    ],
    ids=["unreachable", "headers", "prelude", "end"],
)
async def test_a_chat_upstream_takes_over_from_one_that_speaks_the_dialect(dialect, fails):
    parts = [PRELUDE[dialect] if part == "prelude" else part for part in fails]
    w = World(native(dialect, answers(*parts)), chat_only(answers(*WHOLE)))
    c = await w.ask(client(dialect), dialect=dialect)
    assert_one_stream(c, dialect)
    assert c.response_headers[b"x-proxy-upstream"] == b"chat"
    assert w.calls[1].told.dialect == "chat"


@dialects
@pytest.mark.parametrize(
    "fails", [(Unreachable("no"),), (ROLE, CUT), (ROLE, DONE)], ids=["unreachable", "cut", "end"]
)
async def test_an_upstream_that_speaks_the_dialect_takes_over_from_a_chat_one(dialect, fails):
    w = World(chat_only(answers(*fails)), native(dialect, answers(*NATIVE[dialect])))
    c = await w.ask(client(dialect), dialect=dialect)
    assert c.body == b"".join(NATIVE[dialect])
    assert c.response_headers[b"x-proxy-upstream"] == b"native"


@dialects
async def test_a_status_that_may_pass_is_asked_elsewhere_in_the_other_dialect(dialect):
    busy = answers(b'{"error":{"message":"busy"}}', status=503, headers=JSON)
    w = World(native(dialect, busy), chat_only(answers(*WHOLE)))
    assert_one_stream(await w.ask(client(dialect), dialect=dialect), dialect)


@dialects
async def test_a_chat_hedge_beside_a_silent_upstream_of_the_dialect(dialect):
    w = World(
        native(dialect, answers(PRELUDE[dialect], HANG)),
        chat_only(answers(*WHOLE)),
        rules=Rules(hedge_after=10.0, hedge_share=1.0),
    )
    c = await w.ask(client(dialect), dialect=dialect)
    assert_one_stream(c, dialect)
    assert c.ended_at == 10.0


@dialects
async def test_a_hedge_that_speaks_the_dialect_beside_a_silent_chat_upstream(dialect):
    w = World(
        chat_only(answers(ROLE, HANG)),
        native(dialect, answers(*NATIVE[dialect])),
        rules=Rules(hedge_after=10.0, hedge_share=1.0),
    )
    c = await w.ask(client(dialect), dialect=dialect)
    assert_one_stream(c, dialect)
    assert STARTS[dialect == "messages"].encode() in c.body


# --- what cannot be told in Chat ----------------------------------------------------------------------

INEXPRESSIBLE = {"responses": {"previous_response_id": "r"}, "messages": {"max_tokens": 0}}
BUSY = {"error": {"message": "busy"}}


def inexpressible(dialect):
    return client(dialect, **INEXPRESSIBLE[dialect])


def busy(**how):
    return answers(json.dumps(BUSY).encode(), headers=(*JSON, (b"retry-after", b"77")), **how)


@dialects
async def test_what_cannot_be_told_in_chat_goes_to_an_upstream_that_speaks_the_dialect(dialect):
    w = World(chat_only(), native(dialect, answers(*NATIVE[dialect])))
    c = await w.ask(inexpressible(dialect), dialect=dialect)
    assert c.body == b"".join(NATIVE[dialect])
    assert c.response_headers[b"x-proxy-upstream"] == b"native"
    assert [entry.problem for entry in w.record.attempts] == [
        "upstream_error: invalid_request",
        None,
    ]


async def test_so_does_work_that_goes_on_without_its_client():
    """It is asked for once at most; and so far nobody was asked."""
    w = World(chat_only(), native("responses", answers(*NATIVE["responses"])))
    c = await w.ask(client("responses", background=True), dialect="responses")
    assert c.body == b"".join(NATIVE["responses"])


@dialects
async def test_if_nobody_can_take_it_the_last_one_says_why(dialect):
    w = World(chat_only(name="a"), chat_only(name="b"))
    c = await w.ask(inexpressible(dialect), dialect=dialect)
    assert c.status == 400
    assert json.loads(c.body)["error"]["type"] == "invalid_request_error"
    assert c.response_headers[b"x-proxy-upstream"] == b"b"
    assert w.record.ending.value == "upstream_error"


@dialects
async def test_an_upstreams_own_400_is_final(dialect):
    no = answers(b'{"error":{"message":"no"}}', status=400, headers=JSON)
    w = World(chat_only(no), native(dialect))
    assert (await w.ask(client(dialect), dialect=dialect)).status == 400


@dialects
async def test_one_that_can_take_it_is_asked_again_when_it_failed(dialect):
    w = World(native(dialect, answers(CUT), answers(*NATIVE[dialect])), chat_only())
    c = await w.ask(inexpressible(dialect), dialect=dialect)
    assert c.body == b"".join(NATIVE[dialect])


@dialects
@pytest.mark.parametrize("hedged", [False, True])
async def test_how_it_failed_where_it_could_be_asked_counts_more_than_that_it_could_not_elsewhere(
    dialect, hedged
):
    """A client gives up on 400; it comes back in 77 seconds if it is told so."""
    w = World(
        native(dialect, busy(status=429, after=15.0)),
        chat_only(),
        rules=Rules(hedge_after=10.0 * hedged, hedge_share=1.0),
        commit_after=60.0,
        heartbeat=60.0,
    )
    c = await w.ask(inexpressible(dialect), dialect=dialect)
    assert (c.status, c.response_headers[b"retry-after"]) == (429, b"77")
    # In its own words if it was the last to be asked, else in ours.
    assert hedged == (json.loads(c.body) == BUSY)
    assert hedged or json.loads(c.body)["error"]["type"] == "rate_limit_error"
    assert w.record.ending.value == "upstream_error"


# --- the opening goes out at once -------------------------------------------------------------------


def shown_by(c, moment):
    return b"".join(piece for at, piece in c.pieces if at <= moment)


@dialects
async def test_the_opening_goes_out_with_the_headers_while_the_upstream_is_silent(dialect):
    w = World(chat_only(answers(*WHOLE, after=60.0)), commit_after=1.0)
    c = await w.ask(client(dialect), dialect=dialect)
    assert STARTS[dialect == "messages"].encode() in shown_by(c, 1.0)
    assert_one_stream(c, dialect)
    assert w.record.frames == len(kinds(c)) - w.record.heartbeats * (dialect == "messages")


@dialects
async def test_attempts_may_follow_one_another_behind_the_opening(dialect):
    """However late: what the client has seen belongs to none of them."""
    w = World(
        chat_only(
            answers(ROLE, 200.0, CUT),
            answers(200.0, CUT),
            answers(*WHOLE, after=10.0),
        ),
        commit_after=1.0,
        prelude_hold=20.0,
        retry_deadline=0.0,
        first_token_timeout=0.0,
    )
    c = await w.ask(client(dialect), dialect=dialect)
    assert len(w.calls) == 3
    assert_one_stream(c, dialect)


@dialects
async def test_a_hedge_may_win_behind_the_opening(dialect):
    w = World(
        chat_only(answers(ROLE, HANG), name="a"),
        chat_only(answers(*WHOLE), name="b"),
        commit_after=1.0,
        rules=Rules(hedge_after=30.0, hedge_share=1.0),
    )
    c = await w.ask(client(dialect), dialect=dialect)
    assert_one_stream(c, dialect)
    assert c.ended_at == 30.0


@dialects
async def test_where_a_later_attempt_would_have_ids_of_its_own_the_opening_waits(dialect):
    w = World(
        chat_only(answers(ROLE, 60.0, CUT)),
        native(dialect, answers(*NATIVE[dialect])),
        commit_after=1.0,
    )
    c = await w.ask(client(dialect), dialect=dialect)
    assert not any(start.encode() in shown_by(c, 59.0) for start in STARTS)
    assert_one_stream(c, dialect)


@dialects
@pytest.mark.parametrize(
    "end",
    [
        answers(10.0, b'{"error":{"message":"no"}}', status=400, headers=JSON, after=10.0),
        answers(b'{"error":{"message":"no"}}', status=500, headers=JSON, after=10.0),
        answers(Unreachable("no"), after=10.0),
        answers(ROLE, CUT, after=10.0),
    ],
    ids=["400", "500", "unreachable", "cut"],
)
async def test_what_fails_behind_the_opening_is_told_as_its_end(dialect, end):
    w = World(chat_only(end), commit_after=1.0, max_retries=0)
    c = await w.ask(client(dialect), dialect=dialect)
    found = [event for event in events_in(c.body) if event["type"] != "ping"]
    if dialect == "messages":
        assert [event["type"] for event in found] == ["message_start", "error"]
        return
    assert [event["type"] for event in found] == [
        *("response.created", "response.in_progress"),
        *("error", "response.failed"),
    ]
    assert [event["sequence_number"] for event in found] == [0, 1, 2, 3]
    assert found[-1]["response"]["id"] == found[0]["response"]["id"]


@dialects
async def test_event_heartbeats_have_a_valid_place_whatever_the_client(dialect):
    """Behind the opening any client bears them, before it Codex and Claude Code alone."""
    w = World(
        chat_only(answers(ROLE, 30.0, HELLO, FINISH, DONE, after=30.0)),
        event_heartbeat=10.0,
        event_heartbeat_clients=("some-sdk",),
    )
    agent = ((b"user-agent", b"some-sdk/1"),)
    c = await w.ask(client(dialect, headers=agent), dialect=dialect)
    beats = [moment for moment, kind in w.witness.heartbeats if kind == "event"]
    assert len([moment for moment in beats if moment < 30]) == 2
    assert len([moment for moment in beats if 30 < moment < 60]) >= 2
    found = kinds(c)
    want = "response.in_progress" if dialect == "responses" else "message_delta"
    text_at = next(
        n for n, kind in enumerate(found) if kind.endswith(("text.delta", "block_start"))
    )
    assert found[:text_at].count(want) >= 4
    assert_one_stream(c, dialect)


@dialects
async def test_what_is_not_streamed_has_no_opening(dialect):
    whole = json.dumps(COMPLETION).encode()
    w = World(chat_only(answers(whole, after=30.0, headers=JSON)), json_heartbeat=True)
    c = await w.ask(Client(wish(dialect, stream=False)), dialect=dialect)
    assert c.pieces[0][0] < 30.0
    assert not any(start.encode() in c.body for start in STARTS)
    assert json.loads(c.body)["model"] == "m"


def test_an_upstream_of_both_kinds_is_one_upstream():
    inner = ScriptedUpstream()
    assert Translated(inner) == Translated(inner)
    assert Translated(inner) != Translated(inner, dialects=("chat", "messages"))
