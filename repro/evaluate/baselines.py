"""What a model must beat on minimal pairs: word frequencies and an n-gram model, both counted on the
unselected corpus.

Computed once a corpus, whatever arms train on it. A sample of at most 20 MB of the training split is counted:
it is drawn by a hash of the documents' ids, so the same corpus gives the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from repro.evaluate.cells import Cell
from repro.evaluate.settings import Eval
from repro.plain import Row
from repro.store import Context, Stage, atomic, parquet, write_json
from repro.store.cost import BYTES_PER_TOKEN, STARTED, WORDS_COUNTED, Cost, Known

ORDER = 5  # words of the n-gram model
BYTES = 20_000_000  # of text that is counted
NAMES = {"word_frequency": "word frequency", "ngram": f"{ORDER}-gram"}


class Baseline(TypedDict):
    """What a count of words or n-grams scores."""

    name: str  # for readers
    metrics: dict[str, Cell]


def is_blimp(entry: str) -> bool:
    """Whether an entry of ``eval.tasks`` is BLiMP or one of its paradigms, by its name alone."""
    return entry == "blimp" or entry.startswith("blimp_")


def wanted(s: Eval) -> list[str]:
    """Entries of ``eval.tasks`` that have these baselines."""
    return [entry for entry in s.tasks if is_blimp(entry)]


def stage(s: Eval, items: Stage, corpus: Stage) -> Stage:
    """Files: ``baselines.json`` and, for each baseline, ``<name>.parquet`` with one row a pair
    (:mod:`.per_item`).
    """
    entries = wanted(s)
    limits = {entry: s.limits.get(entry, s.limit) for entry in entries}
    settings = {"entries": limits, "order": ORDER, "bytes": BYTES}
    inputs = {"items": items, "corpus": corpus}
    return Stage("baselines", "minimal-pairs", settings, lambda ctx: run(ctx, limits), inputs, cost=_cost)


def _cost(known: Known) -> Cost:
    counted = min(known.inputs["corpus"].tokens, BYTES / BYTES_PER_TOKEN)
    return Cost(counted, 0, 1e6, STARTED + counted / WORDS_COUNTED)


def run(ctx: Context, limits: dict[str, int | None]) -> None:
    """Count the corpus, then score the pairs of every entry."""
    from repro.evaluate import minimal_pairs, ngrams, tasks

    # Definitions are read here as text, none of their functions is called.
    plans = {entry: tasks.plan(entry, ctx.inputs["items"], allow_task_code=True) for entry in limits}
    found = {entry: plan for entry, plan in plans.items() if minimal_pairs.recognises(plan)}
    missing = {
        name: minimal_pairs.absent(plan, ctx.inputs["items"])
        for name, plan in plans.items()
        if name not in found
    }
    documents = list(sample(ctx.inputs["corpus"], BYTES)) if found else []
    size = sum(len(text.encode()) for text in documents)
    made: dict[str, Baseline] = {}
    counted = ngrams.Counted(documents) if documents else None
    if counted is not None:
        scorers = {
            "word_frequency": lambda texts: ngrams.word_frequency(counted, texts),
            "ngram": ngrams.KneserNey(counted, ORDER).score,
        }
        pairs = [
            (entry, *pair)
            for entry, plan in found.items()
            for pair in minimal_pairs.pairs(plan, limits[entry])
        ]
        for name, score in scorers.items():
            made[name] = {"name": NAMES[name], "metrics": _scored(ctx.out / f"{name}.parquet", pairs, score)}
    words = len(counted.ids) if counted is not None else 0
    trained_on = {"bytes": size, "documents": len(documents), "words": words, "order": ORDER}
    write_json(ctx.out / "baselines.json", {"baselines": made, "missing": missing, "trained_on": trained_on})
    ctx.facts |= trained_on | {"missing": missing}


def _scored(path: Path, pairs: Sequence[tuple[str, str, int, Row]], score: Any) -> dict[str, Cell]:
    """Write a baseline's rows; returns its metrics."""
    import polars as pl

    from repro.evaluate import minimal_pairs

    sides = [[item[side] for _, _, _, item in pairs] for side in ("sentence_good", "sentence_bad")]
    scores = score(sides[0] + sides[1])
    both = zip(scores[: len(pairs)], scores[len(pairs) :], strict=True)
    rows = [minimal_pairs.row_of(*pair, nats) for pair, nats in zip(pairs, both, strict=True)]
    table = minimal_pairs.frame(rows)
    with atomic(path) as temporary:
        table.write_parquet(temporary)
    found: dict[str, Cell] = {}
    for (entry,), part in table.group_by("entry", maintain_order=True):
        found |= minimal_pairs.metrics(str(entry), part.filter(pl.col("finite")))
    return found


def sample(corpus: Path, most: int) -> Iterator[str]:
    """Texts of the training split, about ``most`` bytes of them, documents drawn by a hash of their ids."""
    from repro.corpus.documents import shards

    paths = shards(corpus)
    total = sum(parquet.read(path, ["n_bytes"])["n_bytes"].sum() for path in paths)
    limit = min(1.0, most / total) * 2**64 if total else 0
    for path in paths:
        for ident, text in parquet.read(path, ["doc_id", "text"]).iter_rows():
            if int.from_bytes(hashlib.sha256(ident.encode()).digest()[:8], "big") < limit:
                yield text
