"""The shards of a finished corpus, out of the spool in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from repro.corpus.documents import SCHEMA, sampling_key, write_shards
from repro.corpus.settings import Corpus
from repro.corpus.spool import Candidate
from repro.store import parquet

ROWS_AT_ONCE = 4096


def publish(settings: Corpus, spool: Path, out: Path, placed: list[tuple[Candidate, str, int, str]]) -> None:
    """Write the shards: ``placed`` gives each document its split, cluster and group.

    Rows of a domain stand in the order of hash(seed, id). DuckDB reads the spool once and sorts, on disk
    where the memory does not hold the text.
    """
    import duckdb

    order = sorted(placed, key=lambda p: (p[1], p[0].domain, sampling_key(settings.seed, p[0].id)))
    plan = pa.table(
        {
            "file": [c.file for c, *_ in order],
            "position": [c.row for c, *_ in order],
            "cluster": pa.array([cluster for _, _, cluster, _ in order], pa.int64()),
            "own_group": [group for *_, group in order],
            "rank": list(range(len(order))),
        }
    )
    columns = ", ".join(
        {"group": 'own_group AS "group"', "cluster": "p.cluster"}.get(c, f"d.{c}") for c in SCHEMA.names
    )
    read = parquet.sql(sorted(spool.glob("[0-9]*.parquet")), filename=True, file_row_number=True)
    query = f"""
        SELECT {columns} FROM {read} d
        JOIN plan p ON p.file = CAST(parse_filename(d.filename, true) AS INTEGER)
        AND p.position = d.file_row_number
        ORDER BY p.rank"""
    with duckdb.connect(
        config={"temp_directory": str(spool / "sorting"), "memory_limit": "4GB"}
    ) as connection:
        connection.register("plan", plan)
        rows = Rows(connection.sql(query).to_arrow_reader(ROWS_AT_ONCE))
        for (split, domain), own in groupby(order, key=lambda p: (p[1], p[0].domain)):
            write_shards(out, split, domain, rows.take(sum(1 for _ in own)), settings.shard_documents)


class Rows:
    """A stream of batches, taken by numbers of rows."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self.batches = iter(batches)
        self.rest: pa.RecordBatch | None = None

    def take(self, number: int) -> Iterator[pa.RecordBatch]:
        """The next rows."""
        while number:
            batch = next(self.batches) if self.rest is None else self.rest
            yield batch.slice(0, number)
            self.rest = batch.slice(number) if len(batch) > number else None
            number -= min(number, len(batch))
