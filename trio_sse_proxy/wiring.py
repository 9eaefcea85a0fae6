"""The one place that builds things: settings in, a proxy out."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
import trio

from .admin import admin_endpoints
from .app import Application, RealWorld
from .config import NEED_RESTART
from .core.door import Door, is_loopback
from .core.errors import ProxyError
from .core.retry import RetryBudget
from .crowd import raise_limit
from .exchange import Surroundings
from .fleet import Fleet
from .health import Rounds
from .listening import heed_hangups, open_hangups
from .logs import log_as_json
from .memory import give_back_promptly
from .observers.log import RequestLog
from .observers.metrics import Metrics
from .observers.recent import RecentRecords
from .observers.several import Several

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from .config import Settings
    from .downstream import Receive, Scope, Send
    from .endpoint import Endpoint
    from .fleet import Closable
    from .ports import Observer, Upstream

    DoorFor = Callable[[Scope], Door | None]


GOODBYES = 2.0  # seconds for the last words to clients when `running()` is left
CLOSING = 2.0  # seconds for closing its upstreams then, which is no waiting but for HTTP/2

log = structlog.get_logger("trio_sse_proxy")


class Proxy:
    """The proxy, as an ASGI application to mount or to serve.

    `upstreams` of your own stand beside those that the settings name, in routes too; one that is called
    like a table of the settings takes its place, and keeps its limits, breaker, weight and dialects.
    `upstream` is one that takes the place of them all. Without any, the built-in demo upstream answers.
    What you give is yours to close. Raises SettingsError for a route to an upstream that there is not.

    `observers` are told of every request, besides the log, the metrics and the latest records. It
    serves requests only while `running()` is entered, or the lifespan it makes.

    As part of another application it leaves Host, Origin and client keys to that; `check_door=True`
    makes it check them itself, by the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        upstream: Upstream | None = None,
        upstreams: Sequence[Upstream] = (),
        observers: tuple[Observer, ...] = (),
        check_door: bool = False,
        door_of: Callable[[Settings], DoorFor] | None = None,
    ) -> None:
        if upstream is not None and upstreams:
            raise ValueError("either `upstream`, which stands alone, or `upstreams`")
        self.settings = settings
        self._own = tuple(upstreams) if upstream is None else (upstream,)
        self._alone = upstream is not None
        self._fleet = Fleet(settings, self._own, alone=self._alone)
        self._rounds = Rounds()
        self._rounds.follow(self._fleet.checks)
        self._running = False
        self._door_of = door_of or (_door_by_connection if check_door else _no_door)
        self._door = self._door_of(settings)
        recent = RecentRecords(settings.records)
        metrics = Metrics(self._endpoints)
        self._observer = Several(recent, metrics, RequestLog(), *observers)
        admin = admin_endpoints(
            lambda: self.application,
            metrics=metrics,
            recent=recent,
            admin_key=settings.admin_key.get_secret_value() if settings.admin_key else None,
            open_on_loopback=lambda scope: bool((kept := self._door(scope)) and kept.loopback),
            upstreams=self._endpoints,
        )
        self.application = Application(
            self._surroundings(settings), door=self._door, admin=cast("Any", admin)
        )

    def _endpoints(self) -> Iterable[Endpoint]:
        return self._fleet.router.endpoints.values()

    def _surroundings(self, settings: Settings) -> Surroundings:
        limits = settings.limits
        return Surroundings(
            limits=limits,
            router=self._fleet.router,
            budget=RetryBudget(limits.retry_budget),
            observer=self._observer,
            outside=RealWorld(),
        )

    async def reload(self, settings: Settings) -> tuple[str, ...]:
        """Serve new requests by other settings; those that run keep what they began with.

        Connections, limits and breakers of upstreams that stay are kept, as far as the settings say
        the same of them; the others are closed when the last request that uses them has ended. Does not
        wait for that. Raises SettingsError, and OSError for a file that is gone; then nothing changed.

        Returns the names of settings that differ and stay what they were, since only a new start
        can change them (`NEED_RESTART`).
        """
        stay = {name: getattr(self.settings, name) for name in NEED_RESTART}
        late = tuple(name for name, value in stay.items() if getattr(settings, name) != value)
        settings = settings.model_copy(update=stay)
        before, door = self._fleet, self._door_of(settings)
        self._fleet = Fleet(settings, self._own, alone=self._alone, before=before)
        self.settings, self._door = settings, door
        self.application.change(self._surroundings(settings), door)
        self._rounds.follow(self._fleet.checks)
        await self.application.close_unused(partial(_close, before.to_close(self._fleet)))
        return late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. Raises RuntimeError, in words, where it cannot work."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if not self._running:
            _want_trio()
            raise RuntimeError(
                "trio_sse_proxy is not running: enter `async with proxy.running():`, or give the"
                " host application `lifespan=proxy.lifespan` (Starlette and FastAPI do not run the"
                " lifespan of a mounted application)"
            )
        await self.application(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Proxy]:
        """Serve requests while this is entered; afterwards no connection to an upstream is left.

        Leaving it ends what still runs, at once; each client is told. What is raised inside comes out
        as it is, in no group.
        """
        _want_trio()
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rounds.run)
            self.application.open()
            self._running = True
            try:
                yield self
            except Exception as error:
                failure = error
            finally:
                await self._stop()  # noqa: ASYNC102  # shielded, and has a deadline
                nursery.cancel_scope.cancel("the proxy is not running any more")
        if failure is not None:
            raise failure

    async def _stop(self) -> None:
        self._running = False
        self.application.begin_drain()
        self.application.end_streams()
        with trio.move_on_after(GOODBYES, shield=True):
            await self.application.drained()
        # Also with an abort still on its way: what closes now ends that too.
        with trio.move_on_after(CLOSING, shield=True):
            await self.application.close_all_unused()
            await _close(self._fleet.to_close())

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


async def _close(upstreams: Sequence[Closable]) -> None:
    for upstream in upstreams:
        await upstream.aclose()


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


def _no_door(_: Settings) -> DoorFor:
    return lambda _: None


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


def _door_by_address(settings: Settings) -> DoorFor:
    """Where we listen ourselves, on one address."""
    door = _door(settings, loopback=is_loopback(settings.address[0].lower()))
    return lambda _: door


def _spare_the_collector() -> None:
    """Look for garbage in cycles less often than Python does, in a process that is ours.

    It looks after every 700 objects that stay, which is every few requests, and finds next to nothing:
    what requests leave behind is freed at once, but for some tracebacks. Short streams cost an
    eighth less this way (measured), and what was made at start-up is never looked through again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def run(
    settings: Settings, *, announce: Callable[[str], None], read_again: Callable[[], Settings]
) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code. `announce` gets each URL once bound.

    At SIGHUP, `read_again` has the settings anew, or raises ProxyError or OSError.

    Raises BindError and SettingsError before anything is served.
    """
    from .config import check_door

    check_door(settings)
    log_as_json(settings.log_level)
    _spare_the_collector()
    give_back_promptly()
    raise_limit()
    return trio.run(_serve, settings, announce, read_again)


async def _serve(
    settings: Settings, announce: Callable[[str], None], read_again: Callable[[], Settings]
) -> int:
    from .server import Listening, serve_until_signalled

    proxy = Proxy(settings, door_of=_door_by_address)
    listening = Listening(
        bind=settings.bind,
        certfile=str(settings.certfile) if settings.certfile else None,
        keyfile=str(settings.keyfile) if settings.keyfile else None,
        write_stall_timeout=settings.write_stall_timeout,
        drain_timeout=settings.drain_timeout,
        keep_alive=settings.keep_alive,
        header_timeout=settings.header_timeout,
        max_connections=settings.max_connections,
        max_header_bytes=settings.max_header_bytes,
        max_header_fields=settings.max_header_fields,
        max_resets=settings.max_resets,
        max_control_frames=settings.max_control_frames,
    )

    def announce_all(urls: Sequence[str]) -> None:
        for url in urls:
            announce(url)

    with open_hangups() as hangups:
        async with proxy.running(), trio.open_nursery() as nursery:
            nursery.start_soon(heed_hangups, hangups, partial(reread, proxy, read_again))
            code = await serve_until_signalled(
                proxy,
                proxy.application,
                listening,
                on_listening=announce_all,
            )
            nursery.cancel_scope.cancel("server ended")
    return code


async def reread(proxy: Proxy, read_again: Callable[[], Settings]) -> None:
    """Reload `proxy`, and tell the log how that went. Settings that are wrong change nothing."""
    from .config import check_door

    try:
        settings = read_again()
        check_door(settings.model_copy(update={"bind": proxy.settings.bind}))
        late = await proxy.reload(settings)
    except (ProxyError, OSError) as error:
        log.error("settings refused, the old ones stay", problem=str(error))
        return
    if late:
        log.warning("some settings change only with a new start", settings=late)
    log.info("settings read again")
