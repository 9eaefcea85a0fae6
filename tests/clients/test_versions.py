"""The page about clients speaks of the versions that are tried."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .installing import PROGRAMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/clients.md").read_text()
NODE = json.loads((PROGRAMS / "package.json").read_text())["dependencies"]
LANGCHAIN = (PROGRAMS / "requirements.txt").read_text()
OURS = (ROOT / "constraints.txt").read_text()
ROWS = re.findall(r"^\| (.+?) \| ([\d., ]+) \|", PAGE, re.MULTILINE)


def pinned(name: str, client: str) -> str:
    if "(Python)" in client or name.startswith("langchain-"):
        pins = OURS if "(Python)" in client else LANGCHAIN
        return re.search(rf"^{name}==(\S+)", pins, re.MULTILINE)[1]
    return NODE[name]


@pytest.mark.parametrize(("client", "versions"), ROWS, ids=[client for client, _ in ROWS])
def test_the_page_names_the_version_that_is_tried(client, versions):
    names = re.findall(r"`([^`]+)`", client)
    assert [pinned(name, client) for name in names] == versions.split(", ")


def test_every_package_is_on_the_page():
    assert [name for name in NODE if name not in PAGE and name != "@langchain/core"] == []
    assert len(ROWS) == 10
