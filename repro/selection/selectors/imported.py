"""Scores from your own parquet or CSV files: any model, any method."""

from pathlib import Path
from typing import Any

import polars

from repro.errors import SettingError, first_line, nearest, one_of, require
from repro.plain import Json
from repro.selection.selectors import Context
from repro.store import parquet, sha256_file

READS_LOSSES = False


def priority(
    context: Context, path: str, column: str = "score", id_column: str = "doc_id", keep: str = "high"
) -> polars.DataFrame:
    """``column`` of the parquet or CSV file, folder or glob ``path``. Documents it does not name are
    unranked.
    """
    one_of("params.keep", keep, ("high", "low"))
    value = polars.col(column).cast(polars.Float64)
    chosen = {
        "doc_id": polars.col(id_column).cast(polars.String),
        "priority": value if keep == "high" else -value,
    }
    parts = []
    for file in files(path):  # one by one: the types of columns may differ between files
        try:
            table = csv(file) if file.suffix == ".csv" else None
            names = parquet.columns(file) if table is None else table.columns
            for name in (column, id_column):
                require(
                    name in names,
                    f"params: {file} has no column {name!r}; did you mean {nearest(name, names)}?",
                )
            table = parquet.read(file, sorted({column, id_column})) if table is None else table
            parts.append(table.select(**chosen))
        # pyarrow's own errors are ValueErrors
        except (OSError, ValueError, polars.exceptions.PolarsError) as error:
            raise SettingError(
                f"params.path: cannot read scores from {file} ({first_line(error)[:160]})"
            ) from None
    found = polars.concat(parts)
    known = polars.Series("doc_id", [row[0] for row in context.query("SELECT doc_id FROM documents")])
    kept = found.filter(polars.col("doc_id").is_in(known.implode()))
    require(
        kept.height > 0,
        f"no {id_column} of {path} is a doc_id of the corpus; check params.id_column and the ids",
    )
    return kept


def csv(file: Path) -> polars.DataFrame:
    """A CSV with a header; every column as text, so that an id of digits keeps its zeros."""
    return polars.read_csv(file, infer_schema=False)


def files(path: str) -> list[Path]:
    """The parquet and CSV files behind a file, folder or glob; at least one."""
    place = Path(path)
    found = (
        sorted([*place.glob("*.parquet"), *place.glob("*.csv")]) if place.is_dir() else parquet.matches(place)
    )
    if not found:
        raise SettingError(
            f"params.path={path}: no parquet or CSV file there; give a file, a folder or a glob"
        )
    return found


def identity(path: str, **params: Any) -> Json:
    """The contents of the files, wherever they lie."""
    return {"sha256": sorted(sha256_file(p) for p in files(path)), **params}
