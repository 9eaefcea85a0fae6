"""Who may answer a request: its route's upstreams, in the order in which they are to be asked.

Made once from settings and never changed; a reload makes another one, and requests keep that which they
began with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from .core import headers as fields
from .core.balance import Balancer
from .core.errors import BadRequest
from .core.failure import Cause, Failure, Refused
from .core.retry import HedgeBudget
from .core.routing import Route, Rules, choose, speakers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .core.routing import Query
    from .endpoint import Endpoint

ANY = ("chat", "responses", "messages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who may answer one request. `order` holds indexes of `endpoints`, each once."""

    endpoints: tuple[Endpoint, ...]
    order: tuple[int, ...]
    rules: Rules
    hedges: HedgeBudget


class _Way:
    """One route's upstreams for one dialect, and whose turn it is."""

    def __init__(self, route: Route, endpoints: tuple[Endpoint, ...], hedges: HedgeBudget) -> None:
        self._endpoints = endpoints
        self._rules = route.rules
        self._hedges = hedges
        self._balancer = Balancer(
            route.rules.balance,
            [endpoint.name for endpoint in endpoints],
            [endpoint.weight for endpoint in endpoints],
        )
        # With a single upstream there is nothing to decide.
        self._only = self._plan((0,)) if len(endpoints) == 1 else None

    def plan(self, query: Query) -> Plan:
        if self._rules.hedge_after:
            self._hedges.count()
        if self._only is not None:
            return self._only
        sticky = fields.get(query.headers, self._rules.sticky) if self._rules.sticky else None
        now = trio.current_time()
        order = self._balancer.order(
            [endpoint.inflight for endpoint in self._endpoints],
            sticky,
            lambda index: self._endpoints[index].admits(now),
        )
        return self._plan(order)

    def _plan(self, order: tuple[int, ...]) -> Plan:
        return Plan(endpoints=self._endpoints, order=order, rules=self._rules, hedges=self._hedges)


class Router:
    """Chooses. `routes` end with one that fits every request; `models` answers for all upstreams
    where a client asks which models there are, unless a route with that path leads it elsewhere."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        routes: tuple[Route, ...],
        *,
        models: Endpoint | None = None,
    ) -> None:
        self.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._routes = routes
        self._first = routes[0] if routes and routes[0].fits_all else None
        self._spoken = {name: endpoint.dialects or ANY for name, endpoint in self.endpoints.items()}
        self._hedges = {route.number: HedgeBudget(route.rules.hedge_share) for route in routes}
        self._ways: dict[tuple[int, str | None], _Way] = {}
        self._models = None if models is None else _alone(models)

    @classmethod
    def to(cls, endpoint: Endpoint, rules: Rules | None = None) -> Router:
        """Everything goes to one upstream."""
        routes = (Route(number=0, upstreams=(endpoint.name,), rules=rules or Rules()),)
        return cls([endpoint], routes)

    def plan(self, method: str, query: Query) -> Plan:
        """Who may answer `query`. Raises Refused where nobody speaks its dialect."""
        route = self._first or choose(self._routes, query)
        if route is None:
            raise Refused(Failure(cause=Cause.NOT_FOUND, message="no route fits this request"))
        if self._models is not None and method == "GET" and asks_for_models(query, route):
            return self._models
        way = self._ways.get((route.number, query.dialect))
        if way is None:
            way = self._ways[route.number, query.dialect] = self._way(route, query.dialect)
        return way.plan(query)

    def _way(self, route: Route, dialect: str | None) -> _Way:
        if not route.upstreams:  # they have no names to go by: an embedder's own, or the demo's
            return _Way(route, tuple(self.endpoints.values()), self._hedges[route.number])
        try:
            names = speakers(route, dialect, self._spoken)
        except BadRequest as error:
            failure = Failure(cause=Cause.INVALID_REQUEST, message=str(error))
            raise Refused(failure) from error
        endpoints = tuple(self.endpoints[name] for name in names)
        return _Way(route, endpoints, self._hedges[route.number])


def asks_for_models(query: Query, route: Route) -> bool:
    """True if a GET asks which models there are, on a route that was not meant for its path."""
    return query.path.endswith("/models") and route.paths is None


def _alone(endpoint: Endpoint) -> Plan:
    return Plan(endpoints=(endpoint,), order=(0,), rules=Rules(), hedges=HedgeBudget(0.0))
