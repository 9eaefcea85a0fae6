"""Every way of answering that a test can ask for by name.

A scenario is a function from a good answer to a script. A client picks it by the request's
`model`; "reset-after-prelude,normal" plays the first on the first attempt and the second on every
later one, and whatever stands behind a "#" only makes the name unique.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

from .answers import Answer
from .steps import (
    End,
    Fin,
    Frames,
    Hang,
    Headers,
    Pieces,
    Raw,
    Repeat,
    Reset,
    Script,
    Status,
    Step,
    Wait,
)
from .talk import WORDS

Scenario = Callable[[Answer], Script]
SCENARIOS: dict[str, Scenario] = {}
HALF = WORDS // 2
ECHO = 200_000  # bytes; what a server echoes that repeats a coding agent's instructions
HUGE = 5_000_000  # bytes; an image in base64


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


@scenario
def normal(answer: Answer) -> Script:
    return answer.whole()


@scenario
def paced(answer: Answer) -> Script:
    return (
        answer.headers(),
        answer.prelude(),
        answer.output(every=0.05),
        answer.ending(),
        End(),
    )


@scenario
def paced_slowly(answer: Answer) -> Script:
    head = (answer.headers(), answer.prelude())
    return (*head, answer.output(every=0.12), answer.ending(), End())


# -- silence ------------------------------------------------------------------------------------


@scenario
def silence_before_headers(answer: Answer) -> Script:
    return (Wait(answer.silence), *answer.whole())


@scenario
def silence_after_headers(answer: Answer) -> Script:
    return (answer.headers(), Wait(answer.silence), Frames(answer.frames()), End())


@scenario
def silence_after_prelude(answer: Answer) -> Script:
    rest = (answer.output(), answer.ending(), End())
    return (answer.headers(), answer.prelude(), Wait(answer.silence), *rest)


@scenario
def silence_mid_stream(answer: Answer) -> Script:
    head = (answer.headers(), answer.prelude(), answer.output(0, HALF))
    return (*head, Wait(answer.silence), answer.output(HALF), answer.ending(), End())


@scenario
def silence_with_comments(answer: Answer) -> Script:
    """The upstream keeps itself alive with comments, before and amid its output."""
    if not answer.stream:
        return silence_mid_stream(answer)
    comments = Repeat(b": keep-alive\n\n", every=0.1, times=round(answer.silence / 0.2))
    head = (answer.headers(), answer.prelude(), comments, answer.output(0, HALF))
    return (*head, comments, answer.output(HALF), answer.ending(), End())


# -- odd but right ------------------------------------------------------------------------------


@scenario
def large_prelude(answer: Answer) -> Script:
    answer = answer.told(echo=ECHO)
    rest = (answer.output(), answer.ending(), End())
    return (answer.headers(), answer.prelude(), Wait(0.2), *rest)


@scenario
def usage_null(answer: Answer) -> Script:
    return answer.told(null_usage=True).whole()


@scenario
def frame_5mb(answer: Answer) -> Script:
    return answer.told(padding=HUGE).whole()


@scenario
def pieces_of_7(answer: Answer) -> Script:
    return (Pieces(7), *answer.whole())


@scenario
def gzip(answer: Answer) -> Script:
    framing = {} if answer.stream else {"framing": "chunked"}
    return answer.whole(gzip=True, **framing)


@scenario
def until_close(answer: Answer) -> Script:
    return answer.whole(framing="close")


@scenario
def line_ends_cr(answer: Answer) -> Script:
    return rewritten(answer, lambda frame: frame.replace(b"\n", b"\r"))


@scenario
def line_ends_crlf(answer: Answer) -> Script:
    return rewritten(answer, lambda frame: frame.replace(b"\n", b"\r\n"))


@scenario
def line_ends_crlf_pieces(answer: Answer) -> Script:
    return (Pieces(7), *line_ends_crlf(answer))


@scenario
def multi_line(answer: Answer) -> Script:
    """Each frame's JSON spread over several data lines."""
    return rewritten(answer, spread)


@scenario
def bom(answer: Answer) -> Script:
    if not answer.stream:
        return answer.whole()
    first, *rest = answer.frames()
    return (answer.headers(), Frames((b"\xef\xbb\xbf" + first, *rest)), End())


@scenario
def comments(answer: Answer) -> Script:
    return rewritten(answer, lambda frame: b": comment\n\n" + frame + b":\n\n")


@scenario
def id_lines(answer: Answer) -> Script:
    """With a silence, so that a heartbeat falls between frames that carry ids."""
    if not answer.stream:
        return answer.whole()
    words = tuple(b"id: %d\n" % n + word for n, word in enumerate(answer.output().frames))
    head = (answer.headers(), answer.prelude(), Frames(words[:HALF]), Wait(answer.silence))
    return (*head, Frames(words[HALF:]), answer.ending(), End())


@scenario
def endless_body(answer: Answer) -> Script:
    """The terminator, and then the body does not end."""
    if not answer.stream:
        return answer.whole()
    return (answer.headers(), Frames(answer.frames()), Hang())


@scenario
def after_terminator(answer: Answer) -> Script:
    """Something more in the same write as the terminator."""
    if not answer.stream:
        return answer.whole()
    *most, last = answer.frames()
    return (answer.headers(), Frames((*most, last + b"data: late\n\n")), End())


@scenario
def finished_without_terminator(answer: Answer) -> Script:
    """On Chat a finish reason and a proper end of the body will do."""
    frames = answer.frames()
    return (answer.headers(), Frames(frames[:-1] if answer.stream else frames), End())


# -- cuts ---------------------------------------------------------------------------------------


def cut(place: str, step: Step) -> Scenario:
    def scenario(answer: Answer) -> Script:
        match place:
            case "before-headers" if isinstance(step, End):  # nothing, said properly
                return (Status(200, content_type=answer.headers().content_type),)
            case "before-headers":
                return (step,)
            case "after-headers":
                return (clean(answer, step), step)
            case "after-prelude":
                return (clean(answer, step), answer.prelude(), Wait(0.05), step)
            case _:
                told = (clean(answer, step), answer.prelude(), answer.output(0, HALF))
                return (*told, Wait(0.05), step)

    return scenario


def clean(answer: Answer, step: Step) -> Headers:
    """A body that shall end cleanly though too early cannot have promised its length."""
    chunked = isinstance(step, End) and not answer.stream
    return answer.headers(**({"framing": "chunked"} if chunked else {}))


for _name, _step in (("reset", Reset()), ("fin", Fin()), ("eof", End())):
    for _place in ("before-headers", "after-headers", "after-prelude", "after-output"):
        SCENARIOS[f"{_name}-{_place}"] = cut(_place, _step)


@scenario
def eof_until_close(answer: Answer) -> Script:
    """Half an answer, framed so that its end cannot be told from a cut."""
    head = (answer.headers(framing="close"), answer.prelude(), answer.output(0, HALF))
    return (*head, Wait(0.05), End())


# -- calls --------------------------------------------------------------------------------------


@scenario
def tool_call(answer: Answer) -> Script:
    return answer.told(calls=True).whole()


@scenario
def silence_amid_call(answer: Answer) -> Script:
    """While the model writes out the arguments."""
    begun, rest = within_call(answer)
    return (answer.told(calls=True).headers(), begun, Wait(answer.silence), rest, End())


def cut_call(step: Step) -> Scenario:
    def scenario(answer: Answer) -> Script:
        begun, _ = within_call(answer)
        return (clean(answer.told(calls=True), step), begun, Wait(0.05), step)

    return scenario


def within_call(answer: Answer) -> tuple[Frames, Frames]:
    """The whole body, parted where one piece of the arguments has been told."""
    frames = answer.told(calls=True).frames()
    here = next(n for n, frame in enumerate(frames) if b"upto" in frame) + 1
    return Frames(frames[:here]), Frames(frames[here:])


for _name, _step in (("reset", Reset()), ("fin", Fin()), ("eof", End())):
    SCENARIOS[f"call-cut-{_name}"] = cut_call(_step)


# -- statuses -----------------------------------------------------------------------------------


def status(code: int, *, late: bool = False, retry_after: Callable[[], str] | None = None):
    def scenario(answer: Answer) -> Script:
        fields = (("retry-after", retry_after()),) if retry_after else ()
        told = Status(code, answer.talk.error_body(code), fields=(*fields, ("x-told", "yes")))
        return (Wait(answer.silence), told) if late else (told,)

    return scenario


for _code in (400, 401, 403, 404, 500, 503, 529):
    SCENARIOS[f"status-{_code}"] = status(_code)
    SCENARIOS[f"late-status-{_code}"] = status(_code, late=True)
SCENARIOS["status-429-short"] = status(429, retry_after=lambda: "1")
SCENARIOS["status-429-5s"] = status(429, retry_after=lambda: "5")
SCENARIOS["status-429-long"] = status(429, retry_after=lambda: "60")
SCENARIOS["status-429-date"] = status(429, retry_after=lambda: in_seconds(2))
SCENARIOS["status-429-date-long"] = status(429, retry_after=lambda: in_seconds(60))
SCENARIOS["late-status-429-long"] = status(429, late=True, retry_after=lambda: "60")


@scenario
def status_429_quota(answer: Answer) -> Script:
    told = {"message": "You exceeded your current quota", "type": "insufficient_quota"}
    error = {"error": told | {"param": None, "code": "insufficient_quota"}}
    return (Status(429, json.dumps(error).encode()),)


def in_seconds(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


# -- error frames -------------------------------------------------------------------------------


def error(code: int, *after: Step, output: bool = False, done: bool = False) -> Scenario:
    """The first error frame of the dialect, then `after`."""

    def scenario(answer: Answer) -> Script:
        if not answer.stream:
            return (Status(code, answer.talk.error_body(code)),)
        head = (answer.headers(), answer.prelude())
        if output:
            head = (*head, answer.output(0, HALF))
        told = answer.talk.error_frames(code)[:1] + ((b"data: [DONE]\n\n",) if done else ())
        return (*head, Frames(told), *after)

    return scenario


def error_then_failed(code: int, *, output: bool) -> Scenario:
    """Responses tells twice, in one write, since not much later would be too late; the others once."""

    def scenario(answer: Answer) -> Script:
        if not answer.stream:
            return error(code)(answer)
        *script, _, _ = error(code, End(), output=output)(answer)
        return (*script, Frames((b"".join(answer.talk.error_frames(code)),)), End())

    return scenario


for _code, _kind in ((400, "final"), (529, "passing")):
    for _place in (False, True):
        _name = f"{_kind}-error-{'after-output' if _place else 'before-output'}"
        SCENARIOS[_name] = error(_code, End(), output=_place)
        SCENARIOS[f"{_name}-done"] = error(_code, End(), output=_place, done=True)
        SCENARIOS[f"{_name}-hang"] = error(_code, Hang(), output=_place)
        SCENARIOS[f"{_name}-failed"] = error_then_failed(_code, output=_place)


# -- wrong answers ------------------------------------------------------------------------------


@scenario
def json_to_stream(answer: Answer) -> Script:
    return (Status(200, answer.talk.answer()),)


@scenario
def late_json_to_stream(answer: Answer) -> Script:
    return (Wait(answer.silence), Status(200, answer.talk.answer()))


@scenario
def redirect(answer: Answer) -> Script:
    return (Status(307, fields=(("location", "/elsewhere"),)),)


@scenario
def late_redirect(answer: Answer) -> Script:
    return (Wait(answer.silence), *redirect(answer))


@scenario
def html(answer: Answer) -> Script:
    page = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
    return (Status(502, page, "text/html"),)


@scenario
def garbage(answer: Answer) -> Script:
    return (Raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n"), Hang())


@scenario
def garbage_in_body(answer: Answer) -> Script:
    """A chunk size that is none."""
    return (Headers(content_type=answer.headers().content_type), Raw(b"zz\r\nno\r\n"), Hang())


# -- without end --------------------------------------------------------------------------------


@scenario
def hang_before_headers(answer: Answer) -> Script:
    return (Hang(),)


@scenario
def hang_after_headers(answer: Answer) -> Script:
    return (answer.headers(), Hang())


@scenario
def hang_after_prelude(answer: Answer) -> Script:
    return (answer.headers(), answer.prelude(), Hang())


@scenario
def hang_after_output(answer: Answer) -> Script:
    return (answer.headers(), answer.prelude(), answer.output(0, HALF), Hang())


@scenario
def endless_tokens(answer: Answer) -> Script:
    """Twenty a second, for as long as somebody listens; a JSON body never closes its text."""
    return (*endless_head(answer), Repeat(*endless_body_of(answer), every=0.05), Hang())


@scenario
def flood(answer: Answer) -> Script:
    """Tokens as fast as the client reads."""
    (frame,) = endless_body_of(answer)
    return (*endless_head(answer), Repeat(frame * (65536 // len(frame))), Hang())


def endless_head(answer: Answer) -> Iterator[Step]:
    yield answer.headers(**({} if answer.stream else {"framing": "chunked"}))
    yield answer.prelude()


def endless_body_of(answer: Answer) -> tuple[bytes]:
    return (answer.output().frames[0],)


# -- rewriting ----------------------------------------------------------------------------------


def rewritten(answer: Answer, change: Callable[[bytes], bytes]) -> Script:
    """Every frame changed in its form, not in what it says."""
    if not answer.stream:
        return answer.whole()
    return (answer.headers(), Frames(tuple(map(change, answer.frames()))), End())


def spread(frame: bytes) -> bytes:
    """The data of `frame` as indented JSON, each line in a data line of its own."""
    head, _, data = frame.rpartition(b"data: ")
    if not data.startswith(b"{"):
        return frame
    lines = json.dumps(json.loads(data), indent=1).encode().split(b"\n")
    return head + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
