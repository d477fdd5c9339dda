"""The folder that all runs share, outside the repository, and what is remembered there because it takes long
to find out again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from repro.errors import SettingError
from repro.plain import Json
from repro.store import atomic, sha256_file


def cache() -> Path:
    """The folder that all runs share, outside the repository."""
    return Path(os.environ.get("REPRO_CACHE") or Path.home() / ".cache" / "attention-influence-repro")


def content_digests(paths: list[Path], read: Callable[[Path], str] | None = None) -> list[str]:
    """sha256 of each file, remembered by path, size, times and node so that a plan need not read them
    again. ``read`` finds those that are not remembered, unless given by reading the file.

    Raises :class:`SettingError` naming a file that cannot be read.
    """
    known = recall("digests")
    found, changed = [], False
    for path in paths:
        try:
            status = path.stat()
            # copies and archives may set the time of change back, and no one that of the file's node
            when = f"{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
            key = f"{path.resolve()}|{status.st_size}|{when}"
            if key not in known:
                known[key], changed = (read or sha256_file)(path), True
        except OSError as error:
            raise SettingError(f"cannot read {path} ({error.strerror}); mend it or leave it out") from None
        found.append(known[key])
    if changed:
        remember("digests", known)
    return found


def recall(name: str) -> Json:
    """What :func:`remember` kept in the cache under a name; empty without it."""
    try:
        return json.loads((cache() / f"{name}.json").read_text())
    except (OSError, ValueError):  # absent or damaged: it is only a memory
        return {}


def remember(name: str, values: Json) -> None:
    """Keep in the cache, for all runs, what takes long to find out again."""
    try:
        with atomic(cache() / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(values, indent=1))
    except OSError:  # a read-only cache costs time, nothing else
        pass
