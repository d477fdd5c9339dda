"""What has to be decided over all documents at once, in DuckDB on what the tasks wrote about each of them.

The same rules as of a corpus made in one process (:mod:`repro.corpus.select`, :mod:`repro.corpus.split`), on
disk: memory is bounded by DuckDB's share, and by what is rare (ids with several texts, groups that share
near-duplicates).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from repro.corpus.select import BYTES_PER_TOKEN, EXAMPLES, Tally
from repro.corpus.settings import Corpus
from repro.errors import SettingError
from repro.store import parquet

MEMORY = "1GB"
AT_ONCE = 50_000  # rows walked in Python


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """A new database in the folder: nothing of an attempt that was killed."""
    path = folder / "decide.duckdb"
    for old in (path, path.with_name(path.name + ".wal")):
        old.unlink(missing_ok=True)
    return duckdb.connect(
        str(path), config={"memory_limit": MEMORY, "temp_directory": str(folder / "deciding")}
    )


def about(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Table ``about``: every usable document; ``copy`` counts those of one id and text, from 1."""
    read = parquet.sql(sorted((folder / "about").glob("*.parquet")))
    db.execute(f"""CREATE TABLE about AS SELECT *, row_number() OVER (
        PARTITION BY id, digest ORDER BY domain, "group", task, "row") AS copy FROM {read}""")


def unique(db: duckdb.DuckDBPyConnection, tally: Tally) -> None:
    """Table ``chosen``: what is no copy. Of documents with the same text the smallest id stays, of those with
    one id the smallest digest, as in :func:`repro.corpus.select.unique`.

    Ids with several texts are rare: they, and all that share a text with them, are walked in order; the rest
    follows from the smallest id of each text.
    """
    db.execute("""CREATE TABLE several AS
        SELECT id FROM about WHERE copy = 1 GROUP BY id HAVING count(*) > 1""")
    db.execute("""CREATE TABLE touched AS
        SELECT DISTINCT digest FROM about WHERE copy = 1 AND id IN (SELECT id FROM several)""")
    db.execute("""CREATE TABLE verdicts AS SELECT id, digest,
        CASE WHEN row_number() OVER (PARTITION BY digest ORDER BY id) = 1 THEN '' ELSE 'exact_duplicate' END
          AS reason
        FROM about WHERE copy = 1 AND digest NOT IN (SELECT digest FROM touched)""")
    digests: set[str] = set()
    last: list[str] = [""]

    def verdict(row: tuple[Any, ...]) -> tuple[Any, ...]:
        ident, digest = row
        reason = "exact_duplicate" if digest in digests else "duplicate_id" if ident == last[0] else ""
        if not reason:
            digests.add(digest)
            last[0] = ident
        return ident, digest, reason

    walk(
        db,
        """SELECT id, digest FROM about WHERE copy = 1 AND digest IN (SELECT digest FROM touched)
           ORDER BY id, digest""",
        "verdicts",
        ("id", "digest", "reason"),
        verdict,
    )
    db.execute("""CREATE TABLE judged AS SELECT a.*,
        CASE WHEN copy > 1 AND v.reason = '' THEN 'exact_duplicate' ELSE v.reason END AS reason
        FROM about a JOIN verdicts v USING (id, digest)""")
    _drop(db, tally, "judged", "id, digest, domain")
    twins, every = db.execute(
        "SELECT count(*) FILTER (reason = 'duplicate_id'), count(*) FROM judged"
    ).fetchall()[0]
    if twins > max(min(50, every // 3), every // 10):
        raise SettingError(
            f"corpus: {twins} of {every} documents share their id with another text (such as"
            f" {tally.examples['duplicate_id'][0]!r}); set corpus.id_field=NAME; with a field that does not"
            " exist ids are made from the text"
        )
    _keep(db, "judged", "chosen")


def sample(db: duckdb.DuckDBPyConnection, settings: Corpus, tally: Tally, table: str) -> None:
    """Keep of ``table`` what is not beyond the size asked for (:func:`repro.corpus.select.sample`)."""
    documents, tokens = settings.max_documents_per_domain, settings.max_tokens_per_domain
    if documents is None and tokens is None:
        return
    most, most_bytes = documents or float("inf"), tokens * BYTES_PER_TOKEN if tokens else float("inf")
    taken: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()

    def verdict(row: tuple[Any, ...]) -> tuple[Any, ...]:
        ident, domain, size = row
        if taken[domain] >= most or n_bytes[domain] + size > most_bytes:
            return ident, "beyond_the_size_asked_for"
        taken[domain] += 1
        n_bytes[domain] += size
        return ident, ""

    db.execute("CREATE TABLE drawn (id VARCHAR, reason VARCHAR)")
    walk(db, f"SELECT id, domain, n_bytes FROM {table} ORDER BY key", "drawn", ("id", "reason"), verdict)
    db.execute(f"CREATE TABLE sampled AS SELECT t.*, d.reason FROM {table} t JOIN drawn d USING (id)")
    _drop(db, tally, "sampled", "key")
    db.execute(f"DROP TABLE {table}")
    _keep(db, "sampled", table)
    db.execute("DROP TABLE drawn")


def examined(db: duckdb.DuckDBPyConnection, folder: Path, tally: Tally) -> None:
    """Table ``clean``: the chosen documents that share no text with a benchmark; ``place`` is their number in
    their task's signatures.
    """
    read = parquet.sql(sorted((folder / "examined").glob("*.parquet")))
    chosen, seen = db.execute(
        f"SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM {read})"
    ).fetchall()[0]
    if chosen != seen:
        raise AssertionError(f"{chosen} documents were chosen and {seen} examined")
    db.execute(f"""CREATE TABLE shared AS SELECT c.*, e.place,
        CASE WHEN e.shares THEN 'shares_text_with_a_benchmark' ELSE '' END AS reason
        FROM chosen c JOIN {read} e USING (task, "row")""")
    _drop(db, tally, "shared", 'task, "row"')
    _keep(db, "shared", "clean")


def clusters(db: duckdb.DuckDBPyConnection, files: Path | None, near_duplicates: str, tally: Tally) -> None:
    """Table ``kept``: with the number of each document's near-duplicate cluster, counted in the order of ids.

    ``files``: the folder of datatrove's clusters; ``None`` where near-duplicates were not looked for.
    """
    db.execute("CREATE TABLE found (task INTEGER, place BIGINT, own BIGINT)")
    for path in sorted(files.glob("*.clusters")) if files else ():
        pairs = np.fromfile(path, "<u4").reshape(-1, 2).astype(np.int64)
        task = np.full(len(pairs), int(path.stem), np.int32)
        _insert(db, "found", {"task": task, "place": pairs[:, 0], "own": pairs[:, 1]})
    db.execute("""CREATE TABLE tied AS SELECT c.*, f.own,
        CASE WHEN f.own IS NULL THEN c.id ELSE min(c.id) OVER (PARTITION BY f.own) END AS smallest
        FROM clean c LEFT JOIN found f USING (task, place)""")
    tally.in_clusters.update(
        dict(db.execute("SELECT domain, count(*) FROM tied WHERE own IS NOT NULL GROUP BY 1").fetchall())
    )
    one = near_duplicates == "drop"
    db.execute(f"""CREATE TABLE judged_near AS SELECT * EXCLUDE (own),
        CASE WHEN {one} AND smallest <> id THEN 'near_duplicate' ELSE '' END AS reason FROM tied""")
    _drop(db, tally, "judged_near", 'task, "row"')
    _keep(db, "judged_near", "numbered")
    db.execute("""CREATE TABLE numbers AS
        SELECT smallest, row_number() OVER (ORDER BY smallest) - 1 AS cluster
        FROM (SELECT DISTINCT smallest FROM numbered)""")
    db.execute("""CREATE TABLE kept AS SELECT k.* EXCLUDE (smallest), n.cluster,
        CASE WHEN "group" = '' THEN id ELSE "group" END AS own_group
        FROM numbered k JOIN numbers n USING (smallest)""")


def _keep(db: duckdb.DuckDBPyConnection, judged: str, kept: str) -> None:
    db.execute(f"CREATE TABLE {kept} AS SELECT * EXCLUDE (reason) FROM {judged} WHERE reason = ''")
    db.execute(f"DROP TABLE {judged}")


def _drop(db: duckdb.DuckDBPyConnection, tally: Tally, judged: str, order: str) -> None:
    """Count what a table of verdicts drops, with the first few as examples."""
    rows = db.execute(
        f"SELECT reason, domain, count(*) FROM {judged} WHERE reason <> '' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for reason, domain, number in rows:
        tally.dropped[domain, reason] += number
    for reason in sorted({reason for reason, *_ in rows}):
        some = db.execute(
            f"SELECT id FROM {judged} WHERE reason = $reason ORDER BY {order} LIMIT {EXAMPLES}",
            {"reason": reason},
        ).fetchall()
        known = tally.examples.setdefault(reason, [])
        known += [ident for (ident,) in some][: EXAMPLES - len(known)]


def walk(
    db: duckdb.DuckDBPyConnection,
    query: str,
    target: str,
    columns: tuple[str, ...],
    verdict: Callable[[tuple[Any, ...]], tuple[Any, ...]],
) -> None:
    """Insert ``verdict`` of each row of a query, in its order, into a table."""
    reader = db.cursor().execute(query)
    while rows := reader.fetchmany(AT_ONCE):
        found = list(zip(*map(verdict, rows), strict=True))
        _insert(db, target, dict(zip(columns, found, strict=True)))


def _insert(db: duckdb.DuckDBPyConnection, target: str, columns: Mapping[str, Any]) -> None:
    db.register("rows_to_insert", pa.table({name: pa.array(values) for name, values in columns.items()}))
    db.execute(f"INSERT INTO {target} ({', '.join(columns)}) SELECT * FROM rows_to_insert")
    db.unregister("rows_to_insert")


def rows(db: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, some at a time."""
    reader = db.cursor().execute(query)
    while found := reader.fetchmany(AT_ONCE):
        yield from found
