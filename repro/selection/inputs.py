"""What the selection reads: the training documents and their scores, checked against each other."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from repro.errors import SettingError, require
from repro.store import parquet


def open_inputs(connection: duckdb.DuckDBPyConnection, corpus: Path, scores: Path) -> int:
    """Create the views ``documents`` and ``scores``, one row per training document each; returns how many
    have no scores.

    A document without scores gets a row of nulls. Raises :class:`SettingError` for an id that stands twice,
    and for scores of documents that the corpus does not have.
    """
    require(any((scores / "scores").glob("*.parquet")), f"{scores} holds no scores/*.parquet")
    open_documents(connection, corpus)
    connection.execute(f"CREATE VIEW given_scores AS SELECT * FROM {_files(scores / 'scores')}")
    if refuse_twice(connection, "given_scores", "the scores") == _contents(connection, "documents"):
        connection.execute("CREATE VIEW scores AS SELECT * FROM given_scores")
        return 0
    refuse_twice(connection, "documents", "the corpus")
    stranger = connection.execute(
        "SELECT min(doc_id) FROM given_scores ANTI JOIN documents USING (doc_id)"
    ).fetchall()[0][0]
    require(
        stranger is None,
        f"the scores in {scores} hold the document {stranger!r}, which the corpus in {corpus} does not; score"
        " this corpus",
    )
    connection.execute(
        """CREATE TABLE scores AS SELECT d.doc_id, d.domain, d."group", s.* EXCLUDE (doc_id, domain, "group")
           FROM documents AS d LEFT JOIN given_scores AS s USING (doc_id)"""
    )
    return connection.execute(
        "SELECT count(*) FROM documents ANTI JOIN given_scores USING (doc_id)"
    ).fetchall()[0][0]


def leave_out(connection: duckdb.DuckDBPyConnection, domains: list[str]) -> None:
    """Narrow ``scores`` to the other domains. Raises :class:`SettingError` for a domain that has no
    documents.
    """
    if not domains:
        return
    there = {name for (name,) in connection.execute("SELECT DISTINCT domain FROM documents").fetchall()}
    strange = [name for name in domains if name not in there]
    require(
        not strange, f"budget.leave_out names {', '.join(strange)}; the corpus has {', '.join(sorted(there))}"
    )
    table = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'scores'").fetchall()[
        0
    ][0]
    connection.execute(f"ALTER {'TABLE' if table else 'VIEW'} scores RENAME TO scores_of_all")
    connection.execute(
        f"CREATE VIEW scores AS SELECT * FROM scores_of_all WHERE domain NOT IN ({quoted(domains)})"
    )


def quoted(names: list[str]) -> str:
    """An SQL list of texts."""
    return ", ".join(map(parquet.quoted, names))


def open_documents(connection: duckdb.DuckDBPyConnection, corpus: Path) -> None:
    """Create the view ``documents``: the training documents without their text."""
    connection.execute(f"""CREATE VIEW documents AS SELECT doc_id, domain, "group", source, n_bytes, cluster
            FROM {_files(corpus / "documents")}""")


def refuse_twice(connection: duckdb.DuckDBPyConnection, table: str, place: str) -> tuple[int, int, int]:
    """Raise :class:`SettingError` naming an id that stands twice in ``table``; returns its :func:`_contents`.

    Sorting the 64-bit hashes of all ids finds candidates (8 bytes a document); their ids are then compared
    themselves.
    """
    n = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    hashes, filled = np.empty(n, np.uint64), 0
    for batch in pa.RecordBatchReader.from_stream(connection.sql(f"SELECT hash(doc_id) AS h FROM {table}")):
        hashes[filled : filled + len(batch)] = batch.column(0).to_numpy()
        filled += len(batch)
    hashes.sort()
    contents = n, int(hashes.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(hashes)) if n else 0
    candidates = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])[:1000]
    if not len(candidates):
        return contents
    listed = ", ".join(str(h) for h in candidates)
    twice = connection.execute(
        f"SELECT doc_id FROM {table} WHERE hash(doc_id) IN ({listed}) GROUP BY doc_id HAVING count(*) > 1"
        " ORDER BY 1 LIMIT 1"
    ).fetchall()
    if twice:
        raise SettingError(
            f"the document {twice[0][0]!r} stands twice in {place}; ids must be unique over all files"
        )
    return contents


def _contents(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int, int]:
    """Count, sum (modulo 2^64) and exclusive or of the hashes of the ids: equal for the same set of ids in
    any order.
    """
    n, total, mixed = connection.execute(
        "SELECT count(*), coalesce(sum(h), 0), coalesce(bit_xor(h), 0) FROM (SELECT hash(doc_id) AS h FROM"
        f" {table})"
    ).fetchall()[0]
    return n, int(total) % 2**64, int(mixed)


def _files(folder: Path) -> str:
    return parquet.sql(sorted(folder.glob("*.parquet")))
