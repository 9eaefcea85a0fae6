"""What happens in one run, as data: all is drawn beforehand, so that a run can be made smaller."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf

from trio_sse_proxy.core.balance import Balance
from trio_sse_proxy.core.limits import OnFailure

from .network import Weather


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What an upstream does with one attempt. Durations in seconds.

    `sent` is the share of the body that gets out before the end named by `end`: a proper "end" of the
    body, "fin" or "rst" in the middle of it, or "hang". `silent_at` is the frame before which it is
    silent for `silence`, with a comment every second if `comments`. `error` is told after
    `error_at` words (-1: before the prelude). `grain` is the size of an HTTP chunk; 0: one per frame.
    """

    kind: str
    wait: float = 0.0
    words: int = 4
    every: float = 0.0
    silence: float = 0.0
    silent_at: int = 0
    comments: bool = False
    sent: float = 1.0
    end: str = "end"
    error: int = 0
    error_at: int = 0
    status: int = 200
    retry_after: float | None = None
    done: bool = True
    usage: bool = True
    long: int = 0
    grain: int = 0
    refuse: bool = False
    keep: bool = True


CALM = Weather()
NORMAL = Play(kind="normal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One client: when it comes, what it asks for, how it reads, when it goes.

    `plays` are what its attempts meet, one after another, wherever they go; NORMAL from then on.
    """

    number: int
    dialect: str = "chat"
    stream: bool = True
    at: float = 0.0
    upload: tuple[float, ...] = (0.0,)
    """Seconds before each piece of the body."""
    plays: tuple[Play, ...] = ()
    slow: float = 0.0
    leaves_at: float = inf
    leaves_after: float = inf
    """Bytes of the body."""
    stuck_from: float = inf
    stuck_for: float = inf
    shielded: bool = False
    quick: bool = False
    """Its connection takes what is written without waiting."""
    again: int = 0
    """How often it asks again if it got no whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator does, and when: "cancel" the client of that number, or "drain"."""

    at: float
    what: str
    number: int = 0
    patience: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One upstream, and the network on the way there."""

    name: str
    weather: Weather = CALM
    told: bool = False
    """It wants to hear of calls that are abandoned."""
    gate: tuple[int, int, float] | None = None
    breaker: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One run."""

    seed: str
    people: tuple[Person, ...]
    servers: tuple[Server, ...]
    orders: tuple[Order, ...] = ()
    limits: dict = field(default_factory=dict)
    balance: Balance = Balance.ORDERED
    hedge_after: float = 0.0


def history(seed: str) -> History:
    """The run that `seed` stands for."""
    draw = random.Random(f"history {seed}")
    people = tuple(_person(draw, number) for number in range(draw.randint(3, 10)))
    servers = tuple(_server(draw, number) for number in range(draw.choice((1, 2, 2, 3))))
    return History(
        seed=seed,
        people=people,
        servers=servers,
        orders=tuple(_orders(draw, len(people))),
        limits=_limits(draw),
        balance=draw.choice(tuple(Balance)),
        hedge_after=draw.choice((0.0, 0.0, 0.0, 3.0)),
    )


def _limits(draw) -> dict:
    heartbeat = draw.choice((1.0, 2.0, 5.0, 5.0, 15.0))
    return {
        "heartbeat": heartbeat,
        "commit_after": heartbeat,
        "prelude_hold": draw.choice((7.0, 30.0, 120.0)),
        "first_token_timeout": draw.choice((20.0, 60.0)),
        "idle_timeout": draw.choice((25.0, 50.0)),
        "progress_timeout": draw.choice((30.0, 60.0)),
        "total_timeout": draw.choice((0.0, 0.0, 0.0, 90.0)),
        "write_stall_timeout": draw.choice((10.0, 30.0)),
        "max_retries": draw.choice((0, 1, 3, 3)),
        "max_frame_bytes": draw.choice((3000, 2**20)),
        "max_streams": draw.choice((4, 10_000, 10_000)),
        "on_failure": draw.choice((OnFailure.TELL, OnFailure.TELL, OnFailure.CUT)),
        "json_heartbeat": draw.random() < 0.3,
    }


def _server(draw, number: int) -> Server:
    weather = Weather(
        delay=draw.choice((0.0, 0.001, 0.05, 0.4)),
        grain=draw.choice((65536, 65536, 700, 37, 7)),
        window=draw.choice((65536, 65536, 500)),
        jam=draw.choice((0.0, 0.0, 0.3)),
    )
    gate = (draw.randint(1, 3), draw.choice((0, 2, 100)), draw.choice((0.0, 4.0)))
    return Server(
        name=f"u{number}",
        weather=weather,
        told=draw.random() < 0.4,
        gate=gate if draw.random() < 0.3 else None,
        breaker=draw.choice((0, 0, 2, 5)),
    )


def _person(draw, number: int) -> Person:
    pieces = draw.choice((1, 1, 1, 2, 4))
    how = {
        "fast": {},
        "slow": {"slow": draw.choice((0.01, 0.5, 2.0))},
        "leaves at a time": {
            "leaves_at": draw.choice((0.0, draw.uniform(0, 3), draw.uniform(0, 40)))
        },
        "leaves at a byte": {"leaves_after": draw.randint(0, 1500)},
        "stuck": {"stuck_from": draw.uniform(0, 12), "shielded": draw.random() < 0.5},
        "jammed": {"stuck_from": draw.uniform(0, 5), "stuck_for": draw.uniform(0, 8)},
    }[
        draw.choice(
            ("fast",) * 5 + ("slow", "leaves at a time", "leaves at a byte", "stuck", "jammed")
        )
    ]
    return Person(
        number=number,
        dialect=draw.choice(("chat", "responses", "messages")),
        stream=draw.random() < 0.85,
        at=draw.choice((0.0, draw.uniform(0, 2), draw.uniform(0, 20))),
        upload=tuple(draw.choice((0.0, 0.0, 0.7)) for _ in range(pieces)),
        plays=tuple(_play(draw) for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 5)))),
        quick=draw.random() < 0.5,
        again=draw.choice((0, 0, 1)),
        **how,
    )


def _play(draw) -> Play:
    words = draw.choice((0, 1, 3, 12, 40))
    steady = {
        "words": words,
        "wait": draw.choice((0.0, 0.0, 0.2, draw.uniform(0, 12))),
        "every": draw.choice((0.0, 0.0, 0.05, 1.0)),
        "grain": draw.choice((0, 0, 0, 1000, 61)),
        "usage": draw.random() < 0.8,
        "keep": draw.random() < 0.8,
        "long": draw.choice((0, 0, 0, 0, 5000)),
    }
    silence = {
        "silence": draw.choice((3.0, draw.uniform(0, 20), draw.uniform(0, 80))),
        "silent_at": draw.randint(0, words + 4),
        "comments": draw.random() < 0.5,
    }
    cut = {"sent": draw.choice((0.0, 1.0, draw.random(), draw.random()))}
    kinds = {
        "steady": steady,
        "silent": steady | silence,
        "cut": steady | cut | {"end": draw.choice(("fin", "rst", "end"))},
        "cut late": steady | silence | cut | {"end": draw.choice(("fin", "rst", "end"))},
        "hangs": steady | cut | {"end": "hang"},
        "error": steady
        | {"error": draw.choice((400, 529)), "error_at": draw.randint(-1, words)}
        | {"end": draw.choice(("end", "fin", "rst", "hang"))},
        "status": {
            "wait": steady["wait"],
            "status": draw.choice((400, 429, 500, 503, 529)),
            "retry_after": draw.choice((None, None, 1.0, 60.0)),
        },
        "unfinished": steady | {"done": False},
        "refused": {"refuse": True},
    }
    kind = draw.choice(tuple(kinds))
    return Play(kind=kind, **kinds[kind])


def _orders(draw, people: int):
    for _ in range(draw.choice((0, 0, 1, 2))):
        yield Order(at=draw.uniform(0, 20), what="cancel", number=draw.randrange(people))
    if draw.random() < 0.25:
        yield Order(at=draw.uniform(0, 30), what="drain", patience=draw.choice((0.0, 1.0, 30.0)))
