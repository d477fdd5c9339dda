"""Text that leaves this machine: without its paths, and without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, cast

from repro.errors import require
from repro.secrecy import hidden
from repro.store import read_json, write_json

ELSEWHERE = "PATH/"  # stands for the folders above a file on the machine that ran
WHOLE = re.compile(r"(file://)?(~|[A-Za-z]:[/\\]|[/\\](?![/\\]))")
QUOTED = re.compile(r"""(["'])(?:file://)?((?:~|[A-Za-z]:)?[/\\](?![/\\]).*?)\1""")
# an absolute path; the path of a URL, and-or, are none
ABSOLUTE = re.compile(r"(?<![\w.:/\\~-])(?:file://)?((?:~\w*|[A-Za-z]:)?[/\\](?![/\\\s])[^\s'\"\[\],;|<>`]+)")
CHECKED = {".md", ".json", ".csv", ".jinja"}
# keys of a model's and a tokenizer's configuration that may name a file or folder
PLACES = {"_name_or_path", "name_or_path", "tokenizer_file", "vocab_file", "merges_file", "added_tokens_file",
          "special_tokens_map_file", "spm_file"}  # fmt: skip
Value = TypeVar("Value")


def text(said: str) -> str:
    """``said`` with the last part alone of every absolute path, and without secrets."""
    said = QUOTED.sub(lambda found: f"{found[1]}{_named(found[2])}{found[1]}", hidden(said))
    return ABSOLUTE.sub(lambda found: _named(found[1]), said)


def _named(path: str) -> str:
    return ELSEWHERE + (re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "")


def value(found: Value) -> Value:
    """JSON with :func:`text` for its strings; one that is a path as a whole may hold blanks."""
    if isinstance(found, str):
        whole = WHOLE.match(found) and "\n" not in found
        return cast(Value, _named(hidden(found)) if whole else text(found))
    if isinstance(found, dict):
        return cast(Value, {text(key): value(inner) for key, inner in found.items()})
    if isinstance(found, list):
        return cast(Value, [value(inner) for inner in found])
    return found


def word(word: str) -> str:
    """One of a command line that was typed, to be typed elsewhere."""
    key, equals, given = word.rpartition("=")
    return f"{hidden(key)}{equals}{value(given)}" if WHOLE.match(given) else text(word)


def copy_json(source: Path, target: Path) -> None:
    """A JSON file without places and secrets."""
    write_json(target, value(read_json(source)))


def copy_configuration(source: Path, target: Path) -> None:
    """A configuration of a model or tokenizer without the places it names; all else, such as an end token
    ``</s>`` or a chat template, means what it says and stays.
    """

    def cleaned(found: Value) -> Value:
        if isinstance(found, dict):
            return cast(Value, {k: value(v) if k in PLACES else cleaned(v) for k, v in found.items()})
        return cast(Value, [cleaned(inner) for inner in found]) if isinstance(found, list) else found

    write_json(target, cleaned(read_json(source)))


def check(folder: Path, places: Iterable[Path]) -> None:
    """Refuse a folder in whose cards and records one of ``places`` or a secret stands."""
    known = {str(form) for place in places for form in (place, place.absolute(), place.resolve())}
    known = {place for place in known if place.startswith("/") and len(place) > 1}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in CHECKED or path.name.startswith("tokenizer."):  # a vocabulary is no record
            continue
        said = path.read_text(encoding="utf-8")
        said = said + json.dumps(said)  # as JSON writes it, too
        require(
            hidden(said) == said,
            f"{path.relative_to(folder)} would hold a password or token; take it out of the run's settings",
        )
        for place in known:
            require(
                not re.search(rf"{re.escape(place)}(?![\w.-])", said),
                f"{path.relative_to(folder)} would name {place}, a folder of this machine",
            )
