"""Reading without waking a task: an epoll of our own, in which descriptors stay registered.

`trio.lowlevel.wait_readable` asks the kernel for one event (a system call), keeps books of who waits,
and schedules a task for it, which then comes down through a dozen coroutines: together more than
reading, checking and writing a token's frame take. A stream that runs steadily needs none of it. So for
that time its descriptor stays in this epoll, for which one task waits, as trio waits for anything; of
every descriptor that is ready it calls a plain function. The request's own task sleeps
meanwhile, can be cancelled as ever, and is woken as soon as there is anything else to do than that.

The task belongs to the trio run, not to a request: it is started at the first use and ends with
the run. Only Linux has epoll; elsewhere streams are read as everything else is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

if sys.platform == "linux":
    import select

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[], None]

AT_ONCE = 16  # descriptors of which one look tells
ROUNDS = 4  # looks before other tasks get their turn: by the second, a fast stream has brought more


class Readiness:
    """Calls a function whenever its descriptor can be read; only as long as it is registered."""

    def __init__(self) -> None:
        assert sys.platform == "linux"
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def add(self, descriptor: int, handler: Handler) -> None:
        """Call `handler`, which must not raise, from now on. One for each descriptor."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._handlers[descriptor] = handler

    def remove(self, descriptor: int) -> None:
        """Call it no more, not even for what has been seen already; before the descriptor is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Call handlers until cancelled."""
        poll, handlers, number = self._epoll.poll, self._handlers, self._epoll.fileno()
        try:
            while True:
                await trio.lowlevel.wait_readable(number)
                for _ in range(ROUNDS):
                    ready = poll(0, AT_ONCE)
                    if not ready:
                        break
                    for descriptor, _ in ready:
                        handler = handlers.get(descriptor)
                        if handler is not None:
                            handler()
        finally:
            self._epoll.close()


_CURRENT: trio.lowlevel.RunVar[Readiness] = trio.lowlevel.RunVar("trio_sse_proxy.readiness")


def readiness() -> Readiness | None:
    """The one of this trio run; None where there is no epoll, or no descriptor left for it by now."""
    if sys.platform != "linux":
        return None
    try:
        return _CURRENT.get()
    except LookupError:
        try:
            made = Readiness()
        except OSError:
            return None
        _CURRENT.set(made)
        trio.lowlevel.spawn_system_task(made.run, name="readiness of upstreams")
        return made
