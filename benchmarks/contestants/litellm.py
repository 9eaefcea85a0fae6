"""LiteLLM's proxy, one worker, without database and callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contestant import Contestant, versions, virtual_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .contestant import Place

CONFIG = """
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-benchmark
litellm_settings:
  num_retries: 0
  request_timeout: 600
"""


def install(cache: Path) -> str:
    """In a virtual environment of its own."""
    return versions(virtual_environment(cache, "litellm", "litellm[proxy]"), "litellm")


def command(place: Place) -> Sequence[str]:
    """As its documentation starts it."""
    config = place.scratch / "config.yaml"
    config.write_text(CONFIG.format(upstream=place.upstream))
    program = place.cache / "litellm" / "bin" / "litellm"
    return (
        *(str(program), "--config", str(config), "--host", "127.0.0.1"),
        *("--port", str(place.port), "--num_workers", "1", "--telemetry", "False"),
    )


CONTESTANT = Contestant(
    name="litellm",
    title="LiteLLM",
    install=install,
    command=command,
    rival=True,
    env={
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches one from the network
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    },
    start_within=120.0,
)
