"""What watches must not harm what it watches."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from trio_sse_proxy.logs import Lossy
from trio_sse_proxy.observers.several import Several


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        with suppress(OSError):
            os.close(end)


def test_lines_go_out(pipe):
    read, write = pipe
    Lossy(write).write(b"one\n")
    assert os.read(read, 100) == b"one\n"


def test_a_reader_that_went_away_is_no_error(pipe):
    read, write = pipe
    os.close(read)
    Lossy(write).write(b"one\n")


def test_a_reader_that_does_not_read_blocks_nothing_and_is_told_what_it_missed(pipe):
    read, write = pipe
    log = Lossy(write)
    for _ in range(200):
        log.write(b"x" * 1023 + b"\n")
    said = b""
    while len(said) < 60_000:
        said += os.read(read, 65536)
    log.write(b"again\n")
    tail = os.read(read, 65536)
    assert b'"log lines were dropped"' in tail
    assert tail.endswith(b"again\n")


class Faulty:
    def began(self, record):
        raise ValueError("no")

    retried = heartbeat = began

    def ended(self, record):
        raise ValueError("no")


class Counting:
    def __init__(self):
        self.ends = 0

    def ended(self, record):
        self.ends += 1


def test_an_observer_that_raises_keeps_nothing_from_the_others():
    counting = Counting()
    Several(Faulty(), counting).ended(None)
    assert counting.ends == 1
