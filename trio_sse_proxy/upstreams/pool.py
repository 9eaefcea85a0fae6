"""Connections kept for the next request, one shelf per origin.

Every operation costs the same however many connections there are: the free list is a stack (the
connection used last is the one most surely alive, and the others get a chance to expire), the queue
and the idle order are ordered dictionaries, from whose middle one can leave at once.

A slot is the right to have one connection, idle ones included. When a connection is given up while
others wait, its slot, and the connection if it is still good, goes straight to the one who waits
longest; it is never put back first, where a newcomer could take it. A waiter is either cancelled
while it stands in the queue, and then is not handed anything, or handed the slot, and then it runs
with it; trio decides between the two, and there is no third case. If it is cancelled a moment later
the slot goes on to the next.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import trio

from ..core.errors import Unreachable
from .failures import QueueTimedOut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Origin(NamedTuple):
    """What two requests must agree in to share a connection."""

    scheme: str
    host: str  # as it goes into DNS, SNI and the certificate's check
    port: int
    server_name: str | None = None  # to be used for TLS in place of `host`


class Poolable(Protocol):
    """A connection, as far as its pool cares."""

    def is_alive(self) -> bool:
        """True if nothing speaks against one more request. Does not wait."""
        ...

    def close(self) -> None:
        """Close now; harmless to repeat."""
        ...


C = TypeVar("C", bound=Poolable)


class _Turn(Generic[C]):
    """What a waiter finds when it is woken: a connection, or only the right to open one."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: C | None = None


class _Shelf(Generic[C]):
    """What belongs to one origin. `slots` counts connections: being opened, in use, and idle."""

    __slots__ = ("idle", "origin", "queue", "slots")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.slots = 0
        self.idle: deque[C] = deque()  # the one used last is at the right
        self.queue: OrderedDict[trio.lowlevel.Task, _Turn[C]] = OrderedDict()


class Pool(Generic[C]):
    """Hands out connections, one request at a time each."""

    def __init__(
        self,
        connect: Callable[[Origin, float | None], Awaitable[C]],
        *,
        max_connections: int | None = None,
        keepalive_expiry: float = 30.0,
    ) -> None:
        """`connect` opens a connection in so many seconds (None: no limit) or raises Unreachable.

        `max_connections` is per origin; None sets no limit. An idle connection is closed
        `keepalive_expiry` seconds after its last use, at the first use of the pool thereafter.
        """
        if max_connections is not None and max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, not {max_connections}")
        self._connect = connect
        self._max = max_connections
        self._expiry = keepalive_expiry
        self._shelves: dict[Origin, _Shelf[C]] = {}
        self._busy: dict[C, _Shelf[C]] = {}
        # All idle connections of all origins, the one idle longest first.
        self._idle: OrderedDict[C, tuple[_Shelf[C], float]] = OrderedDict()
        self._closed = False

    @property
    def idle_connections(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def busy_connections(self) -> int:
        """How many connections carry a request."""
        return len(self._busy)

    async def check_out(
        self,
        origin: Origin,
        *,
        connect_timeout: float | None = None,
        queue_timeout: float | None = None,
    ) -> C:
        """A connection to `origin`, idle or new; `give_back` or `discard` it.

        Raises Unreachable, of which QueueTimedOut and ConnectTimedOut are kinds. Cancelled, it
        leaves neither a connection nor a place in the queue behind.
        """
        self._refuse_if_closed()
        self._expire()
        shelf = self._shelves.get(origin)
        if shelf is None:
            shelf = self._shelves[origin] = _Shelf(origin)
        connection = self._pick(shelf)
        if connection is None and not self._take_slot(shelf):
            connection = await self._wait_turn(shelf, queue_timeout)
        if connection is None:
            connection = await self._open(shelf, connect_timeout)
        self._busy[connection] = shelf
        return connection

    def give_back(self, connection: C) -> None:
        """`connection` is ready for another request."""
        shelf = self._busy.pop(connection, None)
        if shelf is None:
            return
        if shelf.queue:
            self._hand_over(shelf, connection)
        else:
            shelf.idle.append(connection)
            self._idle[connection] = (shelf, trio.current_time())
        self._expire()

    def discard(self, connection: C) -> None:
        """Close `connection`; its slot is free at once."""
        shelf = self._busy.pop(connection, None)
        connection.close()
        if shelf is not None:
            self._free_slot(shelf)

    def close(self) -> None:
        """Close every connection, also those in use, and refuse whoever waits or comes."""
        self._closed = True
        while self._idle:
            self._drop_oldest()
        for shelf in list(self._shelves.values()):
            while shelf.queue:
                self._hand_over(shelf, None)
        for connection in list(self._busy):
            self.discard(connection)

    def _pick(self, shelf: _Shelf[C]) -> C | None:
        while shelf.idle:
            connection = shelf.idle.pop()
            del self._idle[connection]
            if connection.is_alive():
                return connection
            connection.close()
            shelf.slots -= 1
        return None

    def _take_slot(self, shelf: _Shelf[C]) -> bool:
        if self._max is not None and shelf.slots >= self._max:
            return False
        shelf.slots += 1
        return True

    async def _wait_turn(self, shelf: _Shelf[C], within: float | None) -> C | None:
        """Stand in the queue; returns holding a slot, with the connection in it if there is one."""
        turn: _Turn[C] = _Turn()
        if within is None:
            await self._park(shelf, turn)
        else:
            try:
                with trio.fail_after(within):
                    await self._park(shelf, turn)
            except trio.TooSlowError as error:
                raise QueueTimedOut(f"no connection became free in {within} s") from error
        connection = turn.connection
        if connection is not None and (self._closed or not connection.is_alive()):
            connection.close()
            connection = None
        return connection

    async def _park(self, shelf: _Shelf[C], turn: _Turn[C]) -> None:
        task = trio.lowlevel.current_task()
        shelf.queue[task] = turn

        def leave(_: object) -> trio.lowlevel.Abort:
            del shelf.queue[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    async def _open(self, shelf: _Shelf[C], within: float | None) -> C:
        """Fill the slot we hold, or free it."""
        try:
            self._refuse_if_closed()
            connection = await self._connect(shelf.origin, within)
            if self._closed:
                connection.close()
                self._refuse_if_closed()
        except BaseException:
            self._free_slot(shelf)
            raise
        return connection

    def _hand_over(self, shelf: _Shelf[C], connection: C | None) -> None:
        task, turn = shelf.queue.popitem(last=False)
        turn.connection = connection
        trio.lowlevel.reschedule(task)

    def _free_slot(self, shelf: _Shelf[C]) -> None:
        if shelf.queue:
            self._hand_over(shelf, None)
            return
        shelf.slots -= 1
        if not shelf.slots:
            self._shelves.pop(shelf.origin, None)

    def _expire(self) -> None:
        if not self._idle:
            return
        oldest_allowed = trio.current_time() - self._expiry
        while self._idle:
            _, since = next(iter(self._idle.values()))
            if since > oldest_allowed:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        connection, (shelf, _) = self._idle.popitem(last=False)
        # The oldest of all is the oldest of its shelf.
        shelf.idle.popleft()
        connection.close()
        self._free_slot(shelf)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unreachable("the connection pool was closed")
