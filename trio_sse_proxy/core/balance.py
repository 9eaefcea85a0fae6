"""In which order one request tries the upstreams of its route.

Each way of balancing names a first upstream and says how to go on if that one fails: an order in
which every index stands exactly once. Those that let nobody in just now (`available`) are left out
of the turn-taking, so that their share falls to all others and not to the next in line alone; they stand
last, for they may be back by the time the order has come to them.

Sticky requests go by the hash of their key instead, whatever the balance: each upstream draws a
waiting time from the exponential distribution with its weight as rate, seeded by its own name and
the key, and the first to ring gets the request (weighted rendezvous hashing). An upstream of weight
`w` wins a share of `w` over the sum of the weights; one that is added takes its share evenly from
all others, one that is taken away leaves it to them, and every other key stays where its caches are
warm. Breakers do not touch this order: a key comes home as soon as its upstream is back.
"""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b
from math import inf, isfinite, log
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Order = tuple[int, ...]


class Balance(Enum):
    """How the requests of a route are shared among its upstreams."""

    ORDERED = "ordered"  # as they are written: the others only stand in for the first
    LEAST_INFLIGHT = "least_inflight"  # the fewest running requests per weight; ties take turns
    ROUND_ROBIN = "round_robin"  # in turns, whatever the weights
    WEIGHTED = "weighted"  # in turns, as often as the weight says, well mixed


def sticky_order(key: bytes, names: Sequence[str], weights: Sequence[float]) -> Order:
    """The order of one sticky key: the same in every process, and whatever the order of `names`.

    Upstreams of weight 0 come last.
    """

    def waiting_time(index: int) -> tuple[float, float]:
        name = names[index].encode()
        # The length stands first, so that no name and key can run together to those of another pair.
        drawn = blake2b(b"%d:%b%b" % (len(name), name, key), digest_size=8).digest()
        wait = -log((int.from_bytes(drawn, "big") + 1) / 2**64)
        return wait / weights[index] if weights[index] else inf, wait

    return tuple(sorted(range(len(names)), key=waiting_time))


def _anyone(_index: int) -> bool:
    return True


class Balancer:
    """Whose turn it is on one route. Raises ValueError for a weight below 0, or not finite."""

    __slots__ = ("_balance", "_credits", "_names", "_turn", "_weights", "_written")

    def __init__(self, balance: Balance, names: Sequence[str], weights: Sequence[float]) -> None:
        if len(names) != len(weights) or not all(isfinite(w) and w >= 0 for w in weights):
            raise ValueError("a weight for every upstream, finite and not below 0")
        self._balance = balance
        self._names = tuple(names)
        self._weights = tuple(weights)
        self._written: Order = tuple(range(len(names)))
        self._turn = 0  # the index whose turn it is
        self._credits = [0.0] * len(names)  # for WEIGHTED: how much each is owed

    def order(
        self,
        inflight: Sequence[int],
        key: bytes | None = None,
        available: Callable[[int], bool] = _anyone,
    ) -> Order:
        """The order for one request; takes the turn of the first one in it.

        `inflight` are the requests that run at each upstream, read by LEAST_INFLIGHT only; a `key` makes
        it sticky, and then no turn is taken.
        """
        if key is not None:
            return sticky_order(key, self._names, self._weights)
        match self._balance:
            case Balance.ORDERED:
                return self._written
            case Balance.ROUND_ROBIN:
                return self._in_turns(available, lambda _index: 0.0)
            case Balance.LEAST_INFLIGHT:
                return self._in_turns(available, lambda index: self._load(inflight, index))
            case Balance.WEIGHTED:
                return self._by_credit(available)
            case _:
                assert_never(self._balance)

    def _load(self, inflight: Sequence[int], index: int) -> float:
        return inflight[index] / self._weights[index] if self._weights[index] else inf

    def _in_turns(self, available: Callable[[int], bool], load: Callable[[int], float]) -> Order:
        """By load; among equals the one whose turn it is, which passes to the one behind the winner.

        A plain counter would not do: of three of which the outer two are equal, the last would
        win twice as often as the first.
        """
        turn, count = self._turn, len(self._written)
        order = _ranked(self._written, available, lambda i: (load(i), (i - turn) % count))
        if order:
            self._turn = (order[0] + 1) % count
        return order

    def _by_credit(self, available: Callable[[int], bool]) -> Order:
        """Smooth weighted round robin, as nginx has it: weights 5, 1, 1 give a a b a c a a.

        Each earns its weight with every request, and who is served pays what all have earned.
        """
        here = [index for index in self._written if available(index)]
        for index in here:
            self._credits[index] += self._weights[index]
        order = _ranked(
            self._written, available, lambda i: (not self._weights[i], -self._credits[i])
        )
        if here:
            self._credits[order[0]] -= sum(self._weights[index] for index in here)
        return order


def _ranked(
    indexes: Iterable[int],
    available: Callable[[int], bool],
    rank: Callable[[int], tuple[float, float]],
) -> Order:
    """By rank, those that are not available last; among equals as they are written."""
    return tuple(sorted(indexes, key=lambda index: (not available(index), *rank(index))))
