"""Starting, measuring, stopping; rounds and their medians."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from . import frames, machine
from .board import Board
from .contestants.contestant import PORT_FILE, Place
from .load import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .contestants import Contestant
    from .workloads import Workload

Figures = dict[str, Any]
ROOT = Path(__file__).parents[1]
PATIENCE = 240.0  # seconds for one measurement
TOO_MANY_ERRORS = 0.01  # of the streams: from here on a contestant has failed a workload


class NotMeasured(Exception):
    """A measurement came to nothing; the message says why."""


@dataclass(slots=True)
class Results:
    """Figures of every round by workload and contestant, and what was left out, with the reason."""

    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    began: str = ""
    load_before: float = 0.0
    minutes: float = 0.0

    def add(self, workload: str, contestant: str, figures: Figures) -> None:
        """One more round."""
        self.rounds.setdefault(workload, {}).setdefault(contestant, []).append(figures)

    def of(self, workload: str, contestant: str) -> list[Figures]:
        """All rounds; none if it was not measured."""
        return self.rounds.get(workload, {}).get(contestant, [])

    def figure(self, workload: str, contestant: str, *path: str) -> float | None:
        """The median over the rounds of one figure."""
        values = self.values(workload, contestant, *path)
        return median(values) if values else None

    def values(self, workload: str, contestant: str, *path: str) -> list[float]:
        """One figure of every round that has it."""
        found = map(_at(path), self.of(workload, contestant))
        return [value for value in found if value is not None]

    def failed(self, workload: str, contestant: str) -> str | None:
        """Why it cannot be said to have carried the load; None if it can."""
        for figures in self.of(workload, contestant):
            if why := figures.get("failed"):
                return str(why)
            errors = figures["errors"]
            total = sum(errors.values())
            asked = figures.get("asked") or total + figures.get("streams", 0)
            if total and total > TOO_MANY_ERRORS * asked:
                worst = max(errors, key=errors.__getitem__)
                return f"{total} of {asked} streams failed ({worst})"
        return None


def _at(path: Sequence[str]) -> Callable[[Figures], float | None]:
    def find(figures: Any) -> float | None:
        for key in path:
            figures = figures.get(key) if figures else None
        return figures

    return find


def measure(contestant: Contestant, workload: Workload, cache: Path) -> Figures:
    """One measurement on a fresh contestant. Raises NotMeasured."""
    with _stage(contestant, cache, workload.flags, workload.dialect) as stage:
        place = stage.place
        target = Target(
            port=place.port,
            path=_path(contestant, workload.dialect),
            headers=contestant.headers(place),
            model=contestant.model,
            dialect=workload.dialect,
        )
        order = {
            "workload": workload.kind,
            "settings": workload.settings,
            "board": str(stage.board),
            "pid": stage.pid,
            "target": asdict(target),
        }
        return {"asked": workload.settings.get("streams"), **_drive(order)}


def _path(contestant: Contestant, dialect: str) -> str:
    return contestant.path if dialect == "chat" else frames.WIRES[dialect].path


@dataclass(frozen=True, slots=True)
class _Stage:
    """A running upstream and contestant, whose `pid` is 0 where there is nobody in between."""

    place: Place
    board: Path
    pid: int


@contextmanager
def _stage(
    contestant: Contestant, cache: Path, flags: Sequence[str] = (), dialect: str = "chat"
) -> Iterator[_Stage]:
    """Start both and wait until the contestant answers. Raises NotMeasured."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        board = scratch / "board"
        Board(board)
        upstream = stack.enter_context(_upstream(board))
        place = Place(port=machine.free_port(), upstream=upstream, cache=cache, scratch=scratch)
        pid, port = stack.enter_context(_started(contestant, place, flags, dialect))
        yield _Stage(replace(place, port=port), board, pid)


def _drive(order: dict[str, Any]) -> Figures:
    _, cores = machine.cores()
    process = machine.start(
        [sys.executable, "-m", "benchmarks.drive"],
        cores,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(json.dumps(order).encode(), timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"no end after {PATIENCE:.0f} s") from error
    finally:
        machine.stop(process)
    if process.returncode:
        raise NotMeasured(err.decode(errors="replace")[-2000:])
    return json.loads(out)


@contextmanager
def _upstream(board: Path) -> Iterator[int]:
    _, cores = machine.cores()
    process = machine.start(
        [sys.executable, "-m", "benchmarks.upstream", board],
        cores,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        machine.stop(process)


@contextmanager
def _started(
    contestant: Contestant, place: Place, flags: Sequence[str], dialect: str
) -> Iterator[tuple[int, int]]:
    """Its process id and port; 0 and the upstream's where there is nobody in between."""
    command = contestant.command if dialect == "chat" else contestant.translating
    if command is None:
        yield 0, place.upstream
        return
    core, _ = machine.cores()
    with (place.scratch / "output").open("wb") as output:
        process = machine.start(
            [*command(place), *flags],
            core,
            env={"PYTHONPATH": str(ROOT), **contestant.env},
            cwd=place.scratch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process.pid, _wait_until_it_answers(contestant, place, process, dialect)
    finally:
        machine.stop(process)


def _wait_until_it_answers(
    contestant: Contestant, place: Place, process: subprocess.Popen[bytes], dialect: str
) -> int:
    give_up = time.monotonic() + contestant.start_within
    said = b""
    while time.monotonic() < give_up and process.poll() is None:
        own = place.scratch / PORT_FILE
        port = int(own.read_text() or 0) if own.exists() else place.port
        said = _try(contestant, place, port, dialect)
        if frames.WIRES[dialect].done in said:
            return port
        time.sleep(0.1)
    words = said or (place.scratch / "output").read_bytes()
    raise NotMeasured(f"does not answer: {words.decode(errors='replace').strip()[-300:]}")


def _try(contestant: Contestant, place: Place, port: int, dialect: str) -> bytes:
    """What it answers to a request of one frame."""
    data = frames.request(
        host=f"127.0.0.1:{port}",
        path=_path(contestant, dialect),
        headers={**contestant.headers(place), "connection": "close"},
        model=contestant.model,
        script=frames.Script(frames=1),
        dialect=dialect,
    )
    said = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(data)
            while frames.WIRES[dialect].done not in said and (piece := sock.recv(65_536)):
                said += piece
    except OSError:
        pass
    return said


def run(
    workloads: Sequence[Workload],
    contestants: Sequence[Contestant],
    rounds: int,
    cache: Path,
    say: Callable[[str], None],
    keep: Callable[[Results], None],
) -> Results:
    """Measure everything, taking turns; `keep` gets what there is after each measurement."""
    cache.mkdir(parents=True, exist_ok=True)
    results = Results(
        machine=machine.describe(),
        began=time.strftime("%Y-%m-%d"),
        load_before=machine.load_average(),
    )
    began = time.monotonic()
    present = _install(contestants, cache, results, say)
    for number in range(rounds):
        for workload in workloads:
            # Another one begins each time, so that none always follows the same neighbour.
            shift = number % len(present) if present else 0
            for contestant in (*present[shift:], *present[:shift]):
                if _takes_part(contestant, workload, results):
                    say(f"round {number + 1}/{rounds}  {workload.name}  {contestant.title}")
                    results.add(
                        workload.name, contestant.name, _measured(contestant, workload, cache)
                    )
                    results.minutes = (time.monotonic() - began) / 60
                    keep(results)
    return results


def _install(
    contestants: Sequence[Contestant], cache: Path, results: Results, say: Callable[[str], None]
) -> list[Contestant]:
    from .contestants import NotHere

    present = []
    for contestant in contestants:
        say(f"installing  {contestant.title}")
        try:
            version = contestant.install(cache)
            with _stage(contestant, cache):
                results.versions[contestant.name] = version
        except (NotHere, NotMeasured) as why:
            results.left_out[contestant.name] = str(why)
        else:
            present.append(contestant)
    return present


def _takes_part(contestant: Contestant, workload: Workload, results: Results) -> bool:
    if workload.only is not None and contestant.name not in workload.only:
        return False
    if contestant.command is None and workload.kind != "latency":
        return False
    if workload.dialect != "chat" and workload.dialect not in contestant.translates:
        return False
    if results.failed(workload.name, contestant.name):
        return False  # once is enough
    before = workload.after
    if before is None or before not in results.rounds:
        return True
    return bool(results.of(before, contestant.name)) and not results.failed(before, contestant.name)


def _measured(contestant: Contestant, workload: Workload, cache: Path) -> Figures:
    try:
        return measure(contestant, workload, cache)
    except NotMeasured as why:
        return {"failed": str(why), "errors": {}}
