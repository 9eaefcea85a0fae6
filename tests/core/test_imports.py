"""Imports point inward: read from the source, so that a forgotten arrow fails here."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import trio_sse_proxy

ROOT = Path(trio_sse_proxy.__file__).parent
PACKAGE = "trio_sse_proxy"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py")
)


def imports_of(module: str) -> set[str]:
    """Everything a module imports, at any depth, for types too, as absolute names."""
    path = ROOT / (module.replace(".", "/") + ".py")
    own = (PACKAGE, *module.split("."))
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level] if node.level else ()
            stem = ".".join((*base, *(node.module.split(".") if node.module else ())))
            found |= {stem, *(f"{stem}.{alias.name}" for alias in node.names)}
    return found - {PACKAGE, "__future__"}


def outside(module: str) -> set[str]:
    """The third-party packages it imports."""
    roots = {name.partition(".")[0] for name in imports_of(module)}
    return roots - set(sys.stdlib_module_names) - {PACKAGE}


def inside(module: str) -> set[str]:
    """The modules of ours it imports, without the package's name."""
    ours = {
        name.removeprefix(PACKAGE + ".") for name in imports_of(module) if name.startswith(PACKAGE)
    }
    known = set(MODULES) | {name.removesuffix(".__init__") for name in MODULES}
    return {name for name in ours if name in known}


def below(*folders: str) -> list[str]:
    return [name for name in MODULES if name.partition(".")[0] in folders]


def test_there_is_something_to_read():
    assert {"core.sse", "dialects.chat", "relay", "app", "server"} <= set(MODULES)
    assert "trio" in outside("relay")
    assert "core.pacing" in inside("relay")


@pytest.mark.parametrize("module", below("core"))
def test_the_core_imports_the_standard_library_and_itself(module):
    assert outside(module) == set()
    assert {name.partition(".")[0] for name in inside(module)} <= {"core"}


@pytest.mark.parametrize("module", below("dialects"))
def test_dialects_import_the_core_and_a_json_decoder(module):
    assert outside(module) <= {"msgspec"}
    assert {name.partition(".")[0] for name in inside(module)} <= {"core", "dialects"}


def test_ports_import_the_core():
    assert outside("ports") == set()
    assert {name.partition(".")[0] for name in inside("ports")} <= {"core"}


@pytest.mark.parametrize("module", MODULES)
def test_hypercorn_is_named_where_connections_are_served_and_nowhere_else(module):
    allowed = {"server", "connection", "calls", "http1", "http2"}
    assert module in allowed or "hypercorn" not in outside(module)


@pytest.mark.parametrize("module", MODULES)
def test_httpx_is_named_where_upstreams_are_spoken_to_and_nowhere_else(module):
    allowed = {f"upstreams.{name}" for name in ("http", "one_at_a_time", "outgoing", "transport")}
    assert module in allowed or "httpx" not in outside(module)


@pytest.mark.parametrize("module", below("upstreams", "observers"))
def test_adapters_import_inward_only(module):
    folder = module.partition(".")[0]
    allowed = {"core", "dialects", "ports", "codings", folder}
    allowed |= {"endpoint"} if folder == "observers" else set()  # which they show as it is
    assert {name.partition(".")[0] for name in inside(module)} <= allowed


ONE_REQUEST = ["relay", "tries", "exchange", "attempt", "response", "flow", "downstream", "inbox"]


@pytest.mark.parametrize(
    "module", [*ONE_REQUEST, "refusal", "codings", "router", "endpoint", "gate"]
)
def test_the_relay_knows_nothing_of_who_builds_and_serves_it(module):
    outward = {
        "config",
        "wiring",
        "app",
        "admin",
        "server",
        "connection",
        "listening",
        "cli",
        "asgi",
        "upstreams",
    }
    assert not {name.partition(".")[0] for name in inside(module)} & outward
    assert outside(module) <= {"trio", "zstandard"}


@pytest.mark.parametrize(
    "module",
    ["app", "admin", "server", "connection", "calls", "http1", "http2", "listening", "wire"],
)
def test_nobody_but_the_wiring_builds_things(module):
    assert not inside(module) & {"wiring", "config", "cli", "asgi", "upstreams"}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_named_for_nothing(module):
    assert not set(module.split(".")) & {"utils", "util", "helpers", "common", "misc"}


def test_importing_the_package_loads_no_server():
    """An embedder brings a server of his own."""
    import subprocess

    code = "import sys, trio_sse_proxy; print([m for m in sys.modules if m == 'hypercorn'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
