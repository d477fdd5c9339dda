"""Every parquet file is read here, as the table it is and no more.

Left to themselves the libraries read more out of a path than the file says: ``domain=web`` in a folder's name
becomes a column that replaces the file's own (Hive partitions), and ``[ ] * ?`` become patterns. Here a path
is a name.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from repro.errors import require

if TYPE_CHECKING:
    import polars
    import pyarrow
    from pyarrow.parquet import FileMetaData, ParquetFile

    Paths = str | Path | Iterable[str | Path]


def scan(paths: Paths) -> polars.LazyFrame:
    """The rows of one file or several, in their order, read when collected."""
    import polars

    return polars.scan_parquet(listed(paths), glob=False, hive_partitioning=False)


def read(paths: Paths, columns: list[str] | None = None, n_rows: int | None = None) -> polars.DataFrame:
    """The rows of one file or several, in their order; ``columns`` only, and the first ``n_rows`` of all."""
    rows = scan(paths) if columns is None else scan(paths).select(columns)
    return (rows if n_rows is None else rows.head(n_rows)).collect()


def opened(path: Path | BinaryIO) -> ParquetFile:
    """A file for reading batch by batch; close it, or use it in ``with``."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def streamed(source: BinaryIO, request_bytes: int) -> ParquetFile:
    """A file of any size for reading batch by batch: of a column only ``request_bytes`` are held, where
    :func:`opened` holds the whole row group.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, pre_buffer=False, buffer_size=request_bytes)


def columns(path: Path) -> list[str]:
    """The names of a file's columns; :class:`SettingError` where one stands twice, for nobody could say which
    is meant.
    """
    with opened(path) as file:
        return distinct(file, path)


def distinct(file: ParquetFile, path: object) -> list[str]:
    """As :func:`columns`, of an open file; ``path`` is what it is called."""
    names = list(file.schema_arrow.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"{path} has more than one column {', '.join(map(repr, twice))}; rename or remove one")
    return names


def table(path: Path | BinaryIO, columns: list[str] | None = None) -> pyarrow.Table:
    """A file as an Arrow table."""
    with opened(path) as file:
        return file.read(columns=columns)


def metadata(path: Path | BinaryIO) -> FileMetaData:
    """What a file's footer says."""
    import pyarrow.parquet as pq

    return pq.read_metadata(path)


def sql(paths: Paths, **options: bool) -> str:
    """DuckDB's table function over files, for ``FROM``. A view cannot take parameters, so the paths are
    quoted here.

    ``options`` are further ones of ``read_parquet``, such as ``filename=True``.
    """
    named = "".join(f", {key} = {str(value).lower()}" for key, value in options.items())
    files = ", ".join(quoted(re.sub(r"([\[*?])", r"[\1]", path)) for path in listed(paths))
    return f"read_parquet([{files}], hive_partitioning = false{named})"


def quoted(text: str | Path) -> str:
    """``text`` as an SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def listed(paths: Paths) -> list[str]:
    """One path or several as a list of text."""
    return [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def matches(pattern: str | Path, recursive: bool = False) -> list[Path]:
    """The file or folder of that very name; else what the pattern matches, in the order of names.

    Folders that are there by the name given are names: only what follows them is a pattern.
    """
    given = Path(pattern).expanduser()
    if given.exists():
        return [given]
    there = next(folder for folder in given.parents if folder.exists())
    below = glob.glob(str(given.relative_to(there)), root_dir=there, recursive=recursive)
    return sorted(there / found for found in below)
