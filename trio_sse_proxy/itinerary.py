"""Where a request would go, for people to read: `trio-sse-proxy check --model NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.errors import BadRequest
from .core.routing import Query, Route, is_translated, rename, speakers
from .dialects import recognise
from .router import asks_for_models
from .settings_error import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .config import Settings

_USUAL_PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def query(model: str | None, dialect: str | None, path: str | None) -> Query:
    """The request that was asked about, as the proxy would see it."""
    if dialect is None:
        spoken = recognise("POST", path) if path else None
        dialect = spoken.name if spoken else None if path else "chat"
    if dialect is None:
        model = None  # such a call's body is not read, so no model is known of it
    return Query(model=model, dialect=dialect, path=path or _USUAL_PATHS[dialect or "chat"])


def itinerary(settings: Settings, query: Query) -> str:
    """Route, upstreams in order, and what each calls the model; in lines."""
    return "".join(f"{line}\n" for line in _lines(settings, query))


def _lines(settings: Settings, query: Query) -> Iterator[str]:
    yield (
        f"model {shown(query.model) if query.model else '(none)'},"
        f" dialect {query.dialect or '(none)'}, path {shown(query.path)}"
    )
    if not settings.upstreams:
        yield "no upstream is set: the built-in demo upstream answers"
        return
    for route in settings.routing:
        if route.fits_call(query):
            yield ""
            if route.client is None:
                yield from _route(settings, route, query)
                return  # nobody gets further down than here
            yield "for the client whose key it is:"
            yield from _route(settings, route, query)


def _route(settings: Settings, route: Route, query: Query) -> Iterator[str]:
    upstreams = {upstream.name: upstream for upstream in settings.upstreams}
    spoken = {name: upstream.dialects for name, upstream in upstreams.items()}
    yield f"{route.label}, {_order(route)}"
    if len(upstreams) > 1 and asks_for_models(query, route):
        yield f"  with GET: what {', '.join(upstreams)} have, as one list; with other methods:"
    try:
        names = speakers(route, query.dialect, spoken)
    except BadRequest as refused:
        yield f"  refused with 400: {refused}"
        return
    for place, name in enumerate(names, 1):
        upstream = upstreams[name]
        called = rename(upstream.models, query.model) if query.model else None
        as_model = f", model {shown(called)}" if called else ""
        way = ", translated to chat" if is_translated(query.dialect, spoken[name]) else ""
        yield f"  {place}. {name} ({upstream.base_url}){as_model}{way}"
    for name in route.upstreams:
        if name not in names:
            yield f"  left out: {name} does not speak {query.dialect}"


def _order(route: Route) -> str:
    sticky = route.rules.sticky
    balance = f'balance = "{route.rules.balance.value}"'
    order = f"{balance}, sticky on {sticky.decode()}" if sticky else balance
    after = route.rules.hedge_after
    return f"{order}, another beside it after {after:g} s" if after else order
