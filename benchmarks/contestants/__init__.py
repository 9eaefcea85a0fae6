"""Who takes part. One module each; what does not install or start is left out, with a word why."""

from . import direct, fastapi_proxy_lib, litellm, nginx, ours, plain, portkey, tensorzero
from .contestant import Contestant, NotHere

CONTESTANTS: dict[str, Contestant] = {
    module.CONTESTANT.name: module.CONTESTANT
    for module in (direct, ours, nginx, fastapi_proxy_lib, plain, litellm, tensorzero, portkey)
}

__all__ = ["CONTESTANTS", "Contestant", "NotHere"]
