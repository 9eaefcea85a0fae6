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
    from .config import AbortCall, Route, Settings, Upstream
    from .core.balance import Balance
    from .core.call import Abort, Call, Reason
    from .core.errors import Broken, Garbled, Unreachable, UpstreamError
    from .core.failure import Cause, Failure, Refused
    from .core.limits import OnFailure
    from .core.record import Attempt, Record
    from .core.routing import OnDisconnect
    from .core.usage import Usage
    from .dialects.forms import Stop
    from .dialects.translate.profile import Profile
    from .ports import Answer, Observer, UpstreamRequest
    from .ports import Upstream as UpstreamPort
    from .settings_error import SettingsError
    from .upstreams.job import Abandoned, AbortMessage, AbortSignal, Job, Output
    from .upstreams.translated import Translated
    from .upstreams.worker import WorkerUpstream
    from .wiring import Proxy

__all__ = [
    "Abandoned",
    "Abort",
    "AbortCall",
    "AbortMessage",
    "AbortSignal",
    "Answer",
    "Attempt",
    "Balance",
    "Broken",
    "Call",
    "Cause",
    "Failure",
    "Garbled",
    "Job",
    "Observer",
    "OnDisconnect",
    "OnFailure",
    "Output",
    "Profile",
    "Proxy",
    "Reason",
    "Record",
    "Refused",
    "Route",
    "Settings",
    "SettingsError",
    "Stop",
    "Translated",
    "Unreachable",
    "Upstream",
    "UpstreamError",
    "UpstreamPort",
    "UpstreamRequest",
    "Usage",
    "WorkerUpstream",
    "__version__",
]

# Looked up when first asked for, so that `trio-sse-proxy --help` does not load a server.
_HOMES = {
    "Abandoned": ("upstreams.job", "Abandoned"),
    "Abort": ("core.call", "Abort"),
    "AbortCall": ("config", "AbortCall"),
    "AbortMessage": ("upstreams.job", "AbortMessage"),
    "AbortSignal": ("upstreams.job", "AbortSignal"),
    "Answer": ("ports", "Answer"),
    "Attempt": ("core.record", "Attempt"),
    "Balance": ("core.balance", "Balance"),
    "Broken": ("core.errors", "Broken"),
    "Call": ("core.call", "Call"),
    "Cause": ("core.failure", "Cause"),
    "Failure": ("core.failure", "Failure"),
    "Garbled": ("core.errors", "Garbled"),
    "Job": ("upstreams.job", "Job"),
    "Observer": ("ports", "Observer"),
    "OnDisconnect": ("core.routing", "OnDisconnect"),
    "OnFailure": ("core.limits", "OnFailure"),
    "Output": ("upstreams.job", "Output"),
    "Profile": ("dialects.translate.profile", "Profile"),
    "Proxy": ("wiring", "Proxy"),
    "Reason": ("core.call", "Reason"),
    "Record": ("core.record", "Record"),
    "Refused": ("core.failure", "Refused"),
    "Route": ("config", "Route"),
    "Settings": ("config", "Settings"),
    "SettingsError": ("settings_error", "SettingsError"),
    "Stop": ("dialects.forms", "Stop"),
    "Translated": ("upstreams.translated", "Translated"),
    "Unreachable": ("core.errors", "Unreachable"),
    "Upstream": ("config", "Upstream"),
    "UpstreamError": ("core.errors", "UpstreamError"),
    "UpstreamPort": ("ports", "Upstream"),
    "UpstreamRequest": ("ports", "UpstreamRequest"),
    "Usage": ("core.usage", "Usage"),
    "WorkerUpstream": ("upstreams.worker", "WorkerUpstream"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f".{module}", __name__), attribute)
