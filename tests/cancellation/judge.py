"""What must be true after a cancellation, wherever it came. Each finding begins with its rule."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from relay.frames import events_in

from trio_sse_proxy.core.call import Abort
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.relay import FAREWELL

from .stage import ABORT_TIMEOUT, Listened

if TYPE_CHECKING:
    from .play import Run

GOODBYE = 2 * FAREWELL + ABORT_TIMEOUT + 0.1
"""Seconds from the cancellation to the end of the request, at most: a write that is stuck is broken off,
the upstream is told, and so is the client. And the worker's `abort_timeout`, which is 1 s."""
QUIET = {Ending.CLIENT_LEFT, Ending.WRITE_STALLED}


def findings(run: Run, reference: Run) -> list[str]:
    """Everything that is wrong with `run`, of which `reference` is the same without a cancellation."""
    if run.crashed is not None:
        return [f"R11: the application raised {run.crashed!r}"]
    if run.way is not None and run.gaps.acted_at == inf:
        return ["the run was another one than before: its order of tasks is not fixed"]
    if isinstance(run.play, Listened):
        return findings_of_a_connection(run, reference)
    records, began = run.play.stage.witness.records, run.play.stage.witness.began_with
    if not len(records) == len(began) == 1 + len(run.play.others):
        return [f"R10: {len(records)} records of {len(began)} requests"]
    return [
        *_nothing_left(run),
        *_ended(run, reference),
        *_let_go(run),
        *_told_upstream(run),
        *_told_client(run),
        *_others(run),
    ]


def findings_of_a_connection(run: Run, reference: Run) -> list[str]:
    """The same where the requests come through the server."""
    return [
        *_nothing_left(run),
        *_no_connection_left(run),
        *_each_ended(run, reference),
        *_let_go(run),
        *_told_upstream(run),
        *_answers(run, reference),
    ]


def _no_connection_left(run: Run):
    server = run.play.server
    if server.connections or server.crowd._here or server.crowd._resting:
        yield f"R11: left: {server.connections}, and {server.crowd._here} in the crowd"
    over = run.gaps.acted_at + GOODBYE
    if run.way in {"client", "server"} and run.over_at > over:
        yield f"R11: the connection was over only {run.over_at - run.gaps.acted_at} s later"


def _each_ended(run: Run, reference: Run):
    """Those of a connection are the same in the same order, up to where it ended."""
    natural = {r.id: r.ending for r in reference.play.stage.witness.records}
    began = [r.id for r in run.play.stage.witness.began_with]
    if began != list(natural)[: len(began)] or (
        run.way in {None, "operator"} and len(began) < len(natural)
    ):
        yield f"R10: began {began}, and without a cancellation {list(natural)}"
    at = run.gaps.acted_at
    for record in run.play.stage.witness.records:
        late = at >= min(reference.ends.get(record.id, inf), run.ends.get(record.id, inf))
        fitting = (
            set() if run.hit == record.id and not (run.noted or late) else {natural[record.id]}
        )
        fitting |= _by_way(run, record.id)
        if record.ending not in fitting:
            yield f"R6: {record.id} ended {record.ending}, not {fitting}"
        by_way = run.hit == record.id and record.ending is not natural[record.id]
        if by_way and run.gone[record.id] > at + GOODBYE:
            yield f"R7: it was over only {run.gone[record.id] - at} s later"


def _by_way(run: Run, id: str):
    """How a request may end whose turn it was, or was to come."""
    match run.way:
        case "operator":
            return {Ending.CANCELLED} if run.hit == id else set()
        case "drain" if id in run.live_then:
            return {Ending.SHUTDOWN}
        case "drain":  # its body may still be coming when it has the answer, and goes
            had_all = run.play.client.answered == run.play.client.requests
            return {Ending.REFUSED} | ({Ending.CLIENT_LEFT} if had_all else set())
        case "server":  # whose connections are closed in the same step
            return {Ending.SHUTDOWN, Ending.CLIENT_LEFT}
        case "client":
            return {Ending.CLIENT_LEFT}
        case _:
            return set()


def _answers(run: Run, reference: Run):
    """R6: who is still there has got whole answers, each with one end."""
    client = run.play.client
    if client.rubbish is not None:
        yield f"R6: the client got rubbish: {client.rubbish!r}"
    if run.way in {"client", "server"} or client.stuck_from < inf:
        return
    answers, records = client.wire.answers, run.play.stage.witness.records
    if not all(one.complete for one in answers):
        yield "R6: an answer has no end"
    wanted = 1 if run.way == "drain" else len(reference.play.client.wire.answers)
    if not wanted <= len(answers) == len(records):
        yield f"R6: {len(answers)} answers to {len(records)} requests"
    for answer, record in zip(answers, records, strict=False):
        if not answer.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            continue
        errors = [e for e in events_in(answer.body) if "error" in e]
        whole = b"[DONE]" in answer.body
        # On HTTP/2 its last frames wait for their turn, so the end can be overtaken in its own instant.
        late = run.gaps.acted_at >= reference.ends.get(record.id, inf)
        completed = record.ending is Ending.COMPLETED or (whole and late)
        if whole is not completed or len(errors) != (not whole):
            yield f"R6: it ended {record.ending}, and the client was told {answer.body!r}"


def _nothing_left(run: Run):
    try:
        run.play.stage.assert_no_trace()
    except AssertionError as error:
        yield f"R11: {error or 'something is left (see World.assert_no_trace)'}"
    tasks, descriptors = run.left
    if tasks or descriptors:
        yield f"R11: {tasks} tasks and {descriptors} descriptors are left"
    if run.timers or run.watched:
        yield f"R11: left: timers {run.timers}, descriptors watched {run.watched}"
    for http in run.play.http:
        if http.transport.pool.busy_connections or any(_slots(http)):
            yield f"R11: the pool of {http.name} counts a connection that nobody uses"


def _slots(http):
    """Those of connections that are neither open nor being opened, of each origin: all are closed."""
    return (shelf.slots for shelf in http.transport.pool._shelves.values())


def _ended(run: Run, reference: Run):
    natural, ending = reference.record.ending, run.record.ending
    if ending not in _fitting(run, reference, natural):
        yield f"R6: it ended {ending}, and would have {natural} at {reference.verdict_at}"
    reads_on = run.play.reads_on and ending is Ending.CLIENT_LEFT
    if run.over_at > run.gaps.acted_at + GOODBYE and ending is not natural and not reads_on:
        yield f"R7: it was over only {run.over_at - run.gaps.acted_at} s later"


def _fitting(run: Run, reference: Run, natural: Ending):
    from .play import WAYS

    if run.way is None:
        return {natural}
    fitting = {WAYS[run.way]}
    late = run.gaps.acted_at >= min(reference.verdict_at, reference.complete_at, run.complete_at)
    missed = not run.present and run.way == "operator"
    if run.noted or late or missed:
        fitting |= {natural}
    if not run.present and run.way == "drain":
        fitting |= {natural} if late else {Ending.REFUSED}
    return fitting


def _let_go(run: Run):
    """R7: at once, unless the request was coming to its end by itself, or shall."""
    if run.play.reads_on and run.way == "client":
        return
    if run.way is None or run.noted or not run.present or run.complete_at <= run.gaps.acted_at:
        return
    held = [one.host for one in run.open_then if one.host not in run.play.others_hosts]
    if isinstance(run.play, Listened) and run.way == "operator":  # who comes next begins at once
        held = [one.host for one in run.open_then if one in run.known_then]
    if held:
        yield f"R7: still connected when time went on: {held}"


def _told_upstream(run: Run):
    """R7: exactly one abort for whoever had begun and not come to the end, and none else."""
    network, play = run.network, run.play
    unanswered = {one.rid for one in network.asked if one.rid is not None and not one.given}
    calls = [call for http in play.http for call in http.made]
    if stray := set(network.aborts) - {call.id for call in calls}:
        yield f"R7: told to stop what it was never asked: {stray}"
    for call in calls:
        times = network.aborts.count(call.id)
        due = call.begun and not call.over and play.named
        if times != due or (call.id in unanswered and times != 1):
            yield f"R7: {call.id} was told {times} times to stop, begun {call.begun}, over {call.over}"
        if due and call.abort is not Abort.DONE:
            yield f"R7: telling {call.id} to stop came to {call.abort}"
        if call.begun and not call.over and call.reason is None:
            yield f"R7: {call.id} was left without a reason"
    for call in play.calls:
        times = play.told.count(call.id)
        if times != (call.abort is not None) or (call.abort is not None and call.over):
            yield f"R7: the worker heard {times} times of {call.id}, abort {call.abort}"


def _told_client(run: Run):
    """R6: who is still there has got an answer, with one end."""
    client, ending = run.play.client, run.record.ending
    if client.left.is_set() or client.aborted_at is not None or ending in QUIET:
        return
    if not client.started:
        yield "R6: the client is there, and got no answer"
    elif not client.ended and not run.play.may_be_cut:
        yield "R6: the client's answer has no end"
    if not client.response_headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        return
    errors = [e for e in events_in(client.body) if "error" in e or "failed" in e.get("type", "")]
    if (not errors) is not (ending is Ending.COMPLETED):
        yield f"R6: it ended {ending}, and the client was told {errors}"


def _others(run: Run):
    """Whoever else is about gets the whole answer, or hears of the drain."""
    for record in run.play.stage.witness.records:
        fitting = {Ending.COMPLETED} | ({Ending.SHUTDOWN} if run.way == "drain" else set())
        if record.id in run.known and record.ending not in fitting:
            yield f"R11: another request ended {record.ending}"
