"""From the artifacts of a run to the plain values of ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from repro.outcomes import measure
from repro.outcomes.contents import make_up, overlap, read_documents, read_scores, score_statistics
from repro.outcomes.items import over_baseline
from repro.outcomes.outcome import Arm, Artifact, Json, Masked, Metric, Outcome, Seed
from repro.outcomes.spent import artifacts
from repro.selection.settings import Budget
from repro.settings.root import Settings, as_dict
from repro.store import Stage, Store, digest, finite, provenance, read_json
from repro.store.manifest import Manifest

if TYPE_CHECKING:
    import polars

STAGES = ("items", "corpus", "proxy", "heads", "score", "tokens", "baselines")
COMPARISONS = {  # key of the summary: (stage, its file)
    "pairs": ("analyse", "pair.json"),
    "agreement": ("agreement", "agreement.json"),
    "evolution": ("evolution", "evolution.json"),
}
CURVE_POINTS = 120  # of a training curve that are kept in the summary
CHECKSUMS = 200  # files of an input that are named one by one


def collect(settings: Settings, store: Store, stages: Mapping[str, Any]) -> Outcome:
    """Everything the report says except comparisons: counts, heads, scores, selections, metrics, costs.

    ``stages`` holds the shared stages by name and ``arms[arm][seed]`` with "selection", "pretrain" and
    "evaluate"; any may be absent. ``failed`` lists arms and seeds that lack a stage because it failed,
    ``absent`` those that a report in between found not there yet. Raises ``FileNotFoundError`` when a named
    artifact is not in the store.
    """
    shared = {name: stages[name] for name in STAGES if name in stages}
    summary: Json = {
        "experiment": settings.exp.name,
        "kind": settings.exp.kind,
        "question": settings.exp.question,
        "scale": settings.scale,
        "endpoint": settings.exp.endpoint,
        "settings": _portable(settings),
        "provenance": provenance(),
        "code": _code(store, stages),
        "artifacts": _artifacts(store, shared.values()),
    }
    summary["settings_digest"] = digest(summary["settings"])
    documents = None
    if "corpus" in shared:
        folder = store.path(shared["corpus"])
        summary["corpus"] = read_json(folder / "counts.json")
        documents = read_documents(folder)
    if "heads" in shared:
        summary["heads"] = read_json(store.path(shared["heads"]) / "heads.json")
    if "score" in shared:
        summary["scores"] = score_statistics(read_scores(store.path(shared["score"])))
    summary["arms"] = {
        arm: {
            "select": as_dict(settings.exp.arms[arm].select),
            "mixture": as_dict(settings.exp.arms[arm].mixture),
            "strata": _strata(settings, arm),
            "share": _share(settings, arm),
            "equal_passes": settings.exp.arms[arm].equal_passes,
            "heads": settings.exp.arms[arm].heads,
            **_seeds(store, by_seed, documents),
        }
        for arm, by_seed in stages.get("arms", {}).items()
    }
    whole_endpoints(cast(dict[str, Arm], summary["arms"]), settings.exp.endpoint)
    recorded = {artifact["fingerprint"] for artifact in artifacts(cast(Outcome, summary))}
    summary["artifacts"] |= _others(store, stages, recorded)
    if found := overlap(store, stages.get("arms", {})):
        summary["overlap"] = found
    for key in ("failed", "absent"):
        if stages.get(key):
            summary[key] = list(stages[key])
    for key, (name, file) in COMPARISONS.items():
        found = {pair: stage for pair, stage in stages.get("pairs", {}).items() if stage.name == name}
        summary[key] = {pair: read_json(store.path(stage) / file) for pair, stage in found.items()}
    if "baselines" in shared:
        summary["baselines"] = _baselines(store, shared["baselines"], stages.get("arms", {}))
    if "items" in shared:
        summary["items"] = read_json(store.path(shared["items"]) / "items.json")
    return cast(Outcome, summary)  # whole once it is judged


def whole_endpoints(arms: Mapping[str, Arm], endpoint: str = measure.ENDPOINT) -> None:
    """Take the endpoint from every model that lacks a text or task which another of the run has: it would be
    a mean over others, and its difference one of tasks. In place; ``evaluation.missing`` says what it lacks,
    also of a model without the run's ``endpoint`` where another has it.
    """

    def parts(cells: Mapping[str, Metric]) -> set[str]:
        return {metric for metric in cells if measure.of(metric).group in (measure.TEXT, measure.GOLD)}

    seeds = [seed for arm in arms.values() for seed in arm["seeds"].values()]
    for kept in ("", *sorted({tokens for seed in seeds for tokens in seed.get("checkpoints", {})}, key=int)):
        models = [
            seed.get("checkpoints", {}).get(kept, {}) if kept else seed.get("metrics", {}) for seed in seeds
        ]
        every = set().union(*map(parts, models))
        for seed, cells in zip(seeds, models, strict=True):
            if measure.ENDPOINT in cells and (lacking := every - parts(cells)):
                del cells[measure.ENDPOINT]
                lost = f"not in this model: others have {', '.join(sorted(lacking))}"
                # of a model on the way it is no reason against the verdict, which is that of the end
                name = f"{measure.ENDPOINT} after {int(kept):,} tokens" if kept else measure.ENDPOINT
                seed.setdefault("evaluation", {}).setdefault("missing", {})[name] = lost
    if any(endpoint in seed.get("metrics", {}) for seed in seeds):
        for seed in (seed for seed in seeds if "metrics" in seed and endpoint not in seed["metrics"]):
            missing = seed.setdefault("evaluation", {}).setdefault("missing", {})
            missing.setdefault(endpoint, "not in this model, or no number; others have it")


def _baselines(store: Store, stage: Stage, arms: Mapping[str, Mapping[int, Mapping[str, Stage]]]) -> Json:
    """What the baselines score, and by how much the models of each arm are ahead of them (``over``)."""
    folder = store.path(stage)
    found = read_json(folder / "baselines.json")
    evaluated = {
        arm: list(
            {
                stages["evaluate"].fingerprint: store.path(stages["evaluate"]) for stages in by_seed.values()
            }.values()
        )
        for arm, by_seed in arms.items()
    }
    for name, row in found["baselines"].items():
        row["over"] = {
            arm: over_baseline(models, folder / f"{name}.parquet")
            for arm, models in evaluated.items()
            if models
        }
    return found


def _portable(settings: Settings) -> Json:
    """Settings without what says where and how, not what: the work folder, the device, what ran at once, a
    pilot's place.
    """
    values = {key: value for key, value in as_dict(settings).items() if key not in ("work", "device", "run")}
    values["exp"]["pilot"] = values["exp"]["pilot"] and Path(values["exp"]["pilot"]).name
    return values


def _share(settings: Settings, arm: str) -> float:
    """Share of the corpus the arm's budget keeps; 1 for the whole corpus."""
    chosen = settings.exp.arms[arm]
    if chosen.select.selector == "all":
        return 1.0
    return {"share": settings.budget.share, **chosen.budget, **chosen.select.budget}["share"]


def _strata(settings: Settings, arm: str) -> Json:
    """What the arm ranks within, beyond its domain; empty for nothing."""
    chosen, plain = settings.exp.arms[arm], Budget()
    own = {**as_dict(settings.budget), **chosen.budget, **chosen.select.budget}
    names = ("scope", "length_bins", "within_group", "one_per_cluster")
    return {name: own[name] for name in names if own[name] != getattr(plain, name)}


def _artifacts(store: Store, stages: Iterable[Stage]) -> dict[str, Artifact]:
    """The given stages and everything they read, inputs first, by stage name (and label, where one name
    occurs twice).
    """
    every = list({a.fingerprint: a for stage in stages for a in stage.ancestors()}.values())
    names = [stage.name for stage in every]
    keys = [s.name if names.count(s.name) == 1 else f"{s.name} {s.label}" for s in every]
    return {key: _artifact(store, stage) for key, stage in zip(keys, every, strict=True)}


def _others(store: Store, stages: Mapping[str, Any], recorded: Container[str]) -> dict[str, Artifact]:
    """What stands behind arms and comparisons and is not ``recorded`` yet, such as a proxy and scores of an
    arm's own, or the heads of a series of checkpoints.
    """
    return {
        f"{stage.name} {stage.label} {stage.fingerprint[:8]}": _artifact(store, stage)
        for stage in _every(stages)
        if stage.fingerprint not in recorded
    }


def _every(stages: Mapping[str, Any]) -> list[Stage]:
    """Every stage of a run once, inputs first."""
    arms = [
        stage
        for by_seed in stages.get("arms", {}).values()
        for named in by_seed.values()
        for stage in named.values()
    ]
    shared = [stage for stage in stages.values() if isinstance(stage, Stage)]
    named = (*shared, *arms, *stages.get("pairs", {}).values())
    return list({a.fingerprint: a for stage in named for a in stage.ancestors()}.values())


def _artifact(store: Store, stage: Stage) -> Artifact:
    """Identity, cost and facts of a finished stage."""
    manifest: Manifest = read_json(store.path(stage) / "manifest.json")
    found: Artifact = {
        "folder": stage.folder,
        "inputs": {key: child.fingerprint for key, child in stage.inputs.items()},
        "stage": manifest["stage"],
        "label": manifest["label"],
        "fingerprint": manifest["fingerprint"],
        "device": manifest["device"],
        "seconds_last_attempt": manifest["seconds_last_attempt"],
        "facts": manifest["facts"],
        "commit": manifest["provenance"].get("commit"),
        "dirty": manifest["provenance"].get("dirty"),
        "tag": manifest["provenance"].get("tag"),
    }
    if outside := checksums(manifest["settings"]):
        found["outside"] = outside
    return found


def checksums(identity: Mapping[str, Any]) -> list[str]:
    """sha256 of the files outside the repository that a stage's settings name by content; of many, one over
    all.
    """
    given = identity.get("files") or (identity.get("source") or {}).get("files") or []
    found = sorted(given.values()) if isinstance(given, Mapping) else sorted(sha for _, sha in given)
    return found if len(found) <= CHECKSUMS else [digest(found)]


def _code(store: Store, stages: Mapping[str, Any]) -> Json:
    """Commits and tags that the artifacts of a run come from, and whether any tree had changes: one clean
    tag, for evidence.
    """
    made = [read_json(store.path(stage) / "manifest.json")["provenance"] for stage in _every(stages)]
    commits, tags = ({str(m.get(key)) for m in made} for key in ("commit", "tag"))
    return {
        "commits": sorted(commits),
        "tags": sorted(tags),
        "dirty": any(m["dirty"] is not False for m in made),
    }


def _seeds(
    store: Store, by_seed: Mapping[int, Mapping[str, Stage]], documents: polars.DataFrame | None
) -> Json:
    """``seeds``: {seed: row}; where the proxy itself is masked, draws that are no control stand under
    ``missed`` instead.
    """
    rows = {str(seed): _seed(store, named, documents) for seed, named in by_seed.items()}
    trained = any("pretrain" in named for named in by_seed.values())
    scored = any("selection" in named or "ranking" in named for named in by_seed.values())
    missed = {
        seed for seed, row in rows.items() if not trained and not scored and misses(row.get("masked", {}))
    }
    kept = {seed: row for seed, row in rows.items() if seed not in missed}
    return {"seeds": kept} | (
        {"missed": {seed: rows[seed] for seed in rows if seed in missed}} if missed else {}
    )


def misses(heads: Mapping[str, Any]) -> bool:
    """Whether heads (``heads.json``) that should hurt ordinary text as much as others do not."""
    return not (heads.get("control") or {}).get("within_tolerance", True)


def _seed(store: Store, named: Mapping[str, Stage], documents: polars.DataFrame | None) -> Seed:
    """One trained model: what it read, how it learned, what it can do."""
    row: Seed = {"artifacts": {name: _artifact(store, stage) for name, stage in named.items()}}
    if "selection" in named:
        folder = store.path(named["selection"])
        row["selection"] = _selection(folder / "selection.json")
        text = {
            name: stage for name, stage in named["selection"].inputs.items() if name.startswith("priority")
        }
        row["artifacts"] |= {
            name: _artifact(store, stage) for name, stage in text.items() if store.has(stage)
        }
        if documents is not None:
            row["make_up"] = make_up(folder, documents)
    if "describe" in named:
        row["profile"] = read_json(store.path(named["describe"]) / "profile.json")
    # masked, and the proxy evaluated or documents scored
    if "heads" in named and named.keys() & {"evaluate", "ranking"}:
        found = read_json(store.path(named["heads"]) / "heads.json")
        named_there = {key: found[key] for key in ("detector", "selected", "control") if key in found}
        row["masked"] = cast(Masked, named_there)
    if "found" in named:
        row["found"] = read_json(store.path(named["found"]) / "found.json")
    if "judge" in named:
        row["judged"] = read_json(store.path(named["judge"]) / "judged.json")
    if "pretrain" in named:
        row["loss"] = _curve(store.path(named["pretrain"]) / "loss.jsonl")
    if "evaluate" in named:
        result = read_json(store.path(named["evaluate"]) / "summary.json")
        row["metrics"] = flatten_metrics(result)
        row["evaluation"] = {
            key: result[key] for key in ("missing", "notes", "shots", "config", "cut") if key in result
        }
        row["checkpoints"] = {
            str(tokens): flatten_metrics(found) for tokens, found in result.get("checkpoints", {}).items()
        }
    if "copying" in named:
        copied = read_json(store.path(named["copying"]) / "copying.json")
        row["metrics"] = row.get("metrics", {}) | flatten_metrics({measure.COPYING: copied["gain"]})
        kept = row.get("checkpoints", {})
        row["checkpoints"] = kept | {
            tokens: kept.get(tokens, {}) | flatten_metrics({measure.COPYING: gain})
            for tokens, gain in copied["checkpoints"].items()
        }
    return row


def _selection(path: Path) -> Json:
    """What ``selection.json`` says, less its source groups: ``make_up`` has all of them, in bytes."""
    found = read_json(path)
    domains = {
        name: {key: value for key, value in domain.items() if key != "groups"}
        for name, domain in found["domains"].items()
    }
    return found | {"domains": domains}


def _curve(path: Path) -> list[list[float]]:
    """[tokens, mean loss] of at most ``CURVE_POINTS`` equal stretches of the training log."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    size = -(-len(rows) // CURVE_POINTS) or 1
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [[chunk[-1]["tokens"], round(sum(r["loss"] for r in chunk) / len(chunk), 5)] for chunk in chunks]


def flatten_metrics(result: Mapping[str, Any]) -> dict[str, Metric]:
    """The evaluation's nested summary as {metric: {value, stderr, n, chance}}; non-finite values become
    ``None``.

    Groups keep their name in front: ``heldout_bits_per_byte/code`` (``repro.outcomes.measure`` reads such
    names).
    """
    flat: dict[str, Metric] = {}

    def add(name: str, value: Any) -> None:
        cell = dict(value) if isinstance(value, Mapping) else {"value": value}
        numbers = {
            key: finite(float(cell[key]))
            for key in ("value", "stderr", "chance", "guess")
            if cell.get(key) is not None
        }
        counts = {key: int(cell[key]) for key in ("n", "clusters", "ties") if cell.get(key) is not None}
        higher = cell.get("higher_is_better")
        other = higher is not None and higher == measure.of(name).lower_is_better
        if numbers.get("value") is not None:
            flat[name] = cast(Metric, numbers | counts | ({"lower_is_better": not higher} if other else {}))

    # the endpoint first
    for group, value in sorted(result.items(), key=lambda pair: pair[0] != measure.ENDPOINT):
        if group == "metrics":
            for name, cell in value.items():
                add(name, cell)
        elif group in (measure.ENDPOINT, measure.COPYING):
            add(group, value)
        elif group.endswith(("_bits_per_byte", "_probability")):
            for name, cell in value.items():
                add(f"{group}/{name}", cell)
    return flat
