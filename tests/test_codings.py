"""Content codings, undone within bounds and however the bytes are cut."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from trio_sse_proxy.codings import MAX_MEMBERS, PIECE, decode_whole, decoder_for
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
codings = pytest.mark.parametrize(("coding", "encode"), ENCODERS.values(), ids=list(ENCODERS))
TEXT = b'{"stream": true, "model": "m"}' * 50


def decode(coding, pieces):
    decoder = decoder_for(coding)
    decoded = b"".join(part for piece in pieces for part in decoder.decode(piece))
    return decoded, decoder.complete


@codings
def test_a_whole_body_is_decoded(coding, encode):
    assert decode(coding, [encode(TEXT)]) == (TEXT, True)
    assert decode_whole(encode(TEXT), coding, len(TEXT)) == TEXT


@codings
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


@codings
def test_an_unfinished_body_is_known_to_be_unfinished(coding, encode):
    assert decode(coding, [encode(TEXT)[:-4]])[1] is False


@codings
def test_rubbish_is_garbled(coding, encode):
    decoder = decoder_for(coding)
    with pytest.raises(Garbled):
        list(decoder.decode(b"\xff" * 100))


@codings
def test_no_piece_is_larger_than_its_bound(coding, encode):
    """A bomb goes off in small pieces only."""
    bomb = encode(bytes(20 * 2**20))
    decoder = decoder_for(coding)
    sizes = [len(piece) for piece in decoder.decode(bomb)]
    assert sum(sizes) == 20 * 2**20
    assert max(sizes) <= max(PIECE, 64 * 2**17)  # zstd: 64 blocks of four bytes in a slice


@codings
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
