"""Imports point inward, as ARCHITECTURE.md says, and each foreign library is named where it belongs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "trio_sse_proxy"

PARTS = {
    "core": {"core"},
    "dialects": {"dialects"},
    "ports": {"ports"},
    "codings": {"codings"},
    "wire": {"wire"},
    "relay": {"relay", "exchange", "downstream", "inbox", "refusal"},
    "upstreams": {"upstreams"},
    "observers": {"observers"},
    "app": {"app", "admin"},
    "server": {"server", "listening"},
    "config": {"config", "allowed", "secrets", "settings_error", "reference"},
    "demo": {"demo"},
    "wiring": {"wiring"},
    "door": {"cli", "asgi", "__main__", "__init__", "version"},
}
PART_OF = {module: part for part, modules in PARTS.items() for module in modules}

MAY_IMPORT = {
    "core": set(),
    "dialects": {"core"},
    "ports": {"core"},
    "codings": {"core"},
    "wire": set(),
    "relay": {"core", "dialects", "ports", "codings", "wire"},
    "upstreams": {"core", "ports", "codings"},
    "observers": {"core", "ports"},
    "app": {"core", "dialects", "ports", "relay", "observers"},
    "server": {"core", "wire"},
    "config": {"core"},
    "demo": set(PARTS) - {"door", "server"},
    "wiring": set(PARTS) - {"door"},
    "door": set(PARTS),
}

LIBRARIES = {
    "core": set(),
    "dialects": {"msgspec"},
    "ports": set(),
    "codings": {"zstandard"},
    "wire": {"trio"},
    "relay": {"trio"},
    "upstreams": {"trio", "httpx", "httptools", "certifi"},
    "observers": {"structlog", "prometheus_client"},
    "app": {"trio", "structlog", "starlette", "msgspec"},
    "server": {"trio", "structlog", "hypercorn", "h11", "h2", "priority"},
    "config": {"pydantic", "pydantic_core", "pydantic_settings"},
    "demo": {"trio", "structlog", "click"},
    "wiring": {"trio", "structlog", "msgspec"},
    "door": {"click"},
}

FILES = sorted(ROOT.rglob("*.py"))


def imports_of(path: Path) -> tuple[set[str], set[str]]:
    """The modules of ours, by their first name, and the foreign libraries that `path` imports."""
    package = path.relative_to(ROOT).parts[:-1]
    ours: set[str] = set()
    theirs: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            theirs |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            theirs.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1]
            named = (node.module or "").split(".") if node.module else []
            if above or named:
                ours.add((*above, *named)[0])
            else:
                ours |= {alias.name for alias in node.names}
    return ours, theirs - set(sys.stdlib_module_names)


def part_of(path: Path) -> str:
    return PART_OF[path.relative_to(ROOT).with_suffix("").parts[0]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_inward(path):
    ours, theirs = imports_of(path)
    part = part_of(path)
    assert {PART_OF[module] for module in ours} - {part} <= MAY_IMPORT[part]
    assert "trio_sse_proxy" not in theirs, "our own modules are imported by relative names"
    assert theirs <= LIBRARIES[part]


def test_nothing_is_allowed_that_nobody_needs():
    used = {part: set() for part in PARTS}
    for path in FILES:
        used[part_of(path)] |= imports_of(path)[1]
    assert used == LIBRARIES
