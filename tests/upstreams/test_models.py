"""One list of the models of several upstreams."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import trio
from relay.scripted_upstream import HANG, JSON, ScriptedUpstream, answers, fails

from trio_sse_proxy.core.call import Call
from trio_sse_proxy.core.errors import Garbled, Unreachable
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams.models import LARGEST_LIST, PATIENCE, MergedModels

ANTHROPIC = ((b"anthropic-version", b"2023-06-01"),)


@dataclass
class Listed:
    upstream: ScriptedUpstream
    well: bool = True

    def admits(self, now):
        return self.well


def models(*entries, **more):
    """A list as an answer; entries are ids or whole ones."""
    data = [{"id": one} if isinstance(one, str) else one for one in entries]
    return answers(json.dumps({"data": data, **more}).encode(), headers=JSON)


def at(name, *attempts, well=True):
    upstream = ScriptedUpstream(*attempts)
    upstream.name = name
    return Listed(upstream, well)


async def get(*listed, headers=(), renames=None, target=b"/v1/models", body=b""):
    """The list that a client gets, and whose models are asked for where."""
    request = UpstreamRequest(method="GET", target=target, headers=headers, body=body)
    call = Call(id="1-1", stream_id="1")
    async with MergedModels(listed, renames or {}).open(request, call) as answer:
        assert answer.status == 200
        body = await answer.receive()
        assert await answer.receive() == b""
        assert dict(answer.headers) == {
            b"content-type": b"application/json",
            b"content-length": str(len(body)).encode(),
        }
        answer.release()
    assert call.abort is None
    return json.loads(body)


def ids(document):
    return [model["id"] for model in document["data"]]


async def test_lists_are_joined_in_order_and_the_first_upstream_speaks_for_a_model():
    a = at("a", models({"id": "same", "object": "model", "owned_by": "x", "extra": 1}, "one"))
    b = at("b", models("same", {"id": "two", "created": 5}))
    document = await get(a, b)
    assert document == {
        "object": "list",
        "data": [
            {"id": "same", "object": "model", "created": 0, "owned_by": "x", "extra": 1},
            {"id": "one", "object": "model", "created": 0, "owned_by": "a"},
            {"id": "two", "object": "model", "created": 5, "owned_by": "b"},
        ],
    }


async def test_the_other_shape_comes_as_one_page():
    whole = {"type": "model", "id": "c", "display_name": "C", "created_at": "2025-01-01T00:00:00Z"}
    a = at("a", models(whole, has_more=False, first_id="c", last_id="c"))
    b = at("b", models({"id": "gpt", "created": 1735689600}, "odd"))
    document = await get(a, b, headers=ANTHROPIC)
    assert document == {
        "data": [
            whole,
            {
                "type": "model",
                "id": "gpt",
                "display_name": "gpt",
                "created": 1735689600,
                "created_at": "2025-01-01T00:00:00Z",
            },
            {
                "type": "model",
                "id": "odd",
                "display_name": "odd",
                "created_at": "1970-01-01T00:00:00Z",
            },
        ],
        "has_more": False,
        "first_id": "c",
        "last_id": "odd",
    }


async def test_an_empty_page_has_no_first_model():
    document = await get(at("a", models()), headers=ANTHROPIC)
    assert document == {"data": [], "has_more": False, "first_id": None, "last_id": None}


async def asked(headers=(), target=b"/v1/models"):
    one = at("a", models())
    await get(one, headers=headers, target=target)
    ((_, target, headers),) = one.upstream.calls[0].received
    return target, headers


@pytest.mark.parametrize(
    ("headers", "target", "expected"),
    [
        ((), b"/v1/models", b"/v1/models"),
        ((), b"/v1/models?key=k", b"/v1/models?key=k"),
        ((), b"/v1/models?limit=1&after_id=x&a=b", b"/v1/models?a=b"),
        (ANTHROPIC, b"/v1/models", b"/v1/models?limit=1000"),
        (ANTHROPIC, b"/v1/models?before_id=x&a=b", b"/v1/models?a=b&limit=1000"),
    ],
)
async def test_paging_is_ours_and_the_rest_of_the_query_goes_on(headers, target, expected):
    target, _ = await asked(headers, target)
    assert target == expected


async def test_headers_go_on_but_for_those_that_would_bring_less():
    passing = ((b"authorization", b"Bearer sk"), (b"x-own", b"1"))
    _, headers = await asked(
        (
            *passing,
            (b"accept-encoding", b"gzip"),
            (b"if-none-match", b'"x"'),
            (b"content-length", b"3"),
        )
    )
    assert headers == (*passing, (b"accept-encoding", b"identity"))


@pytest.mark.parametrize(
    "renames",
    [
        {"alias": "own"},
        {"alias": "own", "other-*": "own", "own-[12]": "own"},
    ],
)
async def test_names_that_are_written_out_are_added_and_globs_are_not(renames):
    document = await get(
        at("a", models({"id": "own", "extra": 1}, "plain")), renames={"a": renames}
    )
    assert ids(document) == ["own", "plain", "alias"]
    assert document["data"][2]["extra"] == 1


async def test_a_model_that_no_name_leads_to_is_left_out():
    renames = {"a": {"gpt-4o": "own", "deep*": "own", "own": "elsewhere"}}
    assert ids(await get(at("a", models("own", "deep", "gpt-4o")), renames=renames)) == [
        "gpt-4o",
        "own",
    ]


async def test_a_name_is_added_though_the_upstream_does_not_list_what_it_stands_for():
    document = await get(at("a", models("x")), renames={"a": {"alias": "unlisted"}})
    assert ids(document) == ["x", "alias"]


async def test_renames_of_one_upstream_do_not_touch_anothers_models():
    listed = (at("a", models("m")), at("b", models("m")))
    assert ids(await get(*listed, renames={"a": {"m": "n"}})) == ["m"]


BAD = [
    (answers(b"no", status=500), "status 500"),
    (answers(b'{"data": []}', status=404), "status 404"),
    (answers(b"not json", headers=JSON), "no list of models"),
    (answers(b"[]", headers=JSON), "no list of models"),
    (answers(b'{"models": []}', headers=JSON), "no list of models"),
    (answers(b'{"data": null}', headers=JSON), "no list of models"),
    (answers(b'{"data": [5]}', headers=JSON), "no list of models"),
    (answers(b'{"data": [{"id": "x"}, {"name": "x"}]}', headers=JSON), "no list of models"),
    (answers(b"x" * (LARGEST_LIST + 1), headers=JSON), "too long"),
    (answers(after=HANG), "no answer within 5 s"),
    (answers(b'{"data": [', HANG, headers=JSON), "no answer within 5 s"),
    (fails(Unreachable("refused")), "refused"),
    (answers(b'{"data"', Garbled("odd"), headers=JSON), "odd"),
]


@pytest.mark.parametrize(("attempt", "words"), BAD, ids=[str(n) for n in range(len(BAD))])
async def test_an_upstream_that_has_no_list_is_left_out(attempt, words, autojump_clock):
    def fresh():
        return at("bad", attempt)

    assert ids(await get(fresh(), at("good", models("m")))) == ["m"]
    assert trio.current_time() <= PATIENCE
    with pytest.raises(Garbled, match=rf"^no upstream has told its models \(bad: .*{words}.*\)$"):
        await get(fresh())


async def test_one_whose_breaker_is_open_is_not_asked(autojump_clock):
    resting = at("a", well=False)
    assert ids(await get(resting, at("b", models("m")))) == ["m"]
    assert resting.upstream.calls == []
    with pytest.raises(Garbled, match="a: has failed of late"):
        await get(resting)


async def test_one_that_has_no_list_or_rests_is_left_out_with_the_names_that_settings_give_it():
    ill, resting = at("ill", answers(status=503)), at("resting", models("x"), well=False)
    renames = {"ill": {"fast": "x"}, "resting": {"slow": "x"}}
    assert ids(await get(ill, resting, at("b", models("two")), renames=renames)) == ["two"]


async def test_all_are_asked_at_the_same_time(autojump_clock):
    slow = [
        at(name, answers(b'{"data": [{"id": "%b"}]}' % name.encode(), headers=JSON, after=3.0))
        for name in "ab"
    ]
    assert ids(await get(*slow)) == ["a", "b"]
    assert trio.current_time() == 3.0


async def test_leaving_early_never_sends_an_abort_message(autojump_clock):
    """A message to a server that stops everything it does would stop somebody else's answer."""
    slow = at("a", answers(after=HANG))
    await get(slow, at("b", models("m")))
    assert slow.upstream.calls[0].told.over
    assert slow.upstream.calls[0].closed == PATIENCE


class Body:
    closed = False

    async def aclose(self):
        self.closed = True


async def test_a_body_that_nobody_reads_is_given_up():
    body, one = Body(), at("a", models("m"))
    await get(one, body=body)
    assert body.closed
    assert one.upstream.calls[0].body == b""
