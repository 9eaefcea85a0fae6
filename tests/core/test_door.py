"""Who may come in."""

from __future__ import annotations

import hmac

import pytest

from trio_sse_proxy.core.door import Door, host_name, is_loopback, key_headers, matches_key
from trio_sse_proxy.core.failure import Cause

NEAR = Door(loopback=True)


def asking(host=b"localhost", origin=None, **more):
    found = [(b"host", host)]
    if origin is not None:
        found.append((b"origin", origin))
    return (*found, *((name.replace("_", "-").encode(), value) for name, value in more.items()))


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"localhost:8787",
        b"LOCALHOST:8787",
        b"localhost.",
        b"localhost.:80",
        b"app.localhost",
        b"127.0.0.1",
        b"127.0.0.1:8787",
        b"127.9.9.9",
        b"[::1]",
        b"[::1]:8787",
    ],
)
def test_on_loopback_hosts_that_name_loopback_come_in(host):
    assert NEAR.refuses(asking(host)) is None


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:8787",
        b"127.0.0.1.evil.example",
        b"127.0.0.1.nip.io:8787",
        b"localhost.evil.example",
        b"evillocalhost",
        b"192.168.1.5:8787",
        b"0.0.0.0",
        b"[::2]:8787",
        b"",
        b":8787",
        b"\xff",
    ],
)
def test_on_loopback_a_name_rebound_to_it_stays_out(host):
    refused = NEAR.refuses(asking(host))
    assert refused is not None
    assert refused.cause is Cause.FORBIDDEN


def test_on_loopback_a_request_without_a_host_stays_out():
    assert NEAR.refuses(()) is not None


@pytest.mark.parametrize(
    "origin",
    [b"http://localhost:3000", b"http://127.0.0.1", b"https://[::1]:99", b"http://a.localhost"],
)
def test_on_loopback_pages_of_loopback_come_in(origin):
    assert NEAR.refuses(asking(origin=origin)) is None


@pytest.mark.parametrize(
    "origin",
    [
        b"https://evil.example",
        b"http://localhost.evil.example",
        b"null",
        b"",
        b"localhost",
        b"file://",
        b"http://localhost@evil.example",
        b"\xff",
        pytest.param(
            b"http://[evil",
        ),
    ],
)
def test_on_loopback_other_pages_stay_out(origin):
    refused = NEAR.refuses(asking(origin=origin))
    assert refused is not None
    assert refused.cause is Cause.FORBIDDEN


def test_on_loopback_what_another_site_embeds_or_links_to_stays_out():
    refused = NEAR.refuses(asking(sec_fetch_site=b"cross-site"))
    assert refused is not None
    assert refused.cause is Cause.FORBIDDEN


@pytest.mark.parametrize("site", [b"none", b"same-origin", b"same-site"])
def test_on_loopback_what_the_user_or_a_local_page_asks_for_comes_in(site):
    assert NEAR.refuses(asking(sec_fetch_site=site)) is None


def test_an_allowed_origin_comes_in_whatever_site_it_is():
    door = Door(loopback=True, allowed_origins=("https://app.example",))
    headers = asking(origin=b"https://app.example", sec_fetch_site=b"cross-site")
    assert door.refuses(headers) is None


def test_allowed_hosts_come_in_beside_loopback():
    door = Door(loopback=True, allowed_hosts=("proxy.lan", "other:99"))
    assert door.refuses(asking(b"proxy.lan:8787")) is None
    assert door.refuses(asking(b"other:99")) is None
    assert door.refuses(asking(b"other:98")) is not None
    assert door.refuses(asking(b"localhost")) is None
    assert door.refuses(asking(b"evil.example")) is not None


def test_allowed_origins_come_in_beside_loopback():
    door = Door(loopback=True, allowed_origins=("https://app.example",))
    assert door.refuses(asking(origin=b"https://app.example")) is None
    assert door.refuses(asking(origin=b"http://localhost")) is None
    assert door.refuses(asking(origin=b"https://app.example.evil")) is not None


def test_a_star_allows_all():
    door = Door(loopback=True, allowed_hosts=("*",), allowed_origins=("*",))
    assert door.refuses(asking(b"evil.example", origin=b"https://evil.example")) is None


def test_beyond_loopback_nobody_comes_in_without_client_keys():
    refused = Door(loopback=False).refuses(asking(b"proxy.example"))
    assert refused is not None
    assert refused.cause is Cause.FORBIDDEN


def test_beyond_loopback_any_host_comes_in_with_a_key():
    door = Door(loopback=False, client_keys=("k",))
    assert door.refuses(asking(b"proxy.example", x_api_key=b"k")) is None
    assert door.refuses(asking(b"proxy.example", origin=b"https://a.b", x_api_key=b"k")) is None


def test_beyond_loopback_listed_origins_are_the_only_ones():
    door = Door(loopback=False, client_keys=("k",), allowed_origins=("https://a.b",))
    assert door.refuses(asking(origin=b"https://a.b", x_api_key=b"k")) is None
    assert door.refuses(asking(origin=b"http://localhost", x_api_key=b"k")) is not None


KEYED = Door(loopback=True, client_keys=("first", "second", "schlüssel"))


@pytest.mark.parametrize(
    "more",
    [
        {"x_api_key": b"first"},
        {"x_api_key": b"second"},
        {"authorization": b"Bearer second"},
        {"authorization": b"bearer  first "},
        {"authorization": "Bearer schlüssel".encode()},
        {"x_api_key": b"upstreams-own", "authorization": b"Bearer first"},
    ],
)
def test_a_client_key_opens_in_either_header(more):
    assert KEYED.refuses(asking(**more)) is None


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"x_api_key": b"third"},
        {"x_api_key": b""},
        {"x_api_key": b"firs"},
        {"x_api_key": b"firstt"},
        {"authorization": b"first"},
        {"authorization": b"Basic first"},
        {"authorization": b"Bearer"},
        {"authorization": b"Bearer\tfirst"},
        {"api_key": b"first"},
    ],
)
def test_anything_else_does_not(more):
    refused = KEYED.refuses(asking(**more))
    assert refused is not None
    assert refused.cause is Cause.AUTHENTICATION
    assert "first" not in refused.message


def test_the_headers_that_carry_a_key_are_named_and_only_those():
    found = key_headers(asking(x_api_key=b"own", authorization=b"Bearer first"), ("first",))
    assert found == {b"authorization"}
    both = asking(x_api_key=b"first", authorization=b"Bearer first")
    assert key_headers(both, ("first",)) == {b"x-api-key", b"authorization"}
    assert not matches_key((), ("first",))


def test_keys_are_compared_in_constant_time_all_of_them(monkeypatch):
    compared = []
    compare = hmac.compare_digest

    def spying(offered, key):
        compared.append(key)
        return compare(offered, key)

    monkeypatch.setattr(hmac, "compare_digest", spying)
    assert matches_key(((b"x-api-key", b"first"),), ("first", "second"))
    assert compared == [b"first", b"second"]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a.b", "a.b"),
        ("A.B:80", "a.b"),
        ("a.b.", "a.b"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("", ""),
    ],
)
def test_the_name_in_a_host(host, name):
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("name", "yes"),
    [("localhost", True), ("::1", True), ("127.1.2.3", True), ("10.0.0.1", False), ("x", False)],
)
def test_what_is_loopback(name, yes):
    assert is_loopback(name) is yes
