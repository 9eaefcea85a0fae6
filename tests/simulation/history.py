"""What happens in one run, as data: all is drawn beforehand, so that a run can be made smaller."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from math import inf

from .network import Weather


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What an upstream does with one attempt. Durations in seconds.

    `sent` is the share of the body that gets out before the end named by `end`: a proper "end" of the
    body, "fin" or "rst" in the middle of it, or "hang". `silent_at` is the frame before which it is
    silent for `silence`, with a comment every second if `comments`. `error` is told after
    `error_at` words (-1: before the prelude). `grain` is the size of an HTTP chunk; 0: one per burst.
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
    """So many bytes more in its second word, and in its comments."""
    flood: int = 0
    """So many bytes more in every word."""
    burst: int = 1
    """So many frames go out at once, if there is no time between them."""
    grain: int = 0
    refuse: bool = False
    keep: bool = True
    framing: str = "chunked"
    """Or "length", or "close": the end of the connection is that of the body."""
    gzip: bool = False
    """Though nobody asked for it."""
    extra: str = ""
    """ "extensions" of chunks, "trailers", or bytes behind the terminator: "late"."""
    form: str = ""
    """How its frames are written; see words.FORMS and LINE_ENDS."""
    calls: bool = False
    """Its words are the arguments of a call."""
    torn: float | None = None
    """Of the last that it writes (the head, if nothing is `sent`) only this share gets out."""
    garbled: str = ""
    """Garbage in place of the "head", or behind what is `sent`, where a chunk's "size" would be."""
    answer: str = ""
    """What it answers in place of an event stream: "json", or "html"."""
    quota: bool = False
    """Its 429 says that the quota is spent."""
    dated: bool = False
    """Its Retry-After is a date."""


GRAINS = ((65536,), (65536,), (700, 61), (65536, 37), (1, 7, 2000))
AGENTS = {"chat": "codex_cli_rs", "responses": "codex_cli_rs", "messages": "claude-cli/2"}
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
    prompt: int = 1
    """How long its prompt is, in bytes."""
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
    agent: str = ""
    """What it calls itself: the big agents get event heartbeats."""
    behind: int = 0
    """How many more requests it sends right behind the first, without waiting for the answer."""
    reset: bool = False
    """It leaves by RST, not by FIN. The last two are of use over connections alone."""
    http2: bool = False
    """Its connection speaks HTTP/2, with all that follows here."""
    apart: float = 0.0
    """Seconds between its requests."""
    window: int = 65535
    """Bytes of each answer that may be under way, and not taken yet."""
    shuts: bool = False
    """If it is slow, or stuck, then in opening its windows; it reads all that comes."""
    by_stream: bool = False
    """Its leaving is that of its first request alone, by RST_STREAM."""
    grain: int = 0
    """The most bytes that one read brings of what it sends; 0: all there are. Over HTTP/1.1, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator does, and when.

    "cancel" the client of that `number`; "drain", with `patience`; or "reload": the settings of
    before with those of `limits` changed, with one upstream (`renewed`) that is called by another
    key, and without another (`without`), by their places.
    """

    at: float
    what: str
    number: int = 0
    patience: float = 0.0
    limits: dict = field(default_factory=dict)
    renewed: int | None = None
    without: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One upstream, and the network on the way there."""

    name: str
    weather: Weather = CALM
    told: bool = False
    """It wants to hear of calls that are abandoned."""
    gate: tuple[int, int, float] | None = None
    breaker: int = 0
    chat_only: bool = False
    """What comes in another dialect is translated for it."""
    worker: bool = False
    """It is none, but an in-process worker of that name."""
    ill: tuple[tuple[float, float], ...] | None = None
    """Its health is asked for; from when to when it says that it is ill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One run."""

    seed: str
    people: tuple[Person, ...]
    servers: tuple[Server, ...]
    orders: tuple[Order, ...] = ()
    limits: dict = field(default_factory=dict)
    rules: dict = field(default_factory=dict)
    """Of the one route."""
    listening: bool = False
    """Clients come over connections, through the server, instead of calling the application."""


def history(seed: str) -> History:
    """The run that `seed` stands for."""
    draw = random.Random(f"history {seed}")
    people = tuple(_person(draw, number) for number in range(draw.randint(3, 10)))
    more = random.Random(
        f"more {seed}"
    )  # on its own, so that what was drawn before stays as it was
    people = tuple(
        replace(one, plays=tuple(_more(more, play) for play in one.plays)) for one in people
    )
    count = draw.choice((1, 2, 2, 3))
    servers = tuple(_server(draw, number, count) for number in range(count))
    whole = History(
        seed=seed,
        people=people,
        servers=servers,
        orders=tuple(_orders(draw, len(people), count)),
        limits=_limits(draw),
        rules=_rules(draw),
        listening=draw.random() < 0.3,
    )
    if not whole.listening:
        return whole
    return replace(whole, people=tuple(_connected(draw, one) for one in people))


def _limits(draw) -> dict:
    heartbeat = draw.choice((1.0, 3.0, 5.0, 5.0, 5.0, 15.0))
    return {
        "heartbeat": heartbeat,
        "event_heartbeat": draw.choice((10.0, 20.0, 120.0)),
        "prelude_hold": draw.choice((7.0, 30.0, 120.0)),
        "first_token_timeout": draw.choice((20.0, 60.0)),
        "idle_timeout": draw.choice((25.0, 50.0)),
        "progress_timeout": draw.choice((30.0, 60.0)),
        "total_timeout": draw.choice((0.0, 0.0, 0.0, 90.0)),
        "write_stall_timeout": draw.choice((10.0, 30.0)),
        "max_retries": draw.choice((0, 1, 3, 3)),
        "max_frame_bytes": draw.choice((3000, 2**20)),
        "max_held_bytes": draw.choice((1024, 2**29, 2**29)),
        "max_streams": draw.choice((4, 10_000, 10_000)),
        "on_failure": draw.choice(("tell", "tell", "cut")),
        "json_heartbeat": draw.random() < 0.3,
    }


def _rules(draw) -> dict:
    balance = draw.choice(("ordered", "least_inflight", "round_robin", "weighted"))
    rules = {"balance": balance, "hedge_share": 0.5}
    if draw.random() < 0.25:
        rules["hedge_after"] = draw.choice((1.0, 3.0))
    if draw.random() < 0.2:
        rules |= {"on_disconnect": "finish", "finish_timeout": draw.choice((2.0, 20.0))}
    return rules


def _server(draw, number: int, count: int) -> Server:
    weather = Weather(
        delay=draw.choice((0.0, 0.001, 0.05, 0.4)),
        grains=draw.choice(GRAINS),
        window=draw.choice((65536, 65536, 500)),
        jam=draw.choice((0.0, 0.0, 0.3)),
    )
    gate = (draw.randint(1, 3), draw.choice((0, 2, 100)), draw.choice((0.0, 4.0)))
    kind = draw.random()
    ill = tuple((at, at + draw.uniform(0, 20)) for at in (draw.uniform(-5, 15),))
    return Server(
        name=f"u{number}",
        weather=weather,
        told=draw.random() < 0.4,
        gate=gate if draw.random() < 0.3 else None,
        breaker=draw.choice((0, 0, 2, 5)),
        chat_only=kind < 0.25,
        worker=kind > 0.85,
        ill=ill if count > 1 and 0.25 < kind < 0.35 else None,
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
    dialect = draw.choice(("chat", "responses", "messages"))
    return Person(
        number=number,
        dialect=dialect,
        stream=draw.random() < 0.85,
        prompt=draw.choice((1, 1, 1, 600)),
        at=draw.choice((0.0, draw.uniform(0, 2), draw.uniform(0, 20))),
        upload=tuple(draw.choice((0.0, 0.0, 0.7)) for _ in range(pieces)),
        plays=tuple(_play(draw) for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 5)))),
        quick=draw.random() < 0.5,
        again=draw.choice((0, 0, 1)),
        agent=AGENTS[dialect] if draw.random() < 0.3 else "",
        behind=draw.choice((0, 0, 1, 2)),
        reset=draw.random() < 0.5,
        **how,
    )


def _connected(draw, person: Person) -> Person:
    if draw.random() >= 0.4:
        return replace(person, grain=draw.choice((0, 0, 0, 1, 37)))
    shuts = bool(person.slow) or draw.random() < 0.6
    return replace(
        person,
        http2=True,
        apart=draw.choice((0.0, 0.0, 0.3, 3.0)),
        window=draw.choice((65535, 2000, 2000 if person.slow else 300)),
        shuts=shuts,
        by_stream=draw.random() < 0.5,
        grain=draw.choice((0, 0, 1, 37)),
    )


def _play(draw) -> Play:
    words = draw.choice((0, 1, 3, 3, 12, 30))
    steady = {
        "words": words,
        "wait": draw.choice((0.0, 0.0, 0.2, draw.uniform(0, 12))),
        "every": draw.choice((0.0, 0.0, 0.0, 0.05, 1.0)),
        "burst": draw.choice((1, 3, 50)),
        "grain": draw.choice((0, 0, 0, 0, 1000, 61)),
        "usage": draw.random() < 0.8,
        "keep": draw.random() < 0.8,
        "long": draw.choice((0, 0, 0, 0, 1000, 5000)),
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
    rare = {
        "flood": {"words": 110, "flood": 2000, "burst": 5},
        "muttering": {"words": 3, "silence": 30.0, "comments": True, "long": 1000},
    }
    kind = draw.choice((*(tuple(kinds) * 3), *rare))
    kinds |= rare
    return Play(kind=kind, **kinds[kind])


def _more(draw, play: Play) -> Play:
    """The same, or with something more that a server may do. Words and pace stay as they are."""
    if play.refuse or draw.random() < 0.5:
        return play
    if play.status != 200:
        return replace(play, **draw.choice(STATUSES))
    cut = {
        "sent": draw.choice((0.0, 1.0, draw.random(), draw.random())),
        "end": draw.choice(("fin", "rst")),
    }
    words = max(3, play.words)
    late = {"words": words, "error": 529, "error_at": draw.choice((-1, words)), "usage": False}
    kinds = {
        "by length": {"framing": "length", "comments": False},
        "until close": {"framing": "close"},
        "gzip": {"gzip": True},
        "extensions": {"extra": "extensions"},
        "trailers": {"extra": "trailers"},
        "late bytes": {"extra": "late"},
        "form": {"form": draw.choice(FORMS)},
        "form, and comments": {"form": draw.choice(FORMS), "comments": bool(play.silence)},
        "torn": cut | {"torn": draw.random(), "framing": draw.choice(FRAMINGS), "comments": False},
        "torn head": cut | {"sent": 0.0, "torn": draw.random()},
        "garbage": cut | {"garbled": draw.choice(("head", "size"))},
        "another answer": {"answer": draw.choice(("json", "html"))},
        "call": {"calls": True, "words": words, "error": 0},
        "call silent": {"calls": True, "words": words, "error": 0}
        | {"silence": draw.uniform(0, 80), "silent_at": draw.randint(1, words + 2)},
        "call cut": cut | {"calls": True, "words": words, "error": 0},
        "late failure": late
        | {
            "silence": draw.choice((0.3, 3.0)),
            "silent_at": 1 if late["error_at"] < 0 else words + 3,
        },
    }
    kind = draw.choice(tuple(kinds))
    return replace(play, kind=kind, **kinds[kind])


FORMS = ("crlf", "cr", "bom", "lines", "fields", "tight")
FRAMINGS = ("chunked", "chunked", "length", "close")
STATUSES = (
    {"status": 302, "kind": "redirect"},
    {"status": 401},
    {"status": 403},
    {"status": 404},
    {"status": 429, "quota": True},
    {"status": 429, "retry_after": 3.0, "dated": True},
    {"status": 503, "retry_after": 60.0, "dated": True},
    {"status": 502, "answer": "html"},
)


def _orders(draw, people: int, servers: int):
    for _ in range(draw.choice((0, 0, 1, 2))):
        yield Order(at=draw.uniform(0, 20), what="cancel", number=draw.randrange(people))
    for _ in range(draw.choice((0, 0, 0, 1, 2))):
        limits = {"heartbeat": draw.choice((1.0, 5.0, 15.0)), "max_retries": draw.randint(0, 3)}
        yield Order(
            at=draw.uniform(0, 20),
            what="reload",
            limits=limits if draw.random() < 0.5 else {},
            renewed=draw.randrange(servers) if draw.random() < 0.5 else None,
            without=draw.randrange(servers) if servers > 1 and draw.random() < 0.3 else None,
        )
    if draw.random() < 0.25:
        yield Order(at=draw.uniform(0, 30), what="drain", patience=draw.choice((0.0, 1.0, 30.0)))
