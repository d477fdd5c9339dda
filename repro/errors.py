"""A user's mistake, said in one line: what is wrong, where, and how to mend it. Below everything."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from repro import secrecy


class SettingError(Exception):
    """A user's mistake: one line saying what is wrong, where, and how to mend it. Printed without traceback,
    and without secrets that a library's own words or a path may hold.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(secrecy.hidden(str(message)))


class NoRoom(SettingError):
    """The disk, or a quota, is full, or too small for what comes: no other stage would fare better."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without secrets; of one that says nothing, its kind."""
    return secrecy.hidden(str(error)).strip().split("\n")[0] or type(error).__name__


def require(condition: bool, message: str) -> None:
    """Raise :class:`SettingError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise SettingError(message)


def as_file_name(what: str, name: str) -> str:
    """``name`` if it can name a file or folder inside another; else a :class:`SettingError`."""
    require(
        bool(name) and not re.search(r"[/\\\x00-\x1f]", name) and not name.startswith("."),
        f"{what} is named {name!r}, which would lead out of its folder; use letters, digits, _ and -",
    )
    return name


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse a value outside ``allowed`` and name the nearest valid one."""
    if value not in (allowed := tuple(allowed)):
        raise SettingError(
            f"{name}={value!r} is not known; did you mean {nearest(str(value), allowed)}? valid:"
            f" {', '.join(allowed)}"
        )


def nearest(word: str, words: Iterable[object]) -> str:
    """The entry of ``words`` closest to ``word`` in spelling."""
    found = difflib.get_close_matches(word, [str(w) for w in words], n=1, cutoff=0.0)
    return repr(found[0]) if found else "nothing (there is no valid name)"
