"""`python -m tests.hostile [WORD …]`: every attack (whose name has one of these) at full size."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import trio
from end_to_end.proxy import ServedProxy
from scripted import ScriptedUpstream

from hostile import attacks, upstreams
from hostile.bystander import Bystander, Meter

MIB = 2**20
# Seconds, where the defaults are minutes: an attack is to be ended while one watches.
SHORT = {"first-token-timeout": 6, "progress-timeout": 6, "write-stall-timeout": 6}
SHORT |= {"max-retries": 0, "drain-timeout": 1}


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
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    upstream = context.Process(target=serve_upstream, args=(theirs,), daemon=True)
    upstream.start()
    url = ours.recv()
    try:
        print("| attack | peak memory | CPU | others waited | what became of it |")
        print("|---|---|---|---|---|")
        for name in attacks.ATTACKS:
            if not options.words or any(word in name for word in options.words):
                print(one(name, url), flush=True)
    finally:
        upstream.kill()
        upstream.join()


def one(name: str, url: str) -> str:
    """A row of the table."""
    flags = [f"--{flag}={value}" for flag, value in SHORT.items()]
    row = ""
    with suppress(subprocess.TimeoutExpired), ServedProxy(url, *flags) as proxy:
        proxy.forgive_exit_code()
        with Bystander(proxy.port) as bystander, Meter(proxy.pid) as meter:
            time.sleep(1.0)
            bystander.worst()
            before = meter.before
            outcome = trio.run(attacks.ATTACKS[name], proxy.port)
            worst, streams = bystander.worst()
        used = f"{(meter.peak - before) / MIB:+.0f} MiB"
        row = f"| {name} | {used} | {meter.cpu:.1f} s | {worst:.2f} s ({streams}) | {outcome} |"
        proxy.end()
        return row
    return row + " it did not exit"


if __name__ == "__main__":
    main()
