"""A disk that is full or denies: recognised in one place, whoever met it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repro.errors import NoRoom, SettingError, require


@contextmanager
def room_on(folder: Path) -> Iterator[None]:
    """Raise :class:`NoRoom` where the disk of ``folder`` runs full, or a quota, in whatever words a library
    says so, and :class:`SettingError` where something in the folder may not be written, because it is another
    user's or read-only.
    """
    try:
        yield
    except Exception as error:
        if denied := _denied(error, folder):
            raise SettingError(
                f"{denied.filename} cannot be written ({denied.strerror}): the store is read-only, or another"
                f" user's; let its group write (chmod -R g+rwX {folder}, and umask 002 for all who use it),"
                " or name another with work=DIR"
            ) from error
        if not is_full(error):
            raise
        raise NoRoom(
            f"no space left on the disk of {folder}; free some, or move the work folder with work=DIR, and"
            " run the same command again: finished work is kept"
        ) from error


def make_folder(folder: Path, name: str, mend: str = "name another") -> None:
    """Make a folder that a command writes into. Raises :class:`SettingError` where it cannot be made, as
    where a file stands, or cannot be written; ``name`` is what is typed before it (``work=``, ``--out ``),
    ``mend`` what to do then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise
        raise SettingError(f"{name}{folder}: cannot make the folder ({error.strerror}); {mend}") from None
    require(os.access(folder, os.W_OK | os.X_OK), f"{name}{folder}: the folder is not writable; {mend}")


def _denied(error: BaseException | None, folder: Path) -> OSError | None:
    """The refusal to write something in ``folder`` behind an exception, if there is one."""
    while error is not None:
        if (
            isinstance(error, OSError)
            and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            and error.filename
        ):
            if Path(os.fsdecode(error.filename)).absolute().is_relative_to(folder.absolute()):
                return error
        error = error.__cause__ or error.__context__
    return None


FULL = re.compile(
    r"no space left|quota exceeded|file too large|(os error|errno:?) (27|28|122)\b", re.IGNORECASE
)


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what it came from, is a full disk (28, ENOSPC), quota (122, EDQUOT) or file
    (27, ``ulimit -f``).

    safetensors, polars, DuckDB and pyarrow raise types of their own that hold the system's words or number in
    their text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
