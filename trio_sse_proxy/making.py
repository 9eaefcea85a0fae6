"""One upstream that speaks HTTP, made from its table in the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .settings_upstream import AbortCall
from .upstreams.aborts import KNOWN, CustomCall
from .upstreams.http import HttpUpstream
from .upstreams.tls import make_ssl_context
from .upstreams.transport import open_transport

if TYPE_CHECKING:
    from .settings_upstream import Upstream as Table
    from .upstreams.aborts import AbortCalls


def http_upstream(table: Table, connect_timeout: float) -> HttpUpstream:
    """As the table says. Raises OSError if its `ca_file` is gone."""
    ca_file = str(table.ca_file) if table.ca_file else None
    return HttpUpstream(
        name=table.name,
        base_url=table.base_url,
        transport=open_transport(
            http2=table.http2,
            proxy=table.proxy.get_secret_value() if table.proxy else None,
            ssl_context=make_ssl_context(ca_file) if ca_file else None,
            max_connections=table.max_connections or None,
            keepalive_expiry=table.keepalive_expiry,
        ),
        connect_timeout=connect_timeout,
        api_key=table.api_key.get_secret_value() if table.api_key else None,
        models=table.models,
        add_headers=tuple(
            (name.lower().encode(), value.get_secret_value().encode())
            for name, value in table.add_headers.items()
        ),
        drop_headers=frozenset(name.lower().encode() for name in table.drop_headers),
        abort_calls=_abort_calls(table),
        abort_timeout=table.abort_timeout,
    )


def upstream_for_checks(table: Table, connect_timeout: float) -> HttpUpstream:
    """The same server from its root, over connections that are neither kept nor counted."""
    url = urlsplit(table.base_url)
    changes = {
        "base_url": f"{url.scheme}://{url.netloc}",
        "keepalive_expiry": 0.0,
        "max_connections": 0,
    }
    return http_upstream(table.model_copy(update=changes), connect_timeout)


def _abort_calls(table: Table) -> AbortCalls | None:
    match table.abort:
        case "none":
            return None
        case AbortCall() as call:
            assert table.abort_url is not None, "a table has a url"
            return CustomCall(
                method=call.method,
                url=table.abort_url,
                body=call.body,
                headers=tuple(
                    (name, value.get_secret_value()) for name, value in call.headers.items()
                ),
            ).calls
        case name:
            return KNOWN[name]
