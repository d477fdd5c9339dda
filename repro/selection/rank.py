"""From priorities to a choice: strata, budgets, ties.

Documents of a scope (a domain, or the whole corpus) are ordered by priority, ties by a hash of the id, and
taken from the top while the running sum stays within the budget; the first that does not fit ends it. So a
choice is a cut, one (priority, hash) per scope, and nothing as large as the corpus has to be sorted or kept:
a sample brackets the cut, one pass counts exactly what lies above the bracket, and only what lies inside is
sorted. Everything runs in DuckDB, streaming from parquet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import duckdb

from repro.errors import SettingError, require
from repro.selection.settings import Budget
from repro.store import parquet

SORTED_WHOLE = 200_000  # documents up to which a scope is sorted without a bracket
SAMPLE = 300_000  # documents of the sample that brackets the cuts of larger scopes
# over the root of the sampled documents: what the sample may misplace the cut by, eight standard errors and
# more
MARGIN = 4.0
TAIL = "md5(doc_id)"  # breaks ties; its value has nothing to do with where a document lies

ALL = "~"  # tie of a cut that takes everything with a priority: above every hash


@dataclass(frozen=True)
class Cut:
    """The last document taken of a scope. All above it in (priority, then smaller ``tie``) are taken as well.

    ``limit`` is the budget in documents or tokens. ``priority`` is ``None`` when nothing fits.
    """

    limit: int
    priority: float | None
    tie: str

    def sql(self) -> str:
        """Whether a row of ``pool`` is taken."""
        if self.priority is None:
            return "false"
        value = f"{self.priority!r}::DOUBLE"
        # CASE, not OR: the hash is then computed for equal priorities only.
        return (
            f"CASE WHEN priority > {value} THEN isfinite(priority) "
            f"WHEN priority = {value} THEN {TAIL} <= '{self.tie}' ELSE false END"
        )


def connect(
    memory: str = "4GB", threads: int | None = None, spill: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory database that spills to ``spill`` past ``memory``."""
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit='{memory}'")
    if threads:
        connection.execute(f"SET threads={threads}")
    if spill:
        connection.execute(f"SET temp_directory={parquet.quoted(spill)}")
    return connection


def build_pool(connection: duckdb.DuckDBPyConnection, priority: object, budget: Budget) -> None:
    """Create ``pool``: doc_id, domain, group, n_tokens_doc, scope, raw, duplicate, priority, of what stands
    in ``scores``.

    ``priority`` is an SQL expression over ``scores`` or a frame of doc_id and priority; ``raw`` keeps it.
    With length bins or source groups it becomes the rank among the documents of the same stratum, a share in
    (0, 1): one budget of the scope is then shared out evenly, however small the strata. Near-duplicates of a
    document that goes before them have none.
    """
    scope = "'all'" if budget.scope == "global" else "domain"
    columns = f'doc_id, domain, "group", n_tokens_doc, {scope} AS scope'
    measured = "n_tokens_doc IS NOT NULL" if budget.unit == "tokens" else "true"
    if isinstance(priority, str):
        connection.execute(
            f"""CREATE VIEW plain AS SELECT {columns},
            CASE WHEN {measured} THEN ({priority})::DOUBLE END AS raw,
                       raw AS priority, false AS duplicate FROM scores"""
        )
    else:
        connection.register("given", priority)
        connection.execute(
            f"""CREATE TABLE plain AS SELECT {columns},
            CASE WHEN {measured} THEN given.priority::DOUBLE END AS raw,
                       raw AS priority, false AS duplicate FROM scores LEFT JOIN given USING (doc_id)"""
        )
    pool = "plain"
    if budget.one_per_cluster:
        connection.execute(
            f"""CREATE TABLE apart AS SELECT * REPLACE (CASE WHEN NOT second THEN priority END AS priority,
            second AS duplicate)
                FROM (SELECT p.*, isfinite(raw) AND row_number() OVER (
                        PARTITION BY cluster ORDER BY isfinite(raw) DESC NULLS LAST, raw DESC,
                        {TAIL}) > 1 AS second
                      FROM plain AS p JOIN (SELECT doc_id, cluster FROM documents) USING (doc_id))"""
        )
        pool = "apart"
    if budget.length_bins > 1 or budget.within_group:
        _rank_within_strata(connection, pool, budget)
        pool = "ranked"
    connection.execute(f"CREATE VIEW pool AS SELECT * FROM {pool}")


def _rank_within_strata(connection: duckdb.DuckDBPyConnection, pool: str, budget: Budget) -> None:
    """Create ``ranked``: the rows of ``pool`` with the rank within length bin and source group as their
    priority.
    """
    _check_bins(connection, budget.length_bins)
    # A source of so few documents that its share is less than one would never give any; such sources are one
    # stratum.
    own = (
        f'CASE WHEN count(*) OVER (PARTITION BY scope, bin, "group") >= {math.ceil(1 / budget.share)} THEN'
        ' "group" END'
    )
    connection.execute(f"""CREATE TABLE ranked AS
            WITH binned AS (SELECT *, ntile({budget.length_bins}) OVER (
                                PARTITION BY scope ORDER BY n_tokens_doc, doc_id) AS bin FROM {pool}),
                 parted AS (SELECT *, {own if budget.within_group else "NULL"} AS part FROM binned)
            SELECT * REPLACE (CASE WHEN isfinite(priority) THEN
                     1 - (row_number() OVER (PARTITION BY scope, bin, part, isfinite(priority)
                                             ORDER BY priority DESC, {TAIL}) - 0.5)
                       / count(*) OVER (PARTITION BY scope, bin, part, isfinite(priority)) END AS priority)
            FROM parted""")


def _check_bins(connection: duckdb.DuckDBPyConnection, bins: int) -> None:
    small = connection.execute(
        f"SELECT scope, count(*) FROM plain GROUP BY scope HAVING count(*) < {bins} ORDER BY scope LIMIT 1"
    ).fetchall()
    for scope, documents in small:
        raise SettingError(
            f"domain {scope!r} has {documents} documents, fewer than budget.length_bins={bins}; lower"
            " budget.length_bins"
        )


def cuts(
    connection: duckdb.DuckDBPyConnection, budget: Budget, limits: dict[str, int] | None = None
) -> dict[str, Cut]:
    """The cut of every scope of ``pool``. ``limits`` gives tokens per domain and replaces the share of the
    budget.

    Shares are taken of all documents (or all their tokens), rankable or not, and exactly: 0.29 of 100
    documents are 29.
    """
    size = "n_tokens_doc" if budget.unit == "tokens" or limits is not None else "1"
    totals = connection.execute(
        f"""SELECT scope, coalesce(sum({size}), 0)::BIGINT, count(*) FILTER (isfinite(priority)),
                   coalesce(sum({size}) FILTER (isfinite(priority)), 0)::BIGINT,
                   min(priority) FILTER (isfinite(priority))
            FROM pool GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    found: dict[str, Cut] = {}
    brackets: dict[str, Bracket] = {}
    for scope, total, rankable, rankable_size, lowest in totals:
        limit = math.floor(Fraction(repr(budget.share)) * total) if limits is None else limits.get(scope, 0)
        require(
            limit <= total,
            f"domain {scope!r} has {total} tokens, fewer than the {limit} of the selection it should match",
        )
        if rankable_size <= limit:
            found[scope] = Cut(limit, lowest, ALL)
        else:
            brackets[scope] = Bracket(limit, total, rankable)
    if any(b.rankable > SORTED_WHOLE for b in brackets.values()):
        _narrow(connection, brackets, size)
    return found | (_sorted_inside(connection, brackets, size) if brackets else {})


@dataclass
class Bracket:
    """Between which priorities a scope's cut lies. ``above`` is the size of what lies higher."""

    limit: int
    total: int
    rankable: int
    low: float = -math.inf
    high: float = math.inf
    above: int = 0


def _narrow(connection: duckdb.DuckDBPyConnection, brackets: dict[str, Bracket], size: str) -> None:
    """Bracket large scopes by a sample, and make sure by counting; where the sample misled, keep that whole
    side.
    """
    percent = min(100.0, 100.0 * SAMPLE / sum(b.rankable for b in brackets.values()))
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE sampled AS
            SELECT scope, priority, {size} AS size
            FROM pool TABLESAMPLE bernoulli({percent} PERCENT) REPEATABLE (0)"""
    )
    for scope, b in brackets.items():
        if b.rankable <= SORTED_WHOLE:
            continue
        low, high = connection.execute(
            """WITH here AS (SELECT priority, size FROM sampled WHERE scope = $scope),
                    walked AS (SELECT priority, sum(size) OVER (
                                 ORDER BY priority DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                               ) / (SELECT sum(size) FROM here) AS reached
                               FROM here WHERE isfinite(priority)),
                    margin AS (SELECT $margin / sqrt(count(*)) AS margin FROM here)
               SELECT max(priority) FILTER (reached > $share + margin),
               min(priority) FILTER (reached < $share - margin)
               FROM walked, margin""",
            {"share": b.limit / b.total, "margin": MARGIN, "scope": scope},
        ).fetchall()[0]
        b.low, b.high = -math.inf if low is None else low, math.inf if high is None else high
    misled = False
    for scope, (above, inside) in _counted(connection, brackets, size).items():
        b = brackets[scope]
        b.above = above
        if above > b.limit:
            b.low, b.high, misled = b.high, math.inf, True
        elif above + inside <= b.limit and b.low > -math.inf:
            b.low, b.high, misled = -math.inf, b.low, True
    if misled:
        for scope, (above, _) in _counted(connection, brackets, size).items():
            brackets[scope].above = above


def _counted(
    connection: duckdb.DuckDBPyConnection, brackets: dict[str, Bracket], size: str
) -> dict[str, tuple[int, int]]:
    """Exactly, for each scope: the size of what lies above its bracket, and of what lies inside."""
    _register(connection, brackets)
    rows = connection.execute(f"""SELECT scope, coalesce(sum({size}) FILTER (priority > high), 0)::BIGINT,
                   coalesce(sum({size}) FILTER (priority BETWEEN low AND high), 0)::BIGINT
            FROM pool JOIN bracket USING (scope) WHERE isfinite(priority) GROUP BY scope""").fetchall()
    return {scope: (above, inside) for scope, above, inside in rows}


def _sorted_inside(
    connection: duckdb.DuckDBPyConnection, brackets: dict[str, Bracket], size: str
) -> dict[str, Cut]:
    """The cuts, by sorting what lies inside the brackets."""
    _register(connection, brackets)
    rows = connection.execute(f"""SELECT scope, arg_max(priority, place), arg_max(tie, place) FROM (
              SELECT scope, priority, tie, room, row_number() OVER w AS place, sum(size) OVER w AS running
              FROM (SELECT scope, priority, {TAIL} AS tie, {size} AS size, room
                    FROM pool JOIN bracket USING (scope)
                    WHERE isfinite(priority) AND priority BETWEEN low AND high)
              WINDOW w AS (PARTITION BY scope ORDER BY priority DESC, tie
                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))
            WHERE running <= room GROUP BY scope""").fetchall()
    last = {scope: (priority, tie) for scope, priority, tie in rows}
    # Nothing inside fits: the cut is the upper end itself, below all that lies above it (no hash is smaller
    # than "").
    ends = {scope: (b.high, "") if b.high < math.inf else (None, "") for scope, b in brackets.items()}
    return {scope: Cut(b.limit, *last.get(scope, ends[scope])) for scope, b in brackets.items()}


def _register(connection: duckdb.DuckDBPyConnection, brackets: dict[str, Bracket]) -> None:
    import pyarrow as pa

    rows = [
        {"scope": s, "low": b.low, "high": b.high, "room": b.limit - b.above} for s, b in brackets.items()
    ]
    connection.register("bracket", pa.Table.from_pylist(rows))


def taken(found: dict[str, Cut]) -> str:
    """An SQL expression over ``pool``: whether the document is taken."""
    cases = " ".join(f"WHEN {parquet.quoted(scope)} THEN {cut.sql()}" for scope, cut in found.items())
    return f"coalesce(CASE scope {cases} END, false)" if cases else "false"
