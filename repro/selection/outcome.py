"""What a selection writes: how often each document is read, and what the choice is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from repro.selection.inputs import quoted
from repro.selection.rank import Cut, taken
from repro.selection.record import Domain, Group, Record
from repro.selection.settings import Mixture
from repro.store import atomic, parquet

if TYPE_CHECKING:
    import polars

GROUPS = 50  # source groups of a domain that are listed one by one, largest first


def repeats(mixture: Mixture, chosen: str) -> str:
    """SQL: how often one pass over the mixture reads a document; ``chosen`` says whether it is selected."""
    return f"({added(mixture)} + {mixture.weight} * ({chosen})::INTEGER)::INTEGER"


def added(mixture: Mixture) -> int:
    """How often a document is read that is not selected."""
    return mixture.full if mixture.kind == "add" else 0


def write_selection(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    cuts: dict[str, Cut],
    mixture: Mixture,
    left_out: list[str] | None = None,
) -> None:
    """``selection.parquet``: doc_id, domain, repeats for every training document, in the order of the scores.

    Documents of the domains ``left_out``, which ``pool`` does not hold, follow with none.
    """
    others = ""
    if left_out:
        others = (
            " UNION ALL SELECT doc_id, domain, 0::INTEGER FROM documents WHERE domain IN"
            f" ({quoted(left_out)})"
        )
    with atomic(path) as temporary:
        connection.execute(
            f"COPY (SELECT doc_id, domain, {repeats(mixture, taken(cuts))} AS repeats FROM pool{others}) "
            f"TO {parquet.quoted(temporary)} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
        )


def describe(
    connection: duckdb.DuckDBPyConnection, cuts: dict[str, Cut], mixture: Mixture, unit: str
) -> dict[str, Domain]:
    """Per domain: documents and tokens there and selected, shares, cut, shortfall, lengths, repeats,
    unranked, source groups.

    ``tokens`` are whole documents in the proxy's tokens. ``shortfall`` is what the budget (of the scope)
    leaves unused.
    """
    connection.execute(f"""CREATE TEMP TABLE made_up AS
            SELECT scope, domain, "group", count(*) AS documents, coalesce(sum(n_tokens_doc),
            0)::BIGINT AS tokens,
                   count(*) FILTER (chosen) AS kept, coalesce(sum(n_tokens_doc) FILTER (chosen),
                   0)::BIGINT AS kept_tokens,
                   count(*) FILTER (isfinite(raw)) AS ranked, count(*) FILTER (duplicate) AS duplicates,
                   min(raw) FILTER (chosen) AS lowest
            FROM (SELECT *, {taken(cuts)} AS chosen FROM pool) GROUP BY ALL""")
    domains: dict[str, Domain] = {}
    rows = connection.execute(
        """SELECT scope, domain, sum(documents)::BIGINT, sum(tokens)::BIGINT, sum(kept)::BIGINT,
        sum(kept_tokens)::BIGINT,
                  sum(ranked)::BIGINT, sum(duplicates)::BIGINT, min(lowest), count(*),
                  count(*) FILTER (kept > 0)
           FROM made_up GROUP BY ALL ORDER BY domain"""
    ).fetchall()
    of_scope: dict[str, int] = {}
    for scope, _, _, _, kept, kept_tokens, *_ in rows:
        of_scope[scope] = of_scope.get(scope, 0) + (kept_tokens if unit == "tokens" else kept)
    base = added(mixture)
    for (
        scope,
        domain,
        documents,
        tokens,
        kept,
        kept_tokens,
        ranked,
        duplicates,
        lowest,
        groups,
        kept_groups,
    ) in rows:
        cut = cuts[scope]
        counts = {base: documents - kept, base + mixture.weight: kept}
        domains[domain] = {
            "documents": documents,
            "tokens": tokens,
            "selected_documents": kept,
            "selected_tokens": kept_tokens,
            "share_of_documents": kept / documents,
            "share_of_tokens": kept_tokens / max(1, tokens),
            "mean_tokens": kept_tokens / kept if kept else None,
            "mean_tokens_of_all": tokens / documents,
            "unranked": documents - ranked,
            "near_duplicates": duplicates,
            "budget": cut.limit,
            "shortfall": cut.limit - of_scope[scope],
            "threshold": lowest,
            "cut": {"priority": cut.priority, "tie": cut.tie},
            "repeats": {str(times): n for times, n in counts.items() if n},
            "read_tokens": base * tokens + mixture.weight * kept_tokens,
            "sources": groups,
            "selected_sources": kept_groups,
            "groups": _groups(connection, domain, groups),
        }
    return domains


def _groups(connection: duckdb.DuckDBPyConnection, domain: str, groups: int) -> dict[str, Group]:
    """The largest source groups of a domain, and all others in one row."""
    columns = (
        "sum(documents)::BIGINT, sum(tokens)::BIGINT, sum(kept)::BIGINT, sum(kept_tokens)::BIGINT,"
        " min(lowest)"
    )
    rows = connection.execute(
        f"""SELECT name, {columns} FROM (
              SELECT *, CASE WHEN row_number() OVER (ORDER BY tokens DESC, "group") <= {GROUPS} THEN "group"
                        ELSE '{max(0, groups - GROUPS)} others' END AS name FROM made_up WHERE domain = ?)
            GROUP BY name ORDER BY 3 DESC, name""",
        [domain],
    ).fetchall()
    return {
        name: {
            "documents": documents,
            "tokens": tokens,
            "selected_documents": selected,
            "selected_tokens": selected_tokens,
            "threshold": lowest,
        }
        for name, documents, tokens, selected, selected_tokens, lowest in rows
    }


def frozen(record: Record, scores: Path | str) -> polars.DataFrame:
    """The cut of ``selection.json`` applied to new score shards: doc_id, domain, selected. The budget is not
    applied again.

    ``scores`` is a parquet file or glob. Raises ``ValueError`` for a selection without :func:`frozen_cuts`,
    and for domains that it has no cut for.
    """
    found = frozen_cuts(record)
    files = parquet.matches(scores)
    if not files:
        raise ValueError(f"no file of scores matches {scores}")
    with duckdb.connect() as connection:
        connection.execute(
            f"""CREATE VIEW pool AS SELECT doc_id, domain, domain AS scope,
            ({record["formula"]})::DOUBLE AS priority
                FROM {parquet.sql(files)}"""
        )
        new = [
            name
            for (name,) in connection.execute("SELECT DISTINCT domain FROM pool").fetchall()
            if name not in found
        ]
        if new:
            raise ValueError(f"the selection has no cut for domain {', '.join(sorted(new))}")
        return connection.sql(f"SELECT doc_id, domain, {taken(found)} AS selected FROM pool").pl()


def frozen_cuts(record: Record) -> dict[str, Cut]:
    """The cut of each domain in ``selection.json``.

    Raises ``ValueError`` where the priority is no formula over the scores, or a rank within strata.
    """
    if not record["formula"]:
        raise ValueError(
            f"selector {record['selector']!r} ranks within strata or reads text: it has no threshold to"
            " freeze"
        )
    return {
        name: Cut(d["budget"], d["cut"]["priority"], d["cut"]["tie"]) for name, d in record["domains"].items()
    }


def apply_cuts(connection: duckdb.DuckDBPyConnection, cuts: dict[str, Cut], unit: str) -> dict[str, Cut]:
    """Cuts made elsewhere, for the domains of ``pool``; what they take is their budget. A domain without a
    cut is an error.
    """
    size = "n_tokens_doc" if unit == "tokens" else "1"
    rows = connection.execute(
        f"SELECT scope, coalesce(sum({size}) FILTER ({taken(cuts)}), 0)::BIGINT FROM pool GROUP BY 1 ORDER"
        " BY 1"
    ).fetchall()
    if new := [scope for scope, _ in rows if scope not in cuts]:
        raise ValueError(f"the selection has no cut for domain {', '.join(new)}")
    return {scope: replace(cuts[scope], limit=taken_size) for scope, taken_size in rows}
