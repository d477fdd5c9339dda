"""What a selector finds of planted documents: the AUROC of each kind over real text."""

from __future__ import annotations

from typing import TypedDict, cast

import polars

from repro.experiments.planted.auroc import auroc
from repro.experiments.planted.texts import KINDS


class Found(TypedDict):
    """An AUROC with its interval (``repro.experiments.planted.auroc``), and what it rests on."""

    auroc: float
    low: float
    high: float
    wanted: int
    others: int
    sources: int
    median: float | None  # priority
    median_of_others: float | None
    unranked: int


def measure(table: polars.DataFrame) -> dict[str, dict[str, Found | None]]:
    """{kind: {"before", "after"}}, each an AUROC over real text with its interval, or ``None``; ``table`` has
    doc_id, domain, group, kind, version, priority.

    After: documents that have a deduplicated version are replaced by it, real ones too.
    ``facts_over_shuffled`` sets the two kinds of facts against each other: the same sentences, with and
    without something to copy.
    """
    whole = table.filter(polars.col("version") == "as is")
    changed = table.filter(polars.col("version") == "deduplicated")
    replaced = whole.filter(~(whole["doc_id"] + "/deduplicated").is_in(changed["doc_id"].implode()))
    versions = {"before": whole, "after": polars.concat([replaced, changed])}
    pairs = {kind: (kind, "real") for kind in KINDS} | {"facts_over_shuffled": ("facts", "facts_shuffled")}
    return {
        name: {when: _over(rows, kind, other) for when, rows in versions.items()}
        for name, (kind, other) in pairs.items()
    }


def _over(rows: polars.DataFrame, kind: str, other: str) -> Found | None:
    ranked = rows.filter(polars.col("priority").is_not_null())
    x, y = ranked.filter(polars.col("kind") == kind), ranked.filter(polars.col("kind") == other)
    estimate = auroc(x, y)
    if estimate is None:
        return None
    unranked = rows.filter(polars.col("priority").is_null() & polars.col("kind").is_in([kind, other])).height
    return {
        "auroc": estimate.auroc,
        "low": estimate.low,
        "high": estimate.high,
        "wanted": estimate.wanted,
        "others": estimate.others,
        "sources": estimate.sources,
        "median": cast(float | None, x["priority"].median()),
        "median_of_others": cast(float | None, y["priority"].median()),
        "unranked": unranked,
    }
