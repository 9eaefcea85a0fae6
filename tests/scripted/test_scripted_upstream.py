"""The scripted upstream is what it says it is, as the SDKs and a bare socket see it."""

from __future__ import annotations

import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
from patience import PATIENCE

from scripted import SCENARIOS, TEXT, Answer, Left, Said, ScriptedUpstream, Visit
from scripted.inbox import Inbox
from scripted.player import Player
from scripted.scenarios import ECHO, HUGE
from scripted.sdk import Case
from scripted.steps import End, Frames, Headers, Pieces, Wait
from scripted.talk import PATHS

pytestmark = pytest.mark.slow

FAILING = (
    "reset-",
    "fin-",
    "eof-",
    "status-",
    "late-status-",
    "final-error",
    "passing-error",
    "call-cut-",
)
ENDLESS = ("hang-", "endless-", "flood", "garbage")
ODD = ("bom", "after-terminator", "finished-without-terminator", "html")
WRONG = ("json-to-stream", "late-json-to-stream", "redirect", "late-redirect")
WHOLE = [name for name in SCENARIOS if not name.startswith(FAILING + ENDLESS + ODD + WRONG)]
CUTS = [name for name in SCENARIOS if name.startswith(("reset-", "fin-"))]
LIES = [name for name in SCENARIOS if name.startswith("eof-")]
STATUSES = [name for name in SCENARIOS if "status-" in name]
FRAMES = [name for name in SCENARIOS if "-error-" in name and not name.endswith("-hang")]


@pytest.fixture
def ask_all(upstream, sdks):
    """Every combination at once: {case: what the SDK heard}."""

    def ask_all(names, streams=(True, False)):
        cases = [Case(n, d, s) for n in names for d in PATHS for s in streams]
        return sdks.ask_all(upstream, cases)

    return ask_all


def connect(upstream, model, *, path=PATHS["chat"], stream=True):
    """A bare socket that has sent its request."""
    body = json.dumps({"model": model, "stream": stream}).encode()
    connection = socket.create_connection(("127.0.0.1", upstream.port), timeout=PATIENCE)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def read_all(connection):
    """What came in each read, up to the end of the connection."""
    with connection:
        return list(iter(lambda: connection.recv(65536), b""))


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_sdks_hear_the_whole_text_once_from_each_scenario_that_is_whole(ask_all):
    heard = ask_all(WHOLE)
    assert {str(case): told for case, told in heard.items() if not told.whole} == {}


def test_sdks_hear_of_every_cut(ask_all):
    heard = ask_all(CUTS)
    assert {str(case): told for case, told in heard.items() if not told.honest_part} == {}


def test_streams_cut_by_a_clean_end_pass_for_complete_with_an_sdk(ask_all):
    """This is what the proxy is for: nobody else would tell."""
    heard = ask_all(LIES, streams=(True,))
    assert {str(case) for case, told in heard.items() if told.told or told.text == TEXT} == set()


def test_sdks_see_the_status_that_was_scripted(ask_all):
    heard = ask_all(STATUSES)
    assert {
        str(case) for case, told in heard.items() if str(told.status) not in case.scenarios
    } == set()


def test_sdks_raise_on_every_error_frame(ask_all):
    heard = ask_all(FRAMES, streams=(True,))
    assert {str(case): told for case, told in heard.items() if not told.honest_part} == {}


def test_reset_is_a_real_reset_and_fin_is_none(upstream):
    with pytest.raises(ConnectionResetError):
        read_all(connect(upstream, "reset-after-output"))
    assert b"tok5" in b"".join(read_all(connect(upstream, "fin-after-output")))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("leave", [Left.FIN, Left.RESET])
@pytest.mark.parametrize(
    "scenario",
    ["hang-before-headers", "hang-after-headers", "hang-after-prelude", "endless-tokens", "flood"],
)
def test_leaving_is_noticed_in_every_phase(upstream, scenario, leave, stream):
    model = upstream.model(scenario)
    connection = connect(upstream, model, stream=stream)
    visit = upstream.wait_for_visit(model)
    time.sleep(0.05)
    connection.shutdown(socket.SHUT_WR) if leave is Left.FIN else reset(connection)
    visit.wait_for_left()
    assert visit.left is leave
    connection.close()


def test_attempts_play_the_scenarios_in_turn_and_parallel_requests_do_not_mix(upstream, sdks):
    models = [upstream.model("status-500,fin-after-prelude,normal") for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:

        def three(model):
            return [sdks.ask("chat", model, stream=True) for _ in range(3)]

        for first, second, third in pool.map(three, models):
            assert (first.status, second.starts, third.whole) == (500, 1, True)
    for model in models:
        assert [visit.attempt for visit in upstream.visits(model)] == [1, 2, 3]


def test_the_log_tells_the_request_and_what_became_of_it(upstream, sdks):
    model = upstream.model("normal")
    sdks.ask("messages", model, stream=True)
    (visit,) = upstream.visits(model)
    assert (visit.method, visit.target, visit.scenario) == ("POST", "/v1/messages", "normal")
    assert visit.headers["user-agent"].startswith("Anthropic/Python")
    assert visit.json()["stream"] is True
    assert visit.wait_for_end() == "played"
    assert visit.left_at is None
    assert visit.bytes_sent > 1000


def test_a_script_of_ones_own_is_played_by_the_model_name_or_the_header(upstream):
    script = (Headers(content_type="text/plain", framing="close"), Frames((b"mine",)), End())
    name = upstream.script(script)
    head = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-scenario: {name}\r\n\r\n".encode()
    connection = socket.create_connection(("127.0.0.1", upstream.port), timeout=PATIENCE)
    connection.sendall(head)
    connection.shutdown(socket.SHUT_RD)
    assert upstream.wait_for_visit(name).wait_for_end() == "played"
    connection.close()
    assert b"".join(read_until(connect(upstream, name), b"mine")).endswith(b"mine")
    with pytest.raises(AssertionError, match="how it ends"):
        upstream.script((Wait(1),))


def read_until(connection, mark):
    with connection:
        got = [connection.recv(65536)]
        while mark not in b"".join(got):
            got.append(connection.recv(65536))
        return got


class Sends:
    """A stream that only notes what is sent, write by write: a socket may join what comes quickly."""

    def __init__(self):
        self.sent = []

    async def send_all(self, data):
        await trio.lowlevel.checkpoint()
        self.sent.append(data)


async def test_pieces_are_sent_as_pieces(autojump_clock):
    answer = Answer("chat", True, Said("m", 1), 0)
    visit, stream = Visit("POST", "/", {}, b"", 0.0), Sends()
    assert await Player(stream, visit).play((Pieces(7), *answer.whole()), Inbox(stream)) == "played"
    assert sorted(set(map(len, stream.sent)))[-1] == 7
    assert sum(map(len, stream.sent)) == visit.bytes_sent > len(b"".join(answer.frames()))


def test_sizes_are_what_they_are_said_to_be(upstream):
    large = read_until(connect(upstream, "large-prelude", path=PATHS["responses"]), b"tok0")
    assert sum(map(len, large)) > 2 * ECHO
    assert sum(map(len, read_until(connect(upstream, "frame-5mb"), b"[DONE]"))) > HUGE


def test_connections_are_counted_and_none_stays_when_the_clients_are_gone():
    with ScriptedUpstream() as upstream:
        model = upstream.model("hang-after-output")
        connections = [connect(upstream, model) for _ in range(20)]
        upstream.wait_for_visit(model, attempt=20)
        assert upstream.open_connections == 20
        for connection in connections:
            connection.close()
        assert upstream.wait_for_quiet() == 0
        assert {visit.wait_for_end() for visit in upstream.visits(model)} == {"left"}


async def test_a_trio_test_can_wait_for_it_in_a_thread(upstream):
    model = upstream.model("hang-before-headers")
    stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
    async with stream:
        body = json.dumps({"model": model}).encode()
        await stream.send_all(
            b"POST /v1/responses HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        )
        visit = await trio.to_thread.run_sync(upstream.wait_for_visit, model)
    await trio.to_thread.run_sync(visit.wait_for_left)
    assert visit.json() == {"model": model}
