"""What the listening side relies on beyond Hypercorn's and h11's documentation, against the installed.

If one of these fails after an upgrade, the override it names must be read again next to the new
release; the tests of behaviour alone might not show what changed.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import h11
import pytest
from h11._writers import ChunkedWriter
from hypercorn.config import Config
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import EventWrapper, WorkerContext

from trio_sse_proxy import calls, http1, http2, server

H2_OVERRIDDEN = ["initiate", "_handle_events", "_create_stream", "_send_data", "_close_stream"]
OVERRIDDEN = {
    http1.H11: (H11Protocol, ["handle", "_check_protocol", "_create_stream"]),
    http2.H2: (H2Protocol, ["handle", *H2_OVERRIDDEN]),
    http1.H11Stream: (HTTPStream, ["app_send"]),
    http2.H2Stream: (HTTPStream, ["app_send"]),
    http2.Outbox: (StreamBuffer, ["push", "pop", "drain", "close"]),
    calls.Calls: (TaskGroup, ["spawn_app"]),
    http1.ReadOn: (EventWrapper, ["clear"]),
}


@pytest.mark.parametrize("ours", OVERRIDDEN, ids=lambda ours: ours.__name__)
def test_what_is_overridden_still_exists_and_takes_the_same(ours):
    theirs, names = OVERRIDDEN[ours]
    for name in names:
        assert name in vars(ours)
        expected = list(inspect.signature(getattr(theirs, name)).parameters)
        assert list(inspect.signature(getattr(ours, name)).parameters) == expected
        assert inspect.iscoroutinefunction(getattr(theirs, name))


@pytest.mark.parametrize(
    ("theirs", "used"),
    [
        (H11Protocol, ["_handle_events", "_maybe_recycle", "initiate", "stream_send"]),
        (H2Protocol, ["_flush", "_window_updated", "_close_stream", "send_task", "stream_send"]),
        (StreamBuffer, ["set_complete", "complete"]),
        (EventWrapper(), ["_event"]),
    ],
)
def test_what_is_used_still_exists(theirs, used):
    for name in used:
        assert hasattr(theirs, name)


@pytest.mark.parametrize("protocol", [H11Protocol, H2Protocol])
def test_protocols_are_made_from_these_in_this_order(protocol):
    expected = ["self", "app", "config", "context", "task_group", "connection_state"]
    expected += ["ssl", "client", "server", "send"]
    assert list(inspect.signature(protocol.__init__).parameters) == expected


def test_protocols_over_http1_set_nothing_that_ours_does_not():
    """Ours does not call theirs, which would make an h11.Connection for each of ours."""
    theirs = H11Protocol(None, Config(), WorkerContext(None), *[None] * 6)
    unused = dict.fromkeys(["calls", "state", "client", "address", "send"])
    shared = server.Server(None, server.Listening())
    link = SimpleNamespace(server=shared, wire=SimpleNamespace(tls=False), **unused)
    assert vars(theirs).keys() <= vars(http1.H11(link)).keys()


def test_streams_are_made_from_these_in_this_order():
    expected = ["self", "app", "config", "context", "task_group", "ssl", "client", "server", "send"]
    expected += ["stream_id"]
    assert list(inspect.signature(HTTPStream.__init__).parameters) == expected
    assert {state.name for state in ASGIHTTPState} == {"REQUEST", "RESPONSE", "TRAILERS", "CLOSED"}


def test_settings_that_are_made_are_settings_that_exist():
    ours = server._configure(server.Listening())
    for name in vars(ours):
        assert hasattr(Config, name), name


def test_only_pausing_clears_the_event_that_stops_the_reader():
    source = inspect.getsource(H11Protocol)
    assert source.count("can_read.clear()") == 1
    assert "elif event is h11.PAUSED:\n                    await self.can_read.clear()" in source
    assert isinstance(WorkerContext(None).event_class(), EventWrapper)


@pytest.mark.parametrize("data", [b"x", bytes(200), bytes(70_000)])
def test_a_chunk_of_h11_is_the_chunk_we_write_and_leaves_its_state_as_it_was(data):
    """`H11Stream` writes chunks past h11."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    connection.next_event()
    connection.send(h11.Response(status_code=200, headers=[]))
    before = {**vars(connection), "_cstate": dict(connection.states)}
    assert connection.send(h11.Data(data=data)) == b"%x\r\n%b\r\n" % (len(data), data)
    assert {**vars(connection), "_cstate": dict(connection.states)} == before
    assert isinstance(connection._writer, ChunkedWriter)
    assert not vars(connection._writer)
