"""Which upstreams a request may go to, and by which rules: the first route that fits decides.

A route is chosen by what the request is, never by what its upstreams happen to speak. If a route
gave way to the next one because none of its upstreams speaks the request's dialect, a model that
was meant for one's own machines could end up, by a slip in a list, at somebody else's. So an
upstream that does not speak the dialect, nor Chat, into which the others are translated, is left out of
the route's order, and if none is left, the request is refused in words.

Globs are those of `fnmatch.fnmatchcase`: `*`, `?` and `[…]`, and letters count as they are. A
name that is written out fits itself too: there are models called `…[1m]`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from .balance import Balance
from .door import matches_key
from .errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .headers import Headers

DialectName = Literal["chat", "responses", "messages"]


class OnDisconnect(Enum):
    """What happens to an upstream's work when its client leaves."""

    ABORT = "abort"  # it is told to stop, at once
    FINISH = "finish"  # it is read to its end, for the record


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a route's requests are treated. Durations in seconds."""

    balance: Balance = Balance.ORDERED
    sticky: bytes | None = None
    """The header, in lower case, whose value keeps requests at one upstream."""
    hedge_after: float = 0.0
    """0 is off."""
    hedge_max: int = 2
    hedge_share: float = 0.1
    on_disconnect: OnDisconnect = OnDisconnect.ABORT
    finish_timeout: float = 600.0
    """0 is no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A request, as far as routes can tell requests apart.

    `path` is percent-decoded, without query and mount prefix. Calls other than the three dialects'
    have no dialect, and no model either: their bodies are not read.
    """

    model: str | None = None
    dialect: str | None = None
    path: str = "/"
    headers: Headers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Whatever is given must fit; None fits every request.

    `number` is its place in the settings, from 1; 0 is the route of requests that fit no other.
    `upstreams` are names in order; none at all stands for the only upstream there is.
    """

    number: int
    upstreams: tuple[str, ...]
    models: tuple[str, ...] | None = None
    dialects: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    client: str | None = field(default=None, repr=False)
    rules: Rules = Rules()

    @property
    def fits_all(self) -> bool:
        """True if there is no request that it does not fit."""
        return {self.models, self.dialects, self.paths, self.client} == {None}

    def fits(self, query: Query) -> bool:
        """True if the request may take this route."""
        return self.fits_call(query) and self.fits_client(query)

    def fits_call(self, query: Query) -> bool:
        """The same, whoever asks."""
        return (
            (self.dialects is None or query.dialect in self.dialects)
            and _fits(self.models, query.model)
            and _fits(self.paths, query.path)
        )

    def fits_client(self, query: Query) -> bool:
        """True if the route is for everybody, or the request carries its key (compared in constant
        time)."""
        return self.client is None or matches_key(query.headers, (self.client,))

    @property
    def label(self) -> str:
        """What to call it in a sentence."""
        return f"route {self.number}" if self.number else "the default route"


def choose(routes: Iterable[Route], query: Query) -> Route | None:
    """The first route that fits, or None."""
    return next((route for route in routes if route.fits(query)), None)


def speakers(
    route: Route, dialect: str | None, spoken: Mapping[str, Iterable[str]]
) -> tuple[str, ...]:
    """The route's upstreams that take such a request, in order.

    `spoken` are the dialects of each upstream by its name. Calls other than the three dialects' go
    to any. Raises BadRequest if there were upstreams and none is left.
    """
    left = tuple(name for name in route.upstreams if takes(dialect, spoken[name]))
    if route.upstreams and not left:
        raise BadRequest(
            f"no upstream of {route.label} speaks the {dialect} dialect:"
            f" {'; '.join(f'{name} speaks {_listed(spoken[name])}' for name in route.upstreams)}"
        )
    return left


def takes(dialect: str | None, spoken: Iterable[str]) -> bool:
    """True if an upstream that speaks these dialects takes a call in `dialect`, or in none."""
    spoken = frozenset(spoken)
    return dialect is None or dialect in spoken or is_translated(dialect, spoken)


def is_translated(dialect: str | None, spoken: Iterable[str]) -> bool:
    """True if it gets such a call as Chat, and its answer is translated."""
    spoken = frozenset(spoken)
    return dialect is not None and dialect not in spoken and "chat" in spoken


def rename(models: Mapping[str, str], model: str) -> str:
    """What an upstream calls `model`: by its own entry, else by the first glob that fits, else so."""
    if model in models:
        return models[model]
    return next((name for glob, name in models.items() if fnmatchcase(model, glob)), model)


def _fits(globs: tuple[str, ...] | None, text: str | None) -> bool:
    if globs is None:
        return True
    return text is not None and any(text == glob or fnmatchcase(text, glob) for glob in globs)


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names)
