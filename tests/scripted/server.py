"""The scripted upstream: a model server that answers, and fails, exactly as it is told.

It speaks HTTP/1.1 on a real socket and runs in a thread of its own, so that SDKs, subprocesses and
trio tests can all use it. See `scenarios.py` for what it can do.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from typing import TYPE_CHECKING, Self

import outcome
import trio
from patience import PATIENCE

from .answers import Answer
from .inbox import Gone, Inbox
from .player import Player
from .scenarios import SCENARIOS
from .steps import CLOSING, Script, Status
from .talk import Said, dialect_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .visit import Visit

HEADER = "x-scenario"
ABORT = re.compile("/abort|/cancel|/stop-generation")


class ScriptedUpstream:
    """A context manager; `url` is good from its entry to its exit.

    `silence` is how long a silent scenario is silent, in seconds. With `only` it plays that scenario
    whatever is asked for, and its answers' ids count from `ids_from`. With `choose`, called in the
    server's thread, that says what is played. Calls that tell it to stop an answer are taken at once
    and stand in `aborts`.
    """

    def __init__(
        self,
        *,
        silence: float = 1.5,
        port: int = 0,
        only: str | None = None,
        ids_from: int = 1,
        choose: Callable[[Visit], Script] | None = None,
    ) -> None:
        self.silence = silence
        self.port = port
        self.open_connections = 0
        self.connections = 0
        self.log: list[Visit] = []
        self.aborts: list[Visit] = []
        self._only = only
        self._ids_from = ids_from
        self._choose = choose
        self._news = threading.Condition()
        self._attempts: dict[str, int] = {}
        self._scripts: dict[str, tuple[Script, ...]] = {}
        self._numbers = itertools.count(1)
        self._started = threading.Event()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._outcome: outcome.Value[None] | outcome.Error | None = None
        self._thread = threading.Thread(target=self._run, name="scripted upstream", daemon=True)

    # -- what tests call, from any thread ---------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._outcome is not None:
            self._outcome.unwrap()
        return self

    def stop(self) -> None:
        """Raises what went wrong in the server's own code."""
        if self._token is not None and self._thread.is_alive():
            self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()
        if self._outcome is not None:
            self._outcome.unwrap()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def model(self, scenarios: str) -> str:
        """A model name of its own that plays `scenarios`: one name, or one per attempt."""
        for name in scenarios.split(","):
            assert name in SCENARIOS, f"no scenario is called {name}"
        return f"{scenarios}#{next(self._numbers)}"

    def script(self, *scripts: Script) -> str:
        """A model name that plays these scripts, one per attempt, the last one from then on."""
        for script in scripts:
            assert isinstance(script[-1], CLOSING), f"does not say how it ends: {script[-1]}"
        name = f"script#{next(self._numbers)}"
        self._scripts[name] = scripts
        return name

    def visits(self, key: str) -> list[Visit]:
        """The requests for a model name, in the order they came."""
        return [visit for visit in list(self.log) if visit.key == key]

    def wait_for_visit(self, key: str, *, attempt: int = 1, timeout: float = PATIENCE) -> Visit:
        """The n-th request for a model name; raises TimeoutError when it does not come."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.visits(key)) >= attempt, timeout):
                raise TimeoutError(f"no attempt {attempt} of {key} in {timeout} s")
        return self.visits(key)[attempt - 1]

    def wait_for_abort(self, mark: str, timeout: float = PATIENCE) -> Visit:
        """The one call to stop an answer with `mark` in its target or body; raises TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: self.aborts_with(mark), timeout):
                raise TimeoutError(f"nobody said to stop {mark} in {timeout} s")
        (visit,) = self.aborts_with(mark)
        return visit

    def aborts_with(self, mark: str) -> list[Visit]:
        """All such calls so far."""
        return [visit for visit in list(self.aborts) if mark in visit.target + str(visit.body)]

    def wait_for_quiet(self, connections: int = 0, timeout: float = PATIENCE) -> int:
        """How many connections are open once they are no more than `connections`, or at last."""
        deadline = time.monotonic() + timeout
        while self.open_connections > connections and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.open_connections

    # -- the server's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        self._outcome = outcome.capture(trio.run, self._main)
        self._started.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            self.port = listeners[0].socket.getsockname()[1]
            self._started.set()
            await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.open_connections += 1
        self.connections += 1
        inbox, number = Inbox(stream), self.connections
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inbox.read)
                while await self._answer(stream, inbox, number):
                    pass
                nursery.cancel_scope.cancel()
        finally:
            self.open_connections -= 1

    async def _answer(self, stream: trio.SocketStream, inbox: Inbox, number: int) -> bool:
        """Answer one request; true if the connection can take another."""
        try:
            visit = await inbox.next_request()
        except Gone:
            return False
        visit.connection = number
        script = self._receive(visit)
        player, ending = Player(stream, visit), "stopped"
        try:
            ending = await player.play(script, inbox)
        finally:
            if ending == "left":
                visit.left, visit.left_at = inbox.left, inbox.left_at
            visit.end(ending, time.monotonic())
        return ending == "played" and player.reusable

    def _receive(self, visit: Visit) -> Script:
        """Note the request and choose what to play."""
        if ABORT.search(visit.target):
            with self._news:
                self.aborts.append(visit)
                self._news.notify_all()
            return (Status(200, b"{}"),)
        wanted = visit.json()
        visit.key = visit.headers.get(HEADER) or str(wanted.get("model", "normal"))
        with self._news:
            visit.attempt = self._attempts[visit.key] = self._attempts.get(visit.key, 0) + 1
            self.log.append(visit)
            self._news.notify_all()
        if self._choose is not None:
            return self._choose(visit)
        if (scripts := self._scripts.get(visit.key)) is not None:
            return scripts[min(visit.attempt, len(scripts)) - 1]
        names = visit.key.partition("#")[0].split(",")
        visit.scenario = self._only or names[min(visit.attempt, len(names)) - 1]
        said = Said(str(wanted.get("model", "scripted")), visit.attempt + self._ids_from - 1)
        stream = wanted.get("stream") is True
        answer = Answer(dialect_of(visit.target), stream, said, self.silence)
        return SCENARIOS.get(visit.scenario, SCENARIOS["status-404"])(answer)
