"""Memory that is free goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="is glibc's"
)

# What was freed first is what the threshold would be from then on: the second lot would lie in the
# heap, under something small that lives on.
PROGRAM = """
import resource, sys
from pathlib import Path
from trio_sse_proxy.memory import give_back_promptly

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

if sys.argv[1] == "promptly":
    assert give_back_promptly()
bytearray(30 * 2**20)
before = resident()
large = [bytes([1]) * 2**20 for _ in range(32)]
small = bytes([1]) * 700
taken = resident() - before
del large
print(taken >> 20, resident() - before >> 20)
"""


def taken_and_kept(how: str) -> tuple[int, int]:
    """MiB, of 32 that are held for a while."""
    command = [sys.executable, "-c", PROGRAM, how]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    taken, kept = said.split()
    return int(taken), int(kept)


def test_large_blocks_go_back_once_they_are_free() -> None:
    taken, kept = taken_and_kept("promptly")
    assert taken >= 31
    assert kept <= 2


def test_by_itself_the_library_keeps_them() -> None:
    """Else there is no need for any of this."""
    assert taken_and_kept("as ever")[1] >= 16
