"""The upstreams of one proxy, made from its settings, and what of them outlives a change of these.

| an upstream is | made by | closed by | has gate, breaker, weight and dialects |
|---|---|---|---|
| a table `[[upstreams]]` | us | us | as the table says |
| an embedder's own | him | him | as the table of its name says, if there is one |
| the demo, if there is neither | us | us | none |

After a reload there is another `Fleet`. What the new settings say the same of is taken over from the
one before, each part by itself: the connections, if nothing changed of what they are made from; the gate
and the breaker, if there still is an upstream of that name at the same place. So a new weight costs no
connection, and a new key forgets neither who is in nor that the server was down. Requests that run
hold on to the endpoints they began with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from .config import check_routes
from .core.breaker import Breaker, BreakerRules
from .endpoint import Endpoint
from .gate import Gate
from .health import Health
from .router import Router
from .upstreams.models import MergedModels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .config import Settings
    from .config import Upstream as Table
    from .ports import Upstream

AROUND = frozenset(
    {
        "dialects",
        "profile",
        "weight",
        "max_inflight",
        "max_queued",
        "queue_timeout",
        "breaker_failures",
        "breaker_rate",
        "breaker_window",
        "breaker_cooldown",
        "health_path",
        "health_interval",
        "health_timeout",
    }
)
"""What is said of an upstream's surroundings: it may change, and the upstream itself stays."""

_CHECKING = ("health_path", "health_interval", "health_timeout")


@runtime_checkable
class Closable(Protocol):
    """Holds connections."""

    async def aclose(self) -> None:
        """Close them all, also those in use; harmless to repeat."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One upstream with what surrounds it. `table` is None where settings say nothing of it."""

    upstream: Upstream
    """As it is; `endpoint` has it with a translation around it, if there is one."""
    endpoint: Endpoint
    table: Table | None
    connect_timeout: float
    rules: BreakerRules
    gate: Gate | None
    """Kept, once there is one, though there be no limit any more: it knows how many are in."""
    ours: bool


class Fleet:
    """All upstreams, and the router to them. Raises SettingsError for routes that lead nowhere.

    `own` are an embedder's; with `alone` they take the place of all that `settings` name. `before` is
    the fleet that this one comes after. Until it is made as a whole nothing of `before` is changed.
    """

    def __init__(
        self,
        settings: Settings,
        own: Sequence[Upstream] = (),
        *,
        alone: bool = False,
        before: Fleet | None = None,
    ) -> None:
        theirs = given = _by_name(own)
        tables = {table.name: table for table in settings.upstreams}
        if alone:
            tables = {name: table for name, table in tables.items() if name in theirs}
        names = tuple(dict.fromkeys((*tables, *theirs)))
        check_routes(settings, names)
        if not names:
            theirs, names = _demo()
        known: Mapping[str, Member] = before.members if before is not None else {}
        self.members: dict[str, Member] = {
            name: _member(
                tables.get(name),
                theirs.get(name),
                known.get(name),
                connect_timeout=settings.connect_timeout,
                single=len(names) == 1,
                ours=name not in given,
            )
            for name in names
        }
        endpoints = [member.endpoint for member in self.members.values()]
        models = Endpoint(upstream=MergedModels(endpoints, _renames(self.members)))
        self.router = Router(
            endpoints,
            settings.routes_over(names),
            models=models if len(endpoints) > 1 else None,
        )
        for member in self.members.values():
            _set_limits(member)

    @property
    def checks(self) -> tuple[Health, ...]:
        """The health checks that are wanted."""
        found = (member.endpoint.health for member in self.members.values())
        return tuple(health for health in found if health is not None)

    def to_close(self, after: Fleet | None = None) -> tuple[Closable, ...]:
        """What we opened and `after` has not taken over."""
        kept = {id(member.upstream) for member in after.members.values()} if after else ()
        found = (member.upstream for member in self.members.values() if member.ours)
        return tuple(
            cast("Closable", upstream)
            for upstream in found
            if isinstance(upstream, Closable) and id(upstream) not in kept
        )


def _by_name(own: Sequence[Upstream]) -> dict[str, Upstream]:
    found = {upstream.name: upstream for upstream in own}
    if len(found) < len(own):
        raise ValueError("each upstream needs a name of its own")
    return found


def _demo() -> tuple[dict[str, Upstream], tuple[str, ...]]:
    from .demo import DemoUpstream

    demo = DemoUpstream()
    return {demo.name: demo}, (demo.name,)


def _member(
    table: Table | None,
    own: Upstream | None,
    before: Member | None,
    *,
    connect_timeout: float,
    single: bool,
    ours: bool,
) -> Member:
    upstream = own
    if upstream is None:
        assert table is not None, "whatever has a name has a table, or is the embedder's"
        upstream = _taken_over(table, before, connect_timeout)
        upstream = upstream or _made(table, connect_timeout)
    known = before if before is not None and _is_same_server(before, upstream, table) else None
    rules = _rules(table, single=single)
    gate = known.gate if known is not None else None
    if gate is None and table is not None and table.max_inflight:
        gate = Gate()
    breaker = known.endpoint.breaker if known is not None and known.rules == rules else None
    if breaker is None:
        checked = table is not None and table.health_path is not None
        breaker = Breaker(rules) if rules.failures or rules.rate or checked else None
    endpoint = Endpoint(
        upstream=_spoken_to(upstream, table, connect_timeout),
        breaker=breaker,
        gate=gate,
        weight=table.weight if table is not None else 1.0,
        dialects=frozenset(table.dialects) if table is not None else None,
        health=_health(table, known, upstream, breaker, connect_timeout),
    )
    return Member(
        upstream=upstream,
        endpoint=_same_or(endpoint, known),
        table=table,
        connect_timeout=connect_timeout,
        rules=rules,
        gate=gate,
        ours=ours,
    )


def _same_or(endpoint: Endpoint, known: Member | None) -> Endpoint:
    """The one of before where nothing differs: it knows how many attempts are under way."""
    if known is None:
        return endpoint
    old = known.endpoint
    same = all(
        getattr(old, part) == getattr(endpoint, part)
        for part in ("upstream", "breaker", "gate", "weight", "dialects", "health")
    )
    return old if same else endpoint


def _is_same_server(before: Member, upstream: Upstream, table: Table | None) -> bool:
    """True if what gate and breaker have seen was of this very server."""
    if before.upstream is upstream:
        return True
    return (
        before.ours
        and table is not None
        and before.table is not None
        and (before.table.base_url == table.base_url)
    )


def _taken_over(table: Table, before: Member | None, connect_timeout: float) -> Upstream | None:
    """The upstream of before, with its connections, if it would be made just so."""
    if before is None or before.table is None or not before.ours:
        return None
    was = (before.connect_timeout, before.table.model_dump(exclude=set(AROUND)))
    now = (connect_timeout, table.model_dump(exclude=set(AROUND)))
    return before.upstream if was == now else None


def _made(table: Table, connect_timeout: float) -> Upstream:
    # Imported when it is wanted: a program with workers alone does not load an HTTP library.
    from .making import http_upstream

    return http_upstream(table, connect_timeout)


def _spoken_to(upstream: Upstream, table: Table | None, connect_timeout: float) -> Upstream:
    """The same; in Chat, where it does not speak all that clients do."""
    if table is None or (profile := table.translation) is None:
        return upstream
    from .upstreams.translated import Translated

    tokenizer: Upstream | None = None
    if profile.tokenizer_url is not None:
        from .making import upstream_for_checks

        tokenizer = upstream_for_checks(table, connect_timeout)
    return Translated(upstream, profile, dialects=table.dialects, tokenizer=tokenizer)


def _rules(table: Table | None, *, single: bool) -> BreakerRules:
    if table is not None:
        return table.breaker(alone=single)
    return BreakerRules(failures=0, rate=0.0) if single else BreakerRules()


def _set_limits(member: Member) -> None:
    table = member.table
    if member.gate is None:
        return
    if table is None:
        member.gate.change(0, 0, 0.0)
    else:
        member.gate.change(table.max_inflight, table.max_queued, table.queue_timeout)


def _renames(members: Mapping[str, Member]) -> dict[str, Mapping[str, str]]:
    """What each of our upstreams calls models; an embedder's own are asked by clients' names."""
    return {
        name: member.table.models
        for name, member in members.items()
        if member.ours and member.table is not None
    }


def _health(
    table: Table | None,
    known: Member | None,
    upstream: Upstream,
    breaker: Breaker | None,
    connect_timeout: float,
) -> Health | None:
    if table is None or table.health_path is None or breaker is None:
        return None
    if known is not None and known.table is not None:
        old = known.endpoint
        same = all(getattr(known.table, name) == getattr(table, name) for name in _CHECKING)
        if same and known.upstream is upstream and old.breaker is breaker:
            return old.health
    from .making import upstream_for_checks

    return Health(
        upstream_for_checks(table, connect_timeout),
        table.health_path,
        breaker,
        interval=table.health_interval,
        timeout=table.health_timeout,
    )
