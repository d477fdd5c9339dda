"""A run's kept documents, scores and heads as a folder that ``datasets.load_dataset`` reads."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro.errors import require
from repro.outcomes import documents
from repro.outcomes.outcome import Artifact
from repro.publish import portable
from repro.publish.made import Made
from repro.store import atomic, parquet, read_json
from repro.tracking import progress

if TYPE_CHECKING:
    import polars

KEPT, SCORES, HEADS = "kept", "scores", "heads"  # the configurations, and the folders of their files
NOT_RECORDED = ("", "not stated")  # what the corpus writes for a document that names none


@dataclass(frozen=True)
class Source:
    """The artifacts behind the data set of an arm and seed."""

    made: Made
    arm: str
    seed: str
    corpus: Artifact
    score: Artifact
    selection: Artifact
    heads: Artifact

    def behind(self) -> dict[str, Artifact]:
        """By name, inputs first."""
        return {
            "corpus": self.corpus,
            "heads": self.heads,
            "score": self.score,
            "selection": self.selection,
        }


def source(made: Made, arm: str | None, seed: int | None) -> Source:
    """What is published of a run; a :class:`SettingError` where it scored or selected nothing."""
    name = made.arm(arm)
    chosen = made.seed(name, seed)
    found = made.artifacts(name, chosen)
    lacking = [what for what in ("corpus", "score", "selection", "heads") if what not in found]
    require(
        not lacking,
        f"{made.folder} has no {' and no '.join(lacking)}: a data set has scored documents and what an arm"
        " keeps of them; its models are published with --what models",
    )
    # an arm's own scores, where it has a proxy, heads or a mask of its own
    ranked = found["selection"]["inputs"].get("scores", found["score"]["fingerprint"])
    require(
        found["score"]["fingerprint"] == ranked or not _scored(made, found["selection"]),
        f"--arm {name} ranks by scores of its own, which are not those of the run; publish another arm",
    )
    return Source(made, name, chosen, found["corpus"], found["score"], found["selection"], found["heads"])


def _scored(made: Made, selection: Artifact) -> bool:
    """Whether a selection reads influence scores, and not the sizes of documents alone."""
    inputs = made.manifest(selection)["inputs"]
    return inputs.get("scores", {}).get("folder", "").startswith("score/")


def write(target: Path, found: Source) -> int:
    """The parquet files and ``heads.json``; returns the number of kept documents."""
    made = found.made
    corpus, score = made.place(found.corpus), made.place(found.score)
    selection, heads = made.place(found.selection), made.place(found.heads)
    kept = documents.export(target / KEPT, corpus, score, selection)
    shards = sorted((score / "scores").glob("*.parquet"))
    (target / SCORES).mkdir()
    with progress(len(shards), "files", "scores") as bar:
        for shard in shards:
            shutil.copyfile(shard, target / SCORES / shard.name)
            bar.update(1)
    (target / HEADS).mkdir()
    with atomic(target / HEADS / "heads.parquet") as temporary:
        heads_table(heads / "heads.json").write_parquet(temporary)
    portable.copy_json(heads / "heads.json", target / HEADS / "heads.json")
    return kept


def heads_table(path: Path) -> polars.DataFrame:
    """A row a head: layer, head (from 0), its score where it was detected, and whether it was masked."""
    import polars

    found = read_json(path)
    selected = {tuple(pair) for pair in found["selected"]}
    scores = found.get("scores") or []
    rows = [(layer, head, score) for layer, of in enumerate(scores) for head, score in enumerate(of)]
    rows = rows or [(layer, head, None) for layer, head in sorted(selected)]
    return polars.DataFrame(
        [{"layer": a, "head": b, "score": c, "masked": (a, b) in selected} for a, b, c in rows],
        schema={"layer": polars.Int64, "head": polars.Int64, "score": polars.Float64, "masked": bool},
    )


def of_kept(target: Path, columns: Iterable[str]) -> polars.DataFrame:
    """How many kept documents, and how many of their bytes, have each combination of values."""
    import polars

    return (
        parquet.scan(sorted((target / KEPT).glob("*.parquet")))
        .group_by(columns)
        .agg(documents=polars.len(), bytes=polars.col("n_bytes").sum())
        .sort([polars.col("documents"), *(polars.col(name) for name in columns)],
              descending=[True, *(False for _ in columns)])
        .collect()
    )  # fmt: skip


def licence(stated: str | None) -> str:
    """A document's licence in words: what the corpus recorded, or that it recorded none."""
    return "not recorded" if (stated or "").strip() in NOT_RECORDED else str(stated)
