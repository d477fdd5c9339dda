"""FABRICATED artifacts in the shapes the stages write, for tests of the report. No number here comes from a model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import polars

import repro.store as store_module
from repro.selection.settings import Mixture, Select
from repro.settings.experiment import Arm, Contrast, Experiment
from repro.settings.root import Settings
from repro.store import Context, Stage, Store, write_json

original = store_module.provenance
DOMAINS = ("code", "prose", "<math>")
METRICS = {
    "arc_easy/acc": 0.25,
    "arc_easy/acc_norm": 0.25,
    "hellaswag/acc_norm": 0.25,
    "piqa/acc": 0.5,
    "lambada_openai/acc": 0.0,
}


@cache
def provenance() -> dict[str, Any]:
    return original()


def settings(work: Path, kind: str = "train", seeds: tuple[int, ...] = (0, 1, 2)) -> Settings:
    """Three arms of a training run, or the one arm of a scoring run."""
    arms = {
        "full": Arm(Select("all"), Mixture()),
        "random": Arm(Select("random"), Mixture()),
        "attention_influence": Arm(Select("attention_influence"), Mixture()),
    }
    contrasts = [Contrast("attention_influence", "random", True), Contrast("attention_influence", "full")]
    if kind == "score":
        arms, contrasts = {"attention_influence": arms["attention_influence"]}, []
    experiment = Experiment(
        "fabricated", kind, "Is this text < that text?", arms=arms, contrasts=contrasts, seeds=list(seeds)
    )
    return Settings(exp=experiment, work=str(work), scale="smoke")


def run(
    work: Path,
    kind: str = "train",
    seeds: tuple[int, ...] = (0, 1, 2),
    documents: int = 24,
    groups: int = 4,
    effect: float = 0.05,
) -> tuple[Settings, Store, dict[str, Any]]:
    """Artifacts of a whole run in ``work``: settings, store and stages as ``repro.report.build.build`` takes them.

    ``effect``: how much lower the bits per byte of the selected arm are than the others'.
    """
    store_module.provenance = provenance  # asking git for every stage takes seconds
    chosen, store = settings(work, kind, seeds), Store(work)
    rows = _documents(documents, groups)
    shared = {
        "items": Stage(
            "items",
            "builtin",
            {},
            lambda c: write_json(c.out / "items.json", {"arc_easy": {"test": {"n": 100, "sha256": "0"}}}),
        ),
        "corpus": Stage(
            "corpus", "installed", {"n": documents, "groups": groups}, lambda c: _corpus(c, rows)
        ),
        "proxy": Stage("proxy", "built", {}, lambda c: (c.out / "model").mkdir(exist_ok=True)),
        "heads": Stage("heads", "retrieval", {}, _heads),
    }
    shared["score"] = Stage("score", "uniform", {}, lambda c: _scores(c, rows), {"corpus": shared["corpus"]})
    arms: dict[str, Any] = {}
    for arm in chosen.exp.arms:
        arms[arm] = {}
        for seed in seeds:
            selection = Stage(
                "selection",
                arm,
                {"arm": arm, "seed": seed},
                lambda c, a=arm, s=seed: _selection(c, rows, a, s),
            )
            arms[arm][seed] = {"selection": selection}
            if kind == "train":
                shift = -effect if arm == "attention_influence" else 0.0
                pretrain = Stage(
                    "pretrain",
                    f"{arm}-{seed}",
                    {"e": effect},
                    lambda c, s=seed: _pretrain(c, s),
                    {"selection": selection},
                )
                evaluate = Stage(
                    "evaluate",
                    f"{arm}-{seed}",
                    {},
                    lambda c, s=seed, d=shift, a=arm: _evaluate(c, s, d, a),
                    {"model": pretrain},
                )
                arms[arm][seed] |= {"pretrain": pretrain, "evaluate": evaluate}
    stages = {**shared, "arms": arms}
    for stage in [
        *shared.values(),
        *(s for by_seed in arms.values() for named in by_seed.values() for s in named.values()),
    ]:
        store.ensure(stage)
    return chosen, store, stages


def _documents(count: int, groups: int) -> polars.DataFrame:
    rows = []
    for domain in DOMAINS:
        for i in range(count):
            text = f"Document {i} of {domain}: </script><b>bold</b> & \u2028 " + "word " * (10 + 3 * i)
            rows.append({"doc_id": f"{domain}-{i:04}", "domain": domain, "group": f"group{i % groups}", "cluster": i, "source": f"file{i}.txt",
                         "license": "MIT", "n_bytes": len(text.encode()), "text": text, "extra": json.dumps({"year": 2000 + i, "tags": ["a"]})})  # fmt: skip
    return polars.DataFrame(rows)


def _corpus(context: Context, rows: polars.DataFrame) -> None:
    for folder in ("documents", "heldout"):
        (context.out / folder).mkdir(exist_ok=True)
        for (domain,), part in rows.group_by("domain", maintain_order=True):
            part.write_parquet(context.out / folder / f"{str(domain).strip('<>')}-00000.parquet")
    domains = {
        d: {"documents": len(rows) // len(DOMAINS), "groups": 4, "heldout_by": "groups"} for d in DOMAINS
    }
    counts = {
        "in": len(rows) + 2,
        "kept": len(rows),
        "dropped": {"too_short": 2},
        "examples": {"too_short": ["x"]},
        "domains": domains,
    }
    write_json(context.out / "counts.json", counts)
    context.facts |= {"documents": len(rows)}


def _heads(context: Context) -> None:
    generator = numpy.random.default_rng(0)
    scores = numpy.round(generator.random((6, 4)) ** 6, 4)
    order = [(int(i // 4), int(i % 4)) for i in numpy.argsort(-scores, axis=None)[:2]]
    write_json(context.out / "heads.json", {"model": "fabricated", "num_layers": 6, "num_heads": 4, "scores": scores.tolist(),
                                            "selected": [list(o) for o in order], "probe_settings": {"probes": 2}})  # fmt: skip


def score_of(rows: polars.DataFrame) -> numpy.ndarray:
    return numpy.random.default_rng(1).gamma(2.0, 0.2, len(rows))


def _scores(context: Context, rows: polars.DataFrame) -> None:
    (context.out / "scores").mkdir(exist_ok=True)
    score = score_of(rows)
    base = numpy.full(len(rows), 2.0)
    full = rows.select("doc_id", "domain", "group", "n_bytes").with_columns(
        n_tokens_doc=polars.col("n_bytes") // 4, n_tokens=polars.col("n_bytes") // 4, loss_base=polars.Series(base),
        loss_ref=polars.Series(base * (1 + score)), score=polars.Series(score), score_error=polars.lit(0.01),
        compressibility=polars.col("n_bytes") / 1000, repetition=polars.lit(0.0), loss_difference=polars.Series(base * score),
    )  # fmt: skip
    for (domain,), part in full.group_by("domain", maintain_order=True):
        part.write_parquet(context.out / "scores" / f"{str(domain).strip('<>')}-00000.parquet")


def _selection(context: Context, rows: polars.DataFrame, arm: str, seed: int) -> None:
    score = {"full": numpy.zeros(len(rows)), "attention_influence": score_of(rows)}.get(arm)
    score = numpy.random.default_rng(seed).random(len(rows)) if score is None else score
    threshold = -1.0 if arm == "full" else float(numpy.quantile(score, 0.7))
    repeats = (score > threshold).astype(int)
    rows.select("doc_id", "domain").with_columns(repeats=polars.Series(repeats)).write_parquet(
        context.out / "selection.parquet"
    )
    write_json(context.out / "selection.json", {"documents": int(repeats.sum()), "domains": {}})


def _pretrain(context: Context, seed: int) -> None:
    lines = [
        json.dumps({"step": i, "tokens": 1024 * i, "loss": 8.0 / (1 + 0.05 * i) + 0.01 * seed})
        for i in range(1, 301)
    ]
    (context.out / "loss.jsonl").write_text("\n".join(lines) + "\n")


def _evaluate(context: Context, seed: int, shift: float, arm: str) -> None:
    generator = numpy.random.default_rng(sum(map(ord, f"{arm}{seed}")))
    base, metrics, rows = 2.0 + 0.02 * seed + float(generator.normal(0, 0.005)), {}, []
    for name, chance in METRICS.items():
        task, _, metric = name.partition("/")
        share = chance + (0.005 if task == "piqa" else 0.2) - shift * 0.5 + 0.01 * seed
        right = numpy.arange(500) < round(500 * share) + generator.integers(-5, 6)
        metrics[name] = {"value": float(right.mean()), "stderr": 0.02, "n": 500, "chance": chance or None}
        rows += [{"entry": task, "task": task, "filter": "none", "doc_id": i, "metrics": json.dumps({metric: float(r)}), "finite": True,
                  "gold_bits_per_byte": None, "gold_probability": None} for i, r in enumerate(right)]  # fmt: skip
    polars.DataFrame(
        rows, schema_overrides={"gold_bits_per_byte": polars.Float64, "gold_probability": polars.Float64}
    ).write_parquet(context.out / "items.parquet")
    texts = [{"kind": "out_of_corpus", "source": "wikitext", "doc_id": str(i), "bits": (base + shift + 0.1) * n, "n_bytes": n, "n_tokens": n}
             for i, n in enumerate(range(50, 70))]  # fmt: skip
    polars.DataFrame(texts).write_parquet(context.out / "texts.parquet")
    write_json(context.out / "summary.json", {
        "metrics": metrics,
        "gold_bits_per_byte": {"arc_easy": {"value": base + shift, "n": 500}},
        "text_bits_per_byte": {"wikitext": {"value": base + shift + 0.1, "n": 20}},
        "heldout_bits_per_byte": {d: {"value": base, "n": 20} for d in DOMAINS},
        "bits_per_byte": base + shift + 0.05,
        "missing": {"sciq": "no items"},
    })  # fmt: skip


def profile() -> dict[str, Any]:
    """What ``describe`` leaves of one selection, one domain."""
    sizes = {
        "edges": [100, 1000, 10000],
        "all": {"quantiles": {}, "counts": [3, 1]},
        "selected": {"quantiles": {}, "counts": [1, 1]},
    }
    return {"code": {"documents": 4, "selected": 2, "quantities": {"length": sizes}, "spearman": {"length": 0.5},
                     "words": {"0-1 %": ["theorem", "<proof>"], "50-100 %": []}}}  # fmt: skip


def pair() -> dict[str, Any]:
    """What the comparison of two selections leaves, one domain."""
    overlap = {share: {"tf": 0.5, "tfidf": None} for share in ("0.1", "0.2", "0.5")}
    topics = {
        "clusters": [{"name": "graph, node", "left": 3, "right": 1}],
        "evenness": {"left": 0.9, "right": None},
        "distance": 0.2,
    }
    return {"code": {
        "documents": {"left": 2, "right": 2, "both": 1, "left_tokens": 9, "right_tokens": 9, "both_tokens": 4, "jaccard": 1 / 3, "spearman": None},
        "overlap": {"documents": overlap, "words": overlap}, "clouds": {"left": [["lemma", 9], ["<b>", 2]], "right": []},
        "topics": topics, "map": {"points": {"left": [[0.1, 0.2]], "right": [], "both": [[0.0, 0.0]]}, "explained": [0.3, 0.1]},
    }}  # fmt: skip


def judged(yes: int, answered: int) -> dict[str, Any]:
    """What the judge stage leaves, one domain."""
    row = {
        "documents": answered,
        "mean_tokens": 100.0,
        "education": {"answered": answered, "yes": answered},
        "reasoning": {"answered": answered, "yes": yes},
    }
    return {"domains": {"code": row}, "model": "fabricated", "failures": {"timeout": 2}}


def masked_run(
    work: Path, seeds: tuple[int, ...] = (0, 1, 2), hurt: float = 0.3, missed: tuple[int, ...] = ()
) -> tuple[Settings, Store, dict[str, Any]]:
    """Artifacts of a run of ``exp.kind: mirror``: masking the retrieval heads raises bits per byte by ``hurt`` over random ones.

    Damage-matched draws of the seeds in ``missed`` do not match.
    """
    store_module.provenance = provenance
    arms = {
        name: Arm(heads={"detector": name})
        for name in ("none", "random", "random_same_layers", "random_matched_damage")
    }
    arms = {"base": arms.pop("none"), "retrieval": Arm(), **arms}
    contrasts = [
        Contrast("retrieval", "random_matched_damage", True),
        Contrast("retrieval", "random"),
        Contrast("retrieval", "base"),
    ]
    for arm in arms.values():
        arm.select, arm.mixture = Select(), Mixture()
    experiment = Experiment(
        "fabricated", "mirror", "Do heads matter?", arms=arms, contrasts=contrasts, seeds=list(seeds)
    )
    chosen, store = Settings(exp=experiment, work=str(work), scale="smoke"), Store(work)
    chosen.eval.columns = {"HellaSwag": "hellaswag/acc_norm", "LAMBADA": "lambada_openai/acc"}
    shared = {"heads": Stage("heads", "retrieval", {}, _heads)}
    stages: dict[str, Any] = {**shared, "arms": {}}
    for arm in arms:
        stages["arms"][arm] = {}
        for seed in seeds:
            draw = seed if arm.startswith("random") else 0
            found = {"draw": draw, "within": seed not in missed}
            masking = Stage("heads", arm, found, lambda c, a=arm, w=found["within"]: _masked_heads(c, a, w))
            named = {} if arm == "base" else {"heads": masking}
            shift = {"base": -0.1, "retrieval": hurt}.get(arm, 0.0)
            run = Stage(
                "evaluate",
                arm,
                {"draw": draw, "hurt": hurt},
                lambda c, d=draw, x=shift, a=arm: _evaluate(c, d, x, a),
                named,
            )
            stages["arms"][arm][seed] = {**named, "evaluate": run}
    for stage in [
        *shared.values(),
        *(s for by in stages["arms"].values() for named in by.values() for s in named.values()),
    ]:
        store.ensure(stage)
    return chosen, store, stages


def _masked_heads(context: Context, arm: str, within: bool) -> None:
    facts = {"loss_rise": 0.11, "loss_rise_of_important": 0.12, "within_tolerance": within}
    write_json(context.out / "heads.json", {"detector": arm, "selected": [[3, 1], [4, 0]],
                                            "control": facts if arm.endswith("damage") else None})  # fmt: skip
