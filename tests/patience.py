"""How long tests wait: longer than a machine that has other things to do stands still."""

from __future__ import annotations

import trio

PATIENCE = 30.0  # seconds for what has to come at all; how soon it does is another question
NEVER = 10 * PATIENCE  # seconds; a deadline that a test must not have to wait for


async def until(condition):
    """Wait until it holds, where nobody has a reason to tell."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  # see above
            await trio.sleep(0.005)
