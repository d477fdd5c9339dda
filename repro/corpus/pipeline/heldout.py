"""The held-out split and the places of the documents in the finished corpus, decided on disk.

The rules are those of :func:`repro.corpus.split.hold_out`.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from repro.corpus.documents import sampling_key
from repro.corpus.pipeline.decide import _insert, rows, walk
from repro.corpus.split import NO_GROUPS, NO_PART, PART, Member, block_of, brings_closer, targets
from repro.store import atomic, parquet

if TYPE_CHECKING:
    import duckdb

PART_BYTES = 128 << 20  # of text that a task sorts and writes at once


def hold_out(db: duckdb.DuckDBPyConnection, share: float, seed: int) -> dict[str, str]:
    """Table ``placed``: the rows of ``kept`` with ``held``; returns for each domain how it was done."""
    by_domain = db.execute("""SELECT domain, sum(n_bytes)::BIGINT, count(*), bool_and(own_group = id)
        FROM kept GROUP BY 1 ORDER BY 1""").fetchall()
    total = {domain: n_bytes for domain, n_bytes, *_ in by_domain}
    target, how = targets(total, {domain: count for domain, _, count, _ in by_domain}, share)
    _components(db, seed)
    held: dict[str, int] = defaultdict(int)
    db.execute("CREATE TABLE taken (component VARCHAR)")
    taken: list[str] = []
    in_order = rows(db, "SELECT component, domain, n_bytes FROM sizes ORDER BY key, component")
    for component, own in groupby(in_order, key=lambda row: row[0]):
        size = {domain: n_bytes for _, domain, n_bytes in own}
        if brings_closer(size, held, target, total):
            taken.append(component)
            for domain, n_bytes in size.items():
                held[domain] += n_bytes
    if taken:
        _insert(db, "taken", {"component": taken})
    db.execute("""CREATE TABLE placed AS SELECT k.*, (component IN (SELECT component FROM taken)) AS held
        FROM (SELECT k.*, coalesce(l.component, k.own_group) AS component
              FROM kept k LEFT JOIN linked l USING (own_group)) k""")
    for domain, _, _, bare in by_domain:
        if held[domain] < target[domain] / 4:
            how[domain] = _hold_part(db, domain, target[domain] - held[domain])
        elif not how[domain].startswith("none") and bare:
            how[domain] = NO_GROUPS
    return how


def _components(db: duckdb.DuckDBPyConnection, seed: int) -> None:
    """Tables ``linked`` (own_group, component: the smallest name of the groups tied to it by clusters) and
    ``sizes`` (component, domain, n_bytes, key).
    """
    from scipy.cluster.hierarchy import DisjointSet

    ties = DisjointSet()
    first: dict[int, str] = {}
    pairs = """SELECT DISTINCT cluster, own_group FROM kept WHERE cluster IN (
        SELECT cluster FROM kept GROUP BY 1 HAVING count(DISTINCT own_group) > 1) ORDER BY 1, 2"""
    for cluster, group in rows(db, pairs):
        ties.add(group)
        ties.merge(first.setdefault(cluster, group), group)
    db.execute("CREATE TABLE linked (own_group VARCHAR, component VARCHAR)")
    found = [(group, min(members)) for members in ties.subsets() for group in members]
    if found:
        groups, components = zip(*found, strict=True)
        _insert(db, "linked", {"own_group": groups, "component": components})
    db.execute("""CREATE TABLE bare AS
        SELECT coalesce(l.component, k.own_group) AS component, domain, sum(n_bytes)::BIGINT AS n_bytes
        FROM kept k LEFT JOIN linked l USING (own_group) GROUP BY 1, 2""")
    db.execute("CREATE TABLE keys (component VARCHAR, key BLOB)")
    walk(
        db, "SELECT DISTINCT component FROM bare", "keys", ("component", "key"),
        lambda row: (row[0], sampling_key(seed, row[0])),
    )  # fmt: skip
    db.execute("CREATE TABLE sizes AS SELECT * FROM bare JOIN keys USING (component)")


def _hold_part(db: duckdb.DuckDBPyConnection, domain: str, wanted: float) -> str:
    """Hold out the end of the domain's largest group; returns how."""
    found = db.execute(
        """SELECT own_group FROM placed WHERE domain = $domain AND NOT held
           GROUP BY 1 ORDER BY sum(n_bytes) DESC, own_group LIMIT 1""",
        {"domain": domain},
    ).fetchall()
    if not found:
        return NO_PART
    near = db.execute(
        """SELECT id, domain, own_group, cluster, n_bytes, held FROM placed WHERE cluster IN (
             SELECT cluster FROM placed WHERE domain = $domain AND own_group = $group AND NOT held)""",
        {"domain": domain, "group": found[0][0]},
    ).fetchall()
    members = [Member(*row[:5]) for row in near]
    chosen = {i for i, row in enumerate(near) if row[5]}
    block, group = block_of(members, domain, chosen, wanted)
    if not block:
        return NO_PART
    db.execute("CREATE OR REPLACE TABLE block (id VARCHAR)")
    _insert(db, "block", {"id": [members[i].id for i in sorted(block)]})
    db.execute("UPDATE placed SET held = true WHERE id IN (SELECT id FROM block)")
    return PART.format(group)


def places(db: duckdb.DuckDBPyConnection, folder: Path, per_shard: int) -> None:
    """Write ``placed.parquet`` (task, row, rank, cluster, own_group) and ``parts.parquet``: runs of shards
    that are written at once.
    """
    db.execute("""CREATE TABLE ranked AS SELECT task, "row", cluster, own_group, n_bytes, domain,
        CASE WHEN held THEN 'heldout' ELSE 'documents' END AS split,
        row_number() OVER (ORDER BY split, domain, key) - 1 AS rank FROM placed""")
    with atomic(folder / "placed.parquet") as temporary:
        db.execute(f"""COPY (SELECT task, "row", rank, cluster, own_group FROM ranked ORDER BY task, "row")
            TO {parquet.quoted(temporary)} (FORMAT parquet)""")
    shards = rows(
        db,
        f"""SELECT split, domain, (rank - start) // {per_shard} AS shard, min(rank), max(rank),
               sum(n_bytes)::BIGINT
            FROM ranked JOIN (SELECT split, domain, min(rank) AS start FROM ranked GROUP BY ALL)
            USING (split, domain) GROUP BY ALL ORDER BY 4""",
    )
    parts: list[dict[str, object]] = []
    size = 0
    for split, domain, shard, first, last, n_bytes in shards:
        if parts and (parts[-1]["split"], parts[-1]["domain"]) == (split, domain) and size < PART_BYTES:
            parts[-1]["last_rank"] = last
            size += n_bytes
        else:
            parts.append(
                {
                    "split": split,
                    "domain": domain,
                    "first_shard": shard,
                    "first_rank": first,
                    "last_rank": last,
                }
            )
            size = n_bytes
    with atomic(folder / "parts.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(parts), temporary)
