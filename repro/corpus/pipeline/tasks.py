"""What the tasks of a corpus do: functions of (data, rank, tasks) for datatrove, over one shared folder.

Each task owns its share of the source and its own files; a file stands under its name once it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from repro.corpus import sources
from repro.corpus.documents import SCHEMA, Document, Drop, row, sampling_key, write_shards
from repro.corpus.settings import Corpus
from repro.items import texts as items_texts
from repro.plain import Row
from repro.store import atomic, parquet, write_json

ABOUT = pa.schema(
    [
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("domain", pa.string()),
        ("group", pa.string()),
        ("digest", pa.string()),
        ("n_bytes", pa.int64()),
        ("key", pa.binary()),
    ]
)
EXAMINED = pa.schema(
    [("task", pa.int32()), ("row", pa.int64()), ("shares", pa.bool_()), ("place", pa.int64())]
)
BYTES_AT_ONCE = 16 << 20  # of text, in a row group of the spool
ROWS_AT_ONCE = 1024
MEMORY = "1GB"  # of DuckDB in a task


@dataclass(frozen=True)
class Read:
    """The share of the source: usable documents into ``spool/``, what is needed to choose into ``about/``,
    and a tally of what was dropped.
    """

    settings: Corpus
    folder: Path

    def __call__(self, data: Any, rank: int, tasks: int) -> None:
        """One task."""
        from repro.corpus.clean import text_digest
        from repro.corpus.select import Tally
        from repro.corpus.spool import usable

        tally, skipped = Tally(), set()
        with _writer(self.folder / f"spool/{rank:05d}.parquet", SCHEMA) as spool:
            with _writer(self.folder / f"about/{rank:05d}.parquet", ABOUT) as about:
                for found in sources.share(self.settings, rank, tasks):
                    tally.seen += 1
                    found = usable(found, self.settings)
                    if isinstance(found, Drop):
                        tally.drop(found.reason, found.domain, found.where)
                        if found.reason == "other_domain":
                            skipped.add(found.domain)
                        continue
                    values = row(found, 0)
                    about.add(_about(self.settings, found, values["n_bytes"], rank, spool.rows, text_digest))
                    spool.add(values, values["n_bytes"])
        write_json(self.folder / f"tally/{rank:05d}.json", tally.dump() | {"skipped": sorted(skipped)})


def _about(settings: Corpus, found: Document, n_bytes: int, rank: int, at: int, digest: Any) -> Row:
    return {
        "task": rank, "row": at, "id": found.id, "domain": found.domain, "group": found.group,
        "digest": digest(found.text), "n_bytes": n_bytes, "key": sampling_key(settings.seed, found.id),
    }  # fmt: skip


class _writer:
    """Rows into a parquet file in row groups of bounded size; the file appears when it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.rows, self.waiting, self.size = schema, 0, [], 0
        self.whole = atomic(path)

    def __enter__(self) -> _writer:
        self.writer = pq.ParquetWriter(self.whole.__enter__(), self.schema, compression="zstd")
        return self

    def add(self, values: Row, n_bytes: int = 100) -> None:
        """One row."""
        self.waiting.append(values)
        self.rows, self.size = self.rows + 1, self.size + n_bytes
        if self.size >= BYTES_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if self.waiting:
            self.writer.write_table(pa.Table.from_pylist(self.waiting, schema=self.schema))
        self.waiting, self.size = [], 0

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._write()
        self.writer.close()
        self.whole.__exit__(*error)


@dataclass(frozen=True)
class Examine:
    """Which chosen documents share text with a benchmark: into ``examined/``, and the others go on to
    datatrove's signatures, numbered by ``place``.
    """

    folder: Path
    items: Path | None

    def __call__(self, data: Any, rank: int, tasks: int) -> Iterator[Any]:
        """One task; yields datatrove's documents."""
        from datatrove.data import Document as Entry

        from repro.corpus.clean import benchmark_index, examine
        from repro.corpus.ngrams import words

        index: dict[int, Any] = {}
        if self.items is not None:
            index = benchmark_index(items_texts(self.items))
        place = 0
        with _writer(self.folder / f"examined/{rank:05d}.parquet", EXAMINED) as out:
            for at, text in chosen_texts(self.folder, rank):
                shares = bool(index) and examine(words(text), index)
                out.add({"task": rank, "row": at, "shares": shares, "place": None if shares else place})
                if not shares:
                    yield Entry(text=text, id=str(place))
                    place += 1


def chosen_texts(folder: Path, rank: int) -> Iterator[tuple[int, str]]:
    """(row in the spool, text) of the task's documents in ``chosen.parquet``, in order."""
    import duckdb

    with duckdb.connect(config={"memory_limit": MEMORY, "threads": 1}) as connection:
        query = (
            f'SELECT "row" FROM {parquet.sql(folder / "chosen.parquet")} WHERE task = $task ORDER BY "row"'
        )
        rows: Any = connection.execute(query, {"task": rank}).to_arrow_reader(ROWS_AT_ONCE * 64)
        wanted = (value for batch in rows for value in batch["row"].to_pylist())
        following = next(wanted, None)
        with parquet.opened(folder / f"spool/{rank:05d}.parquet") as spool:
            start = 0
            for batch in spool.iter_batches(256, columns=["text"]):
                while following is not None and following < start + len(batch):
                    yield following, batch["text"][following - start].as_py()
                    following = next(wanted, None)
                start += len(batch)
                if following is None:
                    return


@dataclass(frozen=True)
class Sort:
    """The task's documents that stay, in the order of the finished corpus, into ``sorted/``."""

    folder: Path

    def __call__(self, data: Any, rank: int, tasks: int) -> None:
        """One task."""
        import duckdb

        columns = ", ".join(
            {"group": 'own_group AS "group"', "cluster": "p.cluster"}.get(c, f"d.{c}") for c in SCHEMA.names
        )
        spool = parquet.sql(self.folder / f"spool/{rank:05d}.parquet", file_row_number=True)
        query = f"""SELECT p.rank, {columns} FROM {spool} d
            JOIN (SELECT * FROM {parquet.sql(self.folder / "placed.parquet")} WHERE task = {rank}) p
            ON p."row" = d.file_row_number ORDER BY p.rank"""
        target = self.folder / f"sorted/{rank:05d}.parquet"
        with duckdb.connect(config=_config(self.folder, rank)) as connection, atomic(target) as temporary:
            connection.execute(
                f"COPY ({query}) TO {parquet.quoted(temporary)} (FORMAT parquet, COMPRESSION zstd,"
                " ROW_GROUP_SIZE 2048)"
            )


@dataclass(frozen=True)
class Write:
    """The shards of the finished corpus: the task takes its share of the parts in ``parts.parquet``."""

    folder: Path
    out: Path
    per_shard: int

    def __call__(self, data: Any, rank: int, tasks: int) -> None:
        """One task."""
        import duckdb

        parts = parquet.table(self.folder / "parts.parquet").to_pylist()
        read = parquet.sql(sorted((self.folder / "sorted").glob("*.parquet")))
        columns = ", ".join(f'"{name}"' for name in SCHEMA.names)
        with duckdb.connect(config=_config(self.folder, rank)) as connection:
            connection.execute("SET parquet_metadata_cache = true")
            for part in parts[len(parts) * rank // tasks : len(parts) * (rank + 1) // tasks]:
                query = f"SELECT {columns} FROM {read} WHERE rank BETWEEN $first AND $last ORDER BY rank"
                limits = {"first": part["first_rank"], "last": part["last_rank"]}
                batches: Any = connection.execute(query, limits).to_arrow_reader(ROWS_AT_ONCE)
                write_shards(
                    self.out, part["split"], part["domain"], batches, self.per_shard, part["first_shard"]
                )


def _config(folder: Path, rank: int) -> dict[str, Any]:
    spill = folder / f"sorting/{rank:05d}"
    spill.parent.mkdir(parents=True, exist_ok=True)  # DuckDB makes the last folder alone
    return {"memory_limit": MEMORY, "threads": 1, "temp_directory": str(spill)}
