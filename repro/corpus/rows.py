"""The rows of one file of JSON lines or parquet. What is damaged is dropped with its reason; a file that
cannot be read as a whole is named.

Lines are split on newline only (U+2028 may stand inside one), and an endless line never fills the memory.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow

from repro.corpus.documents import Drop
from repro.errors import SettingError, first_line, require
from repro.fetch import remote
from repro.fetch.remote import Remote
from repro.plain import Row
from repro.store import RepeatedKey, parquet, unique
from repro.store.disk import is_full

BATCH_ROWS, BATCH_BYTES = 256, 4 << 30  # of parquet, held at one time


@contextmanager
def readable(path: Path | Remote) -> Iterator[None]:
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


def lines(path: Path | Remote, max_bytes: int) -> Iterator[tuple[str, Row | Drop]]:
    """(where, object or why there is none) of each line that is not empty; ``max_bytes`` bounds its text."""
    # Escaped JSON is up to six times as long as its text. A longer line is skipped piece by piece, never
    # held.
    limit = 6 * max_bytes + (1 << 20)
    with readable(path), _open(path) as handle:
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


def parquet_rows(path: Path | Remote, asked: set[str]) -> Iterator[tuple[str, Row | Drop]]:
    """Rows of a parquet file. A column nobody asked for may be of any type: what Python cannot hold is told
    by its type.
    """
    with readable(path), _table(path) as opened:
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
            reason = first_line(error)
            require(name not in asked, f"the column {name!r} of type {column.type} cannot be read ({reason})")
            values[name] = [f"not readable: {column.type}"] * len(column)
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _one(batch: Any, asked: set[str]) -> Row | None:
    try:
        return _rows(batch, asked)[0]
    except UnicodeDecodeError:
        return None
