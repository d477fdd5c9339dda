"""Small corpora and scores on disk for the tests of selection, and the obvious implementation to compare with."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl

from repro.selection.settings import Budget, Mixture, Select
from repro.selection.stage import stage
from repro.store import Stage, Store, parquet, read_json

WORDS = (
    "the of model data loss proof lemma theorem import return class text page value sum kitchen river".split()
)


def documents(
    n: int = 60, domains: tuple[str, ...] = ("web", "maths", "code"), seed: int = 0, ties: bool = False
) -> list[dict]:
    """Rows with everything both artifacts need; scores may repeat (``ties``)."""
    rng = np.random.default_rng(seed)
    rows = []
    for d, domain in enumerate(domains):
        for i in range(n + 7 * d):
            score = float(rng.integers(0, 6)) / 8 if ties else float(rng.normal())
            base = float(rng.uniform(1, 4))
            text = " ".join(rng.choice(WORDS[d * 3 :], size=int(rng.integers(5, 60))))
            rows.append(
                {
                    "doc_id": f"{domain}-{i:04d}",
                    "domain": domain,
                    "group": f"g{i % 5}" if i % 11 else f"style{d}",
                    "source": "test",
                    "license": "none",
                    "cluster": len(rows),
                    "text": text,
                    "extra": "{}",
                    "n_bytes": len(text),
                    "n_tokens_doc": int(rng.integers(3, 400)),
                    "n_tokens": 10,
                    "loss_base": base,
                    "loss_ref": base * (1 + score),
                    "loss_difference": base * score,
                    "score": score,
                    "score_error": 0.1,
                    "compressibility": float(rng.uniform(0.2, 0.6)),
                    "repetition": float(rng.uniform(0, 0.1)) if i % 2 else 0.0,
                    "reason": None,
                }
            )
    return rows


TEXT = ("doc_id", "domain", "group", "cluster", "source", "license", "n_bytes", "text", "extra")
SCORE = ("doc_id", "domain", "group", "n_tokens_doc", "n_bytes", "n_tokens", "loss_base", "loss_ref", "loss_difference",
         "score", "score_error", "compressibility", "repetition", "reason")  # fmt: skip
TYPES = {
    "reason": pl.String,
    "score": pl.Float64,
    "loss_base": pl.Float64,
    "loss_ref": pl.Float64,
    "n_tokens_doc": pl.Int64,
}


def artifacts(
    rows: list[dict], scored: list[dict] | None = None, files: int = 2, shuffle: int | None = None
) -> dict[str, Stage]:
    """Stages that write ``rows`` as a corpus and ``scored`` (default: all) as its scores, in so many files a domain."""

    def write(folder: Path, rows: list[dict], columns: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = list(rows)
        if shuffle is not None:
            np.random.default_rng(shuffle).shuffle(rows)
        for domain in sorted({r["domain"] for r in rows}):
            mine = [{c: r[c] for c in columns} for r in rows if r["domain"] == domain]
            for number in range(files):
                part = mine[number::files]
                if part:
                    frame = pl.DataFrame(
                        part, schema_overrides={c: t for c, t in TYPES.items() if c in columns}
                    )
                    frame.write_parquet(folder / f"{domain}-{number:05d}.parquet")

    scored = rows if scored is None else scored
    what = {
        "rows": hashlib.sha256(repr((rows, scored)).encode()).hexdigest(),
        "files": files,
        "shuffle": shuffle,
    }
    corpus = Stage("corpus", "made", what, lambda c: write(c.out / "documents", rows, TEXT))
    return {
        "corpus": corpus,
        "scores": Stage("score", "made", what, lambda c: write(c.out / "scores", scored, SCORE)),
    }


def select(
    work: Path,
    made: dict[str, Stage],
    selector: str = "attention_influence",
    params: dict | None = None,
    mixture: Mixture | None = None,
    seed: int = 0,
    reference: Stage | None = None,
    match: str | None = None,
    **budget: object,
) -> tuple[dict[str, int], dict]:
    """Run a selection stage: {doc_id: repeats} and selection.json."""
    s = stage(
        Select(selector, params or {}, match=match),
        mixture or Mixture(),
        Budget(**budget),
        seed,
        made["corpus"],
        made["scores"],
        reference,
    )
    store = Store(work)
    for one in s.ancestors():
        store.ensure(one)
    folder = store.path(s)
    rows = parquet.read(folder / "selection.parquet")
    assert rows.columns == ["doc_id", "domain", "repeats"]
    assert not rows["doc_id"].is_duplicated().any()
    return dict(rows.select("doc_id", "repeats").iter_rows()), read_json(folder / "selection.json")


def brute_force(
    rows: list[dict], priority: dict[str, float | None], share: float, unit: str, scope: str = "domain"
) -> set[str]:
    """Sort each domain in plain Python and go down until the first document that does not fit."""
    taken = set()
    for name in {r["domain"] for r in rows} if scope == "domain" else {"all"}:
        mine = [r for r in rows if name in (r["domain"], "all")]
        limit = Fraction(str(share)) * sum(r["n_tokens_doc"] if unit == "tokens" else 1 for r in mine)
        known = [
            r for r in mine if priority[r["doc_id"]] is not None and math.isfinite(priority[r["doc_id"]])
        ]
        used = 0
        for r in sorted(
            known, key=lambda r: (-priority[r["doc_id"]], hashlib.md5(r["doc_id"].encode()).hexdigest())
        ):
            used += r["n_tokens_doc"] if unit == "tokens" else 1
            if used > limit:
                break
            taken.add(r["doc_id"])
    return taken


def chosen(repeats: dict[str, int], above: int = 0) -> set[str]:
    """Documents read more than ``above`` times."""
    return {ident for ident, times in repeats.items() if times > above}
