"""The pacer as a table of numbers, and the two properties its sleeper relies on."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sse_proxy.core.limits import Limits
from trio_sse_proxy.core.pacing import Due, Keepalive, Pacer, Watch

QUIET = {
    "heartbeat": 0.0,
    "commit_after": 0.0,
    "event_heartbeat": 0.0,
    "prelude_hold": 0.0,
    "first_token_timeout": 0.0,
    "idle_timeout": 0.0,
    "progress_timeout": 0.0,
    "write_stall_timeout": 0.0,
    "body_timeout": 0.0,
}


def pacer(**limits):
    return Pacer(Limits(**{**QUIET, **limits}), 0.0)


def ask(made, now):
    """An attempt begins, the only one."""
    watch = Watch()
    watch.asked_at = now
    made.watches = (watch,)
    return watch


def streaming(**limits):
    made = pacer(**limits)
    made.keepalive = Keepalive.FRAMES
    ask(made, 0.0)
    return made


def committed(**limits):
    made = streaming(**limits)
    made.committed = True
    return made


def past_output(**limits):
    made = committed(**limits)
    (watch,) = made.watches
    watch.output = True
    watch.heard_at = watch.progress_at = made.wrote_at = 0.0
    return made


def writing(**limits):
    made = past_output(**limits)
    made.writing_since = 0.0
    return made


def holding(**limits):
    made = committed(**limits)
    made.watches[0].hold(0.0)
    return made


def counting_events(**limits):
    made = committed(**limits)
    made.events = True
    return made


@pytest.mark.parametrize(
    ("made", "due"),
    [
        (streaming(heartbeat=5.0, commit_after=3.0), Due.COMMIT),
        (committed(heartbeat=3.0), Due.HEARTBEAT),
        (counting_events(event_heartbeat=3.0), Due.EVENT_HEARTBEAT),
        (holding(prelude_hold=3.0), Due.FLUSH_PRELUDE),
        (streaming(first_token_timeout=3.0), Due.FIRST_TOKEN_TIMEOUT),
        (past_output(idle_timeout=3.0), Due.IDLE_TIMEOUT),
        (past_output(progress_timeout=3.0), Due.PROGRESS_TIMEOUT),
        (pacer(total_timeout=3.0), Due.TOTAL_TIMEOUT),
        (writing(write_stall_timeout=3.0), Due.WRITE_STALLED),
    ],
    ids=lambda value: value.value if isinstance(value, Due) else "",
)
def test_each_deadline_is_due_at_its_instant_and_not_before(made, due):
    assert made.poll(2.999) is None
    assert made.next_due(2.0) == 3.0
    assert made.poll(3.0) is due


def test_nothing_is_due_when_all_is_off():
    quiet = pacer()
    assert quiet.poll(1e9) is None
    assert quiet.next_due(0.0) == inf


def test_without_a_stream_to_keep_alive_no_heartbeat_is_due():
    plain = pacer(heartbeat=1.0, commit_after=1.0)
    ask(plain, 0.0)
    assert plain.poll(100.0) is None


def test_with_heartbeats_off_nothing_is_committed_early():
    assert streaming(commit_after=1.0).poll(100.0) is None


def test_inside_a_frame_no_heartbeat_is_due():
    inside = counting_events(heartbeat=1.0, event_heartbeat=1.0)
    inside.inside = True
    assert inside.poll(100.0) is None


def test_after_the_last_frame_only_the_write_and_the_whole_are_on_the_clock():
    made = past_output(heartbeat=1.0, idle_timeout=1.0, write_stall_timeout=3.0, total_timeout=9.0)
    made.finished = True
    assert made.poll(2.0) is None
    made.writing_since = 2.0
    assert made.poll(5.0) is Due.WRITE_STALLED
    assert made.poll(4.9) is None
    made.writing_since = inf
    assert made.poll(9.0) is Due.TOTAL_TIMEOUT


def test_while_a_write_is_under_way_the_upstreams_silence_counts_for_nothing():
    made = writing(idle_timeout=1.0, progress_timeout=1.0, heartbeat=1.0, write_stall_timeout=30.0)
    assert made.poll(29.0) is None


def test_no_deadline_of_an_attempt_runs_between_attempts():
    made = past_output(first_token_timeout=1.0, idle_timeout=1.0, progress_timeout=1.0)
    made.watches = ()
    assert made.poll(100.0) is None


def test_each_of_several_attempts_has_a_clock_of_its_own():
    made = streaming(first_token_timeout=5.0, prelude_hold=2.0)
    second = Watch()
    second.asked_at = 3.0
    made.watches = (*made.watches, second)
    assert made.poll(4.9) is None
    assert made.poll(5.0) is Due.FIRST_TOKEN_TIMEOUT
    made.watches = (second,)
    assert made.poll(7.9) is None
    assert made.poll(8.0) is Due.FIRST_TOKEN_TIMEOUT


def test_a_hedge_and_the_reading_on_are_due_at_the_instants_they_were_set_to():
    made = streaming()
    made.hedge_at = 3.0
    assert (made.poll(2.9), made.poll(3.0), made.next_due(1.0)) == (None, Due.HEDGE, 3.0)
    made.hedge_at = inf
    made.finish_by = 4.0
    assert (made.poll(3.9), made.poll(4.0)) == (None, Due.FINISH_TIMEOUT)


def test_an_attempt_starts_its_clocks_anew():
    made = holding(first_token_timeout=5.0, prelude_hold=2.0)
    ask(made, 10.0)
    assert made.poll(14.9) is None
    assert made.poll(15.0) is Due.FIRST_TOKEN_TIMEOUT


def test_the_first_frame_held_back_starts_the_clock_and_later_ones_do_not():
    made = committed(prelude_hold=3.0)
    (watch,) = made.watches
    watch.hold(1.0)
    watch.hold(2.0)
    assert made.poll(3.9) is None
    assert made.poll(4.0) is Due.FLUSH_PRELUDE
    watch.flushed()
    assert made.poll(100.0) is None


def test_the_clients_clocks_start_when_the_request_was_read():
    made = streaming(heartbeat=5.0, commit_after=3.0, total_timeout=20.0)
    made.began(10.0)
    assert made.poll(12.9) is None
    assert made.poll(13.0) is Due.COMMIT


ALL_DUE = [
    (Due.WRITE_STALLED, "write_stall_timeout"),
    (Due.TOTAL_TIMEOUT, "total_timeout"),
    (Due.IDLE_TIMEOUT, "idle_timeout"),
    (Due.PROGRESS_TIMEOUT, "progress_timeout"),
    (Due.FLUSH_PRELUDE, "prelude_hold"),
    (Due.EVENT_HEARTBEAT, "event_heartbeat"),
    (Due.HEARTBEAT, "heartbeat"),
]


@pytest.mark.parametrize(
    ("more", "less"),
    [
        pytest.param(
            a,
            b,
            id=f"{a[0].value}-{b[0].value}",
        )
        for n, a in enumerate(ALL_DUE)
        for b in ALL_DUE[n + 1 :]
    ],
)
def test_of_two_on_one_tick_the_more_pressing_comes_first(more, less):
    made = past_output(**{more[1]: 3.0, less[1]: 3.0})
    made.events = True
    made.watches[0].hold(0.0)
    if more[0] is Due.WRITE_STALLED:
        made.writing_since = 0.0
    assert made.poll(3.0) is more[0]


def test_the_order_in_which_dues_are_written_is_the_order_of_pressure():
    assert [due for due in Due if due in dict(ALL_DUE)] == [due for due, _ in ALL_DUE]


# What the sleeper relies on: it asks next_due how long it may sleep, and never has to be woken.

lengths = st.sampled_from([0.0, 1.0, 1.5, 2.0, 5.0, 7.25])
moves = st.lists(
    st.tuples(
        st.floats(0.0, 9.0, width=16),
        st.sampled_from(["chunk", "comment", "held", "write", "written", "ask", "pause", "inside"]),
    ),
    max_size=25,
)


def move(made: Pacer, what: str, now: float) -> None:
    """What the relay stamps."""
    watch = made.watches[0] if made.watches else Watch()
    match what:
        case "chunk":
            made.committed = watch.output = True
            made.inside = False
            watch.heard_at = watch.progress_at = made.event_at = made.wrote_at = now
            watch.flushed()
        case "comment":
            watch.heard_at = now
        case "held":
            watch.heard_at = now
            if not watch.output:
                watch.hold(now)
        case "write":
            made.writing_since = now
        case "written":
            made.writing_since, made.wrote_at = inf, now
        case "ask":
            ask(made, now)
        case "pause":
            made.watches = ()
        case "inside":
            made.inside = made.committed


def act(made: Pacer, due: Due, now: float) -> None:
    """What the relay does about it; writes are over at once."""
    made.committed = True
    made.wrote_at = now
    if due is Due.FLUSH_PRELUDE:
        for watch in made.watches:
            watch.flushed()
    elif due is Due.EVENT_HEARTBEAT:
        made.event_at = now


COMPANY = {Due.COMMIT, Due.HEARTBEAT, Due.EVENT_HEARTBEAT, Due.FLUSH_PRELUDE}


@given(
    moves=moves,
    heartbeat=lengths,
    commit_after=lengths,
    event_heartbeat=lengths,
    prelude_hold=lengths,
    first_token_timeout=lengths,
    idle_timeout=lengths,
    progress_timeout=lengths,
    write_stall_timeout=lengths,
    total_timeout=lengths,
)
@settings(max_examples=300, deadline=None)
def test_who_sleeps_until_next_due_misses_no_deadline_and_never_spins(moves, **limits):
    made = Pacer(Limits(**limits), 0.0)
    made.keepalive, made.events = Keepalive.FRAMES, True
    made.began(0.0)
    # A write hides the deadlines behind it; whoever wrote then has the clock looked at again.
    now, asleep_until, hidden = 0.0, made.next_due(0.0), False
    for wait, what in moves:
        then = now + wait
        polls = 0
        while asleep_until <= then:
            now = asleep_until
            polls += 1
            assert polls < 400, "it spins"
            due = made.poll(now)
            if due is not None and due not in COMPANY:
                return  # the request is over
            if due is not None:
                act(made, due, now)
            asleep_until = made.next_due(now)
            hidden = made.writing_since < inf
            assert asleep_until >= now
        # Asleep beyond `then`, so nothing may be due there.
        hidden = hidden or made.writing_since < inf
        assert hidden or made.poll(then) is None
        now = then
        move(made, what, now)
