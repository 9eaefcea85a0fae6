"""The benchmark works: its figures mean what they say, and a small one runs through."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE

from benchmarks import bar, report, workloads
from benchmarks.accounting import cpu_seconds, memory_bytes, tree
from benchmarks.contestants import CONTESTANTS
from benchmarks.frames import (
    FRAME_SIZE,
    MARK,
    PRELUDE,
    WIRES,
    Script,
    find_script,
    output_frame,
    request,
)
from benchmarks.runner import Results, measure

if TYPE_CHECKING:
    from pathlib import Path

OURS = CONTESTANTS["trio-sse-proxy"]
BUSY = "import time\nwhile time.process_time() < 0.15: pass\nprint(flush=True)\ninput()"


def test_an_output_frame_has_its_size_and_one_mark():
    frame = output_frame(time.monotonic_ns())
    assert len(frame) == FRAME_SIZE
    assert frame.count(MARK) == 1
    assert MARK not in PRELUDE


@pytest.mark.parametrize("dialect", WIRES)
def test_the_script_survives_the_request(dialect: str):
    script = Script(frames=7, interval=0.02, phase=1.25, gated=True, hose=3)
    data = request(
        host="h", path="/p", headers={"x-a": "b"}, model="m", script=script, dialect=dialect
    )
    assert find_script(data) == script
    assert MARK not in data


def results_with(**paced: float) -> Results:
    rounds = {
        name.replace("_", "-"): [{"cpu_per_frame": value, "errors": {}}]
        for name, value in paced.items()
    }
    return Results(rounds={"paced": rounds}, versions=dict.fromkeys(rounds, "1"))


@pytest.mark.parametrize(("ours", "passed"), [(54e-6, True), (56e-6, False)])
def test_the_bar_is_a_share_of_the_best_rival_that_was_measured(ours, passed):
    results = results_with(trio_sse_proxy=ours, straightforward=120e-6, fastapi_proxy_lib=100e-6)
    mark = bar.marks(results)[0]
    assert mark.must == pytest.approx(55e-6)
    assert mark.passed is passed


def test_what_was_not_measured_neither_passes_nor_fails():
    assert {mark.passed for mark in bar.marks(Results())} == {None}


def test_a_contestant_fails_with_more_than_one_error_in_a_hundred():
    results = Results()
    results.add("waiting 500", "a", {"asked": 500, "errors": {"cut": 5}})
    results.add("waiting 500", "b", {"asked": 500, "errors": {"cut": 6}})
    assert results.failed("waiting 500", "a") is None
    assert "6 of 500" in (results.failed("waiting 500", "b") or "")


def test_the_report_replaces_only_what_stands_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.insert(page, "new")
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"


def test_cpu_and_memory_of_children_count():
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert cpu_seconds(parent.pid) >= 0.14
        alone = sum(map(memory_bytes, tree(parent.pid)[1:]))
        assert memory_bytes(parent.pid) > alone > 2**20
        parent.communicate(b"\n")


# For most of its window the machine may stand still.
SMALL = {
    "paced": {"streams": 4, "rate": 50.0, "warm": 0.1, "window": 2.5},
    "waiting": {"streams": 20, "silence": 0.1, "frames": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["responses", "messages"])
def test_a_small_measurement_of_translating_runs_through(dialect: str, tmp_path: Path):
    """The warm-up's streams end: that all of their frames came is checked there."""
    (found,) = (workload for workload in workloads.quick() if workload.dialect == dialect)
    figures = measure(OURS, replace(found, settings=SMALL["paced"]), tmp_path)
    assert figures["errors"] == {}
    assert figures["frames"] >= 50
    assert figures["frame_latency"]["p50"] < PATIENCE


def test_translating_is_held_against_passing_through():
    results = results_with(trio_sse_proxy=20e-6)
    by_dialect = zip(("responses", "messages"), (79e-6, 81e-6), strict=True)
    for dialect, cost in by_dialect:
        figures = {"trio-sse-proxy": [{"cpu_per_frame": cost, "errors": {}}]}
        results.rounds[f"paced {dialect} on chat"] = figures
    found = [mark.passed for mark in report.bar.marks(results) if "on Chat" in mark.goal.name]
    assert found == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paced", "waiting"])
def test_a_small_measurement_of_ours_runs_through(kind: str, tmp_path: Path):
    found = next(workload for workload in workloads.quick() if workload.kind == kind)
    figures = measure(OURS, replace(found, settings=SMALL[kind]), tmp_path)
    assert figures["errors"] == {}
    assert figures["frames"] >= (20 if kind == "waiting" else 50)
    assert figures["frame_latency"]["p50"] < PATIENCE
    if kind == "waiting":
        assert figures["streams"] == 20
        assert figures["memory_per_stream"] < 2**20
