"""A user's own files: JSON lines (plain, .gz, .zst), parquet, and folders of text.

One bad document is dropped and counted; a file that cannot be read as a whole stops the run and is named.
Lines are split on newline only (U+2028 may stand inside one), and an endless line never fills the memory.
"""

from __future__ import annotations

import codecs
import glob
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow

from repro import assets, parquet, remote, schema
from repro.corpus.documents import Document, Drop, id_of
from repro.corpus.settings import Corpus
from repro.errors import SettingError, require
from repro.plain import Json, Row
from repro.remote import Remote
from repro.store import RepeatedKey, is_full, unique

LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
TEXT = (
    ".txt",
    ".md",
    ".rst",
    ".tex",
    ".html",
    ".py",
    ".c",
    ".cpp",
    ".h",
    ".java",
    ".js",
    ".ts",
    ".go",
    ".rs",
)
BATCH_ROWS, BATCH_BYTES = 256, 4 << 30  # of parquet, held at one time
SHARD = re.compile(r"(?:.*/)?([^/]+)-\d{5}\.[^/]+")
KNOWN = (*LINES, ".parquet", *TEXT)


def identity(settings: Corpus) -> Json:
    """Digests of the files' content and the settings that read them; neither folder nor order of files
    counts.
    """
    found = files(settings)
    digests = _digests([path for path, _ in found])
    if settings.checksums:
        _check(settings, {name: digest for (_, name), digest in zip(found, digests, strict=True)})
    # A name matters only where the text lies bare (it becomes the id) or where the folder is the domain.
    named = [
        (name if _kind(path) == "text" or settings.domain_from == "folder" else "", digest)
        for (path, name), digest in zip(found, digests, strict=True)
    ]
    return {"files": sorted(named), **schema.identity(settings, "files")}


def _digests(paths: list[Path | Remote]) -> list[str]:
    """sha256 of each file; of one in a bucket what the bucket knows its content by."""
    known = iter(assets.content_digests([path for path in paths if isinstance(path, Path)]))
    return [next(known) if isinstance(path, Path) else path.digest() for path in paths]


def _check(settings: Corpus, found: dict[str, str]) -> None:
    """Refuse a folder that is not, file by file, what ``corpus.checksums`` says."""
    wanted = settings.checksums
    missing, foreign = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
    damaged = sorted(name for name in wanted.keys() & found if wanted[name] != found[name])
    for names, fault, mend in (
        (missing, "is missing", "copy it there"),
        (foreign, "does not belong there", "move it elsewhere, or read the folder with corpus=files"),
        (
            damaged,
            "has another sha256 than corpus.checksums says",
            "it is damaged or of another version: copy it anew",
        ),
    ):
        more = f" (and so for {len(names) - 1} more)" if len(names) > 1 else ""
        require(
            not names, f"corpus.folder={settings.folder}: {names[0] if names else ''} {fault}; {mend}{more}"
        )


def expected_tokens(settings: Corpus) -> tuple[float, int]:
    """(tokens in all, domains): files hold four bytes a token, packed ones four times as many; shards name
    their domain.
    """
    packed, found = (".gz", ".zst", ".parquet"), files(settings)
    n_bytes = sum(path.stat().st_size * (4 if path.name.endswith(packed) else 1) for path, _ in found)
    named = {shard[1] for _, name in found if (shard := SHARD.fullmatch(name))}
    return n_bytes / 4, len(settings.domains or named) or 4


def files(settings: Corpus) -> list[tuple[Path | Remote, str]]:
    """(path, name below the given folder) of every readable file, in the order of names.

    Raises :class:`SettingError` for a path that is missing, of an unknown kind, or a folder that holds
    nothing readable.
    """
    return _look(settings)[0]


def facts(settings: Corpus) -> Json:
    """For the manifest: how many files are read, and what else lies in the folders given, by kind and with a
    few names.
    """
    found, skipped = _look(settings)
    kinds = Counter(
        "broken link" if path.is_symlink() else path.suffix.lower() or "no suffix" for path in skipped
    )
    return {
        "files": {
            "read": len(found),
            "skipped": dict(kinds.most_common()),
            "examples": [p.name for p in skipped[:3]],
        }
    }


def _look(settings: Corpus) -> tuple[list[tuple[Path | Remote, str]], list[Path | Remote]]:
    """What can be read, and what in the folders cannot: files of other kinds and links to nothing; hidden
    ones do not count.
    """
    found: dict[Path | Remote, str] = {}
    skipped: list[Path | Remote] = []
    for given in [settings.folder] if settings.folder else settings.paths:
        if remote.is_remote(given):
            _look_away(given, found, skipped)
            continue
        paths = parquet.matches(given, recursive=True)
        if not paths and not glob.has_magic(given):
            paths = [Path(given).expanduser()]
        require(bool(paths), f"corpus.paths: no file matches {given!r}")
        for path in paths:
            require(path.exists(), f"corpus.paths: {path} does not exist")
            if path.is_file():
                require(
                    bool(_kind(path)), f"corpus.paths: {path} is of no known kind; known: {', '.join(KNOWN)}"
                )
                found[path] = path.name
                continue
            inside = sorted(path.rglob("*"))
            below = [p for p in inside if p.is_file() and _kind(p)]
            hidden = {p for p in inside if any(part.startswith(".") for part in p.relative_to(path).parts)}
            skipped += [
                p for p in inside if not p.is_dir() and p not in hidden and not (p.is_file() and _kind(p))
            ]
            require(
                bool(below),
                f"corpus.paths: the folder {path} holds no file of a known kind: {', '.join(KNOWN)}",
            )
            found |= {p: p.relative_to(path).as_posix() for p in below}
    return sorted(found.items(), key=lambda item: (item[1], str(item[0]))), skipped


def _look_away(given: str, found: dict[Path | Remote, str], skipped: list[Path | Remote]) -> None:
    """The same in a bucket."""
    there = remote.found(given)
    require(bool(there), f"corpus.paths: no file is at {given}, or matches it")
    for path, name in there:
        if _kind(path):
            found[path] = name
        elif not any(part.startswith(".") for part in name.split("/")):
            skipped.append(path)
    require(
        any(_kind(path) for path, _ in there),
        f"corpus.paths: {given} holds no file of a known kind: {', '.join(KNOWN)}",
    )


def _kind(path: Path | Remote) -> str:
    name = path.name.lower()
    if name.endswith(LINES):
        return "lines"
    return "parquet" if name.endswith(".parquet") else "text" if name.endswith(TEXT) else ""


def stream(settings: Corpus) -> Iterator[Document | Drop]:
    """Documents of all files. Raises :class:`SettingError` when not one of them has the text or the domain
    field.
    """
    usable, seen, example = 0, 0, None
    for path, name in files(settings):
        for found in _read(path, name, settings):
            seen += 1
            if isinstance(found, Document):
                usable += 1
            elif found.reason in ("missing_text", "missing_domain"):
                example = example or found
            yield found
    if example and not usable:
        key = example.reason.removeprefix("missing_")
        field = settings.text_field if key == "text" else settings.domain_field
        mend = "" if key == "text" else ", or corpus.domain_from=constant or folder"
        raise SettingError(
            f"{example.where}: no document has the field {field!r}, this one has"
            f" {', '.join(example.fields) or 'none'}; set corpus.{key}_field=NAME{mend}"
        )
    require(seen > 0, f"corpus.paths={settings.paths}: the files are empty")


def share(settings: Corpus, rank: int, tasks: int) -> Iterator[Document | Drop]:
    """Documents of one of ``tasks`` shares of the files."""
    found = files(settings)
    for path, name in found[len(found) * rank // tasks : len(found) * (rank + 1) // tasks]:
        yield from _read(path, name, settings)


def _read(path: Path | Remote, name: str, settings: Corpus) -> Iterator[Document | Drop]:
    kind = _kind(path)
    if kind == "text":
        yield _plain(path, name, settings)
        return
    rows = _lines(path, settings.max_bytes) if kind == "lines" else _parquet(path, _asked(settings))
    for where, found in rows:
        yield found if isinstance(found, Drop) else _document(found, where, name, settings)


@contextmanager
def _readable(path: Path | Remote) -> Iterator[None]:
    """Turn what the libraries throw at a damaged file into one line."""
    try:
        yield
    # a column whose name is no UTF-8 is a UnicodeDecodeError of pyarrow
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        if is_full(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
        raise SettingError(
            f"corpus.paths: cannot read {path} ({reason[:120]}); mend it or leave it out"
        ) from None


def _open(path: Path | Remote) -> BinaryIO:
    kind = {".zst": "zstd", ".gz": "gzip"}.get(path.suffix.lower())
    handle = remote.opened(path)
    # Arrow's streams tell a truncated file from a finished one; zstandard's end without a word.
    return io.BufferedReader(pyarrow.input_stream(handle, compression=kind), 1 << 20) if kind else handle


def _lines(path: Path | Remote, max_bytes: int) -> Iterator[tuple[str, Row | Drop]]:
    # Escaped JSON is up to six times as long as its text. A longer line is skipped piece by piece, never
    # held.
    limit = 6 * max_bytes + (1 << 20)
    with _readable(path), _open(path) as handle:
        number = 0
        while line := handle.readline(limit):
            number += 1
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            where = f"{path}:{number}"
            if len(line) == limit and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = handle.readline(limit)
                yield where, Drop("line_too_long", where)
            elif line.strip():
                yield where, _parse(line, where)


def _parse(line: bytes, where: str) -> Row | Drop:
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=unique)
    except RepeatedKey:
        return Drop("key_stands_twice", where)
    except UnicodeDecodeError:
        return Drop("invalid_utf8", where)
    except (ValueError, RecursionError):
        return Drop("broken_json", where)
    return found if isinstance(found, dict) else Drop("not_an_object", where)


def _asked(settings: Corpus) -> set[str]:
    """The fields that are asked for; all others only pass through."""
    fields = (
        settings.text_field,
        settings.id_field,
        settings.group_field,
        settings.source_field,
        settings.license_field,
    )
    return {*fields, settings.domain_field} if settings.domain_from == "field" else set(fields)


def _parquet(path: Path | Remote, asked: set[str]) -> Iterator[tuple[str, Row | Drop]]:
    """Rows of a parquet file. A column nobody asked for may be of any type: what Python cannot hold is told
    by its type.
    """
    with _readable(path), _table(path) as opened:
        names = parquet.distinct(opened, path)
        asked = {
            name for name in names if name in asked or any(field.startswith(f"{name}.") for field in asked)
        }
        number = 0
        for batch in _batches(opened, asked):
            try:
                rows = _rows(batch, asked)
            except UnicodeDecodeError:  # parquet does not check its strings: find the rows one by one
                rows = [_one(batch.slice(i, 1), asked) for i in range(batch.num_rows)]
            for found in rows:
                number += 1
                where = f"{path}: row {number}"
                yield where, found if found is not None else Drop("invalid_utf8", where)


def _table(path: Path | Remote) -> Any:
    """Of a file in a bucket only what is asked for at a time is held."""
    local = isinstance(path, Path)
    return parquet.opened(path) if local else parquet.streamed(path.open(), remote.REQUEST_BYTES)


def _batches(opened: Any, asked: set[str]) -> Iterator[Any]:
    """Of all columns that can be read; where one that nobody asked for cannot, of those that were."""
    rows = _rows_at_once(opened.metadata)
    batches = opened.iter_batches(batch_size=rows)
    try:
        first = next(batches, None)
    except pyarrow.ArrowNotImplementedError:
        batches = opened.iter_batches(batch_size=rows, columns=sorted(asked))
        first = next(batches, None)
    if first is not None:
        yield first
        yield from batches


def _rows_at_once(about: Any) -> int:
    """How many rows of a parquet file to hold: a value that its dictionary holds once may stand in every one
    of them.
    """
    groups = (about.row_group(i) for i in range(about.num_row_groups))
    largest = max(
        (g.column(i).total_uncompressed_size for g in groups for i in range(g.num_columns)), default=0
    )
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(largest, 1)))


def _rows(batch: Any, asked: set[str]) -> list[Row]:
    values = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column.to_pylist()
        except UnicodeDecodeError:
            raise
        except Exception as error:  # a zone nobody knows, a year beyond Python's, ...
            reason = str(error).splitlines()[0]
            require(name not in asked, f"the column {name!r} of type {column.type} cannot be read ({reason})")
            values[name] = [f"not readable: {column.type}"] * len(column)
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _one(batch: Any, asked: set[str]) -> Row | None:
    try:
        return _rows(batch, asked)[0]
    except UnicodeDecodeError:
        return None


def _plain(path: Path | Remote, name: str, settings: Corpus) -> Document | Drop:
    """A file that is one document: its id is its name, its group the folder it lies in."""
    folder = name.rpartition("/")[0]
    domain = (
        settings.domain
        if settings.domain_from == "constant"
        else name.split("/")[0]
        if folder
        else settings.domain
    )
    with _readable(path):
        if path.stat().st_size > 4 * settings.max_bytes:
            return Drop("too_long", str(path), domain)
        raw = path.read_bytes()
    try:
        return Document(name, domain, folder, path.name, "not stated", raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Drop("invalid_utf8", str(path), domain)


def _document(values: Row, where: str, name: str, settings: Corpus) -> Document | Drop:
    """A row as a document; its other fields pass through. Field names may be dotted (``doc.body``)."""
    names = tuple(values)
    values = dict(values)
    text = _take(values, settings.text_field)
    if settings.domain_from == "field":
        domain = _take(values, settings.domain_field)
    elif settings.domain_from == "folder":
        domain = Path(name).parent.name or Path(name).name.split(".")[0]
    else:
        domain = settings.domain
    if domain is None or not str(domain).strip():
        return Drop("missing_domain", where, fields=names)
    if isinstance(domain, dict | list):
        return Drop("domain_not_a_name", where)
    domain = str(domain)
    if text is None:
        return Drop("missing_text", where, domain, names)
    if not isinstance(text, str):
        return Drop("text_not_a_string", where, domain)
    ident = _take(values, settings.id_field)
    if isinstance(ident, dict | list):
        return Drop("id_not_a_name", where, domain)
    if ident is None or str(ident) == "":
        ident = id_of(text)
    about = [
        _take(values, key) for key in (settings.group_field, settings.source_field, settings.license_field)
    ]
    group, source, license = ("" if value is None else str(value) for value in about)
    return Document(str(ident), domain, group, source or "not stated", license or "not stated", text, values)


def _take(values: Row, path: str) -> Any:
    """Remove a field and return it, or ``None``; ``a.b`` is b inside a where no field has that very name."""
    if path in values:
        return values.pop(path)
    *outer, last = path.split(".")
    for key in outer:
        inner = values.get(key)
        if not isinstance(inner, dict):
            return None
        values = inner
    return values.pop(last, None)
