"""Settings: read once, checked as a whole, never changed afterwards.

One model holds every value, its default, what it may be (`allowed.py`) and what it means; flags,
environment, file and Python code all go through it. `docs/settings.md` is made from it
(`python -m trio_sse_proxy.reference`). One upstream's settings stand in `settings_upstream.py`, one
route's in `settings_route.py`.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from . import allowed, secrets
from .core.breaker import BreakerRules
from .core.door import is_loopback
from .core.limits import Limits, OnFailure
from .core.routing import OnDisconnect, Rules
from .core.routing import Route as CoreRoute
from .settings_error import Checked, SettingsError, nearest, tables_of
from .settings_route import Route
from .settings_upstream import AbortCall, Upstream

__all__ = [
    "AbortCall",
    "Route",
    "Settings",
    "SettingsError",
    "Upstream",
    "check_door",
    "check_routes",
    "load",
]

PREFIX = "TRIO_SSE_PROXY_"
SHORTHANDS = ("config", "upstream")
"""What flags and environment know beside the settings: a file to read, and one upstream's URL."""

NEED_RESTART = (
    "bind",
    "certfile",
    "keyfile",
    "write_stall_timeout",
    "drain_timeout",
    "keep_alive",
    "header_timeout",
    "max_connections",
    "max_header_bytes",
    "max_header_fields",
    "max_resets",
    "max_control_frames",
    "admin_key",
    "records",
    "log_level",
)
"""What listening sockets, the endpoints under /-/ and the log are made from, once."""


def _certfile(values: dict[str, Any]) -> Path | None:
    return values.get("certfile")


def _different_names(upstreams: Sequence[Upstream]) -> tuple[Upstream, ...]:
    names = [upstream.name for upstream in upstreams]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise allowed.Refused(
            f"must have different names, and two are called {twice}"
            " (without a name, an upstream is called like its host)"
        )
    return tuple(upstreams)


class Settings(Checked, BaseSettings):
    """Everything that can be set.

    Built in code, it holds what it is given and the defaults: nothing else is read, `env:` and
    `file:` secrets apart. `load` reads file and environment too. Raises SettingsError.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        enable_decoding=False,  # text from the environment is parsed like text from a flag
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    bind: Annotated[str, allowed.address()] = "127.0.0.1:8787"
    """The address to listen on. Anywhere but on loopback, `client_keys` are required."""

    upstreams: Annotated[
        Sequence[Upstream],
        tables_of(Upstream, "a list of tables: base_url, and what else an upstream needs"),
        AfterValidator(_different_names),
    ] = ()
    """The model servers that requests go to. Without any, the built-in demo upstream answers.
    Of several, `GET /v1/models` lists what all of them have.
    `--upstream URL` and `TRIO_SSE_PROXY_UPSTREAM=URL` stand for one with that `base_url`;
    `TRIO_SSE_PROXY_UPSTREAMS` takes the whole list as JSON."""

    routes: Annotated[
        Sequence[Route],
        tables_of(Route, "a list of tables: upstreams, and what requests go to them"),
    ] = ()
    """Which requests go to which of them. Without any, and for a request that fits none, it is the
    first upstream. `TRIO_SSE_PROXY_ROUTES` takes the whole list as JSON."""

    heartbeat: Annotated[float, allowed.seconds(least=1)] = 5.0
    """How long a client that waits for its stream may go without a byte before it gets a heartbeat,
    from the moment its request was read. 5 s is under every idle limit of balancers and local
    proxies we met."""

    commit_after: Annotated[
        float | None, allowed.seconds_or_none("0 (at once) or more seconds")
    ] = None
    """How long the upstream's own status and headers are waited for. After that the client gets
    `200 text/event-stream` with a heartbeat, and what fails later is told on the stream. If left
    out: as long as `heartbeat`. With `heartbeat = 0` nothing is sent early."""

    event_heartbeat: Annotated[float, allowed.seconds(least=1)] = 120.0
    """How long an agent that counts events, not bytes, may go without one before it gets an event
    in its dialect's own form that changes nothing. Both big coding agents give up after 300 s."""

    event_heartbeat_clients: Annotated[
        Sequence[str], allowed.words("parts of names, without spaces", r"[!-+\--~]+")
    ] = ("codex", "claude-cli")
    """Who gets event heartbeats: clients whose `User-Agent` or `originator` names one of these.
    Others are left out, since strict clients break on some of those events."""

    json_heartbeat: Annotated[bool, allowed.switch()] = False
    """Keep a client alive that waits for a JSON answer, with white space in front of it (legal by
    RFC 8259, section 2). Its price: the status is 200 by then, also if the request fails later."""

    prelude_hold: Annotated[float, allowed.seconds_up_to(240)] = 120.0
    """How long the opening events of an attempt are held back while there is no output. As long as
    they are held, a failure is answered with another attempt and the client sees one clean
    stream."""

    connect_timeout: Annotated[float, allowed.seconds()] = 10.0
    """How long connecting to the upstream may take, TLS included."""

    first_token_timeout: Annotated[float, allowed.seconds()] = 600.0
    """How long an attempt may take from the request being forwarded to its first output."""

    idle_timeout: Annotated[float, allowed.seconds()] = 300.0
    """How long the upstream may send no byte at all after its first output."""

    progress_timeout: Annotated[float, allowed.seconds()] = 600.0
    """How long the upstream may send nothing but comments and pings after its first output."""

    total_timeout: Annotated[float, allowed.seconds()] = 0.0
    """How long a request may take in all, other calls than the three dialects' included."""

    max_retries: Annotated[int, allowed.count(zero="none")] = 3
    """How many more attempts a request may have after its first, as long as nothing of the answer
    has reached the client."""

    retry_deadline: Annotated[float, allowed.seconds(zero="no limit")] = 600.0
    """How long after the request another attempt may still begin."""

    retry_after_cap: Annotated[float, allowed.seconds(zero="only those of 0 s")] = 10.0
    """The longest `Retry-After` of an upstream that is waited out here. An answer that asks for
    more goes to the client at once."""

    retry_budget: Annotated[float, allowed.share()] = 0.5
    """The share of all running requests that may be in a retry at one time; 100 always may. It
    keeps a failing upstream from being buried under retries."""

    on_failure: Annotated[OnFailure, allowed.one_of("tell", "cut")] = OnFailure.TELL
    """What a client gets when its stream fails midway: `tell` sends the dialect's error event,
    `cut` breaks the body off, for agents that ask again only after a cut."""

    on_disconnect: Annotated[OnDisconnect, allowed.one_of("abort", "finish")] = OnDisconnect.ABORT
    """What happens when a client leaves its stream: `abort` ends the upstream's work at once,
    `finish` has the rest read for the record's sake. A route may have its own."""

    finish_timeout: Annotated[float, allowed.seconds(zero="no limit")] = 600.0
    """How long the rest is read after the client left, with `on_disconnect = "finish"`. A route may
    have its own."""

    write_stall_timeout: Annotated[float, allowed.seconds()] = 30.0
    """How long a client may take nothing of what is written to it before it counts as gone."""

    drain_timeout: Annotated[float, allowed.seconds(zero="waits for nobody")] = 30.0
    """How long running streams may go on after SIGTERM or SIGINT before their clients are told."""

    keep_alive: Annotated[float, allowed.seconds(zero="for ever")] = 75.0
    """How long a client's connection may wait for its next request, or for its first. 75 s is over
    the 60 s after which most balancers drop it themselves."""

    header_timeout: Annotated[float, allowed.seconds()] = 20.0
    """How long the head of an HTTP/1.1 request may take from its first byte to its last."""

    body_timeout: Annotated[float, allowed.seconds()] = 30.0
    """How far a client may fall behind with its request's body: each second of waiting counts
    against it, each KiB that comes is worth a second, and more than this is never saved up. One that
    has used it up gets 408. While it is the upstream that is slow to take the body nothing counts."""

    max_connections: Annotated[
        int, allowed.count(zero="half of the file descriptors this process may have")
    ] = 0
    """How many connections of clients there may be at one time. For one more, the connection goes that
    has been without a request for the longest; if all have one, the newcomer gets 503."""

    max_header_bytes: Annotated[int, allowed.size(least=4096)] = 2**16
    """How long a request's head may grow without coming to its end (HTTP/1.1), or be when it is unpacked
    (HTTP/2). Trailers and chunk extensions are held to it as well."""

    max_header_fields: Annotated[int, allowed.count(least=16)] = 256
    """How many header fields a request may have; one with more gets 431."""

    max_resets: Annotated[int, allowed.count(zero="no limit")] = 200
    """How many streams of one HTTP/2 connection may be reset within 10 s. More end the connection: a
    request that is reset at once costs its client next to nothing ("rapid reset")."""

    max_control_frames: Annotated[int, allowed.count(zero="no limit")] = 2000
    """How many HTTP/2 frames that are neither a request nor a fair piece of a body a client may send
    on one connection within 10 s: settings, pings, empty frames. More end the connection."""

    max_body_bytes: Annotated[int, allowed.size(least=1024)] = 64 * 2**20
    """The largest request body; a larger one gets 413."""

    max_frame_bytes: Annotated[int, allowed.size(least=1024)] = 2**20
    """The most that is held of an unfinished event, of the opening events, or of a JSON answer.
    What is longer is streamed through, and cannot be asked for again."""

    max_held_bytes: Annotated[int, allowed.size(least=1024)] = 512 * 2**20
    """The most that all request bodies kept for another attempt may take together."""

    max_streams: Annotated[int, allowed.count(least=1)] = 10_000
    """How many requests may run at one time; one more gets 503 with `Retry-After`."""

    client_keys: Annotated[Sequence[SecretStr], secrets.keys()] = ()
    """The keys of which a client must send one, as `Authorization: Bearer` or `x-api-key`. They are
    never forwarded. Without any, everybody who can connect may come in, so they are required if
    `bind` is not loopback."""

    admin_key: Annotated[SecretStr | None, secrets.key_or_none()] = None
    """The key for metrics, streams and records under `/-/`. Without it they are open on loopback
    and hidden elsewhere."""

    allowed_hosts: Annotated[
        Sequence[str], allowed.words("host names, with or without a port, or *", r"[\w.:*\[\]-]+")
    ] = ()
    """Values of the `Host` header to accept; `*` accepts all. If left out: names of loopback while
    bound to it (a web page whose name points at 127.0.0.1 has another), everything elsewhere."""

    allowed_origins: Annotated[
        Sequence[str],
        allowed.words(
            "origins such as https://app.example.com, null, or *", r"\*|null|\w+://[^/\s]+"
        ),
    ] = ()
    """Values of the `Origin` header to accept; `*` accepts all. If left out: origins on loopback
    while bound to it, everything elsewhere."""

    certfile: Annotated[Path | None, allowed.file_or_none()] = None
    """A PEM file with this server's certificate chain: listen with TLS."""

    keyfile: Annotated[Path | None, allowed.file_or_none()] = Field(default_factory=_certfile)
    """A PEM file with the private key. If left out: `certfile`, which then holds both."""

    records: Annotated[int, allowed.count(zero="none")] = 1000
    """How many of the latest records `/-/records` keeps in memory."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        allowed.one_of("debug", "info", "warning", "error", "critical"),
    ] = "info"
    """The least urgent log lines that are written. Each request has one, at its end, as `info`."""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        # A server with half of the pair would listen without TLS.
        if (self.keyfile is None) is not (self.certfile is None):
            raise SettingsError("keyfile", ": needs certfile beside it, and the other way round")
        if self.certfile is not None:
            try:
                allowed.check_certificate(self.certfile, self.keyfile)
            except allowed.Refused as refused:
                raise SettingsError("certfile", f" = {self.certfile}: {refused}") from refused
        return self

    @model_validator(mode="after")
    def _route_keys_open_the_door(self) -> Self:
        # Otherwise the door would turn away whoever the route is for.
        keys = {key.get_secret_value() for key in self.client_keys}
        for place, route in enumerate(self.routes, 1):
            if keys and route.client and route.client.get_secret_value() not in keys:
                raise SettingsError(
                    "routes.client", f" of route {place}: must be one of client_keys"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is called with: an embedder's environment is not ours to read."""
        return (init_settings,)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `bind`."""
        return allowed.split_address(self.bind)

    @property
    def limits(self) -> Limits:
        """What a stream is held to, in the form the core takes."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(Limits)}
        values["commit_after"] = self.heartbeat if self.commit_after is None else self.commit_after
        values["event_heartbeat_clients"] = tuple(self.event_heartbeat_clients)
        return Limits(**values)

    def breaker(self, upstream: Upstream) -> BreakerRules:
        """When the circuit breaker of one of `upstreams` opens."""
        return upstream.breaker(alone=len(self.upstreams) < 2)

    @property
    def routing(self) -> tuple[CoreRoute, ...]:
        """All routes in the form the core takes. The last one fits every request, so that one of
        them always does."""
        return self.routes_over([upstream.name for upstream in self.upstreams])

    def routes_over(self, names: Sequence[str]) -> tuple[CoreRoute, ...]:
        """The same, where the upstreams are `names`, an embedder's own among them."""
        first = tuple(names[:1])
        rules = Rules(on_disconnect=self.on_disconnect, finish_timeout=self.finish_timeout)
        rest = CoreRoute(number=0, upstreams=first, rules=rules)
        return (*(route.in_core(place, rules) for place, route in enumerate(self.routes, 1)), rest)


def check_routes(settings: Settings, known: Sequence[str]) -> None:
    """Refuse routes to upstreams other than `known`. No part of `Settings`: an embedder's own upstreams
    are in none."""
    for name in (name for route in settings.routes for name in route.upstreams):
        if name not in known:
            problem = nearest(name, known) if known else ", there are none"
            raise SettingsError("routes.upstreams", f" = {name}: no such upstream{problem}")


def check_door(settings: Settings) -> None:
    """Refuse a listener that everybody could use. For servers; embedded, the host keeps the
    door."""
    host, _ = settings.address
    if not is_loopback(host.lower()) and not settings.client_keys:
        raise SettingsError(
            "bind",
            f" = {settings.bind}: is not loopback, so client_keys are required"
            " (anybody who can connect could use the upstream)",
        )


@dataclass(frozen=True, slots=True)
class _Given:
    """A value somebody gave, and where."""

    value: Any
    origin: str


def load(config: Path | None, flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Flags over environment over file over defaults. Raises SettingsError.

    `flags` are named like the settings; None means not given. `config` is the TOML file; without it
    `TRIO_SSE_PROXY_CONFIG` names one, or there is none. An empty variable counts as not set.
    """
    given = dict(_from_environment(environ))
    file = given.pop("config", None)
    if config is None and file is not None:
        config = Path(str(file.value))
    given = dict(_from_file(config)) | given | dict(_from_flags(flags))
    looked_up = secrets.environment.set(environ)
    try:
        settings = Settings(**{name: one.value for name, one in given.items()})
        check_routes(settings, [upstream.name for upstream in settings.upstreams])
    except SettingsError as error:
        source = given.get(error.setting.partition(".")[0])
        raise SettingsError(
            error.setting, error.problem, source.origin if source else ""
        ) from error
    finally:
        secrets.environment.reset(looked_up)
    return settings


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, _Given]]:
    for name, value in flags.items():
        if value is not None:
            yield _expand(name, value, f"--{name.replace('_', '-')}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in ours.items()}
    values: dict[str, Any] = source()
    for name, value in ours.items():
        setting = name.removeprefix(PREFIX).lower()
        if setting in SHORTHANDS:
            values[setting] = value
        elif setting not in values and not _from_kubernetes(setting):
            known = [known.upper() for known in (*Settings.model_fields, *SHORTHANDS)]
            nearest_one = nearest(setting.upper(), known, PREFIX)
            raise SettingsError(name, f": no such variable{nearest_one}")
    if "upstream" in values and "upstreams" in values:
        raise SettingsError(f"{PREFIX}UPSTREAM", f": cannot stand beside {PREFIX}UPSTREAMS")
    for name, value in values.items():
        yield _expand(name, value, f"{PREFIX}{name.upper()}")


def _from_kubernetes(setting: str) -> bool:
    """A service called trio-sse-proxy makes Kubernetes set TRIO_SSE_PROXY_PORT and the like."""
    return re.fullmatch(r"service_(host|port)(_\w+)?|port(_\w+)?", setting) is not None


def _from_file(path: Path | None) -> Iterator[tuple[str, _Given]]:
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError("config", f" = {path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError; [[[[…
        raise SettingsError("config", f" = {path}: is not TOML: {error}") from error
    for name, value in values.items():
        yield name, _Given(value, str(path))


def _expand(name: str, value: object, origin: str) -> tuple[str, _Given]:
    """`upstream = URL` stands for a whole list."""
    if name == "upstream":
        return "upstreams", _Given([{"base_url": value}], origin)
    return name, _Given(value, origin)
