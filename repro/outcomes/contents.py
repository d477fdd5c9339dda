"""What is in a corpus and in its selections: scores by domain, sources, documents that two arms share."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from repro.outcomes.outcome import Json, MakeUp
from repro.store import Stage, Store, parquet

if TYPE_CHECKING:
    import polars


MAKE_UP_GROUPS = 12  # source groups of a domain named one by one; the rest is one row


def overlap(
    store: Store, arms: Mapping[str, Mapping[int, Mapping[str, Stage]]]
) -> dict[str, dict[str, float]]:
    """By arm and other arm: the share of the documents it selects that the other selects, too; of the first
    seed that both have. Arms whose selection is the same stage (an arena's sizes) stand here once, under the
    first one's name.
    """
    import polars

    read: dict[str, set[str]] = {}

    def documents(stage: Stage) -> set[str]:
        if stage.fingerprint not in read:
            rows = parquet.read(store.path(stage) / "selection.parquet", columns=["doc_id", "repeats"])
            read[stage.fingerprint] = set(rows.filter(polars.col("repeats") > 0)["doc_id"])
        return read[stage.fingerprint]

    chosen = {
        arm: {s: named["selection"] for s, named in by.items() if "selection" in named}
        for arm, by in arms.items()
    }
    once: dict[tuple[str, ...], str] = {}
    for arm, by_seed in chosen.items():
        once.setdefault(tuple(stage.fingerprint for stage in by_seed.values()), arm)
    found: dict[str, dict[str, float]] = {}
    for arm, other in permutations([arm for arm in once.values() if chosen[arm]], 2):
        seed = next((seed for seed in chosen[arm] if seed in chosen[other]), None)
        if seed is not None and (own := documents(chosen[arm][seed])):
            found.setdefault(arm, {})[other] = len(own & documents(chosen[other][seed])) / len(own)
    return found


def read_scores(folder: Path) -> polars.DataFrame:
    """All shards of a score artifact, in the order of their names."""
    return parquet.read(sorted((folder / "scores").glob("*.parquet")))


def read_documents(folder: Path) -> polars.DataFrame:
    """Training documents without their text."""
    columns = ["doc_id", "domain", "group", "source", "n_bytes"]
    return parquet.read(sorted((folder / "documents").glob("*.parquet")), columns=columns)


def score_statistics(scores: polars.DataFrame) -> dict[str, Json]:
    """Per domain: number, mean, quantiles, a histogram of the score, and its rank correlations with simpler
    quantities (value, low, high; sources are resampled).
    """
    import numpy
    import polars

    from repro.analysis.ranks import rank_correlation

    found = {}
    for (domain,), part in scores.sort("domain", "doc_id").group_by("domain", maintain_order=True):
        part = part.filter(polars.col("score").is_not_null() & polars.col("score").is_finite())
        score = part["score"].to_numpy()
        if not len(score):
            found[str(domain)] = {"documents": 0}
            continue
        low, high = numpy.quantile(score, [0.005, 0.995])
        counts, edges = numpy.histogram(
            numpy.clip(score, low, high), bins=30, range=(low, high if high > low else low + 1e-6)
        )
        rivals = {"length": "n_tokens_doc", "base_loss": "loss_base", "compressibility": "compressibility",
                  "repetition": "repetition", "loss_difference": "loss_difference"}  # fmt: skip
        found[str(domain)] = {
            "documents": len(score),
            "tokens": int(part["n_tokens_doc"].sum()),
            "mean": float(score.mean()),
            "quantiles": {str(q): float(numpy.quantile(score, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
            "histogram": {"edges": [round(float(e), 6) for e in edges], "counts": counts.tolist()},
            "spearman": {
                name: rank_correlation(part["group"], score, part[column].to_numpy())
                for name, column in rivals.items()
                if column in part.columns and part[column].n_unique() > 1 and len(score) > 2
            },
        }
    return found


def make_up(selection: Path, documents: polars.DataFrame) -> dict[str, MakeUp]:
    """Per domain: documents, bytes and sources selected and there, and the share of each source group among
    both.

    Whole documents count once, however often they are read.
    """
    import polars

    chosen = parquet.read(selection / "selection.parquet", columns=["doc_id", "repeats"])
    joined = documents.join(chosen, on="doc_id", how="left").with_columns(
        selected=polars.col("repeats").fill_null(0) > 0, extra=polars.col("repeats").fill_null(0) > 1
    )
    # full + selection reads every document: what was selected there is what is read more than once
    added = joined["extra"].any() and joined["selected"].all()
    joined = joined.with_columns(taken=polars.col("extra" if added else "selected"))
    result = {}
    for (domain,), part in joined.sort("domain", "doc_id").group_by("domain", maintain_order=True):
        taken = part.filter("taken")
        sizes = (
            part.group_by("group")
            .agg(
                documents=polars.len(),
                selected=polars.col("taken").sum(),
                bytes=polars.col("n_bytes").sum(),
                selected_bytes=polars.col("n_bytes").filter(polars.col("taken")).sum(),
            )
            .sort(["bytes", "group"], descending=[True, False])
        )
        rows = sizes.head(MAKE_UP_GROUPS).to_dicts()
        rest = sizes.slice(MAKE_UP_GROUPS)
        if len(rest):
            rows.append(
                {
                    "group": f"{len(rest)} others",
                    **{c: int(rest[c].sum()) for c in rest.columns if c != "group"},
                }
            )
        result[str(domain)] = {
            "documents": len(part),
            "selected": len(taken),
            "bytes": int(part["n_bytes"].sum()),
            "selected_bytes": int(taken["n_bytes"].sum()),
            "groups": part["group"].n_unique(),
            "selected_groups": taken["group"].n_unique(),
            "by_group": rows,
        }
    return result
