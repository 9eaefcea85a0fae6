"""Content codings, undone within bounds and however the bytes are cut."""

from __future__ import annotations

import gzip
import threading
import time
import zlib

import pytest
import trio
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy import codings
from trio_sse_proxy.codings import (
    AT_ONCE,
    MAX_MEMBERS,
    PIECE,
    decode_aside,
    decode_whole,
    decoder_for,
)
from trio_sse_proxy.core.errors import Garbled


def raw_deflate(data):
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


ENCODERS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": (" X-GZIP ", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
}
each_coding = pytest.mark.parametrize(("coding", "encode"), ENCODERS.values(), ids=list(ENCODERS))
TEXT = b'{"stream": true, "model": "m"}' * 50


def decode(coding, pieces):
    decoder = decoder_for(coding)
    decoded = b"".join(part for piece in pieces for part in decoder.decode(piece))
    return decoded, decoder.complete


@each_coding
def test_a_whole_body_is_decoded(coding, encode):
    assert decode(coding, [encode(TEXT)]) == (TEXT, True)
    assert decode_whole(encode(TEXT), coding, len(TEXT)) == TEXT


@each_coding
@given(data=st.binary(max_size=3_000), cuts=st.lists(st.integers(0, 4_000), max_size=5))
def test_however_the_bytes_are_cut_they_decode_the_same(coding, encode, data, cuts):
    encoded = encode(data)
    # A zlib header is two bytes, and comes in one read here; byte by byte is the next test's.
    edges = sorted({max(2, cut % (len(encoded) + 1)) for cut in cuts})
    pieces = [encoded[a:b] for a, b in zip([0, *edges], [*edges, None], strict=True)]
    assert decode(coding, pieces) == (data, True)


@pytest.mark.parametrize(("coding", "encode"), list(ENCODERS.values()), ids=list(ENCODERS))
def test_byte_by_byte_they_decode_the_same(coding, encode):
    assert decode(coding, [bytes([byte]) for byte in encode(TEXT)]) == (TEXT, True)


@each_coding
def test_an_unfinished_body_is_known_to_be_unfinished(coding, encode):
    assert decode(coding, [encode(TEXT)[:-4]])[1] is False


@each_coding
def test_rubbish_is_garbled(coding, encode):
    decoder = decoder_for(coding)
    with pytest.raises(Garbled):
        list(decoder.decode(b"\xff" * 100))


@each_coding
def test_no_piece_is_larger_than_its_bound(coding, encode):
    """A bomb goes off in small pieces only."""
    bomb = encode(bytes(20 * 2**20))
    decoder = decoder_for(coding)
    sizes = [len(piece) for piece in decoder.decode(bomb)]
    assert sum(sizes) == 20 * 2**20
    assert max(sizes) <= max(PIECE, 64 * 2**17)  # zstd: 64 blocks of four bytes in a slice


@each_coding
def test_a_body_that_decodes_to_too_much_is_given_up(coding, encode):
    assert decode_whole(encode(bytes(2**20)), coding, 2**20 - 1) is None
    assert decode_whole(encode(bytes(2**20)), coding, 2**20) == bytes(2**20)


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        pytest.param("gzip", gzip.compress),
        pytest.param(
            "zstd",
            zstandard.ZstdCompressor().compress,
        ),
    ],
)
def test_a_body_of_several_members_is_all_of_them(coding, encode):
    """RFC 1952, section 2.2, and RFC 8878, section 3: members and frames may follow one another."""
    assert decode(coding, [encode(b"one") + encode(b"two")])[0] == b"onetwo"


@pytest.mark.parametrize("coding", ["br", "gzip, deflate", "compress", "x"])
def test_codings_we_do_not_know_are_nobodys(coding):
    assert decoder_for(coding) is None
    assert decode_whole(b"x", coding, 10) is None


@pytest.mark.parametrize("coding", ["", " ", "identity", " Identity"])
def test_no_coding_is_the_body_as_it_is(coding):
    assert decode_whole(b"x", coding, 10) == b"x"


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_rubbish_never_raises_while_it_is_only_looked_at(body, coding):
    assert decode_whole(body, coding, 1000) is None or isinstance(
        decode_whole(body, coding, 1000), bytes
    )


MEMBERS = {
    "gzip": gzip.compress(b"", mtime=0),
    "zstd": zstandard.compress(b""),
    "zstd, skippable": b"\x50\x2a\x4d\x18\x00\x00\x00\x00",
}


@pytest.mark.parametrize(("name", "member"), MEMBERS.items(), ids=list(MEMBERS))
def test_a_body_of_empty_members_is_none_and_is_given_up_early(name, member):
    coding = name.partition(",")[0]
    assert decode_whole(member * MAX_MEMBERS, coding, 10) == b""
    began = time.process_time()
    assert decode_whole(member * (2**23 // len(member)), coding, 10) is None
    assert time.process_time() - began < 1  # it took a minute and more


@pytest.mark.parametrize(
    ("coding", "member"), [("gzip", MEMBERS["gzip"]), ("zstd", MEMBERS["zstd"])]
)
def test_a_stream_may_have_as_many_members_as_it_likes(coding, member):
    decoder = decoder_for(coding)
    for _ in range(MAX_MEMBERS + 1):
        assert list(decoder.decode(member)) == []
    assert decoder.complete


def test_a_stream_that_wants_more_memory_for_its_window_than_allowed_is_garbled():
    """RFC 9659, section 3: 8 MiB."""
    for log, allowed in ((23, True), (24, False)):
        parameters = zstandard.ZstdCompressionParameters(window_log=log)
        engine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        encoded = engine.compress(TEXT) + engine.flush()
        assert decode_whole(encoded, "zstd", 10_000) == (TEXT if allowed else None)


@pytest.mark.parametrize("size", [10, AT_ONCE])
async def test_a_little_body_is_decoded_without_waiting(size):
    body = gzip.compress(b"x" * size)
    with trio.testing.assert_no_checkpoints():
        assert await decode_aside(body, "gzip", 2**26) == b"x" * size
        assert await decode_aside(body, "br", 2**26) is None
        assert await decode_aside(b"x" * 2 * AT_ONCE, "identity", 2**26) == b"x" * 2 * AT_ONCE


async def test_others_go_on_while_a_large_body_is_decoded():
    body, steps = gzip.compress(bytes(16 * 2**20), 1), 0

    async def go_on():
        nonlocal steps
        while True:
            await trio.lowlevel.checkpoint()
            steps += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        assert await decode_aside(body, "gzip", 2**26) == bytes(16 * 2**20)
        assert await decode_aside(body, "gzip", 2**23) is None
        nursery.cancel_scope.cancel()
    assert steps > 1


async def test_large_bodies_are_decoded_one_at_a_time(monkeypatch):
    """Each may take as much memory as is allowed to one."""
    at_it, most = 0, 0

    def decode(body, coding, limit):
        nonlocal at_it, most
        if limit > AT_ONCE:
            at_it += 1
            most = max(most, at_it)
            time.sleep(0.005)
            at_it -= 1

    monkeypatch.setattr(codings, "decode_whole", decode)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(decode_aside, b"", "gzip", 2 * AT_ONCE)
    assert most == 1


async def test_a_large_body_that_nobody_waits_for_any_more_holds_nobody_up(monkeypatch):
    go_on = threading.Event()

    def decode(body, coding, limit):
        if limit > AT_ONCE:
            go_on.wait()

    monkeypatch.setattr(codings, "decode_whole", decode)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(decode_aside, b"", "gzip", 2 * AT_ONCE)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    go_on.set()
    with trio.fail_after(10):
        assert await decode_aside(b"", "gzip", 2 * AT_ONCE) is None
