"""Comparisons of arms and what may be concluded from them (method.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from repro.config import Contrast
from repro.report.collect import lower_is_better
from repro.store import finite

SEEDS, DOCUMENTS, SOURCES = 3, 200, 3  # a verdict needs as many seeds, selected documents and source groups a domain
ACCURACIES = ("acc_norm", "acc", "exact_match", "f1", "pass@1", "math_verify")  # first found is the task's headline metric


Variances = Mapping[tuple[str, str], Mapping[str, float]]  # (treatment, control) -> metric -> variance from the items


def judge(summary: dict[str, Any], contrasts: Sequence[Contrast], variances: Variances | None = None) -> dict[str, Any]:
    """The summary with ``comparisons``, each arm's ``at_chance`` metrics and the ``verdict``."""
    for arm in summary["arms"].values():
        arm["at_chance"] = [m for m in metrics(arm) if covers_chance(arm, m)]
    add_average(summary)
    comparisons = []
    for contrast in contrasts:
        comparisons += compare_arms(summary, contrast, (variances or {}).get((contrast.treatment, contrast.control), {}))
    holm(comparisons, summary["endpoint"])
    return {**summary, "comparisons": comparisons, "verdict": verdict(summary, comparisons)}


def metrics(arm: dict[str, Any]) -> list[str]:
    """Metrics that every seed of an arm has, in their order."""
    seeds = [seed.get("metrics", {}) for seed in arm["seeds"].values()]
    return [m for m in seeds[0] if all(m in s for s in seeds)] if seeds else []


def seed_values(arm: dict[str, Any], metric: str) -> dict[int, float]:
    """{seed: value} of a metric."""
    found = {int(s): row["metrics"][metric]["value"] for s, row in arm["seeds"].items() if metric in row.get("metrics", {})}
    return dict(sorted(found.items()))


def covers_chance(arm: dict[str, Any], metric: str) -> bool:
    """Whether the 95 % interval of an arm's mean holds the chance level.

    Its standard error takes the items in (mean of the models' own, which share the items) and the spread over seeds.
    """
    cells = [seed["metrics"][metric] for seed in arm["seeds"].values()]
    chance = cells[0].get("chance")
    if not chance:
        return False
    values = [cell["value"] for cell in cells]
    centre = mean(values)
    items = mean(cell.get("stderr") or math.sqrt(centre * (1 - centre) / max(cell.get("n") or 1, 1)) for cell in cells)
    between = sum((v - centre) ** 2 for v in values) / (len(values) - 1) / len(values) if len(values) > 1 else 0.0
    return abs(centre - chance) <= 1.96 * math.sqrt(items**2 + between)


def add_average(summary: dict[str, Any]) -> None:
    """``accuracy_average``: mean over the tasks whose headline accuracy is off chance in at least one arm.

    The same tasks for every arm; added to each seed's metrics where at least two tasks qualify.
    """
    arms = list(summary["arms"].values())
    shared = [m for m in metrics(arms[0]) if all(m in metrics(arm) for arm in arms)] if arms else []
    headline: dict[str, str] = {}
    for wanted in ACCURACIES:
        for metric in shared:
            task, _, name = metric.rpartition("/")
            if name.split(",")[0] == wanted:
                headline.setdefault(task, metric)
    counted = [m for m in headline.values() if not all(m in arm["at_chance"] for arm in arms)]
    summary["averaged"] = counted
    if len(counted) < 2:
        return
    for arm in arms:
        for seed in arm["seeds"].values():
            for cells in (seed["metrics"], *seed.get("checkpoints", {}).values()):
                if all(m in cells for m in counted):
                    cells["accuracy_average"] = {"value": mean(cells[m]["value"] for m in counted)}


def compare_arms(summary: dict[str, Any], contrast: Contrast, variances: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row a metric: treatment minus control, paired by seed, the items' share of the error taken in.

    ``low``, ``high``, ``p`` and ``detectable`` are ``None`` with one seed.
    """
    from repro.analysis.statistics import compare

    tasks = summary.get("averaged", [])
    if tasks and all(metric in variances for metric in tasks):
        variances = {**variances, "accuracy_average": sum(variances[m] for m in tasks) / len(tasks) ** 2}
    treatment, control = summary["arms"][contrast.treatment], summary["arms"][contrast.control]
    rows = []
    for metric in metrics(treatment):
        ours, theirs = seed_values(treatment, metric), seed_values(control, metric)
        if not set(ours) & set(theirs):
            continue
        found = compare(ours, theirs, variances.get(metric, 0.0))
        row = {
            "treatment": contrast.treatment,
            "control": contrast.control,
            "primary": contrast.primary,
            "metric": metric,
            "lower_is_better": lower_is_better(metric),
            "at_chance": metric in treatment["at_chance"] and metric in control["at_chance"],
            "seeds": found.seeds,
            "item_variance": variances.get(metric),
            **{key: finite(getattr(found, key)) for key in ("difference", "low", "high", "p", "detectable")},
            "test": found.test,
            "p_holm": None,
        }
        rows.append(row)
    return rows


def holm(rows: list[dict[str, Any]], endpoint: str) -> None:
    """Holm's correction over the primary contrast's secondary metrics; metrics at chance take no part. In place."""
    from repro.analysis import statistics

    family = {r["metric"]: r for r in rows if r["primary"] and r["metric"] != endpoint and not r["at_chance"]}
    corrected = statistics.holm({metric: row["p"] for metric, row in family.items() if row["p"] is not None})
    for metric, p in corrected.items():
        family[metric]["p_holm"] = p


def verdict(summary: dict[str, Any], comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """``demonstration``, the ``reasons`` for it, the ``sentence``, and ``outcome``: better | worse | undecided | none."""
    primary = next((r for r in comparisons if r["primary"] and r["metric"] == summary["endpoint"]), None)
    if primary is None:
        return {"demonstration": False, "reasons": [], "outcome": "none", "sentence": _described(summary)}
    reasons = shortfalls(summary, primary)
    return {
        "demonstration": bool(reasons),
        "reasons": reasons,
        "outcome": "none" if reasons else _direction(primary),
        "sentence": _measured(primary) if reasons else _concluded(primary),
    }


def shortfalls(summary: dict[str, Any], primary: dict[str, Any]) -> list[str]:
    """What a verdict would need and the run does not have; empty if nothing."""
    reasons = []
    if primary["seeds"] < SEEDS:
        reasons.append(f"{primary['seeds']} paired seeds; a verdict needs {SEEDS}")
    for seed in list(summary["arms"][primary["treatment"]]["seeds"].values())[:1]:
        for domain, row in seed.get("make_up", {}).items():
            if row["selected"] < DOCUMENTS:
                reasons.append(f"{row['selected']} selected documents in {domain}; a verdict needs {DOCUMENTS}")
            if row["groups"] < SOURCES:
                reasons.append(f"{row['groups']} sources in {domain}; a verdict needs {SOURCES}")
    if primary["at_chance"]:
        reasons.append(f"{primary['metric']} is at chance in both arms")
    return reasons


def _direction(row: dict[str, Any]) -> str:
    if row["low"] <= 0 <= row["high"]:
        return "undecided"
    return "better" if (row["difference"] < 0) == row["lower_is_better"] else "worse"


def _measured(row: dict[str, Any]) -> str:
    interval = "one seed, no interval" if row["low"] is None else f"95 % interval {row['low']:+.4f} to {row['high']:+.4f}"
    return f"{row['treatment']} − {row['control']} on {row['metric']}: {row['difference']:+.4f}, {interval}."


def _concluded(row: dict[str, Any]) -> str:
    interval = f"{row['difference']:+.4f} (95 % interval {row['low']:+.4f} to {row['high']:+.4f}, {row['seeds']} paired seeds)"
    better = "lower is better" if row["lower_is_better"] else "higher is better"
    where = f"on {row['metric']} ({better}): {interval}"
    words = {
        "better": f"{row['treatment']} does better than {row['control']} {where}.",
        "worse": f"{row['treatment']} does worse than {row['control']} {where}.",
        "undecided": f"Undecided: the interval of {row['treatment']} − {row['control']} covers zero {where}. "
        f"The smallest difference this run would see with 80 % power is {row['detectable']:.4f}.",
    }
    return words[_direction(row)]


def _described(summary: dict[str, Any]) -> str:
    if summary["kind"] == "score":
        scored = [row["documents"] for row in summary.get("scores", {}).values()]
        return f"{sum(scored):,} documents in {len(scored)} domains were scored; nothing was trained, so nothing is concluded."
    if summary["kind"] == "analyse":
        return f"{len(summary['arms'])} selections were described and compared; nothing was trained, so nothing is concluded."
    if summary["kind"] == "planted":
        return (
            f"{len(summary['arms'])} selectors ranked documents of known kinds; nothing was trained, so nothing is concluded."
        )
    return "No primary contrast was named, so nothing is concluded."
