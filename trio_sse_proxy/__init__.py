"""A streaming proxy for LLM APIs on trio. What stands here may be imported; the rest may move.

```python
proxy = Proxy(Settings(upstreams=[Upstream(base_url="https://api.deepseek.com")]))
app = Starlette(routes=[Mount("/llm", proxy)], lifespan=proxy.lifespan)
```
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .config import Settings, Upstream
    from .core.call import Abort, Call, Reason
    from .core.errors import Broken, Garbled, Unreachable, UpstreamError
    from .core.failure import Cause
    from .core.record import Attempt, Record
    from .core.usage import Usage
    from .ports import Answer, Observer, UpstreamRequest
    from .ports import Upstream as UpstreamPort
    from .settings_error import SettingsError
    from .wiring import Proxy

__all__ = [
    "Abort",
    "Answer",
    "Attempt",
    "Broken",
    "Call",
    "Cause",
    "Garbled",
    "Observer",
    "Proxy",
    "Reason",
    "Record",
    "Settings",
    "SettingsError",
    "Unreachable",
    "Upstream",
    "UpstreamError",
    "UpstreamPort",
    "UpstreamRequest",
    "Usage",
    "__version__",
]

# Looked up when first asked for, so that `trio-sse-proxy --help` does not load a server.
_HOMES = {
    "Abort": ("core.call", "Abort"),
    "Answer": ("ports", "Answer"),
    "Attempt": ("core.record", "Attempt"),
    "Broken": ("core.errors", "Broken"),
    "Call": ("core.call", "Call"),
    "Cause": ("core.failure", "Cause"),
    "Garbled": ("core.errors", "Garbled"),
    "Observer": ("ports", "Observer"),
    "Proxy": ("wiring", "Proxy"),
    "Reason": ("core.call", "Reason"),
    "Record": ("core.record", "Record"),
    "Settings": ("config", "Settings"),
    "SettingsError": ("settings_error", "SettingsError"),
    "Unreachable": ("core.errors", "Unreachable"),
    "Upstream": ("config", "Upstream"),
    "UpstreamError": ("core.errors", "UpstreamError"),
    "UpstreamPort": ("ports", "Upstream"),
    "UpstreamRequest": ("ports", "UpstreamRequest"),
    "Usage": ("core.usage", "Usage"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f".{module}", __name__), attribute)
