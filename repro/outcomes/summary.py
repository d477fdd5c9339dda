"""``summary.json``: the one file a run leaves behind that everything else is drawn from, sealed against
edits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from repro.errors import SettingError, first_line
from repro.outcomes.outcome import Outcome
from repro.store import atomic, digest

SCHEMA = 2  # 2: a verdict in words beside every comparison
LINE = 140  # characters


def seal(summary: Outcome) -> Outcome:
    """The summary with ``schema`` and the sha256 of its own content under ``checksum``."""
    body = {"schema": SCHEMA, **{k: v for k, v in summary.items() if k not in ("schema", "checksum")}}
    return cast(Outcome, {**body, "checksum": digest(json.loads(json.dumps(body)))})


def write(path: Path, summary: Outcome) -> Outcome:
    """Seal and write; returns what was written, as reading it back gives it (string keys)."""
    sealed = json.loads(json.dumps(seal(summary), allow_nan=False))
    with atomic(path) as temporary:
        temporary.write_text(laid_out(sealed) + "\n")
    return sealed


def laid_out(value: Any, depth: int = 0) -> str:
    """JSON with whatever fits into a line in one: two thirds of what ``indent=1`` takes, and a change is seen
    where it is.
    """
    text = json.dumps(value, allow_nan=False)
    if len(text) <= LINE or not isinstance(value, dict | list) or not value:
        return text
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {laid_out(part, depth + 1)}" for key, part in value.items()]
        return "{" + inner + ("," + inner).join(parts) + outer + "}"
    return "[" + inner + ("," + inner).join(laid_out(part, depth + 1) for part in value) + outer + "]"


def read(path: Path) -> Outcome:
    """A summary that is whole, of this schema and unedited; :class:`SettingError` otherwise.

    ``path`` is the file or the folder of a run.
    """
    file = path / "summary.json" if path.is_dir() else path
    if not file.is_file():
        raise SettingError(
            f"{file} is not there; name the folder a run printed in its last line (run: <dir>)"
        )
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = first_line(error)
        raise SettingError(f"{file} is not JSON ({reason}); run the experiment again to rewrite it") from None
    schema = summary.get("schema") if isinstance(summary, dict) else None
    if schema != SCHEMA or not isinstance(summary, dict):
        raise SettingError(
            f"{file} has schema {schema}, this code reads {SCHEMA}; run the experiment again with this"
            " version"
        )
    if seal(cast(Outcome, summary)).get("checksum") != summary.get("checksum"):
        raise SettingError(
            f"{file} was edited: its checksum does not fit its content; restore it, or run the experiment"
            " again"
        )
    return cast(Outcome, summary)
