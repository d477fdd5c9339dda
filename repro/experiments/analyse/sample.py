"""Documents drawn of a selection: the same ones whoever draws, so that what is said of two selections can be
compared.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import polars
from scipy.stats import spearmanr

from repro.corpus.documents import shards
from repro.store import Context, parquet


def drawn(documents: polars.DataFrame, number: int, seed: int) -> polars.DataFrame:
    """At most ``number`` documents a domain, those of smallest hash(seed, id): samples overlap as the
    selections do.
    """
    keys = [
        hashlib.blake2b(f"{seed}\0{ident}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for ident in documents["doc_id"]
    ]
    keyed = documents.with_columns(draw=polars.Series(keys, dtype=polars.Binary)).sort("domain", "draw")
    return keyed.group_by("domain", maintain_order=True).head(number).drop("draw")


def selected(context: Context) -> polars.DataFrame:
    """doc_id, selected. Of the full corpus plus a selection, what is read more often than the rest."""
    found = parquet.read(context.inputs["selection"] / "selection.parquet", columns=["doc_id", "repeats"])
    least = found["repeats"].min() if len(found) and found["repeats"].n_unique() > 1 else 0
    return found.select("doc_id", selected=polars.col("repeats") > (least or 0))


def sample(context: Context, number: int, seed: int, documents: polars.DataFrame) -> polars.DataFrame:
    """doc_id, domain, n_tokens_doc, text of at most ``number`` selected documents a domain."""
    wanted = drawn(documents.filter("selected").select("doc_id", "domain", "n_tokens_doc"), number, seed)
    texts = [parquet.read(p, columns=["doc_id", "text"]).join(wanted, on="doc_id", how="inner")
             for p in shards(context.inputs["corpus"])]  # fmt: skip
    return polars.concat(texts).sort("domain", "doc_id")


def mean(column: polars.Series) -> float | None:
    """Of the values that are there; ``None`` without any."""
    return cast(float, column.mean()) if len(column) - column.null_count() else None


def spearman(x: polars.Series, y: polars.Series) -> float:
    """Spearman's correlation of two columns without nulls."""
    found: Any = spearmanr(x, y)
    return float(found.statistic)
