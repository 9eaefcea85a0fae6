"""`trio-sse-proxy demo`: upstream, proxy and client in one process, and what happens between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import trio

from ..config import Settings
from ..wiring import Proxy
from .client import Client
from .upstream import DemoUpstream, Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.failure import Cause
    from ..core.record import Record

HEARTBEAT = 1.0  # seconds; the shortest there is, so that nobody has to wait for the story
PACE = Pace(silence=2.4, thinking=1.2, gap=0.015)
LEAVES_AFTER = 1.7  # seconds; between two heartbeats, within the silence
COLOURS = {"client": "cyan", "proxy": "green", "upstream": "yellow"}
WIDTH = max(len(name) for name in COLOURS)


class Narrator:
    """Says who did what and when. It watches the proxy as an observer."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._began = trio.current_time()

    def chapter(self, title: str) -> None:
        """Begin a new part; the time starts again."""
        self._began = trio.current_time()
        self._write("\n" + click.style(title, bold=True))

    def says(self, who: str) -> Callable[[str], None]:
        """What `who` calls to be quoted."""
        name = click.style(f"{who:>{WIDTH}}", fg=COLOURS[who])

        def say(words: str) -> None:
            self._write(f"{trio.current_time() - self._began:6.2f} s  {name}  {words}")

        return say

    def began(self, record: Record) -> None:
        """See ports.Observer."""

    def retried(self, record: Record, cause: Cause) -> None:
        """See ports.Observer."""
        self.says("proxy")("has sent nothing of that attempt yet, so it asks again, unseen")

    def heartbeat(self, record: Record, kind: str) -> None:
        """See ports.Observer."""

    def ended(self, record: Record) -> None:
        """See ports.Observer."""
        ending = record.ending.value if record.ending else "unknown"
        times = "once" if len(record.attempts) == 1 else f"{len(record.attempts)} times"
        self.says("proxy")(f"writes down: {ending}, upstream asked {times}")


async def perform(write: Callable[[str], None]) -> bool:
    """Tell the story line by line; True if everything happened as it says."""
    narrator = Narrator(write)
    upstream = DemoUpstream(PACE, tell=narrator.says("upstream"))
    settings = Settings(heartbeat=HEARTBEAT)
    async with Proxy(settings, upstream=upstream, observers=(narrator,)).running() as proxy:
        silence = await _silence(narrator, proxy)
        cut = await _cut(narrator, proxy)
        left = await _leaving(narrator, proxy, upstream)
    if silence and cut and left:
        write("\nThe same with your own client: trio-sse-proxy serve")
        return True
    write("\nThis is not how it should have gone.")
    return False


async def _silence(narrator: Narrator, proxy: Proxy) -> bool:
    narrator.chapter("1. A model that thinks before it speaks: heartbeats from the first second on")
    client = Client(narrator.says("client"))
    await client.ask(proxy, "hello")
    return client.complete and client.heartbeats > 1 and client.openings == 1


async def _cut(narrator: Narrator, proxy: Proxy) -> bool:
    narrator.chapter(
        "2. A connection that breaks before the first word: mended, and nobody sees it"
    )
    client = Client(narrator.says("client"))
    await client.ask(proxy, "cut")
    return client.complete and client.openings == 1


async def _leaving(narrator: Narrator, proxy: Proxy, upstream: DemoUpstream) -> bool:
    narrator.chapter("3. A client that leaves: the model stops, instead of working for nobody")
    client = Client(narrator.says("client"))
    aborts = upstream.aborts
    await client.ask(proxy, "hello", leave_after=LEAVES_AFTER)
    return not client.complete and upstream.aborts == aborts + 1


def tell() -> int:
    """Tell it on standard output, in colour on a terminal (unless NO_COLOR); the exit code."""
    import structlog

    # The proxy's own log lines would come in between.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    colour = False if os.environ.get("NO_COLOR") else None

    def write(line: str) -> None:
        click.echo(line, color=colour)

    return 0 if trio.run(perform, write) else 1
