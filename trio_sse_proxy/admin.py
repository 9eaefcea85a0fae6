"""The proxy's own endpoints, under /-/: health, metrics, upstreams, live streams, latest records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .core.door import matches_key
from .observers.metrics import NONE_YET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request

    from .app import Application
    from .endpoint import Endpoint
    from .exchange import Exchange
    from .observers.metrics import Metrics
    from .observers.recent import RecentRecords

    Handler = Callable[[Request], Awaitable[Response]]


def admin_endpoints(
    application: Callable[[], Application],
    *,
    metrics: Metrics,
    recent: RecentRecords,
    admin_key: str | None,
    open_on_loopback: Callable[[dict[str, Any]], bool],
    upstreams: Callable[[], Iterable[Endpoint]] = tuple,
) -> Starlette:
    """An ASGI application for the paths under /-/. `upstreams` are those of the settings in force.

    All but the two health checks want `admin_key`. Without one they are open to connections of
    which `open_on_loopback(scope)` is true, and 404 to all others.
    """

    def guarded(handler: Handler) -> Handler:
        async def guard(request: Request) -> Response:
            headers = tuple(request.scope["headers"])
            if admin_key is not None:
                if not matches_key(headers, (admin_key,)):
                    return PlainTextResponse("the admin key is required\n", 401)
            elif not open_on_loopback(dict(request.scope)):
                return PlainTextResponse("not found\n", 404)
            return await handler(request)

        return guard

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if application().draining:
            return PlainTextResponse("draining\n", 503)
        return PlainTextResponse("ready\n")

    async def show_metrics(_: Request) -> Response:
        body, kind = metrics.exposition()
        return Response(body, media_type=kind)

    async def list_upstreams(_: Request) -> Response:
        totals = metrics.attempts()
        now = trio.current_time()
        shown = [show_upstream(one, totals.get(one.name, NONE_YET), now) for one in upstreams()]
        return _json({"upstreams": shown})

    async def list_streams(_: Request) -> Response:
        return _json({"streams": [_live(x) for x in application().live.values()]})

    async def cancel_stream(request: Request) -> Response:
        stream_id = str(request.path_params["stream_id"])
        if not application().cancel(stream_id):
            return _json({"error": f"no stream {stream_id} is running"}, 404)
        return _json({"cancelled": stream_id}, 202)

    async def list_records(_: Request) -> Response:
        return _json({"records": [record.as_json() for record in recent.latest_first()]})

    return Starlette(
        routes=[
            Route("/-/healthz", healthz),
            Route("/-/readyz", readyz),
            Route("/-/metrics", guarded(show_metrics)),
            Route("/-/upstreams", guarded(list_upstreams)),
            Route("/-/streams", guarded(list_streams)),
            Route("/-/streams/{stream_id}", guarded(cancel_stream), methods=["DELETE"]),
            Route("/-/records", guarded(list_records)),
        ]
    )


def show_upstream(endpoint: Endpoint, totals: dict[str, int], now: float) -> dict[str, object]:
    """How it is, for people to read; `totals` are its attempts so far, by outcome."""
    last = endpoint.health.last if endpoint.health is not None else None
    connections = endpoint.connections
    return {
        "name": endpoint.name,
        "dialects": sorted(endpoint.dialects) if endpoint.dialects is not None else None,
        "weight": endpoint.weight,
        "running": endpoint.inflight - endpoint.queued,
        "queued": endpoint.queued,
        "limits": endpoint.gate.limits if endpoint.gate is not None else None,
        "breaker": endpoint.breaker.as_json(now) if endpoint.breaker is not None else None,
        "health": last.as_json(now) if last is not None else None,
        "connections": dict(zip(("busy", "idle"), connections, strict=True))
        if connections is not None
        else None,
        "attempts": totals,
    }


def _live(x: Exchange) -> dict[str, object]:
    record = x.record.as_json()
    record["age"] = round(trio.current_time() - x.began, 3)
    record["output"] = x.pacer.output
    return record


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
