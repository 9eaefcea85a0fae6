"""`on_disconnect = "finish"`: the client leaves, and the upstream is read to its end for the record."""

from __future__ import annotations

import pytest
import trio

from trio_sse_proxy.core.call import Reason
from trio_sse_proxy.core.errors import Broken
from trio_sse_proxy.core.routing import OnDisconnect, Rules
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.gate import Gate

from .frames import CHAT_ERROR, DONE, FINISH, HELLO, ROLE, WHOLE, usage, wish
from .scripted_client import Client
from .scripted_upstream import HANG, JSON, ReadBody, answers, fails
from .world import World, at

MID = Broken("reset", responded=True)
COUNTS = usage(prompt_tokens=9, completion_tokens=4)
LONG = answers(ROLE, 4.0, HELLO, 4.0, FINISH, COUNTS, DONE)


def finishing(*attempts, rules=None, **limits):
    rules = Rules(on_disconnect=OnDisconnect.FINISH, **(rules or {}))
    return World(*attempts, rules=rules, **limits)


@pytest.mark.parametrize("leaves_at", [1.0, 5.0])
async def test_the_upstream_is_read_to_its_end(leaves_at):
    world = finishing(LONG)
    await world.ask(Client(wish(), leaves_at=leaves_at))
    record = world.record
    assert (record.ending.value, record.finished, record.aborted) == ("client_left", True, False)
    assert record.usage == Usage(input_tokens=9, output_tokens=4)
    assert (world.calls[0].closed, world.calls[0].aborts) == (8.0, [])
    assert record.duration == leaves_at


async def test_nothing_is_written_to_who_has_left():
    world = finishing(answers(ROLE, HELLO, 12.0, FINISH, DONE))
    client = await world.ask(Client(wish(), leaves_at=1.0))
    assert client.body == ROLE + HELLO
    assert world.record.heartbeats == 0


async def test_a_whole_answer_is_read_to_its_end_too():
    body = b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    world = finishing(answers(body, headers=JSON, after=4.0))
    await world.ask(Client(wish(stream=False), leaves_at=1.0))
    assert world.record.finished
    assert world.record.usage == Usage(input_tokens=3, output_tokens=2)


async def test_it_takes_no_longer_than_it_may():
    world = finishing(answers(ROLE, HELLO, HANG), rules={"finish_timeout": 30.0})
    await world.ask(Client(wish(), leaves_at=2.0))
    record = world.record
    assert (record.ending.value, record.finished, record.aborted) == ("client_left", False, True)
    assert world.calls[0].aborts == [(32.0, Reason.CLIENT_LEFT)]


async def test_an_earlier_attempt_that_was_over_does_not_make_it_finished():
    busy = answers(b"{}", status=503, headers=JSON)
    world = finishing(busy, answers(ROLE, HELLO, HANG), rules={"finish_timeout": 30.0})
    await world.ask(Client(wish(), leaves_at=2.0))
    assert not world.record.finished


@pytest.mark.parametrize("last", [(MID,), (), (CHAT_ERROR,)])
async def test_no_attempt_begins_after_the_client_has_left(last):
    world = finishing(answers(ROLE, 4.0, *last))
    await world.ask(Client(wish(), leaves_at=2.0))
    assert len(world.calls) == 1
    assert world.record.ending.value == "client_left"


async def test_no_hedge_begins_after_the_client_has_left():
    world = finishing(LONG, rules={"hedge_after": 2.0})
    await world.ask(Client(wish(), leaves_at=1.0))
    assert len(world.calls) == 1
    assert world.record.finished


async def test_a_pause_is_not_sat_out_for_who_has_left():
    world = finishing(fails(MID), jitter=1.0)
    await world.ask(Client(wish(), leaves_at=0.25))
    assert (world.record.ending.value, world.record.duration) == ("client_left", 0.25)


async def test_who_waits_for_a_slot_is_not_waited_for():
    gate = Gate(1)
    world = finishing(at("a", gate=gate))
    with gate.try_enter():
        await world.run(Client(wish(), leaves_at=2.0))
    world.assert_no_trace()
    assert (world.record.duration, world.calls) == (2.0, [])


async def test_of_two_under_way_the_first_with_output_is_read_to_its_end():
    a, b = at("a", answers(ROLE, HANG)), at("b", answers(ROLE, 6.0, *WHOLE[1:]))
    world = finishing(a, b, rules={"hedge_after": 2.0})
    await world.ask(Client(wish(), leaves_at=3.0))
    assert world.record.finished
    assert [entry.reason for entry in world.record.attempts] == [Reason.HEDGE_LOST, None]


@pytest.mark.parametrize("last", [(MID,), (CHAT_ERROR,)])
@pytest.mark.parametrize("first_fails", [True, False])
async def test_of_two_under_way_one_that_fails_leaves_the_other(first_fails, last):
    broken, good = (ROLE, 4.0, *last), (ROLE, 7.0, *WHOLE[1:])
    bodies = (broken, good) if first_fails else (good, broken)
    a, b = at("a", answers(*bodies[0])), at("b", answers(*bodies[1]))
    world = finishing(a, b, rules={"hedge_after": 2.0})
    await world.ask(Client(wish(), leaves_at=3.0))
    assert world.record.finished
    assert sum(entry.over and not entry.problem for entry in world.record.attempts) == 1


async def test_an_upload_that_was_not_complete_is_aborted():
    client = Client(b"abc", (9.0, b"def"), leaves_at=2.0, headers=((b"content-length", b"6"),))
    world = finishing(answers(b"ok", after=(ReadBody(),), headers=JSON))
    await world.ask(client, path="/v1/files")
    assert world.calls[0].aborts == [(2.0, Reason.CLIENT_LEFT)]
    assert world.record.aborted


@pytest.mark.parametrize("shielded", [True, False])
async def test_a_writer_that_is_stuck_is_released_and_reads_on(shielded, scheduler_seed):
    client = Client(wish(), stuck_from=1.0, shielded=shielded)
    world = finishing(answers(ROLE, HELLO, 2.0, HELLO, FINISH, DONE), write_stall_timeout=3.0)
    await world.ask(client)
    assert (world.record.ending.value, world.record.finished) == ("write_stalled", True)
    assert client.aborted_at == 5.0


@pytest.mark.parametrize(("how", "reason"), [("operator", "operator"), ("drain", "shutdown")])
async def test_an_operator_and_the_drain_end_it(how, reason):
    world = finishing(answers(ROLE, HELLO, HANG))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, Client(wish(), leaves_at=1.0))
        await trio.sleep(3.0)
        if how == "drain":
            world.app.end_streams()
        else:
            world.app.cancel(*world.app.live)
    world.assert_no_trace()
    assert world.calls[0].aborts == [(3.0, Reason(reason))]
    assert (world.record.aborted, world.record.finished) == (True, False)


class Broke(Client):
    """A client whose server raises on writing to it, once it has left."""

    async def send(self, message):
        if trio.current_time() >= 1.0:
            raise OSError("gone")
        await super().send(message)


@pytest.mark.parametrize("more", [(MID,), (HELLO, HANG)])
async def test_a_write_that_says_the_client_has_left_ends_the_call_for_that_reason(more):
    world = finishing(answers(ROLE, HELLO, 2.0, HELLO, *more))
    await world.ask(Broke(wish()))
    assert world.calls[0].aborts == [(2.0, Reason.CLIENT_LEFT)]
    assert (world.record.ending.value, world.record.aborted) == ("client_left", True)


async def test_a_refusal_that_nobody_is_there_to_read_is_no_failure_of_ours():
    world = World(max_body_bytes=3)
    await world.ask(Broke((2.0, b"abcd")))
    assert world.record.ending.value == "client_left"


async def test_a_writer_that_nothing_can_wake_is_ended_in_time():
    client = Client(wish(), stuck_from=1.0)
    client.state = {}
    rules = {"finish_timeout": 30.0}
    world = finishing(answers(ROLE, HELLO, 2.0, HELLO, HANG), rules=rules, write_stall_timeout=3.0)
    await world.ask(client)
    assert world.calls[0].aborts == [(35.0, Reason.CLIENT_LEFT)]


async def test_who_waits_for_a_slot_beside_another_is_not_forwarded_after_the_leaving():
    gate = Gate(1)
    good = answers(ROLE, 7.0, *WHOLE[1:])
    a, b, c = at("a", fails(MID, after=1.0)), at("b", gate=gate), at("c", good)
    world = finishing(a, b, c, rules={"hedge_after": 2.0})
    slot = gate.try_enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, Client(wish(), leaves_at=3.0))
        await trio.sleep(4.0)
        slot.leave()
    world.assert_no_trace()
    assert world.calls_of("b") == []
    assert world.record.finished
