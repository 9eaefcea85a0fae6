"""Settings of one route: a table `[[routes]]`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import SecretStr

from . import allowed, allowed_in_tables, secrets
from .allowed import or_none
from .core.balance import Balance
from .core.routing import DialectName, OnDisconnect, Rules
from .core.routing import Route as CoreRoute
from .settings_error import Checked
from .settings_upstream import DIALECTS, TABLE

_MODELS = "a glob of model names such as deepseek-*, or a list of them"
_PATHS = "a glob of paths such as /v1/*, or a list of them"


class Route(Checked):
    """Which requests go to which upstreams: a table `[[routes]]` in the file.

    A request takes the first route of which all that is given of `model`, `dialect`, `path` and
    `client` fits it. One that fits none goes to the first upstream, as all do without any routes.
    Of the route's upstreams those that do not speak the request's dialect are left out; if none is
    left, it gets 400: later routes are not tried, so that no request ends up where it was not meant
    to go.
    """

    within: ClassVar[str] = "routes."
    model_config = TABLE

    upstreams: Annotated[Sequence[str], allowed_in_tables.labels()]
    """The names of the upstreams to try, in this order unless `balance` says otherwise."""

    model: Annotated[Sequence[str] | None, or_none(allowed_in_tables.globs(_MODELS, r".*\S.*"))] = (
        None
    )
    """The models it is for, as clients call them. Upper and lower case count. Calls other than the
    three dialects' have no model here."""

    dialect: Annotated[
        Sequence[DialectName] | None, or_none(allowed_in_tables.some_of(*DIALECTS))
    ] = None
    """The dialects it is for."""

    path: Annotated[
        Sequence[str] | None, or_none(allowed_in_tables.globs(_PATHS, r"[/*?\[].*"))
    ] = None
    """The paths it is for, percent-decoded and without query. `*` fits `/` too."""

    client: Annotated[SecretStr | None, secrets.key_or_none()] = None
    """The key of the client it is for, one of `client_keys` if there are any."""

    balance: Annotated[Balance, allowed.one_of(*(one.value for one in Balance))] = Balance.ORDERED
    """Which upstream is tried first: always the first (`ordered`), the one with the fewest requests
    under way for its weight (`least_inflight`), each in turn (`round_robin`), or each as often as
    its `weight` says (`weighted`). The others follow if it fails before there is output."""

    sticky: Annotated[str | None, or_none(allowed_in_tables.header_name())] = None
    """A request header, such as a session's id: requests with the same value go to the same
    upstream as long as it can be used, so that its prompt cache stays warm."""

    hedge_after: Annotated[float, allowed.seconds()] = 0.0
    """How long an attempt may be without output before another is started beside it. The first to
    have output wins, and the others are aborted."""

    hedge_max: Annotated[int, allowed.count(least=2)] = 2
    """How many attempts of a request may run beside each other, the first included."""

    hedge_share: Annotated[float, allowed.share()] = 0.1
    """The share of all requests that may have more than one attempt running."""

    on_disconnect: Annotated[OnDisconnect | None, or_none(allowed.one_of("abort", "finish"))] = None
    """What happens when the client leaves. If left out: as the setting of the same name says."""

    finish_timeout: Annotated[float | None, or_none(allowed.seconds(zero="no limit"))] = None
    """How long the rest is read after that. If left out: as the setting of the same name says."""

    def in_core(self, number: int, default: Rules) -> CoreRoute:
        """In the form the core takes; what is left out is as in `default`."""
        own = {name: getattr(self, name) for name in ("on_disconnect", "finish_timeout")}
        return CoreRoute(
            number=number,
            upstreams=tuple(self.upstreams),
            models=_tuple(self.model),
            dialects=_tuple(self.dialect),
            paths=_tuple(self.path),
            client=self.client.get_secret_value() if self.client else None,
            rules=replace(
                default,
                balance=self.balance,
                sticky=self.sticky.encode() if self.sticky else None,
                hedge_after=self.hedge_after,
                hedge_max=self.hedge_max,
                hedge_share=self.hedge_share,
                **{name: value for name, value in own.items() if value is not None},
            ),
        )


def _tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
