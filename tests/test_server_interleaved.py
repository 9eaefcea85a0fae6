"""However requests are cut, pipelined and answered, each gets its own answer, whole and in order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import h11
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from serving import body, start

from trio_sse_proxy.calls import HELD
from trio_sse_proxy.connection import Connection
from trio_sse_proxy.http1 import PIPELINED
from trio_sse_proxy.server import Listening, Server
from trio_sse_proxy.wire import CONNECTION, READ, Written

EXTRA = {"none": b"", "close": b"connection: close\r\n", "folded": b"x: a\r\n b\r\n"}


@dataclass(frozen=True)
class Call:
    """One request, and what the application does with it; times in hundredths of a second."""

    method: bytes = b"POST"
    size: int = 0
    chunked: bool = False
    extra: str = "none"
    reads_first: bool = True
    begin: str = "message"
    waits: tuple[int, int] = (0, 0)
    pieces: tuple[int, ...] = (1,)
    status: int = 200
    counted: bool = False
    closes: bool = False
    returns_late: int = 0

    def request(self, number):
        head = b"%b /%d HTTP/1.1\r\nhost: x\r\n%b" % (self.method, number, EXTRA[self.extra])
        if self.method in (b"GET", b"HEAD"):
            return head + b"\r\n"
        sent = self.sent(number)
        if self.chunked:
            body = b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b""
            return head + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
        return head + b"content-length: %d\r\n\r\n" % len(sent) + sent

    def sent(self, number):
        return b"" if self.method in (b"GET", b"HEAD") else b"%d" % (number % 10) * self.size

    @property
    def is_last(self):
        return self.closes or self.extra == "close"

    def answer(self, number):
        """Status and body."""
        if self.method == b"HEAD" or self.status == 204:
            return self.status, b""
        return self.status, b"%d %d:" % (number, self.size_read) + self.words(number)

    def words(self, number):
        return b"".join(b"%d" % (number % 10) * size for size in self.pieces)

    @property
    def size_read(self):
        return 0 if self.method in (b"GET", b"HEAD") else self.size


class ClientLeft(Exception):
    """What the toy application raises in place of reading on."""


class Line:
    """A wire whose client sends by a timetable; a write waits, or is taken in part, as `moods` say."""

    tls = False

    def __init__(self, moods):
        self.written = b""
        self.closed = self.left = False
        self._moods, self._turn = moods, 0
        self._came, self._news = b"", trio.Event()
        self._lock = trio.Lock()

    def come(self, data):
        self._came += data
        self._news.set()

    def leave(self):
        self.left = True
        self._news.set()

    def addresses(self):
        return ("127.0.0.1", 1), ("127.0.0.1", 2)

    def receive_now(self):
        data, self._came = self._came[:READ], self._came[READ:]
        return data

    async def receive(self):
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (self._came or self.closed or self.left):
            self._news = trio.Event()
            await self._news.wait()
        return b"" if self.closed else self.receive_now()

    def _mood(self):
        self._turn += 1
        return self._moods[self._turn % len(self._moods)]

    async def send(self, data):
        if self.closed:
            return False
        with trio.CancelScope(shield=True):
            if not self._lock.locked() and not self._mood():
                self.written += data
            else:
                async with self._lock:
                    await trio.sleep(0.01)
                    self.written += data
        return True

    def send_now(self, data):
        if self._lock.locked():
            return 0
        taken = len(data) // (1 + self._mood())
        self.written += data[:taken]
        return taken

    def is_gone(self):
        return self.closed

    def finish(self):
        pass

    def close(self):
        self.closed = True
        self._news.set()


def application(calls):
    async def read(receive):
        got, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            got, more = got + message["body"], message["more_body"]
        return got

    async def app(scope, receive, send):
        number = int(scope["path"][1:])
        call, connection = calls[number], scope["state"][CONNECTION]
        got = await read(receive) if call.reads_first else b""
        await trio.sleep(call.waits[0] / 100)
        headers = [(b"connection", b"close")] if call.closes else []
        opening = b"%d %d:" % (number, call.size_read)
        if call.counted and call.status != 204:
            length = len(opening) + len(call.words(number))
            headers.append((b"content-length", b"%d" % length))
        at_once = call.begin != "message" and connection.begin_now(
            call.status, tuple(headers), followed=call.begin == "followed"
        )
        if not at_once:
            await send(start(call.status, headers))
        if call.begin != "followed":
            await trio.sleep(call.waits[1] / 100)
        if call.status != 204:
            await send(body(opening, more=True))
        if not call.reads_first:
            got = await read(receive)
        assert got == call.sent(number)
        for size in call.pieces if call.status != 204 else ():
            piece = b"%d" % (number % 10) * size
            written = connection.write_now(piece) if piece else Written.WHOLLY
            if written is not Written.WHOLLY:
                await send(body(piece if written is Written.NOTHING else b"", more=True))
        await send(body())
        await trio.sleep(call.returns_late / 100)

    return app


def answers(calls, written):
    """What a client makes of it."""
    client, found = h11.Connection(h11.CLIENT), []
    client.receive_data(written)
    for call in calls:
        client.send(h11.Request(method=call.method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        status, got = None, b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert isinstance(event, (h11.Response, h11.Data)), (event, found)
            if isinstance(event, h11.Response):
                status = event.status_code
            else:
                got += bytes(event.data)
        found.append((status, got))
        if client.their_state is h11.DONE:
            client.start_next_cycle()
    return found, client.trailing_data[0]


async def play(calls, cuts, gaps, moods, stays=math.inf):
    """What the server writes to a client that sends in these pieces, and leaves after `stays`."""
    server, line = Server(application(calls), Listening(keep_alive=75.0)), Line(moods)
    async with trio.open_nursery() as nursery:
        connection = Connection(server, line, nursery)
        server.connections.add(connection)
        server.crowd.enter(connection)
        connection.start(connection.begin)
        nursery.start_soon(leave_after, line, stays / 100)
        sent = b"".join(call.request(number) for number, call in enumerate(calls))
        for n, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(sent)], strict=True)):
            line.come(sent[begin:end])
            await trio.sleep(gaps[n % len(gaps)] / 100)
    crowd = server.crowd
    assert (line.closed, crowd._here, crowd._resting) == (True, 0, {})
    assert not server.connections
    return line.written


async def leave_after(line, seconds):
    with trio.move_on_after(200):  # by then it has been closed
        await trio.sleep(seconds)
        line.leave()


sizes = st.sampled_from([0, 1, 5, 300, HELD - 1, HELD + 1, 3 * PIPELINED])
one_call = st.builds(
    Call,
    method=st.sampled_from([b"POST", b"POST", b"GET", b"PUT", b"HEAD"]),
    size=sizes,
    chunked=st.booleans(),
    extra=st.sampled_from(["none", "none", "none", "folded", "close"]),
    reads_first=st.booleans(),
    begin=st.sampled_from(["message", "alone", "followed"]),
    waits=st.tuples(*2 * [st.integers(0, 3)]),
    pieces=st.lists(st.sampled_from([0, 1, 7, 1000]), max_size=3).map(tuple),
    status=st.sampled_from([200, 200, 404, 204]),
    counted=st.booleans(),
    closes=st.sampled_from([False, False, False, True]),
    returns_late=st.sampled_from([0, 0, 2]),
)


some_calls = st.lists(one_call, min_size=1, max_size=5)
cuts = st.lists(st.floats(0, 1), max_size=6)
gaps = st.lists(st.integers(0, 3), min_size=1, max_size=4)
moods = st.lists(st.integers(0, 2), min_size=1, max_size=4)


def run(calls, cuts, *how):
    total = sum(len(call.request(number)) for number, call in enumerate(calls))
    points = sorted({round(cut * total) for cut in cuts} - {0, total})
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(play, calls, points, *how, clock=clock)


@settings(max_examples=150)
@given(some_calls, cuts, gaps, moods)
@example([Call(), Call(size=3 * PIPELINED), Call(method=b"GET")], [], [0], [0])
@example([Call(waits=(3, 3), begin="alone")] * 3, [0.4, 0.5], [1], [1, 0])
def test_each_request_gets_its_own_answer_whole_and_in_order(calls, cuts, gaps, moods):
    written = run(calls, cuts, gaps, moods)
    served = next((n + 1 for n, call in enumerate(calls) if call.is_last), len(calls))
    found, rest = answers(calls[:served], written)
    assert found == [call.answer(number) for number, call in enumerate(calls[:served])]
    assert rest == b""


@settings(max_examples=100)
@given(some_calls, cuts, gaps, moods, st.integers(0, 20))
@example([Call()], [], [0], [1], 1)
def test_whenever_the_client_leaves_nothing_of_it_stays(calls, cuts, gaps, moods, stays):
    """That the tasks end, and that the connection has left the crowd, is seen to in `play`."""
    whole = run(calls, cuts, gaps, moods)
    assert whole.startswith(run(calls, cuts, gaps, moods, stays))
