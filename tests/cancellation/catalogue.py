"""What can be going on when a cancellation comes: one function for each, made from a `Network`."""

from __future__ import annotations

import json
import ssl
from functools import cache
from itertools import pairwise

import trio
import trustme
from relay.frames import (
    BLOCK_DELTA,
    BLOCK_START,
    BLOCK_STOP,
    CHAT_ERROR,
    COMPLETED,
    CREATED,
    DELTA,
    DONE,
    FAILED,
    FINISH,
    HELLO,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGE_STOP,
    RESPONSES_ERROR,
    ROLE,
    text,
    wish,
)
from relay.scripted_client import Client
from relay.world import HeardBreaker
from upstreams.servers import answer

from trio_sse_proxy.core.breaker import BreakerRules
from trio_sse_proxy.core.routing import OnDisconnect, Rules
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.gate import Gate
from trio_sse_proxy.upstreams.tls import make_ssl_context
from trio_sse_proxy.upstreams.translated import Translated
from trio_sse_proxy.upstreams.worker import WorkerUpstream

from .callers import Answered, Caller, Http2, request
from .network import Close, Hang, Late
from .stage import Http, Listened, Play, Quick, Stage

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD = HEAD.replace(b"text/event-stream", b"application/json")
LAST = b"0\r\n\r\n"
BUSY = answer(b'{"error":{"message":"busy"}}', status=b"503 Busy")


def pieces(*steps):
    """Bytes as chunks of a chunked body; other steps as they are."""
    return [b"%x\r\n%b\r\n" % (len(s), s) if isinstance(s, bytes) else s for s in steps]


def stream(*steps):
    """An event stream with its head and its end."""
    return [HEAD, *pieces(*steps), LAST]


def cut(*steps):
    """One that breaks off."""
    return [HEAD, *pieces(*steps), Close]


CHAT = stream(ROLE, 0.5, HELLO, 0.5, FINISH, DONE)


def one(network, *scripts, client=None, dialect="chat", limits=None, **how):
    """A request to one upstream that answers with these scripts."""
    network.hosts["a.test"] = list(scripts)
    http = Http("a")
    stage = Stage(http, jitter=1.0, **(limits or {}))
    return Play(stage=stage, client=client or Client(wish()), dialect=dialect, http=(http,), **how)


def two(network, first, second, *, rules=None, limits=None, **how):
    """A request to two upstreams, each with one place and a breaker."""
    network.hosts |= {"a.test": list(first), "b.test": list(second)}
    https = (Http("a"), Http("b"))
    endpoints = [guarded(http) for http in https]
    stage = Stage(*endpoints, jitter=1.0, rules=rules, **(limits or {}))
    return Play(stage=stage, client=Client(wish()), http=https, **how)


def guarded(upstream, **how):
    return Endpoint(
        upstream=upstream, gate=Gate(1), breaker=HeardBreaker(BreakerRules(failures=2)), **how
    )


# Streams that come to their end.


def chat_stream(network):
    return one(network, CHAT)


def responses_stream(network):
    return one(network, stream(CREATED, 0.5, DELTA, 0.5, COMPLETED), dialect="responses")


def messages_stream(network):
    opening, body = (MESSAGE_START, BLOCK_START), (BLOCK_DELTA, 0.5, BLOCK_STOP, MESSAGE_DELTA)
    return one(network, stream(*opening, 0.5, *body, MESSAGE_STOP), dialect="messages")


def steady_stream(network):
    """The hot path: no task of the request is woken for a frame."""
    words = [step for n in range(6) for step in (0.1, text(f"word {n}"))]
    return one(network, stream(ROLE, 0.1, HELLO, *words, FINISH, DONE), client=Quick(wish()))


def silent_start(network):
    return one(network, [12.0, *CHAT], client=Client(wish()))


def silence_after_the_prelude(network):
    limits = {"prelude_hold": 3.0}
    return one(network, stream(ROLE, 7.0, HELLO, 6.0, FINISH, DONE), limits=limits)


def agent_in_silence(network):
    client = Client(wish(), headers=((b"user-agent", b"codex_cli_rs/1.0"),))
    limits = {"event_heartbeat": 4.0}
    script = stream(CREATED, DELTA, 9.0, COMPLETED)
    return one(network, script, client=client, dialect="responses", limits=limits)


def late_end_of_body(network):
    """The terminator has come; the last chunk does after it, in time for the connection to be kept."""
    return one(network, [*stream(ROLE, HELLO, FINISH, DONE)[:-1], 0.05, LAST])


def too_late_end_of_body(network):
    return one(network, [*stream(ROLE, HELLO, FINISH, DONE)[:-1], 0.3, LAST])


def pooled_connection(network):
    """The connection of an earlier request is used again, and turns out to be dead."""
    network.hosts["a.test"] = [stream(*CHAT_AT_ONCE), [Close], CHAT]
    http = Http("a")
    other = Client(wish())
    return Play(stage=Stage(http, jitter=1.0), client=Client(wish()), http=(http,), others=(other,))


CHAT_AT_ONCE = (ROLE, HELLO, FINISH, DONE)


# Answers that are no streams, and calls that are none of the three.


def json_answer(network):
    client = Client(wish(stream=False))
    script = [0.5, JSON_HEAD, *pieces(b'{"id":', 0.5, b"1}"), LAST]
    return one(network, script, client=client, may_be_cut=True)


def json_cut_and_asked_again(network):
    client = Client(wish(stream=False))
    scripts = ([JSON_HEAD, *pieces(b'{"id":', 0.5), Close], [JSON_HEAD, *pieces(b"{}"), LAST])
    return one(network, *scripts, client=client, may_be_cut=True)


def pass_through(network):
    script = [0.5, JSON_HEAD, *pieces(b"some", 0.5, b"thing"), LAST]
    how = {"path": "/v1/files", "method": "GET", "may_be_cut": True}
    return one(network, script, client=Client(b""), **how)


def pass_through_upload(network):
    client = Client((0.2, b"x" * 70_000), (0.5, b"rest"), headers=((b"content-length", b"70004"),))
    how = {"path": "/v1/files", "may_be_cut": True}
    return one(network, [JSON_HEAD, *pieces(b"ok"), LAST], client=client, **how)


# Before there is an answer.


def slow_upload(network):
    body = wish()
    return one(network, CHAT, client=Client((0.5, body[:9]), (0.5, body[9:])))


def refused_body(network):
    client = Client(b"x" * 40, (0.5, b"y"))
    return one(network, client=client, limits={"max_body_bytes": 10}, may_be_cut=True)


def waiting_in_the_queue(network):
    network.hosts["a.test"] = [stream(ROLE, HELLO, 2.0, FINISH, DONE), CHAT]
    http = Http("a")
    other = Client(wish())
    stage = Stage(guarded(http), jitter=1.0)
    clients = {"client": Client(wish()), "others": (other,), "overlap": True}
    return Play(stage=stage, http=(http,), **clients)


def waiting_for_a_connection(network):
    network.hosts["a.test"] = [stream(ROLE, HELLO, 2.0, FINISH, DONE), CHAT]
    http = Http("a", max_connections=2)
    others = (Client(wish()), Client(wish()))
    network.hosts["a.test"].insert(0, network.hosts["a.test"][0])
    stage = Stage(http, jitter=1.0)
    return Play(stage=stage, client=Client(wish()), http=(http,), others=others, overlap=True)


def connecting(network):
    network.delays["a.test"] = [1.0, 1.0]
    network.refusals["a.test"] = 1
    return one(network, CHAT)


@cache
def _tls():
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("a.test").configure_cert(server)
    client = make_ssl_context()
    authority.configure_trust(client)
    return server, client


def over_tls(network):
    network.tls, trusting = _tls()
    network.hosts["a.test"] = [CHAT]
    http = Http("a", scheme="https", ssl_context=trusting)
    return Play(stage=Stage(http), client=Client(wish()), http=(http,))


def waiting_for_headers(network):
    return one(network, [3.0, *CHAT])


def upstream_that_reads_late(network):
    """The request is larger than what the kernel holds for one that does not read."""
    client = Client(wish(padding="x" * 900_000))
    return one(network, [Late(1.0), *CHAT], client=client)


# More than one attempt.


def back_off(network):
    return one(network, [BUSY], [BUSY], CHAT)


def replay(network):
    return one(network, cut(ROLE, 0.5), stream(ROLE, CHAT_ERROR), CHAT)


def retries_used_up(network):
    return one(network, cut(ROLE, 0.2), cut(ROLE, 0.2), limits={"max_retries": 1})


def fallback(network):
    return two(network, [stream(ROLE, 0.5, CHAT_ERROR), CHAT], [cut(ROLE, 0.5)])


def hedge_that_wins(network):
    second = [stream(ROLE, 1.0, HELLO, 0.5, FINISH, DONE)]
    return two(network, [[HEAD, Hang]], second, rules=Rules(hedge_after=1.0))


def hedge_that_loses(network):
    first = [stream(ROLE, 2.0, HELLO, 0.5, FINISH, DONE)]
    return two(network, first, [[HEAD, Hang]], rules=Rules(hedge_after=1.0))


def hedge_on_one_tick(network):
    first = [stream(ROLE, 2.0, HELLO, FINISH, DONE)]
    second = [stream(ROLE, 1.0, HELLO, FINISH, DONE)]
    return two(network, first, second, rules=Rules(hedge_after=1.0))


def given_up_for_another(network):
    """The first is told of its end while the second is asked."""
    network.abort_takes = 0.3
    return two(network, [[HEAD, Hang]], [CHAT], limits={"first_token_timeout": 1.0})


# Failures that the client is told of, or is the cause of.


def truncated(network):
    return one(network, cut(ROLE, HELLO, 0.5))


def error_frame(network):
    return one(network, stream(ROLE, HELLO, 0.5, CHAT_ERROR))


def late_failed_frame(network):
    script = stream(CREATED, DELTA, 0.5, RESPONSES_ERROR, 0.4, FAILED)
    return one(network, script, dialect="responses")


def no_failed_frame(network):
    script = [HEAD, *pieces(CREATED, DELTA, RESPONSES_ERROR), Hang]
    return one(network, script, dialect="responses")


def idle_upstream(network):
    limits = {"idle_timeout": 3.0, "heartbeat": 2.0}
    return one(network, [HEAD, *pieces(ROLE, HELLO), Hang], limits=limits)


def stuck_client(network):
    client = Quick(wish(), stuck_from=0.8, shielded=True)
    words = [step for n in range(8) for step in (0.5, text(f"word {n}"))]
    limits = {"write_stall_timeout": 2.0}
    return one(network, stream(ROLE, HELLO, *words, FINISH, DONE), client=client, limits=limits)


def slow_client(network):
    return one(network, CHAT, client=Client(wish(), slow=0.3))


def leaving_client(network):
    network.abort_takes = 0.3
    return one(network, [HEAD, *pieces(ROLE, HELLO), Hang], orders=((1.0, "leave"),))


def reading_on_for_the_record(network):
    """A client that leaves does not end it."""
    rules = Rules(on_disconnect=OnDisconnect.FINISH, finish_timeout=3.0)
    play = one(network, stream(ROLE, 0.5, HELLO, 1.0, FINISH, DONE), limits={"rules": rules})
    play.reads_on = True
    return play


# Other kinds of upstreams.


def worker(network):
    return _worker(answers_after=0.5)


def deaf_worker(network):
    """It goes on working after it was told to stop."""
    return _worker(answers_after=0.5, deaf=True)


def _worker(answers_after, deaf=False):
    calls, told = [], []

    async def work(job):
        await trio.sleep(answers_after)
        await job.send("hello")
        with trio.CancelScope(shield=deaf, deadline=trio.current_time() + answers_after):
            await trio.sleep_forever()
        await job.send(" again")

    async def abort(message):
        told.append(message.call_id)
        await trio.sleep(0.2)

    upstream = _Remembering(work, abort=abort, abort_timeout=1.0)
    upstream.made = calls
    return Play(stage=Stage(upstream), client=Client(wish()), calls=calls, told=told)


class _Remembering(WorkerUpstream):
    def open(self, request, call):
        self.made.append(call)
        return super().open(request, call)


def translated(network):
    return _translated(network, CHAT)


def translated_and_cut(network):
    return _translated(network, cut(ROLE, 0.5), cut(ROLE, HELLO, 0.5))


def _translated(network, *scripts):
    network.hosts["a.test"] = list(scripts)
    http = Http("a")
    said = {"model": "m", "stream": True, "input": [{"role": "user", "content": "hi"}]}
    return Play(
        stage=Stage(Endpoint(upstream=Translated(http), dialects=frozenset({"chat"})), jitter=1.0),
        client=Client(json.dumps(said).encode()),
        dialect="responses",
        http=(http,),
    )


# The proxy is going away.


def drain(network):
    script = stream(ROLE, HELLO, 2.0, FINISH, DONE)
    return one(network, script, orders=((1.0, "drain"),))


def farewell(network):
    """A slow client hears of the shutdown while the upstream is told of it."""
    network.abort_takes = 0.3
    client = Client(wish(), slow=0.4)
    script = [HEAD, *pieces(ROLE, HELLO), Hang]
    return one(network, script, client=client, orders=((1.0, "drain"), (2.0, "end")))


def farewell_to_a_stuck_client(network):
    client = Client(wish(), stuck_from=1.0, shielded=True)
    words = [step for n in range(8) for step in (0.5, text(f"word {n}"))]
    orders = ((1.5, "drain"), (2.0, "end"))
    return one(network, [HEAD, *pieces(ROLE, HELLO, *words), Hang], client=client, orders=orders)


# Through the server's own connections: its reader and its calls are cancelled, too.


def listened(network, caller, *scripts, limits=None):
    """Requests of one connection to one upstream that answers with these scripts."""
    network.hosts["a.test"] = list(scripts)
    http = Http("a")
    stage = Stage(http, jitter=1.0, **(limits or {}))
    return Listened(stage=stage, client=caller, http=(http,), outside=network.nursery)


def connection(network):
    return listened(network, Caller((request(wish()),)), CHAT)


def connection_in_pieces(network):
    whole = request(wish())
    body = whole.index(b"\r\n\r\n") + 4
    cuts = (0, 20, body, body + 9, len(whole))
    pieces = [whole[begin:end] for begin, end in pairwise(cuts)]
    return listened(network, Caller((0.2, *[s for p in pieces for s in (p, 0.2)])), CHAT)


def connection_with_a_large_upload(network):
    """More than what waits for the application before its reader does."""
    return listened(network, Caller((request(wish(padding="x" * 300_000)),)), CHAT)


def connection_pipelined(network):
    return listened(network, Caller((request(wish()) * 3,), requests=3), CHAT, CHAT, CHAT)


def connection_used_again(network):
    upload = (request(wish()), Answered(1), request(wish()), Answered(2), 0.5, request(wish()))
    return listened(network, Caller(upload, requests=3), CHAT, [BUSY], CHAT, CHAT)


def connection_used_again_for_json(network):
    json_answer = [0.5, JSON_HEAD, *pieces(b'{"id":', 0.5, b"1}"), LAST]
    body = request(wish(stream=False))
    return listened(
        network, Caller((body, Answered(1), body), requests=2), json_answer, json_answer
    )


def connection_that_fails_in_between(network):
    """An answer that breaks off is told of, and the next request is served."""
    short = cut(ROLE, HELLO, 0.5)
    return listened(network, Caller((request(wish()) * 2,), requests=2), short, short)


def connection_of_a_refused_upload(network):
    caller = Caller((request(b"x" * 100_000)[:60_000], 0.5, b"x" * 20_000))
    return listened(network, caller, limits={"max_body_bytes": 10})


def connection_in_silence(network):
    return listened(network, Caller((request(wish()),)), [12.0, *CHAT])


def connection_that_is_stuck(network):
    words = [step for n in range(8) for step in (0.5, text("x" * 20_000))]
    limits = {"write_stall_timeout": 2.0}
    caller = Caller((request(wish()),), stuck_from=0.8)
    return listened(network, caller, stream(ROLE, HELLO, *words, FINISH, DONE), limits=limits)


def connection_over_tls(network):
    listens, trusts = _tls()
    caller = Caller((request(wish()),), listens_with=listens, trusts_with=trusts)
    return listened(network, caller, CHAT)


def connection_over_http2(network):
    wire = Http2(wish())
    return listened(network, Caller((wire.begin,), wire=wire), CHAT)


CATALOGUE = (
    chat_stream,
    responses_stream,
    messages_stream,
    steady_stream,
    silent_start,
    silence_after_the_prelude,
    agent_in_silence,
    late_end_of_body,
    too_late_end_of_body,
    pooled_connection,
    json_answer,
    json_cut_and_asked_again,
    pass_through,
    pass_through_upload,
    slow_upload,
    refused_body,
    waiting_in_the_queue,
    waiting_for_a_connection,
    connecting,
    over_tls,
    waiting_for_headers,
    upstream_that_reads_late,
    back_off,
    replay,
    retries_used_up,
    fallback,
    hedge_that_wins,
    hedge_that_loses,
    hedge_on_one_tick,
    given_up_for_another,
    truncated,
    error_frame,
    late_failed_frame,
    no_failed_frame,
    idle_upstream,
    stuck_client,
    slow_client,
    leaving_client,
    reading_on_for_the_record,
    worker,
    deaf_worker,
    translated,
    translated_and_cut,
    drain,
    farewell,
    farewell_to_a_stuck_client,
    connection,
    connection_in_pieces,
    connection_with_a_large_upload,
    connection_pipelined,
    connection_used_again,
    connection_used_again_for_json,
    connection_that_fails_in_between,
    connection_of_a_refused_upload,
    connection_in_silence,
    connection_that_is_stuck,
    connection_over_tls,
    connection_over_http2,
)
