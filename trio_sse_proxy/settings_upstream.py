"""Settings of one model server: a table `[[upstreams]]`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, SecretStr, ValidationInfo

from . import allowed, allowed_in_tables, allowed_profiles, secrets
from .core.breaker import BreakerRules
from .core.routing import DialectName
from .dialects.translate.profile import GENERIC, Profile
from .settings_error import Checked

DIALECTS: tuple[DialectName, ...] = ("chat", "responses", "messages")

FAILURES = 5
"""What `breaker_failures` is among several upstreams if it is left out."""

AbortName = Literal["none", "sglang", "exo", "kobold", "responses", "textgen"]
_ABORTS: tuple[AbortName, ...] = ("none", "sglang", "exo", "kobold", "responses", "textgen")
_ABORTS_OF_PRESETS: Mapping[str, AbortName] = {"sglang": "sglang", "exo": "exo"}

TABLE = ConfigDict(
    frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
)


class AbortCall(Checked):
    """A call that tells a server to stop one piece of work: a table `abort` of an upstream.

    `{id}` (what the server's own frames call the answer), `{stream_id}` and `{model}` are filled in
    wherever they stand in `url`, `body` and `headers`.
    """

    within: ClassVar[str] = "upstreams.abort."
    model_config = TABLE

    url: Annotated[str, allowed_in_tables.call_url()]
    """Where it goes: a path on the server of `base_url`, counted from that server's root, or a URL
    of another one. What is filled in is percent-encoded."""

    method: Annotated[str, allowed_in_tables.method()] = "POST"
    """The method it is made with."""

    body: Annotated[str, allowed_in_tables.call_body()] = ""
    """What it sends. A table is sent as JSON, and then what is filled in is escaped for that."""

    headers: Annotated[Mapping[str, SecretStr], secrets.headers_with_placeholders()] = Field(
        default_factory=dict
    )
    """Header fields of it. `api_key` and `add_headers` go along by themselves to the server of
    `base_url`, and to no other."""


def _is_of_use(profile: object, info: ValidationInfo) -> object:
    dialects = info.data.get("dialects", ())  # missing if it has just been refused
    if profile is not None and dialects and ("chat" not in dialects or len(dialects) == 3):
        raise allowed.Refused(
            'is for an upstream that is translated for: say which dialects it speaks, with "chat" and'
            ' not all three among them, such as dialects = ["chat"]'
        )
    return profile


def _abort(values: dict[str, Any]) -> AbortName:
    profile: Profile | None = values.get("profile")  # missing if it has just been refused
    return "none" if profile is None else _ABORTS_OF_PRESETS.get(profile.base, "none")


def _host(values: dict[str, Any]) -> str:
    base_url: str = values.get("base_url", "")  # missing if it has just been refused
    return urlsplit(base_url).hostname or "upstream"


class Upstream(Checked):
    """One model server: a table `[[upstreams]]` in the file."""

    within: ClassVar[str] = "upstreams."
    model_config = TABLE

    base_url: Annotated[str, allowed.base_url()]
    """Where it is. A client's leading `/v1` is dropped if this path already has a version segment,
    so `https://api.example.com` and `https://api.example.com/v1` both do."""

    name: Annotated[str, allowed.label()] = Field(default_factory=_host)
    """What it is called in routes, logs, records and metrics. If left out: the host of `base_url`.
    Of several upstreams each has a name of its own."""

    api_key: Annotated[SecretStr | None, secrets.key_or_none()] = None
    """The key it wants, sent in the place of the client's own: as `x-api-key` on Messages, else as
    `Authorization: Bearer`. If left out, the client's own key goes through: to every upstream
    without one that a request is tried at, and with several also to those that are asked which
    models they have."""

    dialects: Annotated[Sequence[DialectName], allowed_in_tables.some_of(*DIALECTS)] = DIALECTS
    """The dialects it speaks. If Chat is among them, requests in another one are translated to Chat,
    and its answers back; else they do not go there. Calls that are in none of the three may."""

    profile: Annotated[
        InstanceOf[Profile] | None, allowed_profiles.profile_or_none(), BeforeValidator(_is_of_use)
    ] = None
    """What its Chat is like, for requests that are translated: a preset, or a table such as
    `{ base = "deepseek", reasoning_echo = "all" }` that sets switches of one. Needs `dialects`, of
    which it leaves one out, since nothing is translated into a dialect that it speaks. If left out:
    `generic`. The switches are in [the dialects](dialects.md#profiles)."""

    models: Annotated[Mapping[str, str], allowed_in_tables.renames()] = Field(default_factory=dict)
    """What it calls models: from a client's name, or a glob of such names, to its own. A name that
    is written out comes before a glob, and the first glob that fits before the others. A name that
    fits nothing goes through as it is. With several upstreams, names that are written out stand in
    the list of models."""

    add_headers: Annotated[Mapping[str, SecretStr], secrets.headers()] = Field(default_factory=dict)
    """Header fields that its requests get, in the place of a client's field of the same name."""

    drop_headers: Annotated[Sequence[str], allowed_in_tables.header_names()] = ()
    """Header fields of clients that it does not get."""

    weight: Annotated[float, allowed.weight()] = 1.0
    """Its share of the requests of a route with `balance = "weighted"`, compared with the others'
    weights."""

    max_inflight: Annotated[int, allowed.count(zero="no limit")] = 0
    """How many requests it may work on at one time. One more waits in line, with heartbeats; each
    client key gets its turn."""

    max_queued: Annotated[int, allowed.count(zero="none")] = 1000
    """How many requests may wait in line for it; for one more it counts as overloaded."""

    queue_timeout: Annotated[float, allowed.seconds(zero="no limit")] = 600.0
    """How long a request may wait in line for it."""

    abort: Annotated[
        AbortName | AbortCall,
        Field(union_mode="left_to_right"),
        allowed_in_tables.named_or_table(
            *_ABORTS, what="a table with url, method, body and headers"
        ),
    ] = Field(default_factory=_abort)
    """How it is told to stop work that nobody wants any more, after its connection was closed:
    `none` for servers that notice that themselves, the name of a server whose call is known, or a
    call of your own. `responses` ends background responses alone. `textgen` stops everything on
    that server. If left out: the call of the server that its `profile` is named after, if that has
    one."""

    abort_timeout: Annotated[float, allowed.seconds_above_zero()] = 2.0
    """How long that call may take."""

    breaker_failures: Annotated[int | None, allowed.or_none(allowed.count(zero="off"))] = None
    """After how many failures in a row it is left alone for a while. If left out: 5 where there are
    several upstreams. Where there is one, nothing could take its place, and left out means that
    `breaker_rate` does not count either."""

    breaker_rate: Annotated[float, allowed.share()] = 0.5
    """The share of failures among its requests of the last `breaker_window` from which on it is
    left alone for a while; 0 is off."""

    breaker_window: Annotated[float, allowed.seconds_above_zero()] = 30.0
    """The time that `breaker_rate` looks back on."""

    breaker_cooldown: Annotated[float, allowed.seconds_above_zero()] = 10.0
    """How long it is left alone at first. Then one request tries it; each one that fails makes the
    next wait longer."""

    health_path: Annotated[str | None, allowed.or_none(allowed_in_tables.path_on_server())] = None
    """A path on its server, counted from the server's root, that is asked for at intervals: while
    the answer is no 2xx, requests go elsewhere. If left out, nothing is asked for."""

    health_interval: Annotated[float, allowed.seconds_above_zero()] = 10.0
    """The time between two such checks."""

    health_timeout: Annotated[float, allowed.seconds_above_zero()] = 2.0
    """How long a check may take."""

    proxy: Annotated[SecretStr | None, secrets.proxy_or_none()] = None
    """The outbound proxy on the way there. If left out, connections are direct: the usual
    `HTTP_PROXY` variables are not read."""

    ca_file: Annotated[Path | None, allowed.authorities_or_none()] = None
    """A PEM file of the certificate authorities to trust instead of the usual ones. Certificates
    are always verified."""

    http2: Annotated[bool, allowed.switch()] = False
    """Offer HTTP/2 to it. HTTP/1.1 costs less for each stream, and every model server speaks it."""

    max_connections: Annotated[int, allowed.count(zero="no limit")] = 0
    """How many connections to it may be open. A request above that waits in line for one."""

    keepalive_expiry: Annotated[float, allowed.seconds(zero="not kept")] = 30.0
    """How long an idle connection to it is kept for the next request."""

    @property
    def translation(self) -> Profile | None:
        """What requests in other dialects are translated by; None if none are."""
        if "chat" not in self.dialects or len(self.dialects) == len(DIALECTS):
            return None
        return self.profile or GENERIC

    def breaker(self, *, alone: bool) -> BreakerRules:
        """When its circuit breaker opens; `alone` says that there is no other upstream."""
        if self.breaker_failures is None and alone:
            failures, rate = 0, 0.0
        else:
            failures = FAILURES if self.breaker_failures is None else self.breaker_failures
            rate = self.breaker_rate
        return BreakerRules(
            failures=failures,
            rate=rate,
            window=self.breaker_window,
            cooldown=self.breaker_cooldown,
        )

    @property
    def abort_url(self) -> str | None:
        """Where the call of a table `abort` goes, in full, with its placeholders; else None."""
        if not isinstance(self.abort, AbortCall):
            return None
        if not self.abort.url.startswith("/"):
            return self.abort.url
        return self._root + self.abort.url

    @property
    def health_url(self) -> str | None:
        """Where its health is asked for, in full, or None."""
        return None if self.health_path is None else self._root + self.health_path

    @property
    def _root(self) -> str:
        url = urlsplit(self.base_url)
        return f"{url.scheme}://{url.netloc}"
