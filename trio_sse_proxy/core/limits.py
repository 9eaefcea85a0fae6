"""The numbers a stream is held to. Durations in seconds, sizes in bytes; 0 switches a limit off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class OnFailure(Enum):
    """What a client gets when a stream fails after the headers went out."""

    TELL = "tell"  # its dialect's error frame, then a proper end of the body
    CUT = "cut"  # a body that visibly breaks off, for agents that ask again only after a cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One set for all requests; the defaults are explained in `config.Settings`."""

    heartbeat: float = 5.0
    commit_after: float = 5.0
    event_heartbeat: float = 120.0
    event_heartbeat_clients: tuple[str, ...] = ("codex", "claude-cli")
    prelude_hold: float = 120.0
    first_token_timeout: float = 600.0
    idle_timeout: float = 300.0
    progress_timeout: float = 600.0
    total_timeout: float = 0.0
    write_stall_timeout: float = 30.0
    body_timeout: float = 30.0
    max_retries: int = 3
    retry_deadline: float = 600.0
    retry_after_cap: float = 10.0
    max_body_bytes: int = 64 * 2**20
    max_frame_bytes: int = 2**20
    max_held_bytes: int = 512 * 2**20
    max_streams: int = 10_000
    retry_budget: float = 0.5
    on_failure: OnFailure = OnFailure.TELL
    json_heartbeat: bool = False
