"""The one place that builds things: settings in, a proxy out."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import trio

from .admin import admin_endpoints
from .app import Application, RealWorld
from .core.door import Door, is_loopback
from .core.retry import RetryBudget
from .endpoint import Endpoint
from .exchange import Surroundings
from .logs import log_as_json
from .observers.log import RequestLog
from .observers.metrics import Metrics
from .observers.recent import RecentRecords
from .observers.several import Several
from .router import Router

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from .config import Settings
    from .config import Upstream as UpstreamSettings
    from .downstream import Receive, Scope, Send
    from .ports import Observer, Upstream

    DoorFor = Callable[[Scope], Door | None]


GOODBYES = 2.0  # seconds for the last words to clients when `running()` is left


class Proxy:
    """The proxy, as an ASGI application to mount or to serve.

    `upstream` takes the place of the one that the settings name; without either, the built-in demo
    upstream answers. `observers` are told of every request, besides the log, the metrics and the
    latest records. It serves requests only while `running()` is entered, or the lifespan it makes.

    As part of another application it leaves Host, Origin and client keys to that; `check_door=True`
    makes it check them itself, by the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        upstream: Upstream | None = None,
        observers: tuple[Observer, ...] = (),
        check_door: bool = False,
        door: DoorFor | None = None,
    ) -> None:
        self.settings = settings
        self._upstream = upstream or _upstream(settings)
        self._owned = upstream is None
        self._running = False
        if door is None:
            door = _door_by_connection(settings) if check_door else _no_door
        recent = RecentRecords(settings.records)
        metrics = Metrics()
        limits = settings.limits
        admin = admin_endpoints(
            lambda: self.application,
            metrics=metrics,
            recent=recent,
            admin_key=settings.admin_key.get_secret_value() if settings.admin_key else None,
            open_on_loopback=lambda scope: bool((kept := door(scope)) and kept.loopback),
        )
        self.application = Application(
            Surroundings(
                limits=limits,
                router=Router.to(Endpoint(upstream=self._upstream)),
                budget=RetryBudget(limits.retry_budget),
                observer=Several(recent, metrics, RequestLog(), *observers),
                outside=RealWorld(),
            ),
            door=door,
            admin=cast("Any", admin),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. Raises RuntimeError, in words, where it cannot work."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        _want_trio()
        if not self._running:
            raise RuntimeError(
                "trio_sse_proxy is not running: enter `async with proxy.running():`, or give the"
                " host application `lifespan=proxy.lifespan` (Starlette and FastAPI do not run the"
                " lifespan of a mounted application)"
            )
        await self.application(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Proxy]:
        """Serve requests while this is entered; afterwards no connection to an upstream is left.

        Leaving it ends what still runs, at once; each client is told.
        """
        _want_trio()
        self.application.open()
        self._running = True
        try:
            yield self
        finally:
            self._running = False
            self.application.begin_drain()
            self.application.end_streams()
            with trio.move_on_after(GOODBYES, shield=True):
                await self.application.drained()
                await self._close_upstream()

    def lifespan(self, app: object) -> AbstractAsyncContextManager[None]:
        """For `Starlette(lifespan=proxy.lifespan)` and FastAPI alike."""
        return _as_lifespan(self)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            _want_trio()
        except RuntimeError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        async with self.running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _close_upstream(self) -> None:
        close = getattr(self._upstream, "aclose", None)
        if self._owned and close is not None:
            await close()


@asynccontextmanager
async def _as_lifespan(proxy: Proxy) -> AsyncGenerator[None]:
    async with proxy.running():
        yield


def _want_trio() -> None:
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "trio_sse_proxy runs under trio only: serve it with `trio-sse-proxy serve`, or with"
            " `hypercorn -k trio` (uvicorn and Hypercorn's other workers use asyncio)"
        )


def _upstream(settings: Settings) -> Upstream:
    if not settings.upstreams:
        from .demo import DemoUpstream

        return DemoUpstream()
    return _http_upstream(settings.upstreams[0], settings.connect_timeout)


def _http_upstream(upstream: UpstreamSettings, connect_timeout: float) -> Upstream:
    from .upstreams.http import HttpUpstream
    from .upstreams.tls import make_ssl_context
    from .upstreams.transport import open_transport

    ca_file = str(upstream.ca_file) if upstream.ca_file else None
    return HttpUpstream(
        name=upstream.name,
        base_url=upstream.base_url,
        transport=open_transport(
            http2=upstream.http2,
            proxy=upstream.proxy.get_secret_value() if upstream.proxy else None,
            ssl_context=make_ssl_context(ca_file) if ca_file else None,
            max_connections=upstream.max_connections or None,
            keepalive_expiry=upstream.keepalive_expiry,
        ),
        connect_timeout=connect_timeout,
        api_key=upstream.api_key.get_secret_value() if upstream.api_key else None,
    )


def _no_door(_: Scope) -> None:
    return None


def _door(settings: Settings, *, loopback: bool) -> Door:
    return Door(
        loopback=loopback,
        allowed_hosts=tuple(settings.allowed_hosts),
        allowed_origins=tuple(settings.allowed_origins),
        client_keys=tuple(key.get_secret_value() for key in settings.client_keys),
    )


def _door_by_connection(settings: Settings) -> DoorFor:
    """Where another server listens, only the connection itself tells whether it came by loopback."""
    near, far = _door(settings, loopback=True), _door(settings, loopback=False)

    def door(scope: Scope) -> Door:
        server = scope.get("server")
        return near if server is None or is_loopback(str(server[0])) else far

    return door


def run(settings: Settings, *, announce: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code. `announce` gets each URL once bound.

    Raises BindError and SettingsError before anything is served.
    """
    from .config import check_door

    check_door(settings)
    log_as_json(settings.log_level)
    return trio.run(_serve, settings, announce)


async def _serve(settings: Settings, announce: Callable[[str], None]) -> int:
    from .server import Listening, serve_until_signalled

    door = _door(settings, loopback=is_loopback(settings.address[0].lower()))
    proxy = Proxy(settings, door=lambda _: door)
    listening = Listening(
        bind=settings.bind,
        certfile=str(settings.certfile) if settings.certfile else None,
        keyfile=str(settings.keyfile) if settings.keyfile else None,
        write_stall_timeout=settings.write_stall_timeout,
        drain_timeout=settings.drain_timeout,
    )

    def announce_all(urls: Sequence[str]) -> None:
        for url in urls:
            announce(url)

    async with proxy.running():
        return await serve_until_signalled(
            proxy,
            proxy.application,
            listening,
            on_listening=announce_all,
        )
