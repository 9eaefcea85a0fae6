"""One server probed from beginning to end: settings in, a table of settings out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ..secrets import MASK
from .asker import Asker
from .findings import Findings
from .questions import Interview, Unasked
from .told import as_table, in_one_line, in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..ports import Upstream
    from ..settings_upstream import Upstream as Table
    from .asker import Bounds

CONNECT_TIMEOUT = 10.0


def announcement(table: Table, bounds: Bounds) -> str:
    """What is going to be sent, said before it is."""
    return (
        f"probing {table.base_url} with at most {bounds.questions} small requests, whose answers have"
        f" at most {bounds.tokens} tokens together, in at most {bounds.total:g} s"
    )


def run(
    table: Table,
    model: str | None,
    key_place: str | None,
    bounds: Bounds,
    say: Callable[[str], None],
) -> str:
    """The table to paste. `say` gets lines for people. Raises Unasked; no line holds the key.

    `key_place` is what the table says of the key: `env:NAME` or `file:PATH`.
    """
    return trio.run(partial(_run, table, model, key_place, bounds, say))


async def _run(
    table: Table,
    model: str | None,
    key_place: str | None,
    bounds: Bounds,
    say: Callable[[str], None],
) -> str:
    # Imported when it is wanted: `--help` does without an HTTP library.
    from ..making import http_upstream, upstream_for_checks

    upstream = http_upstream(table, CONNECT_TIMEOUT)
    root = upstream_for_checks(table, CONNECT_TIMEOUT)
    try:
        return await ask(upstream, root, table, model, key_place, bounds, say)
    finally:
        with trio.CancelScope(shield=True):
            await upstream.aclose()
            await root.aclose()


async def ask(
    upstream: Upstream,
    root: Upstream,
    table: Table,
    model: str | None,
    key_place: str | None,
    bounds: Bounds,
    say: Callable[[str], None],
) -> str:
    """The same, of upstreams that are there."""
    key = table.api_key.get_secret_value() if table.api_key else None

    def clean(words: str) -> str:
        # Some servers repeat the key in what they say of it.
        return in_one_line(words.replace(key, MASK) if key else words)

    found = Findings(base_url=table.base_url, model=model or "")
    asker = Asker(upstream, root, bounds, lambda line: say(clean(line)))
    say(announcement(table, bounds))
    try:
        await Interview(asker, found).run()
    except Unasked as unasked:
        raise Unasked(clean(f"{table.base_url}: {unasked}")) from unasked
    for line in in_words(found):
        say(clean(line))
    told = as_table(found, key_place)
    return told.replace(key, MASK) if key else told
