"""Documents themselves: the highest and lowest of each domain for the page, and the kept ones as parquet for
``datasets``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from repro.outcomes.contents import read_scores
from repro.store import atomic, parquet, read_json

if TYPE_CHECKING:
    import polars

EXTREMES = 5  # documents at each end of a domain
EXCERPT = 1500  # characters shown where there are no token losses


class Example(TypedDict):
    """A document as the page shows it: its tokens, with the rise of their losses, or its text."""

    doc_id: str
    source: str
    license: str
    score: float
    place: str  # "3 of 120"
    tokens: NotRequired[list[tuple[str, float]]]  # lists on disk
    text: NotRequired[str]


def examples(corpus: Path, score: Path) -> dict[str, list[Example]]:
    """Per domain the ``EXTREMES`` highest and lowest documents: place, score, doc_id, source, license, text
    and, where the score artifact kept token losses, ``tokens`` as [text, rise of the loss in nats].
    """
    import polars

    scores = read_scores(score).filter(polars.col("score").is_finite())
    scores = scores.sort(["domain", "score", "doc_id"], descending=[False, True, False])
    places = polars.concat(
        part.with_columns(
            place=polars.int_range(1, len(part) + 1), last=len(part) - polars.int_range(0, len(part))
        )
        for _, part in scores.group_by("domain", maintain_order=True)
    )
    ends = places.filter((polars.col("place") <= EXTREMES) | (polars.col("last") <= EXTREMES))
    texts = (
        parquet.scan(sorted((corpus / "documents").glob("*.parquet")))
        .select("doc_id", "source", "license", polars.col("text"))
        .join(ends.select("doc_id").lazy(), on="doc_id", how="semi")
        .collect()
    )
    rises = token_rises(score)
    found: dict[str, list[Example]] = {}
    for row in ends.join(texts, on="doc_id", how="inner").sort("domain", "place").iter_rows(named=True):
        total = row["place"] + row["last"] - 1
        entry: Example = {
            "doc_id": row["doc_id"],
            "source": row["source"],
            "license": row["license"],
            "score": row["score"],
            "place": f"{row['place']} of {total}",
        }
        if row["doc_id"] in rises:
            entry["tokens"] = _with_head(row["text"], rises[row["doc_id"]])
        else:
            entry["text"] = row["text"][:EXCERPT] + (" …" if len(row["text"]) > EXCERPT else "")
        found.setdefault(row["domain"], []).append(entry)
    return found


def _with_head(text: str, tokens: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The tokens with the document's first one in front, which no model predicts."""
    start = text.find("".join(token for token, _ in tokens[:8]))
    return [(text[:start], 0.0), *tokens] if 0 < start < 100 else tokens


def token_rises(score: Path) -> dict[str, list[tuple[str, float]]]:
    """{doc_id: [(token text, rise of its loss when the heads are masked, nats)]} of the documents kept for
    showing.
    """
    path = score / "tokens.json"
    kept = read_json(path) if path.is_file() else []
    return {
        row["doc_id"]: [(t["token"], round(t["loss_ref"] - t["loss_base"], 3)) for t in row["tokens"]]
        for row in kept
    }


def export_scores(target: Path, score: Path) -> None:
    """All score shards as one parquet file."""
    with atomic(target) as temporary:
        parquet.scan(sorted((score / "scores").glob("*.parquet"))).sink_parquet(temporary)


def export(target: Path, corpus: Path, score: Path, selection: Path) -> int:
    """The kept documents of a selection, one parquet per document shard, readable by
    ``datasets.load_dataset("parquet", ...)``.

    Every field a document came with is a column of its own (a field whose values differ in type is kept as
    JSON text), beside its score. Returns the number of documents written; raises ``ValueError`` if one that
    was selected is missing.
    """
    import polars

    kept = (
        parquet.read(selection / "selection.parquet")
        .filter(polars.col("repeats") > 0)
        .select("doc_id", "repeats")
    )
    columns = ["doc_id", "n_tokens_doc", "n_tokens", "loss_base", "loss_ref", "score"]
    scores = parquet.scan(sorted((score / "scores").glob("*.parquet"))).select(columns).collect()
    shards = sorted((corpus / "documents").glob("*.parquet"))
    extras = _extra_types(shards, kept)
    written = 0
    for shard in shards:
        part = parquet.read(shard).join(kept, on="doc_id", how="inner").join(scores, on="doc_id", how="left")
        if len(part):
            with atomic(target / shard.name) as temporary:
                _spread(part, extras).write_parquet(temporary)
        written += len(part)
    if written != len(kept):
        raise ValueError(f"{len(kept)} documents were selected but the corpus holds {written} of them")
    return written


def _extra_types(shards: list[Path], kept: polars.DataFrame) -> dict[str, type]:
    """Type of every further field over all kept documents; ``object`` where values differ in type, are nested
    or too large.
    """
    types: dict[str, set[type]] = {}
    for shard in shards:
        part = parquet.read(shard, columns=["doc_id", "extra"]).join(kept, on="doc_id", how="semi")
        for text in part["extra"].drop_nulls():
            for key, value in json.loads(text or "{}").items():
                types.setdefault(key, set())
                if value is not None:
                    fits = type(value) is not int or -(2**63) <= value < 2**63  # no column holds a larger one
                    types[key].add(type(value) if fits else object)
    single = {
        key: next(iter(found)) if len(found) == 1 else str if not found else object
        for key, found in types.items()
    }
    return {key: kind if kind in (str, int, float, bool) else object for key, kind in sorted(single.items())}


def _spread(part: polars.DataFrame, extras: dict[str, type]) -> polars.DataFrame:
    """The JSON of ``extra`` as columns; a name that is taken gets ``extra_`` in front."""
    import polars

    kinds = {
        str: polars.String,
        int: polars.Int64,
        float: polars.Float64,
        bool: polars.Boolean,
        object: polars.String,
    }
    rows = [json.loads(text or "{}") for text in part["extra"].fill_null("{}")]
    added = []
    for key, kind in extras.items():
        values = [row.get(key) for row in rows]
        if kind is object:
            values = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
        added.append(polars.Series(f"extra_{key}" if key in part.columns else key, values, dtype=kinds[kind]))
    return part.drop("extra").with_columns(added)
