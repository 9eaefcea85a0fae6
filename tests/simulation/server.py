"""Upstreams in memory: they do what each attempt's `Play` says, and remember what they really sent."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from email.utils import formatdate
from math import ceil

import trio
from upstreams.servers import Requests

from .history import NORMAL, Play, Server
from .network import connection
from .words import LINE_ENDS, in_lf, speech

LAST = b"0\r\n\r\n"
TRAILED = b"0\r\nX-Checksum: none\r\n\r\n"
EXTENDED = b';part;of="the whole"'
BOM = b"\xef\xbb\xbf"
LATE = b"data: late\n\n: and later\n\n"
GARBAGE = {"head": b"\x16\x03\x01 this is not HTTP\r\n\r\n", "size": b"zz\r\nno\r\n"}
PAGE = "<html><body><h1>%s</h1></body></html>"
WALL = 1_700_000_000.0
"""What the clock on the wall of the simulation says at its beginning; see world.Chance."""
HEALTH = b"HTTP/1.1 %d Health\r\nContent-Length: 0\r\n\r\n"


@dataclass(eq=False)
class Played:
    """One attempt as the upstream saw it. `sent` is the body, as far as it was handed to the network.

    Bodies are told here without a coding, a BOM and what is behind the terminator, and with LF for any
    line end.
    """

    tag: str
    call: str
    server: str
    number: int
    dialect: str
    stream: bool
    play: Play
    at: float
    body: tuple[bytes, ...]
    """The frames of a whole body; of an answer that is no stream, one."""
    near: object = None
    """The proxy's end of the connection."""
    sent: bytes = b""
    said_at: float | None = None
    """When it last sent something."""
    word_at: float | None = None
    """When it last sent something else than a comment, or else the first comment."""
    closed_at: float | None = None
    returned: bool = False
    """It is a worker, and has come to its end by itself: there is nothing that could be stopped."""
    over: bool = False
    """The answer was given to its end, and properly."""

    @property
    def speech(self):
        return speech(self.dialect, self.play.form, calls=self.play.calls)

    @property
    def words(self) -> int:
        """How many there are in a whole body."""
        return 1 if self.play.answer or not self.stream else self.play.words

    @property
    def is_open(self) -> bool:
        """It may still be working."""
        return not self.over and self.closed_at is None and self.near.closed_at is None

    def has_said_all(self, *, but_one: bool) -> bool:
        """Nothing of what it says is still to come, or only the last frame.

        A translation needs no `[DONE]`, and a worker that has told its error gets a moment to return.
        """
        if self.sent.endswith(self.body[-1]):
            return True
        return but_one and len(self.body) > 1 and self.sent.endswith(self.body[-2])

    @property
    def released_at(self) -> float | None:
        """When the proxy let go of it, also of one that had hung up by itself."""
        return self.near.closed_at if self.closed_at is None else self.closed_at

    def say(self, *, comment: bool = False) -> None:
        self.said_at = trio.current_time()
        if not comment or self.word_at is None:
            self.word_at = self.said_at


@dataclass(eq=False)
class Plays:
    """Who gets which play next, and what has been played. `log` is told of everything."""

    scripts: dict[int, list[Play]]
    log: object
    played: list[Played] = field(default_factory=list)
    aborts: list[tuple[str, float]] = field(default_factory=list)
    _open: list[Played] = field(default_factory=list)

    def open(self) -> list[Played]:
        """Those that may still be working."""
        self._open = [one for one in self._open if one.is_open]
        return self._open

    def next(self, server: str, dialect: str, wish: dict, call: str, near) -> Played:
        """`wish` is what the request's body says, `call` the proxy's name for it."""
        number = int(wish["model"][1:])
        script = self.scripts[number]
        play = script.pop(0) if script else NORMAL
        tag = f"tag{len(self.played)}x"
        stream = bool(wish.get("stream"))
        played = Played(
            tag=tag,
            call=call,
            server=server,
            number=number,
            dialect=dialect,
            stream=stream,
            play=play,
            at=trio.current_time(),
            body=frames(speech(dialect, play.form, calls=play.calls), play, tag, stream=stream),
            near=near,
        )
        self.played.append(played)
        self._open.append(played)
        self.log(server, "plays", play.kind, "as", tag, f"for c{number}")
        return played


def frames(speech, play: Play, tag: str, *, stream: bool) -> tuple[bytes, ...]:
    """The body that `play` has, if nothing cuts it."""
    if play.answer == "html":
        return ((PAGE % tag).encode(),)
    if not stream or play.answer:
        return (speech.whole(tag, play.words).encode(),)
    more = ["x" * (play.flood + play.long * (n == 1)) for n in range(play.words)]
    words = [speech.word(tag, n, padding) for n, padding in enumerate(more)]
    if play.error:
        before = [] if play.error_at < 0 else speech.prelude(tag)
        return (*before, *words[: max(0, play.error_at)], *speech.error(tag, play.error))
    ending = speech.ending(tag, play.words, play.usage)
    if speech.terminator:
        ending += [speech.terminator] * play.done
    elif not play.done:
        ending = []
    return (*speech.prelude(tag), *words, *speech.closing(tag), *ending)


class Cut(Exception):
    """The upstream is done with this connection."""


class Upstream:
    """One server; `connect` is what TrioTransport takes."""

    def __init__(self, server: Server, plays: Plays, nursery, log) -> None:
        self.server, self.plays, self._nursery, self._log = server, plays, nursery, log
        self.ends = []

    async def connect(self, origin, within):
        await trio.sleep(self.server.weather.delay)
        if self._refuses():
            raise ConnectionRefusedError("refused")
        near, far = connection(self.server.weather)
        self.ends.append(near)
        self._nursery.start_soon(self._serve, near, far)
        return near

    def _refuses(self) -> bool:
        """Whose connection it is cannot be known: the first client that is to be refused is meant."""
        for script in self.plays.scripts.values():
            if script and script[0].refuse:
                script.pop(0)
                self._log(self.server.name, "refuses")
                return True
        return False

    async def _serve(self, near, far) -> None:
        requests = Requests(far)
        try:
            while (got := await requests.whole()) is not None:
                head, body = got
                path = head.split(b" ")[1]
                if path == b"/health":
                    await far.send_all(HEALTH % (503 if self._is_ill() else 200))
                elif path == b"/abort_request":
                    self.plays.aborts.append((json.loads(body)["rid"], trio.current_time()))
                    self._log(self.server.name, "is told to stop")
                    await far.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                elif not await self._play(path, json.loads(body), near, far):
                    break
        except (Cut, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            far.close()

    def _is_ill(self) -> bool:
        return any(begin <= trio.current_time() < end for begin, end in self.server.ill or ())

    async def _play(self, path: bytes, wish: dict, near, far) -> bool:
        """Answer a call; True if the connection may be used again."""
        dialect = next(d for d in ("responses", "messages", "chat") if d.encode() in path)
        played = self.plays.next(self.server.name, dialect, wish, wish["rid"], near)
        try:
            await Stage(near, far, played).perform()
        finally:
            played.closed_at = near.closed_at
        return played.play.keep


class Stage:
    """One answer."""

    def __init__(self, near, far, played: Played) -> None:
        self._near, self._far, self._played = near, far, played
        self._play = played.play
        self._left = 0
        """Bytes of the body that are to be said yet."""
        self._deflate = zlib.compressobj(wbits=zlib.MAX_WBITS | 16) if played.play.gzip else None

    async def perform(self) -> None:
        play = self._play
        await self._wait(play.wait)
        if play.garbled == "head":
            await self._talk_rubbish()
        if play.status != 200 or play.answer or (play.error and not self._played.stream):
            await self._status(play.error if play.error and play.status == 200 else play.status)
            return
        left = self._left = round(play.sent * sum(map(len, self._played.body)))
        if play.torn is not None and not left:
            await self._tear(self._head(), b"", b"")
        await self._far.send_all(self._head())
        if play.framing == "length" and not self._length:
            await self._end()  # with the head all has been said
            return
        waiting: list[bytes] = []
        for number, frame in enumerate(self._played.body):
            if number == play.silent_at and play.silence:
                await self._say(b"".join(waiting))
                waiting = []
                await self._be_silent()
            waiting.append(frame[:left])
            left -= len(frame[:left])
            if play.every or len(waiting) == play.burst or left == 0:
                await self._say(b"".join(waiting))
                waiting = []
            if left == 0:
                break
            if play.every:
                await self._wait(play.every)
        await self._say(b"".join(waiting))
        await self._end()

    def _head(self) -> bytes:
        kind = "text/event-stream" if self._played.stream else "application/json"
        framing = {
            "chunked": "Transfer-Encoding: chunked",
            "length": f"Content-Length: {self._length}",
            "close": "Connection: close",
        }[self._play.framing]
        coding = "Content-Encoding: gzip\r\n" if self._deflate is not None else ""
        return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n{coding}\r\n".encode()

    @property
    def _length(self) -> int:
        """What is promised: all of it if the body is to be cut."""
        wire = sum(len(self._in_its_lines(frame)) for frame in self._played.body)
        properly = self._play.end == "end" and not self._play.garbled
        return self._left if properly and self._play.sent < 1 else wire

    async def _status(self, status: int) -> None:
        play, tag = self._play, self._played.tag
        kind, body = "application/json", self._played.speech.error_body(tag, status)
        if play.quota:
            body = self._played.speech.spent(tag)
        if play.answer:
            kind = "text/html" if play.answer == "html" else kind
            body = self._played.body[0].decode()
        more = "Location: /elsewhere\r\n" if status == 302 else ""
        if play.retry_after is not None:
            due = ceil(WALL + trio.current_time() + play.retry_after) + 1  # one for the way there
            date = formatdate(due, usegmt=True)
            more += f"Retry-After: {date if play.dated else round(play.retry_after)}\r\n"
        self._played.sent = body.encode()
        head = f"HTTP/1.1 {status} No\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(body)}"
        await self._far.send_all(f"{head}\r\n\r\n{body}".encode())
        self._played.over = True

    async def _say(self, data: bytes, *, comment: bool = False) -> None:
        if not data:
            return
        self._played.say(comment=comment)
        grain = self._play.grain or len(data)
        for at in range(0, len(data), grain):
            piece = data[at : at + grain]
            self._left -= 0 if comment else len(piece)
            if self._play.torn is not None and not self._left:
                await self._tear(*self._on_the_wire(piece))
            self._played.sent += piece
            await self._far.send_all(b"".join(self._on_the_wire(piece)))

    def _on_the_wire(self, piece: bytes) -> tuple[bytes, bytes, bytes]:
        """What goes before it, itself, and what goes behind it."""
        play = self._play
        data = self._in_its_lines(piece)
        if play.form == "bom" and not self._played.sent:
            data = BOM + data
        if play.extra == "late" and not self._left and self._is_terminated:
            data += LATE
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        if play.framing != "chunked":
            return b"", data, b""
        return b"%x%b\r\n" % (len(data), EXTENDED * (play.extra == "extensions")), data, b"\r\n"

    def _in_its_lines(self, data: bytes) -> bytes:
        end = LINE_ENDS.get(self._play.form) if self._played.stream else None
        return data if end is None else data.replace(b"\n", end)

    @property
    def _is_terminated(self) -> bool:
        play = self._play
        return self._played.stream and play.done and not play.error and play.sent == 1

    async def _tear(self, before: bytes, data: bytes, behind: bytes) -> None:
        """Only a part gets out, and the connection is gone."""
        size = int(self._play.torn * len(before + data + behind))
        self._played.sent += in_lf(data[: max(0, size - len(before))])
        await self._far.send_all((before + data + behind)[:size])
        await self._hang_up()

    async def _be_silent(self) -> None:
        play = self._play
        until = trio.current_time() + play.silence
        pause = max(1.0, play.silence / 20)
        while play.comments and self._played.stream and trio.current_time() + pause < until:
            await self._wait(pause)
            busy = f": {self._played.tag} is busy {'.' * play.long}\n\n"
            await self._say(busy.encode(), comment=True)
        await self._wait(until - trio.current_time())

    async def _end(self) -> None:
        play = self._play
        if play.garbled:
            await self._talk_rubbish()
        by_length = play.framing == "length" and (play.sent == 1 or play.end == "end")
        match play.end:
            case "hang" if not by_length:
                await self._near.closed.wait()
                raise Cut
            case "rst":
                await self._hang_up()
            case "fin" if play.framing == "chunked" or (play.framing == "length" and not by_length):
                await self._hang_up()
        if play.framing == "chunked":
            if self._deflate is not None:
                tail = self._deflate.flush()
                await self._far.send_all(b"%x\r\n%b\r\n" % (len(tail), tail))
            await self._far.send_all(TRAILED if play.extra == "trailers" else LAST)
        self._played.over = True
        if play.framing == "close" or play.end == "fin":
            await self._hang_up()

    async def _hang_up(self) -> None:
        if self._play.end == "rst":
            self._far.reset()
        else:
            self._far.close()
        raise Cut

    async def _talk_rubbish(self) -> None:
        """And wait for whoever listens to have enough of it. Only chunks have a size to garble."""
        if self._play.garbled == "head" or self._play.framing == "chunked":
            await self._far.send_all(GARBAGE[self._play.garbled])
        await self._near.closed.wait()
        raise Cut

    async def _wait(self, seconds: float) -> None:
        """Be idle, but notice that nobody listens any more."""
        with trio.move_on_after(max(0.0, seconds)):
            await self._near.closed.wait()
            raise Cut
