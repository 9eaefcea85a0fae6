"""HTTP/2 clients that shut their windows, and requests that are ended just then."""

from __future__ import annotations

import pytest

from .history import History, Order, Person, Play, Server
from .oracles import findings
from .world import play

CUT_SHORT = ("drain", "cancel")
INSTANTS = (1.0, 3.1, 4.2, 5.5, 6.1, 6.6, 7.2)
"""Before and after the answer's last frames have come, long before the window opens and soon before."""


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@pytest.mark.parametrize("order", CUT_SHORT)
@pytest.mark.parametrize("silent_at", [3, 6, 8])
def test_an_end_that_waits_for_its_window_is_the_only_one(dialect, order, silent_at):
    answer = Play(kind="silent", words=3, silence=3.0, silent_at=silent_at, burst=50)
    client = Person(
        number=1,
        dialect=dialect,
        http2=True,
        window=300,
        shuts=True,
        stuck_from=0.0,
        stuck_for=7.0,
        plays=(answer,),
    )
    for at in INSTANTS:
        orders = (Order(at=at, what=order, number=1),)
        servers = (Server(name="u0"),)
        one = History(
            seed="windows", people=(client,), servers=servers, orders=orders, listening=True
        )
        run = play(one)
        assert findings(run) == []
        assert run.clients[0].got >= 300
