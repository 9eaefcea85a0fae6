"""A client leaves one second into its request: when does the upstream notice?

    python benchmarks/leaving.py [SECONDS_INTO_THE_REQUEST]

Prints milliseconds, for a polite close (FIN) and a reset (RST), streamed and plain JSON. In the
retry sleep there is no upstream to notice: what is measured is when the request is over.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from end_to_end.leaving import BEATING, FLAGS, PHASES, Row, measure
from end_to_end.proxy import ServedProxy
from scripted import ScriptedUpstream

COLUMNS = [(how, stream) for stream in (True, False) for how in ("fin", "reset")]


def main(after: float = 1.0) -> None:
    names = [
        f"{'FIN' if how == 'fin' else 'RST'} {'stream' if s else 'JSON'}" for how, s in COLUMNS
    ]
    print(f"{'ms after the client left':26}" + "".join(f"{name:>12}" for name in names))
    with (
        ScriptedUpstream() as upstream,
        ServedProxy(upstream.url, *FLAGS) as quiet,
        ServedProxy(upstream.url, *BEATING) as beating,
    ):
        for phase in PHASES:
            proxy = beating if phase == "after a heartbeat" else quiet
            print(f"{phase:26}", end="", flush=True)
            for how, stream in COLUMNS:
                print(
                    f"{cell(upstream, proxy, Row(phase, how, stream), after):>12}",
                    end="",
                    flush=True,
                )
            print()


def cell(upstream: ScriptedUpstream, proxy: ServedProxy, row: Row, after: float) -> str:
    try:
        return f"{1000 * measure(upstream, proxy, row, after):.1f}"
    except TimeoutError:
        return "never"


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
