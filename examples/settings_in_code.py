"""The proxy on its own, with settings in code and an observer that adds up tokens.

    python examples/settings_in_code.py [HOST:PORT]

`check_door=True`: nobody else keeps the door here, so the proxy checks Host, Origin and client keys
as `trio-sse-proxy serve` does. (That command also drains by signal and bounds writes to clients that
stopped reading; plain Hypercorn does neither.)
"""

from __future__ import annotations

import sys
from collections import Counter

from serving import run

from trio_sse_proxy import Cause, Proxy, Record, Settings


class TokenCount:
    """An observer: adds up the tokens of each model. Its calls are plain, and must not wait."""

    def __init__(self) -> None:
        self.tokens: Counter[str] = Counter()

    def began(self, record: Record) -> None:
        """A request was let in."""

    def retried(self, record: Record, cause: Cause) -> None:
        """Its upstream will be asked again."""

    def heartbeat(self, record: Record, kind: str) -> None:
        """It is being kept alive."""

    def ended(self, record: Record) -> None:
        """It is over. A count that was not told is None, which is not 0."""
        if record.model is None or record.usage is None:
            return
        told = (record.usage.input_tokens, record.usage.output_tokens)
        self.tokens[record.model] += sum(count for count in told if count is not None)
        print(f"{record.model}: {self.tokens[record.model]} tokens so far", flush=True)


count = TokenCount()
app = Proxy(
    # In earnest: upstreams=[Upstream(base_url="https://api.openai.com", api_key="env:OPENAI_KEY")].
    Settings(heartbeat=5.0, max_streams=100, idle_timeout=120.0),
    observers=(count,),
    check_door=True,
)

if __name__ == "__main__":
    run(app, *sys.argv[1:])
