"""Telling a server over HTTP that nobody wants an answer any more.

Most model servers stop when their connection is closed. Some do not notice, or not behind a router
of theirs; those have a call for it, by an id. Where clients may choose the id, it goes out in the
request's body (`rid`, `genkey`); elsewhere it is the one that the server's own frames tell, so that
before the first frame there is nothing to name, and closing the connection has to do. No id that we
give is the beginning of another one: SGLang stops whatever begins with the one it is told.

| server | call | id |
|---|---|---|
| SGLang | `POST /abort_request` `{"rid": …}` | ours, as `rid` |
| KoboldCpp | `POST /api/extra/abort` `{"genkey": …}` | ours, as `genkey` |
| exo | `POST /v1/cancel/{id}` | that of its chunks, behind a prefix in two dialects |
| Responses with `background` | `POST /v1/responses/{id}/cancel` | that of the response |
| text-generation-webui | `POST /v1/internal/stop-generation` | none: it stops everything |
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from ..core.call import Abort

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.call import Call
    from ..core.headers import Headers

_PLACEHOLDER = re.compile(r"\{(?:id|stream_id|model)\}")
_JSON = ((b"content-type", b"application/json"),)
_EXO_PREFIXES = {"responses": "resp_", "messages": "msg_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortMessage:
    """One HTTP request. `target` counts from the server's root, unless `url` names another server."""

    method: str = "POST"
    target: str = "/"
    url: str | None = None
    headers: Headers = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortCalls:
    """How one kind of server is told.

    `member` is what the body of a request calls the id that we give it, if there is such a thing.
    `compose` makes the message for a call, or None where there is nothing to name.
    `background_only` says that only work which outlives its connection has to be ended.
    """

    compose: Callable[[Call], AbortMessage | None]
    member: str | None = None
    background_only: bool = False


def outcome(status: int) -> Abort:
    """What an answer to an abort message means."""
    if 200 <= status < 300:
        return Abort.DONE
    # The work is over, or was never known: 409 is what cancelling a finished response gets.
    return Abort.UNKNOWN if status in {404, 409, 410} else Abort.FAILED


def _sglang(call: Call) -> AbortMessage:
    return _to("/abort_request", {"rid": call.id})


def _kobold(call: Call) -> AbortMessage:
    return _to("/api/extra/abort", {"genkey": call.id})


def _exo(call: Call) -> AbortMessage | None:
    command = call.answer_id or ""
    prefix = _EXO_PREFIXES.get(call.dialect or "", "")
    command = _in_url(command.removeprefix(prefix))
    return _to(f"/v1/cancel/{command}") if command else None


def _responses(call: Call) -> AbortMessage | None:
    response = _in_url(call.answer_id or "")
    return _to(f"/v1/responses/{response}/cancel") if response else None


def _textgen(_: Call) -> AbortMessage:
    return _to("/v1/internal/stop-generation")


def _to(target: str, body: dict[str, str] | None = None) -> AbortMessage:
    if body is None:
        return AbortMessage(target=target)
    return AbortMessage(target=target, headers=_JSON, body=json.dumps(body).encode())


KNOWN = {
    "sglang": AbortCalls(compose=_sglang, member="rid"),
    "kobold": AbortCalls(compose=_kobold, member="genkey"),
    "exo": AbortCalls(compose=_exo),
    "responses": AbortCalls(compose=_responses, background_only=True),
    "textgen": AbortCalls(compose=_textgen),
}
"""By the name they have in settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomCall:
    """A call from the settings, with `{id}`, `{stream_id}` and `{model}` to be filled in.

    Names of header fields are in ASCII. What is filled into a URL is percent-encoded there, into a
    JSON body escaped, into a header as it is: the transport refuses what no header can hold.
    """

    method: str
    url: str
    body: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def calls(self) -> AbortCalls:
        """The same, for `HttpUpstream`."""
        return AbortCalls(compose=self._compose)

    def _compose(self, call: Call) -> AbortMessage | None:
        if not call.answer_id and "{id}" in self.url + self.body + _values(self.headers):
            return None
        values = {
            "{id}": call.answer_id or "",
            "{stream_id}": call.stream_id,
            "{model}": call.model or "",
        }
        in_url = {name: _in_url(value) for name, value in values.items()}
        if any(name in self.url and not value for name, value in in_url.items()):
            return None
        url = _fill(self.url, in_url)
        headers = [
            (name.lower().encode("ascii"), _fill(value, values).encode("latin-1", "replace"))
            for name, value in self.headers
        ]
        body, is_json = self._filled_body(values)
        if is_json and not any(name == b"content-type" for name, _ in headers):
            headers.extend(_JSON)
        return AbortMessage(
            method=self.method,
            url=url,
            headers=tuple(headers),
            body=body.encode("utf-8", "replace"),
        )

    def _filled_body(self, values: dict[str, str]) -> tuple[str, bool]:
        try:
            document = json.loads(self.body)
        except ValueError:
            return _fill(self.body, values), False
        return json.dumps(_fill_json(document, values)), True


def _in_url(value: str) -> str:
    """`value` as a segment of a path, or in a query; "" if it would be none, but lead elsewhere."""
    return "" if value in {".", ".."} else quote(value, safe="", errors="replace")


def _fill(text: str, values: dict[str, str]) -> str:
    """In one pass: what was filled in is not looked at again."""
    return _PLACEHOLDER.sub(lambda found: values[found[0]], text)


def _fill_json(value: Any, values: dict[str, str]) -> Any:
    """Fill in every string, so that whatever is filled in stays inside of it."""
    if isinstance(value, str):
        return _fill(value, values)
    if isinstance(value, list):
        return [_fill_json(item, values) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {
            _fill(key, values): _fill_json(item, values)
            for key, item in cast("dict[str, Any]", value).items()
        }
    return value


def _values(headers: tuple[tuple[str, str], ...]) -> str:
    return "".join(value for _, value in headers)
