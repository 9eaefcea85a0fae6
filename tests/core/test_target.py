"""Request targets: forwarded as they were written, or not at all."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sse_proxy.core.errors import BadRequest
from trio_sse_proxy.core.target import below_root, check_path, join


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/../x",
        b"/..",
        b"/.",
        b"/v1/./x",
        b"/v1/%2e%2e/x",
        b"/v1/%2E%2e/x",
        b"/v1/.%2e/x",
        b"/v1/%2e./x",
        b"/v1/%2e/x",
        b"/v1/..%2fx",
        b"/v1/x%2f..%2fy",
        b"/v1/x%2F%2e%2E",
        b"/v1/..%5cx",
        b"/v1/%5c..%5cx",
        b"/v1\\..\\x",
        b"http://elsewhere/v1",
        b"elsewhere:443",
        b"*",
        b"",
        b"v1/x",
        b"/a b",
        b"/a\tb",
        b"/a\x00b",
        b"/a%00b",
        b"/a#b",
        b"/\xc3\xa9",
        b"/a\r\nx",
    ],
)
def test_dot_segments_foreign_authorities_and_raw_bytes_are_refused(path):
    with pytest.raises(BadRequest):
        check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/v1/x",
        b"/...",
        b"/.well-known/x",
        b"/a..b",
        b"/x/..y",
        b"//x",
        b"/%C3%A9",
        b"/a%20b",
    ],
)
def test_other_paths_pass(path):
    check_path(path)


@given(st.text("./%2eEfF5cC\\a", max_size=14))
def test_whatever_passes_has_no_dot_segments_once_decoded(text):
    path = b"/" + text.encode()
    try:
        check_path(path)
    except BadRequest:
        return
    segments = unquote_to_bytes(path).replace(b"\\", b"/").split(b"/")
    assert not {b".", b".."} & set(segments)


@pytest.mark.parametrize(
    ("raw", "root", "below"),
    [
        (b"/v1/x", "", b"/v1/x"),
        (b"/llm/v1/x", "/llm", b"/v1/x"),
        (b"/llm/v1/x", "/llm/", b"/v1/x"),
        (b"/a/b/v1/x", "/a/b", b"/v1/x"),
        (b"/l%6cm/v1/x", "/llm", b"/v1/x"),
        (b"/my%20llm/v1/x", "/my llm", b"/v1/x"),
        (b"/%C3%A9/v1/x", "/é", b"/v1/x"),
        (b"/llm", "/llm", b"/"),
        (b"/llm/", "/llm", b"/"),
        (b"/llmx/v1", "/llm", b"/llmx/v1"),
        (b"/v1/x", "/llm", b"/v1/x"),
        (b"/llm/v1/%2e%2e/x", "/llm", b"/v1/%2e%2e/x"),
        (b"/llm/a%2Fb", "/llm", b"/a%2Fb"),
    ],
)
def test_the_prefix_we_are_mounted_under_goes(raw, root, below):
    assert below_root(raw, root) == below


@pytest.mark.parametrize(
    ("base", "path", "joined"),
    [
        (b"", b"/v1/x", b"/v1/x"),
        (b"/", b"/v1/x", b"/v1/x"),
        (b"/v1", b"/v1/x", b"/v1/x"),
        (b"/v1/", b"/v1/x", b"/v1/x"),
        (b"/api/paas/v4", b"/v1/x", b"/api/paas/v4/x"),
        (b"/v1beta/openai", b"/v1/x", b"/v1beta/openai/x"),
        (b"/v2alpha1/y", b"/v1/x", b"/v2alpha1/y/x"),
        (b"/anthropic", b"/v1/messages", b"/anthropic/v1/messages"),
        (b"/v1", b"/v1", b"/v1"),
        (b"/v1", b"/v1beta/x", b"/v1/v1beta/x"),
        (b"/v1", b"/v10/x", b"/v1/v10/x"),
        (b"/version1", b"/v1/x", b"/version1/v1/x"),
        (b"/v1", b"/", b"/v1/"),
        (b"", b"/", b"/"),
    ],
)
def test_a_version_is_not_named_twice(base, path, joined):
    assert join(base, path) == joined
