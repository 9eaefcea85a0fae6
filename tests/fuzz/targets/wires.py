"""An exchange over one connection: bytes in pieces give what the pure reader says, or the one error."""

from __future__ import annotations

import trio
from trio.testing import memory_stream_pair

from trio_sse_proxy.core.errors import UpstreamError
from trio_sse_proxy.upstreams.head import RequestHead, frame
from trio_sse_proxy.upstreams.lines import StreamLine
from trio_sse_proxy.upstreams.upload import ENDLESS
from trio_sse_proxy.upstreams.wire import Wire

from ..drawn import Drawn, pieces
from . import replies

WORDS = replies.WORDS
SEEDS = replies.SEEDS


def run(data: bytes) -> None:
    drawn = Drawn(data)
    to_head, seed, said = drawn.number() % 2 == 1, drawn.number(), drawn.rest()
    chunks = pieces(said, seed)[:200]
    said = b"".join(chunks)
    wired = trio.run(_exchange, to_head, chunks)
    status, _, headers, body, error, _, reusable = replies._read([said] if said else [], to_head)
    if error is None:
        # What follows the response may come too late to be seen: then the pool sees it.
        assert wired[:4] == (status, headers, body, None)
        assert wired[4] or not reusable
    else:
        assert wired[3] is error
        assert body.startswith(wired[2]) or wired[2].startswith(body)


async def _exchange(to_head, chunks):
    ours, theirs = memory_stream_pair()
    wire = Wire(StreamLine(ours))
    body, reply, failure, reusable, sent = b"", None, None, False, True
    method = b"HEAD" if to_head else b"POST"
    framed = frame(RequestHead(method=method, target=b"/", headers=[(b"host", b"a")]), 0)

    async def serve() -> None:
        await theirs.receive_some()
        for chunk in chunks:
            await theirs.send_all(chunk)
            await trio.testing.wait_all_tasks_blocked()
        await theirs.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            reply = await wire.exchange(framed, b"", ENDLESS)
            while piece := await wire.receive():
                body += piece
        except UpstreamError as error:
            failure, sent = type(error), error.sent
        else:
            # The bytes behind the answer have to arrive before they can spoil the connection.
            reusable = wire.settle()
        nursery.cancel_scope.cancel()
    await wire.aclose()
    assert sent
    if reply is None:
        return 0, [], body, failure, False
    return reply.status, reply.headers, body, failure, reusable
