"""How a value that cannot be used is told: one line, in words, without any secret."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import ErrorDetails

from . import allowed
from .allowed import Allowed, Refused
from .core.errors import ProxyError
from .secrets import MASK


class SettingsError(ProxyError):
    """A setting that cannot be used. `str()` is one line without any secret in it.

    `setting` is its name as in the TOML file, `problem` the rest of the line, and `origin` the
    flag, variable or file that the value came from, as far as that is known.
    """

    def __init__(self, setting: str, problem: str, origin: str = "") -> None:
        # The name may be a stranger's too: whatever stood in the place of a setting.
        line = f"{_in_line(setting)}{problem}" + (f" (from {origin})" if origin else "")
        super().__init__(line if line.isprintable() else _printable(line))
        self.setting = setting
        self.problem = problem
        self.origin = origin


class Checked(BaseModel):
    """A model that reports a value which does not fit as a SettingsError.

    `within` goes before the names of its settings.
    """

    within: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_words(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise in_words(cls, error.errors(include_url=False)[0]) from error


def tables_of(model: type[Checked], what: str) -> Allowed:
    """A list of tables, each of which makes a `model`. Of several, the message counts out which."""
    listed = allowed.tables(what)

    def parse(value: object) -> tuple[Checked, ...]:
        tables = cast("tuple[object, ...]", listed.parse(value))
        return tuple(_made(model, tables, place) for place in range(len(tables)))

    return Allowed(what, parse, listed.hidden)


def _made(model: type[Checked], tables: tuple[object, ...], place: int) -> Checked:
    try:
        return model.model_validate(tables[place])
    except SettingsError as error:
        if len(tables) == 1:
            raise
        which = f" (table {place + 1} of {len(tables)})"
        raise SettingsError(error.setting, error.problem + which) from error


def in_words(model: type[Checked], error: ErrorDetails) -> SettingsError:
    """pydantic's report of one problem, as a line of ours."""
    if not error["loc"]:
        return SettingsError(model.within.rstrip("."), ": must be a table")
    name = str(error["loc"][0])
    if name not in model.model_fields:
        return SettingsError(
            model.within + name, f": no such setting{nearest(name, model.model_fields)}"
        )
    if error["type"] == "missing":
        return SettingsError(model.within + name, ": is required")
    rule = rule_of(model, name)
    value = "" if rule.hidden else f" = {shown(error['input'])}"
    refusal = error.get("ctx", {}).get("error")
    words = str(refusal) if isinstance(refusal, Refused) else f"must be {rule.words}"
    return SettingsError(model.within + name, f"{value}: {words}")


def rule_of(model: type[BaseModel], name: str) -> Allowed:
    """What the setting `name` may be."""
    [rule] = [part for part in model.model_fields[name].metadata if isinstance(part, Allowed)]
    return rule


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """The end of a line that tells of a name nobody knows."""
    [found] = get_close_matches(name, names, n=1, cutoff=0.0)
    return f"; the nearest is {prefix}{found}"


def shown(value: object) -> str:
    """`value` in one line of moderate length, without the secrets a URL may hold."""
    try:
        text = str(value)
    except (
        ValueError,
        RecursionError,
    ):  # a number of thousands of digits, or a list in a list in a …
        text = f"({type(value).__name__})"
    text = re.sub(r"//[^/@]*@", f"//{MASK}@", text) or "''"
    text = re.sub(r"(//[^?#]*[?#]).*", rf"\1{MASK}", text, flags=re.DOTALL)
    return _in_line(text if text.isprintable() else ascii(text))


def _in_line(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _printable(line: str) -> str:
    """`line` with an escape for every letter that would break it, or that no terminal shows."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
