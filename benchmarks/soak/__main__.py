"""python -m benchmarks.soak: a real proxy under mixed load with faults; exit code 1 if anything grows.

Three scripted upstreams and the proxy are processes of their own. After a warm-up everybody goes, and
what the proxy holds at rest is noted; then comes the load; then everybody goes again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from .. import machine, report
from ..contestants.contestant import NotHere, virtual_environment
from ..contestants.contestant import run as run_command
from . import TESTS
from .people import People
from .verdict import Soak
from .watch import Sample, Watch

sys.path.insert(0, str(TESTS))

from end_to_end.proxy import ServedProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = TESTS.parent
CACHE = ROOT / "benchmarks" / ".cache"
PAGE = ROOT / "docs" / "soak.md"
PICTURE = ROOT / "docs" / "soak.png"
RAMP = 20.0  # seconds until as many are there as will be on average
EVERY = 5.0  # seconds between two samples
RELOAD = 20.0  # seconds between two reloads
OPERATE = 1.0  # seconds between two looks of the operator
PATIENCE = 60.0  # seconds for one of the proxy's own pages, on a machine that does other things too
REST = 5.0  # seconds in which, once everybody has gone, the last things end
SETTINGS = """
heartbeat = {heartbeat}
json_heartbeat = true
write_stall_timeout = 3.0
retry_after_cap = 2.0
records = 1000

[[upstreams]]
name = "first"
base_url = "{first}"
abort = "sglang"
breaker_failures = 0
breaker_rate = 0
max_inflight = {places}

[[upstreams]]
name = "second"
base_url = "{second}"
breaker_failures = 0
breaker_rate = 0

[[upstreams]]
name = "chat"
base_url = "{third}"
dialects = ["chat"]
breaker_failures = 0
breaker_rate = 0

[[routes]]
model = "*-chat"
upstreams = ["chat"]

[[routes]]
upstreams = ["first", "second"]
balance = "round_robin"
"""


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if something grew, or an answer was wrong."""
    wish = _parser().parse_args(arguments)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        urls = [stack.enter_context(_upstream()) for _ in range(3)]
        settings = Settings(scratch / "settings.toml", urls)
        settings.write()
        proxy = stack.enter_context(ServedProxy(None, "--config", str(settings.path)))
        soak = trio.run(_soak, proxy, settings, wish)
    print(soak.as_markdown())
    print(*soak.complaints, sep="\n", file=sys.stderr)
    saved = CACHE / "soak.json"
    saved.parent.mkdir(exist_ok=True)
    saved.write_text(json.dumps({"samples": [sample.as_json() for sample in soak.samples]}))
    if wish.write:
        report.insert(PAGE, f"{_picture(saved)}{soak.as_markdown()}")
    return int(bool(soak.findings()))


class Settings:
    """The proxy's file, which is not the same after every `write`."""

    def __init__(self, path: Path, urls: list[str]) -> None:
        self.path = path
        self._urls = urls
        self._writes = 0

    def write(self) -> None:
        """With another heartbeat, and another limit of the first upstream."""
        self._writes += 1
        first, second, third = self._urls
        odd = self._writes % 2
        text = SETTINGS.format(
            heartbeat=1.0 + odd / 4, places=200 + odd, first=first, second=second, third=third
        )
        self.path.write_text(text)


async def _soak(proxy: ServedProxy, settings: Settings, wish: argparse.Namespace) -> Soak:
    people, watch = People(proxy.port, random.Random(wish.seed)), Watch(proxy.pid, proxy.port)
    began = time.strftime("%Y-%m-%d", time.gmtime())
    reloads = 0
    samples: list[Sample] = []

    async def reload() -> None:
        nonlocal reloads
        while True:
            await trio.sleep(RELOAD)
            settings.write()
            os.kill(proxy.pid, signal.SIGHUP)
            reloads += 1

    async def operate() -> None:
        while True:
            await trio.sleep(OPERATE)
            await trio.to_thread.run_sync(_end_streams, proxy.port)

    async def look() -> None:
        await trio.sleep(min(RAMP, 6 * wish.minutes))
        while True:
            samples.append(await trio.to_thread.run_sync(watch.look))
            _say(f"{samples[-1]}, {sum(people.wrong.values())} wrong")
            await trio.sleep(EVERY)

    async def load(seconds: float, *beside: Any) -> Sample:
        async with trio.open_nursery() as helpers:
            for each in (operate, *beside):
                helpers.start_soon(each)
            async with trio.open_nursery() as there:
                await people.come(there, wish.rate, seconds)
                samples_end = len(samples)
            helpers.cancel_scope.cancel("everybody has gone")
        del samples[samples_end:]
        await trio.sleep(REST)
        return await trio.to_thread.run_sync(watch.look)

    before = await load(min(60.0, 12 * wish.minutes), reload)
    _say(f"at rest: {before}")
    people.outcomes.clear()
    after = await load(60 * wish.minutes, reload, look)
    return Soak(
        before=before,
        samples=samples,
        after=after,
        outcomes=dict(people.outcomes),
        wrong=dict(people.wrong),
        complaints=people.complaints,
        reloads=reloads,
        machine=machine.describe(),
        began=began,
    )


def _end_streams(port: int) -> None:
    """As an operator: those that ask for it."""
    url = f"http://127.0.0.1:{port}/-/streams"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        streams = json.load(answer)["streams"]
    for stream in streams:
        if "-operator" in (stream["model"] or "") and stream["output"]:
            order = urllib.request.Request(f"{url}/{stream['id']}", method="DELETE")
            with suppress(urllib.error.HTTPError):  # it has just ended
                urllib.request.urlopen(order, timeout=PATIENCE).close()


@contextmanager
def _upstream() -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "benchmarks.soak.upstream"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def _picture(saved: Path) -> str:
    """Draw the chart; its line for the page, or nothing where it cannot be drawn."""
    try:
        programs = virtual_environment(CACHE, "charts", "matplotlib")
        with tempfile.TemporaryDirectory() as home:
            chart = Path(__file__).with_name("chart.py")
            run_command("env", f"MPLCONFIGDIR={home}", programs / "python", chart, saved, PICTURE)
    except NotHere as why:
        _say(f"no chart: {why}")
        return ""
    return f"![What the proxy held over the run]({PICTURE.name})\n\n"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load, after a warm-up")
    parser.add_argument("--rate", type=float, default=50.0, help="new connections a second")
    parser.add_argument("--seed", type=int, default=0, help="of what people ask for, and when")
    parser.add_argument("--write", action="store_true", help=f"update docs/{PAGE.name}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
