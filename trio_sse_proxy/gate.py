"""How many requests one upstream gets at a time, and who is next of those that wait.

A slot is the right to be one of the `max_inflight`. Each client has a line of its own, first come,
first served; the lines take turns. So whoever is first in its line is let in after one request of
every other client that waits, at the latest, however many requests those have waiting. The length of
the queue is shared out in the same way: if it is full, a newcomer takes the place of the newest
request of the longest line, unless its own line is as long or would become so (McKenney, "Stochastic
Fairness Queueing"). Else one client could fill the queue, and turns would be of no use to the others.

A slot that is given up while others wait goes straight to the next of them; it is never put back
first, where a newcomer could take it. A waiter is either cancelled while it stands in line, and then is
not handed anything, or handed a slot, and then it wakes with it; trio decides between the two, and
there is no third case. If it is cancelled before it has woken, the slot goes on to the next.

Everything costs the same however many wait. Nothing here may be called from another thread.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import trio

from .core.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class QueueFull(Overloaded):
    """Too many wait already; or one did wait, and a client with fewer requests needed its place."""


class WaitedTooLong(Overloaded):
    """No slot within `queue_timeout`."""


class Slot:
    """The right to use the upstream until `leave`, or to the end of a `with`."""

    __slots__ = ("_give_up",)

    def __init__(self, give_up: Callable[[], None]) -> None:
        self._give_up: Callable[[], None] | None = give_up

    def leave(self) -> None:
        """Let the next one in, now. Any task may do it, more than once."""
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()


class Gate:
    """Lets requests through to one upstream."""

    def __init__(
        self, max_inflight: int = 0, max_queued: int = 1000, queue_timeout: float = 0.0
    ) -> None:
        """As `change` says."""
        self._inflight = 0
        self._lines = _Lines()
        self.change(max_inflight, max_queued, queue_timeout)

    def change(self, max_inflight: int, max_queued: int, queue_timeout: float) -> None:
        """Set the limits for whoever comes, and let in those for whom there is room now.

        `max_inflight` slots, 0 for no limit. At most `max_queued` requests wait, and 0 is to be taken
        at its word: nobody waits, and what finds no slot may try elsewhere at once. (There is no
        "no limit": each request that waits holds its body. And of the two ways to misread a 0, this
        one shows itself at once.) `queue_timeout` in seconds, 0 for no limit.

        Nobody who is in or waits has to go, and those who wait keep the timeout they came with.
        """
        if max_inflight < 0 or max_queued < 0 or not queue_timeout >= 0:
            raise ValueError("the limits of a gate must not be negative")
        self._max_inflight = max_inflight or inf
        self._max_queued = max_queued
        self._queue_timeout = queue_timeout or inf
        self._let_in()

    @property
    def inflight(self) -> int:
        """How many slots are taken."""
        return self._inflight

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._lines.total

    @property
    def has_room(self) -> bool:
        """True if `try_enter` would give a slot."""
        return self._inflight < self._max_inflight

    @property
    def limits(self) -> dict[str, int | float | None]:
        """What `change` was told last; None for no limit."""
        return {
            "max_inflight": None if self._max_inflight == inf else int(self._max_inflight),
            "max_queued": self._max_queued,
            "queue_timeout": None if self._queue_timeout == inf else self._queue_timeout,
        }

    def try_enter(self) -> Slot | None:
        """A slot, if that needs no waiting. It cannot overtake: while anybody waits none is free."""
        if self._inflight >= self._max_inflight:
            return None
        self._inflight += 1
        return Slot(self._give_up)

    async def enter(self, client: str) -> Slot:
        """A slot, after waiting in the line of `client` if need be; a checkpoint only if it waits.

        `client` stands for the client's key; all who have none are "". Raises Overloaded. Cancelled,
        it leaves neither a slot taken nor a place in the queue behind.
        """
        return self.try_enter() or await self._wait(client)

    async def _wait(self, client: str) -> Slot:
        await trio.lowlevel.checkpoint_if_cancelled()  # before anybody is sent away for our sake
        self._find_place(client)
        waiter = _Waiter(client, trio.lowlevel.current_task())
        within = self._queue_timeout
        with trio.move_on_after(within):
            await self._park(waiter)
        if waiter.displaced:
            raise QueueFull("the queue of this upstream is full, and others have fewer waiting")
        if not waiter.admitted:
            raise WaitedTooLong(f"this upstream had no room for another request in {within:g} s")
        slot = Slot(self._give_up)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            slot.leave()
            raise
        return slot

    async def _park(self, waiter: _Waiter) -> None:
        """Stand in line until admitted or displaced."""
        self._lines.add(waiter)

        def leave(_: object) -> trio.lowlevel.Abort:
            self._lines.remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def _find_place(self, client: str) -> None:
        """See to it that there is a place in the queue for one more of `client`; or QueueFull."""
        if self.queued < self._max_queued:
            return
        if self._max_queued == 0:
            raise QueueFull(
                "this upstream has no room for another request, and nobody waits for it"
            )
        if self._lines.length(client) + 1 >= self._lines.longest:
            raise QueueFull(f"{self.queued} requests wait for this upstream already")
        newest = self._lines.pop_newest_of_longest()
        newest.displaced = True
        trio.lowlevel.reschedule(newest.task)

    def _give_up(self) -> None:
        self._inflight -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._lines.total and self._inflight < self._max_inflight:
            self._inflight += 1
            waiter = self._lines.pop_next()
            waiter.admitted = True
            trio.lowlevel.reschedule(waiter.task)


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits. It is in its line until it is cancelled, or one of the two is true."""

    client: str
    task: trio.lowlevel.Task
    admitted: bool = False
    displaced: bool = False


class _Lines:
    """Those who wait, in a line for each client. No line is empty.

    All dictionaries are ordered ones: of a plain one, the first key is not found at once after
    many before it were deleted.
    """

    __slots__ = ("_by_length", "_lines", "longest", "total")

    def __init__(self) -> None:
        self.total = 0
        self.longest = 0
        # Whose turn it is comes first.
        self._lines: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()
        # The clients with so many waiting; no entry is empty.
        self._by_length: dict[int, OrderedDict[str, None]] = {}

    def length(self, client: str) -> int:
        line = self._lines.get(client)
        return 0 if line is None else len(line)

    def add(self, waiter: _Waiter) -> None:
        line = self._lines.setdefault(waiter.client, OrderedDict())
        line[waiter] = None
        self._resized(waiter.client, len(line) - 1, len(line))

    def remove(self, waiter: _Waiter) -> None:
        line = self._lines[waiter.client]
        del line[waiter]
        self._resized(waiter.client, len(line) + 1, len(line))

    def pop_next(self) -> _Waiter:
        """The first of the line whose turn it is; the line then waits for all others to have theirs."""
        client = next(iter(self._lines))
        self._lines.move_to_end(client)
        waiter = next(iter(self._lines[client]))
        self.remove(waiter)
        return waiter

    def pop_newest_of_longest(self) -> _Waiter:
        """The last of the longest line; of several, of the one that came to this length last."""
        client = next(reversed(self._by_length[self.longest]))
        waiter = next(reversed(self._lines[client]))
        self.remove(waiter)
        return waiter

    def _resized(self, client: str, before: int, now: int) -> None:
        """A line grew or shrank by one, so the longest did too or stayed what it was."""
        self.total += now - before
        if before:
            peers = self._by_length[before]
            del peers[client]
            if not peers:
                del self._by_length[before]
        if now:
            self._by_length.setdefault(now, OrderedDict())[client] = None
        else:
            del self._lines[client]
        if now > self.longest or (before == self.longest and before not in self._by_length):
            self.longest = now
