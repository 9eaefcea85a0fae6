"""Token counts as one stream told them, in one vocabulary for every dialect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one answer. `None` means the upstream did not say, which is not 0.

    `input_tokens` counts the whole prompt, cached parts included (Messages reports the cached part
    apart; the dialect adds it). `cached_tokens` were read from a cache and `cache_write_tokens`
    written to one. `reasoning_tokens` are part of `output_tokens`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
