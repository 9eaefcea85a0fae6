"""`python -m tests.hostile [WORD …]`: every attack (whose name has one of these) at full size."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import trio
from end_to_end.proxy import ServedProxy
from scripted import ScriptedUpstream

from hostile import attacks, upstreams
from hostile.bystander import Bystander, Meter

MIB = 2**20
# Seconds, where the defaults are longer: an attack is to be ended while one watches.
SHORT = {"first-token-timeout": 5, "progress-timeout": 5, "write-stall-timeout": 5}
SHORT |= {"header-timeout": 5, "body-timeout": 5, "keep-alive": 5, "drain-timeout": 1}
SHORT |= {"max-retries": 0}

TITLES = (
    "| attack | peak memory | CPU | others waited | of it, the proxy worked"
    " | streams meanwhile | what became of it |"
)
TWO_UPSTREAMS = """
[[upstreams]]
name = "evil"
base_url = "{evil}"
[[upstreams]]
name = "good"
base_url = "{good}"
[[routes]]
model = "paced"
upstreams = ["good"]
"""


def serve_upstream(pipe: Any) -> None:
    upstreams.teach()
    with ScriptedUpstream() as upstream:
        pipe.send(upstream.url)
        time.sleep(1e9)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--patience", type=float, default=attacks.PATIENCE)
    options = parser.parse_args()
    attacks.PATIENCE = options.patience
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Two, so that what a bystander waits for is never an upstream that is busy with an attack.
    evil, good = start_upstream(), start_upstream()
    try:
        print(TITLES)
        print("|---|---|---|---|---|---|---|")
        for name in attacks.ATTACKS:
            if not options.words or any(word in name for word in options.words):
                print(one(name, evil[1], good[1]), flush=True)
    finally:
        for process, _ in (evil, good):
            process.kill()
            process.join()


def start_upstream() -> tuple[Any, str]:
    """Its process and its URL."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_upstream, args=(theirs,), daemon=True)
    process.start()
    return process, ours.recv()


def one(name: str, evil: str, good: str) -> str:
    """A row of the table."""
    flags = [f"--{flag}={value}" for flag, value in SHORT.items()]
    row = ""
    with ExitStack() as stack:
        config = stack.enter_context(NamedTemporaryFile("w", suffix=".toml"))
        config.write(TWO_UPSTREAMS.format(evil=evil, good=good))
        config.flush()
        stack.enter_context(suppress(subprocess.TimeoutExpired))
        proxy = stack.enter_context(ServedProxy(None, *flags, "--config", config.name))
        proxy.forgive_exit_code()
        with Bystander(proxy.port, proxy.pid) as bystander, Meter(proxy.pid) as meter:
            time.sleep(1.0)
            bystander.worst()
            before = meter.before
            outcome = trio.run(attacks.ATTACKS[name], proxy.port)
            waited, worked, streams, refused = bystander.worst()
        used = f"{(meter.peak - before) / MIB:+.0f} MiB"
        times = f"{meter.cpu:.1f} s | {waited:.2f} s | {worked:.2f} s"
        others = f"{streams}, {refused} refused" if refused else f"{streams}"
        row = f"| {name} | {used} | {times} | {others} | {outcome} |"
        proxy.end()
        return row
    return row + " it did not exit"


if __name__ == "__main__":
    main()
