"""Clients on bare sockets: they read to the end, leave by FIN or RST, upload slowly, or get stuck."""

from __future__ import annotations

import json
import socket
import struct
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11
import trio

from .cases import Outcome, Wish, complaint, draw

if TYPE_CHECKING:
    import random

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
RESET = struct.pack("ii", 1, 0)
LONGEST = 60.0  # seconds of one request; what takes longer hangs
STUCK = (
    10.0  # seconds for which a stuck client reads nothing; much longer than `write_stall_timeout`
)
MOST = 400  # people at a time: on a machine that is busy with other things they would pile up
STAYS = 0.5  # how many of those whose answer was whole ask again on their connection
TOLD = 5  # complaints that are kept


@dataclass
class People:
    """Everybody who asks. `outcomes` counts requests by case, `wrong` those with a complaint."""

    port: int
    chance: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    asked: int = 0
    here: int = 0

    async def come(self, nursery: trio.Nursery, rate: float, seconds: float) -> None:
        """So many new ones a second, at random, for so long; they stay until they are done."""
        with trio.move_on_after(seconds):
            while True:
                await trio.sleep(self.chance.expovariate(rate))
                if self.here < MOST:
                    nursery.start_soon(self._stay)

    async def _stay(self) -> None:
        self.here += 1
        try:
            await self._ask_on_one_connection()
        except OSError as error:
            self.wrong["connecting"] += 1
            self.complaints.append(f"cannot connect: {error}")
        finally:
            self.here -= 1

    async def _ask_on_one_connection(self) -> None:
        stream = await self._connect()
        try:
            connection = h11.Connection(h11.CLIENT)
            while await self._ask(stream, connection) and self.chance.random() < STAYS:
                connection.start_next_cycle()
        finally:
            stream.socket.close()

    async def _connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def _ask(self, stream: trio.SocketStream, connection: h11.Connection) -> bool:
        """True if the connection can be used again."""
        self.asked += 1
        wish = draw(self.asked, self.chance)
        self.outcomes[wish.case.name] += 1
        why, reusable = f"nothing within {LONGEST} s", False
        with trio.move_on_after(LONGEST):
            try:
                await self._send(stream, connection, wish)
                match wish.case.outcome:
                    case Outcome.LEFT:
                        why = await self._leave(stream)
                    case Outcome.STUCK:
                        why = await self._get_stuck(stream)
                    case _:
                        why, reusable = await _read(stream, connection, wish)
            except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
                why = f"the connection broke: {error!r} {error.__cause__!r}"
        if why is not None:
            await self._complain(wish, why)
        return reusable

    async def _send(self, stream, connection: h11.Connection, wish: Wish) -> None:
        body = wish.body
        head = h11.Request(
            method="POST",
            target=PATHS[wish.dialect],
            headers=[
                ("host", "127.0.0.1"),
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
            ],
        )
        pieces = 4 if wish.case.slow_upload else 1
        size = len(body) // pieces + 1
        await stream.send_all(connection.send(head))
        for at in range(0, len(body), size):
            if at:
                await trio.sleep(0.3)
            await stream.send_all(connection.send(h11.Data(data=body[at : at + size])))
        connection.send(h11.EndOfMessage())

    async def _leave(self, stream: trio.SocketStream) -> None:
        """After up to three seconds, politely or not."""
        with trio.move_on_after(3 * self.chance.random()):
            while await stream.receive_some():
                pass
        if self.chance.random() < 0.5:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        stream.socket.close()

    async def _get_stuck(self, stream: trio.SocketStream) -> str | None:
        await trio.sleep(STUCK)
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            return None
        return "a client that read nothing was served to the end"

    async def _complain(self, wish: Wish, why: str) -> None:
        self.wrong[wish.case.name] += 1
        if len(self.complaints) < TOLD:
            way = "streamed" if wish.stream else "whole"
            record = await trio.to_thread.run_sync(_record_of, wish.model, self.port)
            self.complaints.append(f"{wish.dialect}, {way}, {wish.model}: {why}\n  {record}")


def _record_of(model: str, port: int) -> str:
    """What the proxy says of it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/records", timeout=60) as answer:
            records = json.load(answer)["records"]
    except OSError as error:
        return repr(error)
    return str([record for record in records if record["model"] == model])


async def _read(
    stream: trio.SocketStream, connection: h11.Connection, wish: Wish
) -> tuple[str | None, bool]:
    """What is wrong with the answer, and whether the connection can be used again."""
    status, body, complete = 0, [], False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:  # the body was cut
            break
        if event is h11.NEED_DATA:
            try:
                data = await stream.receive_some(65536)
            except trio.BrokenResourceError:
                break
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            complete = True
            break
        elif isinstance(event, h11.ConnectionClosed):
            break
    reusable = complete and connection.our_state is connection.their_state is h11.DONE
    return complaint(wish, status, b"".join(body), complete=complete), reusable
