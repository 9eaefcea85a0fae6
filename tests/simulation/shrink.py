"""Makes a history that fails smaller, for as long as it fails in the same rule."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from .history import NORMAL, History, Person
from .network import Weather
from .oracles import findings
from .world import play

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 400


def shrink(history: History) -> tuple[History, list[str]]:
    """The smallest that was found in so many tries, and what is wrong with it."""
    found = findings(play(history))
    rule = found[0][:3]
    tries, smaller = 0, True
    while smaller:
        smaller = False
        for candidate in _smaller(history):
            tries += 1
            if tries > TRIES:
                return history, found
            now = findings(play(candidate))
            if any(line.startswith(rule) for line in now):
                history, found, smaller = candidate, now, True
                break
    return history, found


def _smaller(history: History) -> Iterator[History]:
    for person in history.people:
        yield replace(history, people=tuple(p for p in history.people if p is not person))
    for order in history.orders:
        yield replace(history, orders=tuple(o for o in history.orders if o is not order))
    for server in history.servers[1:]:
        yield replace(history, servers=tuple(s for s in history.servers if s is not server))
    for server in history.servers:
        if server.weather != Weather():
            calm = replace(server, weather=Weather())
            yield replace(history, servers=_with(history.servers, server, calm))
    for person in history.people:
        for plainer in _plainer(person):
            yield replace(history, people=_with(history.people, person, plainer))


def _plainer(person: Person) -> Iterator[Person]:
    if person.plays:
        yield replace(person, plays=person.plays[:-1])
    for number, one in enumerate(person.plays):
        if one != NORMAL:
            plays = (*person.plays[:number], NORMAL, *person.plays[number + 1 :])
            yield replace(person, plays=plays)
    plain = Person(number=person.number)
    for field in fields(Person):
        if field.name != "plays" and getattr(person, field.name) != getattr(plain, field.name):
            yield replace(person, **{field.name: getattr(plain, field.name)})


def _with(all_of_them, one, other):
    return tuple(other if each is one else each for each in all_of_them)
