"""A streaming proxy for LLM APIs on trio. What stands here may be imported; the rest may move.

```python
proxy = Proxy(Settings(upstreams=[Upstream(base_url="https://api.deepseek.com")]))
app = Starlette(routes=[Mount("/llm", proxy)], lifespan=proxy.lifespan)
```
"""

from .config import Settings, Upstream
from .core.record import Attempt, Record
from .core.usage import Usage
from .ports import Answer, Observer, UpstreamRequest
from .ports import Upstream as UpstreamPort
from .settings_error import SettingsError
from .version import __version__
from .wiring import Proxy

__all__ = [
    "Answer",
    "Attempt",
    "Observer",
    "Proxy",
    "Record",
    "Settings",
    "SettingsError",
    "Upstream",
    "UpstreamPort",
    "UpstreamRequest",
    "Usage",
    "__version__",
]
