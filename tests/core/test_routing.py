"""Which route a request takes, and what its upstreams call the model."""

from __future__ import annotations

import pytest

from trio_sse_proxy.core.errors import BadRequest
from trio_sse_proxy.core.routing import Query, Route, choose, is_translated, rename, speakers

BEARER = ((b"authorization", b"Bearer sk-team"),)
CHAT = Query(model="deepseek-v3", dialect="chat", path="/v1/chat/completions")
OTHER_CALL = Query(path="/v1/embeddings")


def route(number=1, upstreams=("a", "b"), **match):
    return Route(number=number, upstreams=upstreams, **match)


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"models": ("deepseek-*",)},
        {"models": ("gpt-*", "deepseek-v?")},
        {"models": ("deepseek-v[0-9]",)},
        {"dialects": ("messages", "chat")},
        {"paths": ("/v1/*",)},
        {"models": ("*",), "dialects": ("chat",), "paths": ("*/completions",)},
    ],
)
def test_a_route_fits_if_all_that_is_given_fits(match):
    assert route(**match).fits(CHAT)


@pytest.mark.parametrize(
    "match",
    [
        {"models": ("DeepSeek-*",)},
        {"models": ("deepseek",)},
        {"dialects": ("responses",)},
        {"paths": ("/v2/*",)},
        {"models": ("deepseek-*",), "dialects": ("messages",)},
        {"paths": ("/v1/*",), "models": ("gpt-*",)},
        {"client": "sk-team"},
    ],
)
def test_a_route_does_not_fit_if_anything_given_does_not(match):
    assert not route(**match).fits(CHAT)


def test_a_name_with_brackets_fits_itself():
    query = Query(model="claude-sonnet[1m]", dialect="messages")
    assert route(models=("claude-sonnet[1m]",)).fits(query)


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        (BEARER, True),
        (((b"x-api-key", b"sk-team"),), True),
        (((b"authorization", b"Bearer sk-other"), (b"x-api-key", b"sk-team")), True),
        (((b"authorization", b"Basic sk-team"),), False),
        (((b"x-api-key", b"sk-team2"),), False),
        (((b"x-api-key", "schlüssel".encode()),), False),
        ((), False),
    ],
)
def test_a_clients_route_fits_whoever_carries_its_key(headers, fits):
    query = Query(model="m", dialect="chat", headers=headers)
    assert route(client="sk-team").fits(query) is fits
    assert route(client="sk-team").fits_call(query)


def test_the_key_of_a_route_is_not_shown():
    assert "sk-team" not in repr(route(client="sk-team"))


def test_a_call_in_no_dialect_has_neither_model_nor_dialect_to_fit():
    assert not route(models=("*",)).fits(OTHER_CALL)
    assert not route(dialects=("chat", "responses", "messages")).fits(OTHER_CALL)
    assert route(paths=("/v1/embeddings",)).fits(OTHER_CALL)


def test_the_first_route_that_fits_is_taken():
    gpt, deep, rest = route(1, models=("gpt-*",)), route(2, models=("deep*",)), route(0)
    assert choose((gpt, deep, rest), CHAT) is deep
    assert choose((gpt, rest, deep), CHAT) is rest
    assert choose((gpt,), CHAT) is None


def test_upstreams_that_do_not_speak_the_dialect_are_left_out_and_the_order_stays():
    spoken = {"a": ("chat",), "b": ("messages",), "c": ("chat", "responses")}
    among = route(upstreams=("c", "b", "a"))
    assert speakers(among, "chat", spoken) == ("c", "a")


def test_upstreams_that_speak_chat_take_every_dialect_and_the_order_stays():
    spoken = {"a": ("chat",), "b": ("messages",), "c": ("chat", "responses")}
    among = route(upstreams=("c", "b", "a"))
    assert speakers(among, "messages", spoken) == ("c", "b", "a")
    assert speakers(among, "responses", spoken) == ("c", "a")
    translated = [name for name in among.upstreams if is_translated("responses", spoken[name])]
    assert translated == ["a"]
    assert not any(is_translated(None, dialects) for dialects in spoken.values())


def test_calls_in_no_dialect_go_to_any_upstream():
    assert speakers(route(), None, {"a": ("chat",), "b": ("messages",)}) == ("a", "b")


def test_a_request_that_no_upstream_of_its_route_speaks_is_refused_in_words():
    with pytest.raises(BadRequest) as caught:
        speakers(route(3), "chat", {"a": ("messages",), "b": ("responses", "messages")})
    assert str(caught.value) == (
        "no upstream of route 3 speaks the chat dialect:"
        " a speaks messages; b speaks responses and messages"
    )


def test_a_route_without_names_stands_for_the_only_upstream_there_is():
    assert speakers(route(0, ()), "chat", {}) == ()


@pytest.mark.parametrize(
    ("model", "called"),
    [
        ("gpt-4o", "exact"),  # also where a glob that fits stands before it
        ("gpt-5", "first"),
        ("o3", "other"),
        ("O3", "O3"),
        ("x[1]", "bracket"),
        ("deepseek", "deepseek"),
    ],
)
def test_a_model_is_renamed_by_its_own_name_then_by_the_first_glob(model, called):
    models = {
        "gpt-*": "first",
        "gpt-?": "second",
        "gpt-4o": "exact",
        "o[0-9]": "other",
        "x[1]": "bracket",
    }
    assert rename(models, model) == called
    assert rename({}, model) == model
