"""`python -m scripted [PORT] [SILENCE]`, in `tests/`: an upstream to play with by hand."""

from __future__ import annotations

import contextlib
import sys
import time

from . import SCENARIOS, ScriptedUpstream


def main(port: str = "9000", silence: str = "10") -> None:
    with ScriptedUpstream(port=int(port), silence=float(silence)) as upstream:
        print(f"{upstream.url}/v1 answers; the model asked for says how:")
        print("  " + " ".join(SCENARIOS), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1e9)


if __name__ == "__main__":
    main(*sys.argv[1:])
