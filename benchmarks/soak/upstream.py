"""The scripted upstream of the tests in a process of its own: `python -m benchmarks.soak.upstream`.

Prints its port. It ends with its standard input, and forgets what it has been asked.
"""

from __future__ import annotations

import gc
import sys
import threading
import time

from . import TESTS

sys.path.insert(0, str(TESTS))

from scripted import ScriptedUpstream

SILENCE = 2.5  # seconds: a few heartbeats
MEMORY = 10.0  # seconds for which it knows how often it was asked for a model


def main() -> None:
    with ScriptedUpstream(silence=SILENCE) as upstream:
        print(upstream.port, flush=True)
        threading.Thread(target=_forget, args=[upstream], daemon=True).start()
        sys.stdin.read()


def _forget(upstream: ScriptedUpstream) -> None:
    """Its log is for tests, which are short."""
    while True:
        before = set(upstream._attempts)
        time.sleep(MEMORY)
        upstream.log.clear()
        upstream.aborts.clear()
        for model in before:
            upstream._attempts.pop(model, None)
        gc.collect()


if __name__ == "__main__":
    main()
