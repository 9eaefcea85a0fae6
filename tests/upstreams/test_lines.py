"""A plain connection's line, on real sockets."""

from __future__ import annotations

import socket
import sys

import pytest
import trio
from patience import PATIENCE
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.upstreams.lines import SocketLine

pytestmark = [pytest.mark.slow, pytest.mark.steady]


def pair():
    """A line and the socket at its other end."""
    near, far = socket.socketpair()
    return SocketLine(trio.SocketStream(trio.socket.from_stdlib_socket(near))), far


async def test_a_cancelled_send_sends_nothing():
    line, far = pair()
    with far:
        with trio.CancelScope() as scope:
            scope.cancel()
            await line.send(b"request")
        assert scope.cancelled_caught
        assert line.bytes_sent == 0
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(1)
        line.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there the send is trio's own")
async def test_a_send_the_kernel_has_room_for_lets_nobody_in_between(nursery):
    line, far = pair()
    order = []

    async def other():
        order.append("other")

    with far:
        nursery.start_soon(other)
        await line.send(b"request")
        order.append("sent")
        await wait_all_tasks_blocked()
        assert order == ["sent", "other"]
        line.close()


async def test_a_send_beyond_the_kernels_room_goes_on_until_all_is_out(nursery):
    line, far = pair()
    data = bytes(range(256)) * 8_000
    got = bytearray()

    async def read():
        peer = trio.socket.from_stdlib_socket(far)
        while len(got) < len(data):
            got.extend(await peer.recv(65_536))

    with far, trio.fail_after(PATIENCE):
        nursery.start_soon(read)
        await line.send(data)
        await wait_all_tasks_blocked()
    assert bytes(got) == data
    assert line.bytes_sent == len(data)
    line.close()


async def test_a_send_on_a_closed_line_raises_oserror():
    line, far = pair()
    with far:
        line.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await line.send(b"request")
    assert line.bytes_sent == 0
