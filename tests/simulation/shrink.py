"""Makes a history that fails smaller, for as long as it fails in the same rule."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from .history import NORMAL, History, Order, Person, Server
from .oracles import findings
from .world import play

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 400


def shrink(history: History, tries: int = TRIES) -> tuple[History, list[str]]:
    """The smallest that was found in so many tries, and what is wrong with it.

    One way of making it smaller after another, each for as long as it gets on; then all once more, until
    none does. The same history always comes to the same end.
    """
    found = findings(play(history))
    rule, smaller = found[0][:3], True
    while smaller and tries > 0:
        smaller = False
        for way in (_fewer, _without_orders, _quieter, _plainer):
            candidates = way(history)
            while tries > 0 and (candidate := next(candidates, None)) is not None:
                tries -= 1
                now = [line for line in findings(play(candidate)) if line.startswith(rule)]
                if now:
                    history, found, smaller = candidate, now, True
                    candidates = way(history)
    return history, found


def size(history: History) -> int:
    """How much there is to say of a history: everything that is not as it is by default."""
    people = sum(1 + _unlike(one, Person(number=one.number)) for one in history.people)
    plays = sum(1 + _unlike(play, NORMAL) for one in history.people for play in one.plays)
    servers = sum(1 + _unlike(one, Server(name=one.name)) for one in history.servers)
    return people + plays + servers + len((*history.orders, *history.limits, *history.rules))


def _unlike(one, plain) -> int:
    return sum(getattr(one, f.name) != getattr(plain, f.name) for f in fields(one))


def _fewer(history: History) -> Iterator[History]:
    """Fewer people, and fewer upstreams."""
    if len(history.people) > 2:
        middle = len(history.people) // 2
        yield replace(history, people=history.people[:middle])
        yield replace(history, people=history.people[middle:])
    for person in history.people:
        if len(history.people) > 1:
            yield replace(history, people=_without(history.people, person))
    for server in history.servers:
        if len(history.servers) > 1:
            yield replace(history, servers=_without(history.servers, server))


def _without_orders(history: History) -> Iterator[History]:
    """Fewer orders, and settings as they are by default."""
    for order in history.orders:
        yield replace(history, orders=_without(history.orders, order))
        for plainer in _default(order, Order(at=order.at, what=order.what, number=order.number)):
            yield replace(history, orders=_with(history.orders, order, plainer))
    if history.listening:
        yield replace(history, listening=False)
    for name in history.limits:
        limits = {other: value for other, value in history.limits.items() if other != name}
        yield replace(history, limits=limits)
    for name in history.rules:
        rules = {other: value for other, value in history.rules.items() if other != name}
        if "finish_timeout" in rules or "on_disconnect" not in rules:
            yield replace(history, rules=rules)


def _quieter(history: History) -> Iterator[History]:
    """Upstreams and networks like most."""
    for server in history.servers:
        for plainer in _default(server, Server(name=server.name)):
            yield replace(history, servers=_with(history.servers, server, plainer))


def _plainer(history: History) -> Iterator[History]:
    """People and answers like most."""
    for person in history.people:
        for plainer in _plainer_ones(person):
            yield replace(history, people=_with(history.people, person, plainer))


def _plainer_ones(person: Person) -> Iterator[Person]:
    if person.plays:
        yield replace(person, plays=())
        yield replace(person, plays=person.plays[:-1])
    for number, one in enumerate(person.plays):
        before, after = person.plays[:number], person.plays[number + 1 :]
        for plainer in (NORMAL, *_default(one, NORMAL)) if one != NORMAL else ():
            yield replace(person, plays=(*before, plainer, *after))
    yield from _default(person, Person(number=person.number, plays=person.plays))


def _default(one, plain) -> Iterator:
    """`one` with one of its fields as in `plain`."""
    for field in fields(one):
        if getattr(one, field.name) != getattr(plain, field.name):
            yield replace(one, **{field.name: getattr(plain, field.name)})


def _without(all_of_them, one):
    return tuple(each for each in all_of_them if each is not one)


def _with(all_of_them, one, other):
    return tuple(other if each is one else each for each in all_of_them)
