"""Replacing a file whole, with a copy of what it was beside it.

The copy is complete before the file is touched, and the file is replaced in one step: whatever happens,
there is the old one or the new one, never half of either.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from .plan import NotConnected

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_MODE = 0o600  # of a file that was not there: agents keep keys in theirs


def read(path: Path) -> str | None:
    """The text, with its line ends as they are; None if there is no such file."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotConnected(f"{path} cannot be read: {_reason(error)}") from error


def replace(path: Path, before: str | None, after: str, now: datetime) -> Path | None:
    """Write `after`, if `before` still stands there; the copy of it, if there was anything.

    A link is followed, and mode and owner of the file stay. Raises NotConnected.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if read(path) != before:
            raise NotConnected(
                f"{path} was changed meanwhile by somebody else; nothing was written"
            )
        known = path.stat() if before is not None else None
        copy = None
        if before is not None:
            copy = _free(path.with_name(f"{path.name}.{now:%Y%m%dT%H%M%SZ}.bak"))
            _write(copy, before, known)
        _write(path, after, known)
    except OSError as error:
        raise NotConnected(f"{path} cannot be written: {_reason(error)}") from error
    return copy


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _write(path: Path, text: str, like: os.stat_result | None) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        if like is not None and hasattr(os, "chown"):
            with suppress(PermissionError):  # only the superuser edits files of others
                os.chown(name, like.st_uid, like.st_gid)
        os.chmod(name, stat.S_IMODE(like.st_mode) if like else _MODE)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8"
    return error.strerror or str(error)
