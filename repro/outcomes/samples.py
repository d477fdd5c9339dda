"""A few documents that every arm keeps and drops, chosen by a rule that looks at nothing but their scores."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from repro.store import parquet

if TYPE_CHECKING:
    import polars

EXCERPT = 300  # characters of a document
DOMAINS = 8  # of which an arm shows documents
ENDS = ("highest", "middle", "lowest")


class Shown(TypedDict):
    """A document as a page shows it; ``excerpt`` is the start of its text with blanks for line ends."""

    domain: str
    source: str
    license: str
    n_bytes: int
    excerpt: str
    score: NotRequired[float]
    n_tokens_doc: NotRequired[int]


class Sample(TypedDict):
    """``arms[arm][domain][kept | dropped]`` is [place among the scores, doc_id], highest first; texts stand
    once in ``documents``. ``domains`` are those that the corpus has.
    """

    documents: dict[str, Shown]
    arms: dict[str, dict[str, dict[str, list[list[str]]]]]
    domains: int


def samples(corpus: Path, score: Path | None, arms: Mapping[str, tuple[Path, int]]) -> Sample:
    """Of every arm and domain the documents kept and dropped with the highest, the median and the lowest
    score: the lowest kept and the highest dropped stand next to a cut by score.

    ``arms``: {arm: (its selection, how often its mixture reads a document that is not selected)}. Without
    scores documents come in the order of a hash of their ids.
    """
    import polars

    shards = sorted((corpus / "documents").glob("*.parquet"))
    rows = parquet.scan(shards).select("doc_id", "domain").collect()
    if score is not None:
        scores = sorted((score / "scores").glob("*.parquet"))
        known = parquet.scan(scores).select("doc_id", "n_tokens_doc", "score").collect()
        rows = rows.join(known, on="doc_id", how="left")
        rows = rows.with_columns(order=polars.col("score").fill_nan(None))
    else:
        rows = rows.with_columns(order=polars.col("doc_id").map_elements(_draw, return_dtype=polars.Float64))
    rows = rows.sort(["domain", "order", "doc_id"], descending=[False, True, False], nulls_last=True)
    domains = rows["domain"].unique().sort().to_list()
    shown = rows.filter(polars.col("domain").is_in(domains[:DOMAINS]))
    found = {arm: _of(shown, selection, others) for arm, (selection, others) in arms.items()}
    sides = [side for by_domain in found.values() for both in by_domain.values() for side in both.values()]
    wanted = {ident for side in sides for _, ident in side}
    texts = (
        parquet.scan(shards)
        .filter(polars.col("doc_id").is_in(sorted(wanted)))
        .select("doc_id", "domain", "source", "license", "n_bytes", polars.col("text").str.head(4 * EXCERPT))
        .collect()
    )
    if score is not None:
        texts = texts.join(rows.select("doc_id", "score", "n_tokens_doc"), on="doc_id", how="left")
    return {
        "documents": {row["doc_id"]: _shown(row) for row in texts.sort("doc_id").iter_rows(named=True)},
        "arms": found,
        "domains": len(domains),
    }


def _draw(ident: str) -> float:
    digest = hashlib.blake2b(ident.encode("utf-8", "surrogatepass"), digest_size=6)
    return float(int.from_bytes(digest.digest()))


def _of(rows: polars.DataFrame, selection: Path, others: int) -> dict[str, dict[str, list[list[str]]]]:
    """By domain what a selection keeps and drops; ``rows`` stand highest first."""
    import polars

    chosen = parquet.read(selection / "selection.parquet", columns=["doc_id", "repeats"])
    sides = rows.select("doc_id", "domain").join(chosen, on="doc_id", how="left", maintain_order="left")
    found: dict[str, dict[str, list[list[str]]]] = {}
    for (domain,), part in sides.group_by("domain", maintain_order=True):
        kept = polars.col("repeats").fill_null(0) > others
        found[str(domain)] = {
            "kept": _ends(part.filter(kept)["doc_id"].to_list()),
            "dropped": _ends(part.filter(~kept)["doc_id"].to_list()),
        }
    return found


def _ends(idents: list[str]) -> list[list[str]]:
    places = {0: ENDS[0], len(idents) - 1: ENDS[2], (len(idents) - 1) // 2: ENDS[1]} if len(idents) > 2 else {
        at: ENDS[2 * at] for at in range(len(idents))
    }  # fmt: skip
    return [[places[at], idents[at]] for at in sorted(places)]


def _shown(row: dict[str, Any]) -> Shown:
    text = " ".join(row["text"].split())
    shown: Shown = {
        "domain": row["domain"],
        "source": row["source"],
        "license": row["license"],
        "n_bytes": row["n_bytes"],
        "excerpt": text[:EXCERPT] + (" …" if len(text) > EXCERPT else ""),
    }
    if (score := row.get("score")) is not None and math.isfinite(score):
        shown["score"] = score
    if row.get("n_tokens_doc") is not None:
        shown["n_tokens_doc"] = row["n_tokens_doc"]
    return shown
