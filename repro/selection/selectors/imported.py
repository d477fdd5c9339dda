"""Scores from your own parquet files: any model, any method."""

from pathlib import Path
from typing import Any

import polars

from repro import parquet
from repro.config import SettingError, nearest, one_of, require
from repro.selection.selectors import Context
from repro.store import sha256_file

READS_LOSSES = False


def priority(
    context: Context, path: str, column: str = "score", id_column: str = "doc_id", keep: str = "high"
) -> polars.DataFrame:
    """``column`` of the parquet file, folder or glob ``path``. Documents that it does not name are counted as unranked."""
    one_of("params.keep", keep, ("high", "low"))
    value = polars.col(column).cast(polars.Float64)
    chosen = {"doc_id": polars.col(id_column).cast(polars.String), "priority": value if keep == "high" else -value}
    parts = []
    for file in files(path):  # one by one: the types of columns may differ between files
        try:
            names = parquet.columns(file)
            for name in (column, id_column):
                require(name in names, f"params: {file} has no column {name!r}; did you mean {nearest(name, names)}?")
            parts.append(parquet.read(file, sorted({column, id_column})).select(**chosen))
        except (OSError, ValueError, polars.exceptions.PolarsError) as error:  # pyarrow's own errors are ValueErrors
            raise SettingError(f"params.path: cannot read scores from {file} ({str(error).splitlines()[0][:160]})") from None
    found = polars.concat(parts)
    known = polars.Series("doc_id", [row[0] for row in context.query("SELECT doc_id FROM documents")])
    kept = found.filter(polars.col("doc_id").is_in(known.implode()))
    require(kept.height > 0, f"no {id_column} of {path} is a doc_id of the corpus; check params.id_column and the ids")
    return kept


def files(path: str) -> list[Path]:
    """The parquet files behind a file, folder or glob; at least one."""
    place = Path(path)
    found = sorted(place.glob("*.parquet")) if place.is_dir() else parquet.matches(place)
    if not found:
        raise SettingError(f"params.path={path}: no parquet file there; give a file, a folder or a glob")
    return found


def identity(path: str, **params: Any) -> dict[str, Any]:
    """The contents of the files, wherever they lie."""
    return {"sha256": sorted(sha256_file(p) for p in files(path)), **params}
