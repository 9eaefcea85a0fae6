"""The targets by name: modules with `run(data)`, `SEEDS` to begin with, and the format's `WORDS`."""

from __future__ import annotations

from importlib import import_module

NAMES = (
    "frames",
    "streams",
    "errors",
    "answers",
    "requests",
    "members",
    "heads",
    "headers",
    "codings",
    "replies",
    "wires",
    "calm",
    "settings",
)


def load(name: str):
    """The module of one target."""
    return import_module(f"{__name__}.{name}")
