"""R7 for servers that do not notice a closed connection: one message to each call that was left, and
only then, after its connection was closed."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass

import pytest
import structlog
import trio
import trio.lowlevel
from patience import PATIENCE, until
from trio.testing import wait_all_tasks_blocked

from trio_sse_proxy.core.call import Abort, Call, Reason
from trio_sse_proxy.core.errors import Broken, Overloaded
from trio_sse_proxy.ports import UpstreamRequest
from trio_sse_proxy.upstreams import outgoing
from trio_sse_proxy.upstreams.aborts import KNOWN, CustomCall
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport

from .servers import CHUNKED, MemoryUpstream, Requests, answer, closed_port, serving

CHAT = b"/v1/chat/completions"
BODY = b'{"model": "m"}'
BEGIN = CHUNKED + b"3\r\nabc\r\n"
TAKEN = answer()


@dataclass
class Told:
    answer_id: str | None


def a_call(dialect="chat", answer_id=None, **more):
    given = {"id": "1-s", "stream_id": "s", "dialect": dialect, "model": "m"}
    return Call(**(given | more), told=Told(answer_id))


def a_request(body=BODY, *, target=CHAT, method="POST", headers=()):
    return UpstreamRequest(method=method, target=target, headers=headers, body=body)


class Server:
    """Begins an answer to what is asked of it, and takes what else comes for an abort message.

    `log` tells in which order things happened, `aborts` and `asked` hold (head, body).
    """

    def __init__(self, nursery, *, begin=BEGIN, reply=TAKEN, after=0.0):
        self.memory = MemoryUpstream(nursery, self.serve)
        self.begin, self.reply, self.after = begin, reply, after
        self.log, self.asked, self.aborts = [], [], []
        self.transport = TrioTransport(connect=self.memory.connect)

    async def serve(self, stream):
        requests = Requests(stream)
        while (request := await requests.whole()) is not None:
            head = request[0]
            if b"abort" not in head and b"cancel" not in head and b"stop-gen" not in head:
                self.asked.append(request)
                self.log.append("asked")
                await stream.send_all(self.begin)
                if not await requests.fill():
                    self.log.append("closed")
                    return
            self.log.append("aborted")
            self.aborts.append(request)
            await trio.sleep(self.after)
            await stream.send_all(self.reply)

    def upstream(self, abort, **more):
        calls = KNOWN[abort] if isinstance(abort, str) else abort.calls
        return HttpUpstream(
            name="test",
            base_url="http://upstream/base",
            transport=self.transport,
            connect_timeout=10,
            abort_calls=calls,
            **more,
        )


async def leave(upstream, call, request=None):
    """Ask, read a piece, and leave as the relay does for a client that left."""
    async with upstream.open(request or a_request(), call) as got:
        await got.receive()
        call.reason = Reason.CLIENT_LEFT
        got.release()
    await wait_all_tasks_blocked()


def line_of(head):
    return head.split(b"\r\n")[0]


def fields_of(head):
    return dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])


TABLE = {
    "sglang": ({}, b"/abort_request", {"rid": "1-s"}),
    "kobold": ({}, b"/api/extra/abort", {"genkey": "1-s"}),
    "exo": ({"answer_id": "a/1"}, b"/v1/cancel/a%2F1", None),
    "responses": (
        {"answer_id": "resp_1", "background": True, "dialect": "responses"},
        b"/v1/responses/resp_1/cancel",
        None,
    ),
    "textgen": ({}, b"/v1/internal/stop-generation", None),
}


@pytest.mark.parametrize("name", KNOWN)
async def test_each_known_server_is_told_in_its_own_way_after_its_connection_closed(name, nursery):
    known, target, body = TABLE[name]
    server, call = Server(nursery), a_call(**known)
    await leave(server.upstream(name), call)
    assert server.log == ["asked", "closed", "aborted"]
    head, sent = server.aborts[0]
    assert line_of(head) == b"POST %b HTTP/1.1" % target
    assert (json.loads(sent) if body else sent) == (body or b"")
    assert (fields_of(head).get(b"content-type") == b"application/json") is bool(body)
    assert (call.abort, call.reason) == (Abort.DONE, Reason.CLIENT_LEFT)


@pytest.mark.parametrize(("name", "member"), [("sglang", "rid"), ("kobold", "genkey")])
async def test_an_id_of_ours_goes_out_in_the_request_and_comes_back_in_the_message(
    name, member, nursery
):
    server = Server(nursery)
    await leave(
        server.upstream(name), a_call(), a_request(b'{"model":"m", "%b":"x"}' % member.encode())
    )
    (_, asked), (_, told) = server.asked[0], server.aborts[0]
    assert json.loads(asked) == {"model": "m", member: "1-s"}
    assert json.loads(told) == {member: "1-s"}


@pytest.mark.parametrize("name", ["exo", "responses", "textgen"])
async def test_a_body_is_left_alone_where_no_id_is_wanted(name, nursery):
    server = Server(nursery)
    await leave(server.upstream(name), a_call(), a_request(b'{ "model" : "m"}'))
    assert server.asked[0][1] == b'{ "model" : "m"}'


@pytest.mark.parametrize(
    ("dialect", "answer_id"), [("messages", "msg_c-1"), ("responses", "resp_c-1"), ("chat", "c-1")]
)
async def test_exo_is_told_the_command_without_what_a_dialect_puts_before_it(
    dialect, answer_id, nursery
):
    server = Server(nursery)
    await leave(server.upstream("exo"), a_call(dialect, answer_id))
    assert line_of(server.aborts[0][0]) == b"POST /v1/cancel/c-1 HTTP/1.1"


@pytest.mark.parametrize("answer_id", [None, ".", ".."])
@pytest.mark.parametrize(("name", "more"), [("exo", {}), ("responses", {"background": True})])
async def test_without_an_id_that_could_be_told_nothing_is_and_the_record_says_so(
    name, more, answer_id, nursery
):
    server, call = Server(nursery), a_call(answer_id=answer_id, **more)
    await leave(server.upstream(name), call)
    assert (server.log, call.abort) == (["asked", "closed"], Abort.UNNAMED)


async def test_only_background_responses_are_cancelled(nursery):
    server, call = Server(nursery), a_call("responses", "resp_1", background=False)
    await leave(server.upstream("responses"), call)
    assert (server.log, call.abort) == (["asked", "closed"], None)


@pytest.mark.parametrize("name", KNOWN)
async def test_after_a_normal_ending_nothing_is_told(name, nursery):
    server = Server(nursery, begin=answer(b"abc"))
    call = a_call(answer_id="a", background=True)
    async with server.upstream(name).open(a_request(), call) as got:
        assert await got.receive() == b"abc"
        assert await got.receive() == b""
        call.over = True
    await wait_all_tasks_blocked()
    assert (server.log, call.abort, call.reason) == (["asked"], None, None)


async def test_an_answer_that_is_complete_but_whose_end_did_not_come_is_told_nothing(nursery):
    server, call = Server(nursery), a_call()
    async with server.upstream("sglang").open(a_request(), call) as got:
        await got.receive()
        call.over = True  # the terminator was there
    await wait_all_tasks_blocked()
    assert (server.log, call.abort) == (["asked", "closed"], None)


async def test_nothing_is_told_where_nothing_was_begun():
    transport = TrioTransport()
    upstream = HttpUpstream(
        name="test",
        base_url=f"http://127.0.0.1:{closed_port()}",
        transport=transport,
        connect_timeout=1,
        abort_calls=KNOWN["textgen"],
    )
    call = a_call()
    with structlog.testing.capture_logs() as logs, pytest.raises(Exception, match="cannot connect"):
        async with upstream.open(a_request(), call):
            pytest.fail("nobody is there")
    assert (call.begun, call.abort, logs) == (False, None, [])


async def test_a_cancellation_while_the_connection_is_being_made_tells_nobody(autojump_clock):
    async def connect(origin, within):
        await trio.sleep_forever()

    upstream = HttpUpstream(
        name="test",
        base_url="http://upstream",
        transport=TrioTransport(connect=connect),
        connect_timeout=10,
        abort_calls=KNOWN["textgen"],
    )
    call = a_call()
    with trio.move_on_after(1):
        async with upstream.open(a_request(), call):
            pytest.fail("there is no connection")
    assert (trio.current_time(), call.begun, call.abort) == (1, False, None)


async def test_a_call_left_before_its_headers_is_told_under_a_shield(nursery, autojump_clock):
    server, call = Server(nursery, begin=b"HTTP/1.1 200", after=1.5), a_call()
    with trio.move_on_after(1) as scope:
        async with server.upstream("sglang").open(a_request(), call):
            pytest.fail("there are no headers")
    assert scope.cancelled_caught
    assert trio.current_time() == 2.5
    assert server.log == ["asked", "closed", "aborted"]
    assert (call.abort, call.reason) == (Abort.DONE, Reason.SHUTDOWN)


async def test_a_message_that_is_not_answered_takes_abort_timeout_and_no_longer(
    nursery, autojump_clock
):
    server, call = Server(nursery, after=60), a_call()
    await leave(server.upstream("sglang", abort_timeout=2.0), call)
    assert (trio.current_time(), call.abort) == (2.0, Abort.TIMED_OUT)
    assert server.log == ["asked", "closed", "aborted"]
    assert server.transport.pool.busy_connections == 0


async def test_what_broke_by_itself_is_told_too_for_its_work_may_go_on(nursery):
    server, call = Server(nursery, begin=CHUNKED + b"zz\r\n"), a_call()
    with pytest.raises(Exception, match="chunk"):
        async with server.upstream("sglang").open(a_request(), call) as got:
            await got.receive()
    assert (server.log.count("aborted"), call.abort, call.reason) == (1, Abort.DONE, Reason.BROKEN)


async def test_a_reason_that_stands_is_kept(nursery):
    server, call = Server(nursery), a_call()
    async with server.upstream("sglang").open(a_request(), call) as got:
        call.reason = Reason.HEDGE_LOST
        got.release()
        with pytest.raises(Broken):
            await got.receive()
    assert (call.abort, call.reason) == (Abort.DONE, Reason.HEDGE_LOST)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (b"200 OK", Abort.DONE),
        (b"204 No", Abort.DONE),
        (b"404 No", Abort.UNKNOWN),
        (b"409 No", Abort.UNKNOWN),
        (b"410 No", Abort.UNKNOWN),
        (b"307 No", Abort.FAILED),
        (b"401 No", Abort.FAILED),
        (b"500 No", Abort.FAILED),
    ],
)
async def test_what_its_answer_means(status, meaning, nursery):
    server, call = Server(nursery, reply=answer(b"", status=status)), a_call()
    await leave(server.upstream("sglang"), call)
    assert call.abort is meaning


async def test_a_message_that_finds_nobody_has_failed_and_is_logged(nursery):
    server, call = Server(nursery), a_call()
    upstream = server.upstream(CustomCall(method="POST", url=f"http://127.0.0.1:{closed_port()}/x"))
    connect = server.memory.connect

    async def refuse(origin, within):
        if origin.host == "127.0.0.1":
            raise OSError("nobody is there")
        return await connect(origin, within)

    upstream.transport = TrioTransport(connect=refuse)
    with structlog.testing.capture_logs() as logs:
        await leave(upstream, call)
    assert call.abort is Abort.FAILED
    assert [entry["event"] for entry in logs] == ["abort failed"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_to_leave_what_is_no_work_stops_nobody_elses(method, nursery, autojump_clock):
    server, call = Server(nursery), a_call(None, model=None)
    request = a_request(b"", target=b"/v1/models", method=method)
    with trio.move_on_after(1):
        async with server.upstream("textgen").open(request, call):
            call.reason = Reason.CLIENT_LEFT
    await wait_all_tasks_blocked()
    assert ("aborted" in server.log, call.abort) == (False, None)


@pytest.mark.parametrize(
    ("dialect", "body", "headers"),
    [
        ("chat", b"no JSON", ()),
        ("chat", b"[]", ()),
        ("chat", b"{}", ((b"content-encoding", b"unheard-of"),)),
        (None, b"{}", ()),  # its body is not ours to look into
    ],
)
async def test_a_server_that_could_not_be_given_the_id_is_not_told_it(
    dialect, body, headers, nursery
):
    server, call = Server(nursery), a_call(dialect)
    await leave(server.upstream("sglang"), call, a_request(body, headers=headers))
    assert server.asked[0][1] == body
    assert (server.log, call.abort) == (["asked", "closed"], Abort.UNNAMED)


# Keys and header fields.

KEYS = ((b"authorization", b"Bearer client"), (b"x-tenant", b"t"))


async def test_the_message_carries_the_upstreams_key_and_added_fields(nursery):
    server = Server(nursery)
    upstream = server.upstream("sglang", api_key="k", add_headers=((b"x-team", b"a"),))
    await leave(upstream, a_call("messages"), a_request(headers=KEYS, target=b"/v1/messages"))
    fields = fields_of(server.aborts[0][0])
    assert (fields[b"authorization"], fields[b"x-team"]) == (b"bearer k", b"a")
    assert b"x-tenant" not in fields


async def test_without_a_key_of_the_upstreams_the_clients_own_goes_along(nursery):
    server = Server(nursery)
    await leave(server.upstream("sglang"), a_call(), a_request(headers=KEYS))
    assert fields_of(server.aborts[0][0])[b"authorization"] == b"bearer client"


async def test_a_key_that_shall_not_go_on_does_not_go_along_either(nursery):
    server = Server(nursery)
    upstream = server.upstream("sglang", drop_headers=frozenset({b"authorization"}))
    await leave(upstream, a_call(), a_request(headers=KEYS))
    assert b"authorization" not in fields_of(server.aborts[0][0])


@pytest.mark.parametrize(
    "url", ["http://other/abort", "https://upstream/abort", "http://upstream:81/abort"]
)
async def test_no_key_goes_to_another_server(url, nursery):
    server = Server(nursery)
    own = CustomCall(method="POST", url=url, headers=(("x-mine", "{stream_id}"),))
    upstream = server.upstream(own, api_key="k", add_headers=((b"x-team", b"a"),))
    upstream.transport = TrioTransport(connect=server.memory.connect)
    await leave(upstream, a_call(), a_request(headers=KEYS))
    fields = fields_of(server.aborts[0][0])
    assert set(fields) == {b"x-mine", b"host", b"content-length"}
    assert fields[b"x-mine"] == b"s"


async def test_what_the_call_itself_brings_comes_before_key_and_added_fields(nursery):
    server = Server(nursery)
    own = CustomCall(
        method="POST",
        url="http://upstream/abort",
        headers=(("Authorization", "Basic x"), ("x-team", "b")),
    )
    upstream = server.upstream(own, api_key="k", add_headers=((b"x-team", b"a"), (b"x-more", b"c")))
    await leave(upstream, a_call())
    lines = server.aborts[0][0].lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"authorization")] == [
        b"authorization: basic x"
    ]
    assert [line for line in lines if line.startswith(b"x-")] == [b"x-team: b", b"x-more: c"]


# Calls of one's own.

ODD = 'a/b?c#d"\\ é{id}\r\nx: y'


async def told(nursery, own, **call):
    server, call = Server(nursery), a_call(**call)
    with structlog.testing.capture_logs():
        await leave(server.upstream(own), call)
    return call.abort, *(server.aborts[0] if server.aborts else (None, None))


async def test_what_is_filled_into_a_url_stays_where_it_is_put(nursery):
    url = "http://upstream/x/{id}/cancel?m={model}&s={stream_id}"
    own = CustomCall(method="DELETE", url=url)
    abort, head, _ = await told(nursery, own, answer_id=ODD, model="a&b=c {stream_id}")
    encoded = b"a%2Fb%3Fc%23d%22%5C%20%C3%A9%7Bid%7D%0D%0Ax%3A%20y"
    target = b"/x/%b/cancel?m=a%%26b%%3Dc%%20%%7Bstream_id%%7D&s=s" % encoded
    assert line_of(head) == b"DELETE %b HTTP/1.1" % target
    assert abort is Abort.DONE


@pytest.mark.parametrize("model", [".", "..", "", None])
async def test_a_model_of_dots_cannot_lead_the_call_elsewhere(model, nursery):
    own = CustomCall(method="POST", url="http://upstream/models/{model}/cancel")
    abort, head, _ = await told(nursery, own, model=model)
    assert (abort, head) == (Abort.UNNAMED, None)


async def test_what_is_filled_into_json_stays_inside_its_text(nursery):
    own = CustomCall(
        method="POST",
        url="http://upstream/abort",
        body='{"{model}": ["{id}", {"of": "<{stream_id}>"}], "n": 1, "t": true}',
    )
    abort, head, body = await told(nursery, own, answer_id=ODD, model='"m')
    assert json.loads(body) == {'"m': [ODD, {"of": "<s>"}], "n": 1, "t": True}
    assert fields_of(head)[b"content-type"] == b"application/json"
    assert abort is Abort.DONE


async def test_a_text_is_sent_as_it_is_with_its_own_content_type(nursery):
    own = CustomCall(
        method="POST",
        url="http://upstream/abort",
        body="stop {id}",
        headers=(("content-type", "text/plain"),),
    )
    _, head, body = await told(nursery, own, answer_id="é\ud800")
    assert body == "stop é?".encode()
    assert fields_of(head)[b"content-type"] == b"text/plain"


@pytest.mark.parametrize("model", ["m\r\nx-evil: 1", "m\nx", "m\x00"])
async def test_what_no_header_can_hold_is_not_sent(model, nursery):
    own = CustomCall(method="POST", url="http://upstream/abort", headers=(("x-m", "{model}"),))
    assert await told(nursery, own, model=model) == (Abort.FAILED, None, None)


async def test_what_a_header_cannot_spell_is_replaced(nursery):
    own = CustomCall(method="POST", url="http://upstream/abort", headers=(("x-m", "<{model}>"),))
    _, head, _ = await told(nursery, own, model="é漢\ud800")
    assert b"x-m: <\xe9??>" in head


@pytest.mark.parametrize("place", ["url", "body", "headers"])
async def test_a_call_that_wants_the_id_is_not_made_without_one(place, nursery):
    value = {"url": "http://upstream/cancel", "body": "", "headers": ()}
    value[place] = {"url": "http://upstream/{id}", "body": "{id}", "headers": (("x", "{id}"),)}[
        place
    ]
    own = CustomCall(method="POST", **value)
    assert await told(nursery, own) == (Abort.UNNAMED, None, None)


async def test_a_lone_surrogate_in_a_url_does_no_harm(nursery):
    own = CustomCall(method="POST", url="http://upstream/cancel/{model}")
    abort, head, _ = await told(nursery, own, model="a\ud800")
    assert (abort, line_of(head)) == (Abort.DONE, b"POST /cancel/a%3F HTTP/1.1")


@pytest.mark.slow
@pytest.mark.steady
async def test_over_real_sockets_the_connection_is_closed_before_the_message_comes():
    log = []

    async def script(stream):
        requests = Requests(stream)
        head, _ = await requests.whole()
        log.append(line_of(head))
        if b"abort" in head:
            await stream.send_all(answer())
            return
        await stream.send_all(CHUNKED + b"3\r\nabc\r\n")
        assert not await requests.fill()
        log.append("closed")

    async with serving(script) as port:
        transport = TrioTransport()
        upstream = HttpUpstream(
            name="test",
            base_url=f"http://127.0.0.1:{port}",
            transport=transport,
            connect_timeout=PATIENCE,
            abort_calls=KNOWN["sglang"],
        )
        call = a_call()
        await leave(upstream, call)
        await until(lambda: call.abort)
        await upstream.aclose()
    assert log == [b"POST %b HTTP/1.1" % CHAT, "closed", b"POST /abort_request HTTP/1.1"]
    assert call.abort is Abort.DONE


# Bodies that are changed on their way.


def pieces_of(length):
    return b'{"model": "m", "messages": "%b"}' % (b"x" * length)


@pytest.mark.parametrize("length", [1, outgoing.AT_ONCE, 3 * 2**20])
@pytest.mark.parametrize("coding", ["", "identity", "gzip"])
async def test_a_body_gets_its_members_and_a_length_that_is_right(length, coding, nursery):
    server, body = Server(nursery), pieces_of(length)
    headers = ((b"content-encoding", coding.encode()),) if coding else ()
    headers += ((b"content-digest", b"sha-256=:x:"), (b"x-other", b"stays"))
    sent = gzip.compress(body, 1) if coding == "gzip" else body
    upstream = server.upstream("sglang", models={"m": "theirs"})
    await leave(upstream, a_call(), a_request(sent, headers=headers))
    head, got = server.asked[0]
    assert got == body.replace(b'"m"', b'"theirs"', 1)[:-1] + b',"rid":"1-s"}'
    fields = fields_of(head)
    assert fields[b"content-length"] == b"%d" % len(got)
    assert {b"content-encoding", b"content-digest"}.isdisjoint(fields)
    assert fields[b"x-other"] == b"stays"


async def test_a_body_for_which_there_is_no_room_decoded_is_not_sent(nursery):
    server, asked, body = Server(nursery), [], pieces_of(1000)
    request = a_request(gzip.compress(body), headers=((b"content-encoding", b"gzip"),))
    call = a_call(room=asked.append)  # which says nothing, so no
    with pytest.raises(Overloaded):
        await leave(server.upstream("sglang", models={"m": "theirs"}), call, request)
    assert asked == [len(body)]
    assert (server.asked, call.begun, call.abort) == ([], False, None)


async def test_a_large_body_is_changed_beside_the_others(nursery, monkeypatch):
    went_on, change = threading.Event(), outgoing._changed

    def change_beside(decoded, members):
        assert went_on.wait(PATIENCE), "nobody else had a turn"
        return change(decoded, members)

    async def others():
        await wait_all_tasks_blocked()
        went_on.set()

    monkeypatch.setattr(outgoing, "_changed", change_beside)
    nursery.start_soon(others)
    big = pieces_of(4 * 2**20)
    changed = await outgoing.change(a_request(big), big, {"model": "x"}, a_call())
    assert changed.body.startswith(b'{"model": "x"')


async def test_a_small_body_is_changed_at_once(nursery):
    turns = []

    async def others():
        turns.append(None)

    nursery.start_soon(others)
    small = pieces_of(9)
    changed = await outgoing.change(a_request(small), small, {"model": "x"}, a_call())
    assert changed.body.startswith(b'{"model": "x"')
    assert not turns


async def test_who_leaves_while_a_large_body_is_changed_is_gone_at_once(nursery):
    server, call = Server(nursery), a_call()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with server.upstream("sglang").open(a_request(pieces_of(2**22)), call):
            pytest.fail("it was cancelled")
    assert scope.cancelled_caught
    assert (server.log, call.begun, call.abort) == ([], False, None)
