"""The models of several upstreams, as one list: what answers `GET /v1/models` where there are several.

Each is asked at the same time, with the client's own headers (and its own key in place of the client's,
if it has one), and has `PATIENCE` to answer. One that fails, or whose breaker is open, is left out. A
model that several have is listed once, as the first of them in the settings tells it.

A list is cheap, so nobody waits in line for it, and it says little of whether the upstream can also
generate, so breakers hear nothing of it.

Both shapes of list are made: OpenAI's, and Anthropic's for clients that send `anthropic-version`. The
latter comes in pages. As no upstream can go on from a model of another's, each is asked for the largest
page there is, and the client gets all of them as its first and last page.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import trio

from ..core import headers as fields
from ..core.call import Call
from ..core.errors import Garbled, UpstreamError
from ..core.routing import rename

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
    from typing import Protocol

    from ..core.headers import Headers
    from ..ports import Answer, Upstream, UpstreamRequest

    class Listed(Protocol):
        """An upstream, and whether it is worth asking just now; see endpoint.Endpoint."""

        @property
        def upstream(self) -> Upstream: ...

        def admits(self, now: float) -> bool: ...


Model = dict[str, Any]

PATIENCE = 5.0  # seconds for one upstream's list; a client that wants to know waits as long
LARGEST_LIST = 16 * 2**20  # bytes
LARGEST_PAGE = b"limit=1000"  # of Anthropic's
PAGING = {b"limit", b"after_id", b"before_id"}
CONDITIONS = (b"if-none-match", b"if-modified-since", b"range", b"accept-encoding")
"""What would bring less than a list."""


class MergedModels:
    """See ports.Upstream. `renames` are what upstreams call models, as in their settings."""

    name = "models"

    def __init__(
        self, upstreams: Sequence[Listed], renames: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._upstreams = upstreams
        self._renames = renames

    @asynccontextmanager
    async def open(self, request: UpstreamRequest, call: Call) -> AsyncGenerator[Answer]:
        """Ask all of them. Raises Garbled if none has a list, with what was wrong of each."""
        paged = fields.get(request.headers, b"anthropic-version") is not None
        close = getattr(request.body, "aclose", None)
        if close is not None:
            await close()  # nobody reads it
        lists = [_List(listed, f"{call.id}-{n}") for n, listed in enumerate(self._upstreams, 1)]
        async with trio.open_nursery() as nursery:
            for one in lists:
                nursery.start_soon(one.fetch, _asking(request, paged=paged), call)
        if all(one.models is None for one in lists):
            problems = "; ".join(f"{one.name}: {one.problem}" for one in lists)
            raise Garbled(f"no upstream has told its models ({problems})")
        yield _Whole(_merged(lists, self._renames, paged=paged))


class _List:
    """What one upstream has to say."""

    def __init__(self, listed: Listed, call_id: str) -> None:
        self._listed = listed
        self._call_id = call_id
        self.name = listed.upstream.name
        self.models: list[Model] | None = None
        self.problem = ""

    async def fetch(self, request: UpstreamRequest, asked: Call) -> None:
        """Fill in one of the two."""
        if not self._listed.admits(trio.current_time()):
            self.problem = "has failed of late, and rests"
            return
        self.problem = f"no answer within {PATIENCE:g} s"
        # It is over before it begins: leaving it early leaves no work behind that a message would stop.
        call = Call(id=self._call_id, stream_id=asked.stream_id, over=True)
        with trio.move_on_after(PATIENCE):
            try:
                async with self._listed.upstream.open(request, call) as answer:
                    await self._read(answer)
            except UpstreamError as error:
                self.problem = str(error)

    async def _read(self, answer: Answer) -> None:
        if answer.status != 200:
            self.problem = f"status {answer.status}"
            return
        body = bytearray()
        while chunk := await answer.receive():
            body += chunk
            if len(body) > LARGEST_LIST:
                self.problem = "a list that is too long"
                return
        self.models = _models_in(bytes(body))
        self.problem = "an answer that is no list of models"


class _Whole:
    """See ports.Answer."""

    status = 200

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.headers: Headers = (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        )

    async def receive(self) -> bytes:
        """All of it; then the end."""
        await trio.lowlevel.checkpoint()
        body, self._body = self._body, b""
        return body

    def release(self) -> None:
        """Nothing is held."""


def _asking(request: UpstreamRequest, *, paged: bool) -> UpstreamRequest:
    path, _, query = request.target.partition(b"?")
    wanted = [one for one in query.split(b"&") if one and one.partition(b"=")[0] not in PAGING]
    if paged:
        wanted.append(LARGEST_PAGE)
    headers = fields.without(request.headers, b"content-length", *CONDITIONS)
    return replace(
        request,
        target=path + b"?" + b"&".join(wanted) if wanted else path,
        headers=(*headers, (b"accept-encoding", b"identity")),
        body=b"",
    )


def _models_in(body: bytes) -> list[Model] | None:
    try:
        entries = json.loads(body)["data"]
        return [entry for entry in entries if isinstance(entry["id"], str)]
    except (ValueError, LookupError, TypeError):
        return None


def _merged(
    lists: Sequence[_List], renames: Mapping[str, Mapping[str, str]], *, paged: bool
) -> bytes:
    models: dict[str, Model] = {}
    for one in lists:
        if one.models is None:
            continue  # nor would it answer to the names that settings give it
        for model in _as_clients_call_them(one.models, renames.get(one.name, {})):
            models.setdefault(model["id"], _completed(model, one.name, paged=paged))
    data = list(models.values())
    whole: Model = {"object": "list", "data": data}
    if paged:
        first, last = next(iter(models), None), next(reversed(models), None)
        whole = {"data": data, "has_more": False, "first_id": first, "last_id": last}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _as_clients_call_them(models: Collection[Model], renames: Mapping[str, str]) -> list[Model]:
    """Each model by the names by which a client gets it; by none, if no name leads to it.

    Of `renames` those that are written out are added, also if the upstream does not list what they
    stand for: many answer to more names than they tell. What fits a glob has too many names to tell.
    """
    by_id = {model["id"]: model for model in models}
    found = [model for name, model in by_id.items() if rename(renames, name) == name]
    for name, own in renames.items():
        if not any(letter in name for letter in "*?["):
            found.append({**by_id.get(own, {}), "id": name})
    return found


def _completed(model: Model, upstream: str, *, paged: bool) -> Model:
    """With the members that clients of this shape count on, where it comes from the other one."""
    if not paged:
        return {"object": "model", "created": 0, "owned_by": upstream, **model}
    return {
        "type": "model",
        "display_name": model["id"],
        "created_at": _instant(model.get("created")),
        **model,
    }


def _instant(created: object) -> str:
    """RFC 3339. The epoch, if nobody knows: so does Anthropic."""
    seconds = created if isinstance(created, int) and 0 <= created < 2**33 else 0
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
