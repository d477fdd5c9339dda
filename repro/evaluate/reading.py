"""Items exactly as their JSON says. ``datasets`` guesses: "2020-01-01" becomes a moment in time, 1 beside 2.5
becomes 1.0.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import datasets

from repro.errors import SettingError
from repro.evaluate.targets import Refused
from repro.items.stage import read_rows
from repro.plain import Row

INT64 = range(-(2**63), 2**63)


class Rows(list[Row]):
    """Items that Arrow's columns cannot hold as they are (a number beside text): a list with what lm-eval
    asks of a split.

    Whatever else ``datasets`` offers (``map`` of a task's ``process_docs``) is refused.
    """

    def __init__(self, rows: list[Row], columns: list[str], why: str) -> None:
        super().__init__(rows)
        self.features = dict.fromkeys(columns)
        self.column_names, self.why = columns, why

    def __getitem__(self, index: Any) -> Any:
        return copy.deepcopy(super().__getitem__(index))

    def __iter__(self) -> Iterator[Any]:
        return (copy.deepcopy(row) for row in super().__iter__())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Refused(f"its process_docs needs a table, and {self.why}: write the values of a column alike")


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Inside, ``datasets.load_dataset("json", data_files=...)`` of local files gives the values that stand in
    them.

    What another builder reads is refused where it holds moments in time: nobody wrote those into an item.
    """
    original = datasets.load_dataset

    def load(path: str, name: str | None = None, *args: Any, **given: Any) -> Any:
        files = _local(given.get("data_files"))
        if path == "json" and name is None and not args and set(given) == {"data_files"} and files:
            return {split: read(paths) for split, paths in files.items()}
        found = original(path, name, *args, **given)
        for split in found.values() if isinstance(found, dict) else [found]:
            for column, feature in split.features.items():
                if any(
                    word in str(feature)
                    for word in ("timestamp", "date32", "date64", "time32", "time64", "duration")
                ):
                    raise Refused(
                        f"column {column!r} was read as a moment in time; give the items as JSON lines, or as"
                        " text"
                    )
        return found

    with mock.patch.object(datasets, "load_dataset", load):
        yield


def _local(given: Any) -> dict[str, list[Path]]:
    """{split: files} of ``data_files`` where all of them lie on this disk, else nothing."""
    by_split = given if isinstance(given, dict) else {"train": given}
    found: dict[str, list[Path]] = {}
    for split, names in by_split.items():
        for name in names if isinstance(names, list) else [names]:
            path = Path(str(name))
            paths = (
                [path]
                if path.is_file()
                else sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
            )
            if not paths:
                return {}
            found.setdefault(str(split), []).extend(paths)
    return found


def read(paths: list[Path]) -> Any:
    """The rows of JSON-lines files, or of files that are one JSON list: a ``datasets.Dataset``, or
    :class:`Rows`.

    A key that a row has not is ``None`` there. Raises :class:`Refused` naming the file for what is neither.
    """
    rows = [row for path in paths for row in _rows(path)]
    if not rows:
        raise Refused(f"{paths[0].name} holds no items")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    seen: dict[str, set[Any]] = {}
    whole = [{column: row.get(column) for column in columns} for row in rows]
    for row in whole:
        for column in columns:
            _kinds(row[column], column, seen)
    for place, kinds in seen.items():
        if len(kinds) > 1 or "a number of more than 64 bits" in kinds:
            named = " and ".join(
                sorted(kind if isinstance(kind, str) else f"keys {list(kind)}" for kind in kinds)[:2]
            )
            return Rows(whole, columns, f"{place} in {paths[0].name} holds {named}")
    return datasets.Dataset.from_dict({column: [row[column] for row in whole] for column in columns})


def _kinds(value: Any, place: str, seen: dict[str, set[Any]]) -> None:
    """Add the kinds of value that stand at ``place`` to ``seen``; of an object its keys are the kind."""
    if value is None:
        return
    if isinstance(value, dict):
        seen.setdefault(place, set()).add(tuple(sorted(value)))
        for key, inner in value.items():
            _kinds(inner, f"{place}.{key}", seen)
    elif isinstance(value, list):
        seen.setdefault(place, set()).add("a list")
        for inner in value:
            _kinds(inner, f"{place}[]", seen)
    elif isinstance(value, str):
        lone = any("\ud800" <= character <= "\udfff" for character in value) if not value.isascii() else False
        seen.setdefault(place, set()).add("text with half a character" if lone else "text")
    elif isinstance(value, bool) or isinstance(value, float):
        seen.setdefault(place, set()).add(type(value).__name__)
    else:
        seen.setdefault(place, set()).add("int" if value in INT64 else "a number of more than 64 bits")


def _rows(path: Path) -> list[Row]:
    if path.suffix == ".gz":
        try:
            text = gzip.open(path, "rb").read()
        except (OSError, EOFError, zlib.error) as error:
            raise Refused(f"{path.name} cannot be unpacked ({error}); fetch it again") from None
    else:
        with open(path, "rb") as handle:
            if handle.read(64).lstrip()[:1] != b"[":
                try:
                    return list(read_rows(path))
                except SettingError:
                    text = path.read_bytes()  # one object over many lines
            else:
                text = path.read_bytes()
    try:
        return _objects(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path.name} is neither JSON lines nor a JSON list of objects ({error})") from None


def _objects(text: bytes) -> list[Row]:
    try:
        found = json.loads(text)
        found = found if isinstance(found, list) else [found]
    except ValueError:
        found = [json.loads(line) for line in text.split(b"\n") if line.strip()]
    if not all(isinstance(row, dict) for row in found):
        raise ValueError("an item must be a JSON object")
    return found
